/**
 * Attaches any mix of programs and ftrace ops to one kernel function: what `trampolab trace`, the
 * tour and the tests of paths and counts start from.
 *
 * The programs are two instructions long (`r0 = 0; exit`) and the ops callbacks do nothing but count,
 * so what is seen is the cost of getting there.
 */
import { assemble } from '../bpf/assemble.js';
import { rawProgram } from '../bpf/raw-program.js';
import { InputError } from '../common/errors.js';
import type { Attachment, ProgramTarget } from '../kernel/bpf/bpf.js';
import { LINK_KINDS } from '../kernel/bpf/trampoline.js';
import { FTRACE_OPS } from '../kernel/offsets.js';
import { ftraceCallback } from '../kernel/ftrace/callbacks.js';
import { FTRACE_OPS_FL, type FtraceOps } from '../kernel/ftrace/ops.js';
import type { Kernel } from '../kernel/kernel.js';

const SCENARIO_KINDS = [...LINK_KINDS, 'fsession'] as const;

export type Scenario = Readonly<Partial<Record<(typeof SCENARIO_KINDS)[number], number>>> & {
  /** bpf_get_attach_cookie of the first program; each further one has one more. Default: all have 0. */
  readonly cookie?: bigint;
  /** Ordinary ftrace ops beside the programs. */
  readonly ops?: number;
  /** Give those ops the RECURSION flag. */
  readonly assist?: boolean;
};

export interface AttachedScenario {
  readonly attachments: readonly Attachment[];
  readonly ops: readonly FtraceOps[];
  /** Detaches everything, in reverse order. */
  detach(): void;
}

const PROGRAM_TEXT = 'r0 = 0\nexit\n';

/** Attaches fentry, fmod_ret, fexit and fsession programs in this order, then the ops. All or nothing. */
export function attachScenario(
  kernel: Kernel,
  target: string | ProgramTarget,
  scenario: Scenario,
): AttachedScenario {
  const undo: (() => void)[] = [];
  const detach = (): void => {
    for (const step of undo.splice(0).reverse()) step();
  };
  try {
    let { cookie = 0n } = scenario;
    const attachments = SCENARIO_KINDS.flatMap((kind) =>
      Array.from({ length: scenario[kind] ?? 0 }, (_, i) => {
        const xlated = rawProgram(`${kind}_${i}`, assemble(PROGRAM_TEXT), {
          type: 'tracing',
          stackDepth: 0,
        });
        const program = kernel.bpf.load(xlated);
        undo.push(() => program.free());
        const attachment = kernel.bpf.attach(program, kind, target, cookie);
        if (cookie !== 0n) cookie++;
        undo.push(() => attachment.detach());
        return attachment;
      }),
    );
    const ops = Array.from({ length: scenario.ops ?? 0 }, (_, i) => {
      if (typeof target !== 'string') {
        throw new InputError(
          'ftrace ops need a kernel function: a BPF program has no patch site of ftrace',
        );
      }
      const made = attachOps(kernel, target, i, scenario.assist ?? false);
      undo.push(() => kernel.ftrace.unregister(made));
      return made;
    });
    return { attachments, ops, detach };
  } catch (error) {
    detach();
    throw error;
  }
}

/** An ops whose callback counts its calls in ops->private. */
function attachOps(kernel: Kernel, target: string, index: number, assist: boolean): FtraceOps {
  const callback = 'lab_ops_callback';
  if (!kernel.symbols.find(callback)) {
    const count = (ops: bigint): bigint => ops + BigInt(FTRACE_OPS.private);
    kernel.define(
      ftraceCallback(kernel.ftrace.profile, callback, ({ kernel: { memory }, ops }) => {
        memory.write64(count(ops), memory.read64(count(ops)) + 1n);
      }),
    );
  }
  const ip = kernel.ftrace.location(kernel.symbol(target));
  const ops = kernel.ftrace.createOps(
    `lab_ops_${index}`,
    kernel.kmalloc(FTRACE_OPS.size),
    kernel.symbol(callback),
  );
  if (ip === undefined) throw kernel.ftrace.noSite(target);
  kernel.ftrace.setFilterIp(ops, ip, false);
  if (assist) ops.flags |= FTRACE_OPS_FL.RECURSION;
  kernel.ftrace.register(ops);
  return ops;
}

/**
 * Executed instructions of the entry code, by version and by what is attached, and what it leaves in registers: the
 * figures of the upstream texts, measured by running.
 */
import { afterAll, describe, expect, it } from 'vitest';
import type { FtraceVersion } from '../../../src/kernel/ftrace/profile.js';
import { attachScenario, type Scenario } from '../../../src/lab/scenario.js';
import { tracedRun } from '../../../src/lab/traced-call.js';
import type { Kernel } from '../../../src/kernel/kernel.js';
import { factories } from '../../helpers/cpus.js';
import { SAVE_REGS, bootFtrace, branchOf, makeOps } from '../../helpers/ftrace.js';

const TARGET = 'bpf_fentry_test2';
const FAR = 128 << 20;
const GLUE = /^ftrace_(regs_caller|caller|common|call|caller_direct|caller_direct_late)$/;

/** One ordinary ops that needs no list function, before 6.3 a static one. */
type Attached = 'ops' | 'regs' | Scenario;

function attach(kernel: Kernel, attached: Attached): () => void {
  if (typeof attached === 'object') {
    const made = attachScenario(kernel, TARGET, attached);
    return () => made.detach();
  }
  const flags = attached === 'regs' ? SAVE_REGS : 0;
  const { ops } = makeOps(kernel, { targets: [TARGET], isStatic: true, flags });
  kernel.ftrace.register(ops);
  return () => kernel.ftrace.unregister(ops);
}

/** Instructions of ftrace's text, and of a literal call before the function. */
function glueOf(kernel: Kernel): { glue: number; before: number; result: bigint } {
  const { entries, result } = tracedRun(kernel, () => kernel.call(TARGET, 2n, 3n));
  const address = kernel.symbol(TARGET);
  const inGlue = entries.filter(({ pc }) => GLUE.test(kernel.symbols.lookup(pc)?.name ?? ''));
  const before = entries.filter(({ pc }) => pc < address && address - pc <= 20n);
  return { glue: inGlue.length, before: before.length, result };
}

const ORDINARY: Attached = 'ops';
const LATE: Scenario = { fentry: 1, ops: 1 };

const open: Kernel[] = [];
afterAll(() => {
  for (const kernel of open) kernel.close();
});

describe.each(factories.map((cpu) => ({ engine: cpu.name, cpu })))('$engine', ({ cpu }) => {
  const kernels = new Map<string, Kernel>();
  const kernelOf = (version: FtraceVersion, far: boolean): Kernel => {
    const key = `${version} ${far}`;
    const kernel = kernels.get(key) ?? bootFtrace(cpu, version, far ? { vmallocUsed: FAR } : {});
    if (!kernels.has(key)) open.push(kernel);
    kernels.set(key, kernel);
    return kernel;
  };

  it.each<{
    version: FtraceVersion;
    attached: Attached;
    far?: boolean;
    bl: string;
    glue: number;
    before?: number;
  }>([
    { version: 'v5', attached: ORDINARY, bl: 'ftrace_caller', glue: 35 },
    { version: 'v5', attached: 'regs', bl: 'ftrace_regs_caller', glue: 44 },
    { version: 'v5', attached: { fentry: 1 }, bl: 'bpf_trampoline_1', glue: 0 },
    { version: 'v5', attached: LATE, bl: 'ftrace_regs_caller', glue: 47 },
    { version: '6.1', attached: ORDINARY, bl: 'ftrace_caller', glue: 32 },
    { version: '6.1', attached: 'regs', bl: 'ftrace_regs_caller', glue: 41 },
    { version: 'sep-2022', attached: { fentry: 1 }, bl: 'bpf_trampoline_1', glue: 0 },
    // ldr x16, literal; br x16
    { version: 'sep-2022', attached: { fentry: 1 }, far: true, bl: '', glue: 0, before: 2 },
    { version: 'sep-2022', attached: LATE, bl: 'ftrace_regs_caller', glue: 47 },
    { version: 'sep-2022', attached: LATE, far: true, bl: 'ftrace_regs_caller', glue: 47 },
    { version: '6.2', attached: ORDINARY, bl: 'ftrace_caller', glue: 32 },
    { version: '6.3', attached: ORDINARY, bl: 'ftrace_caller', glue: 33 },
    { version: '6.3', attached: { ops: 2 }, bl: 'ftrace_caller', glue: 33 },
    { version: '6.12', attached: ORDINARY, bl: 'ftrace_caller', glue: 39 },
    { version: '6.12', attached: { ops: 2 }, bl: 'ftrace_caller', glue: 39 },
    { version: '6.12', attached: { fentry: 1 }, bl: 'bpf_trampoline_1', glue: 0 },
    { version: '6.12', attached: { fentry: 1 }, far: true, bl: 'ftrace_caller', glue: 6 },
    { version: '6.12', attached: LATE, bl: 'ftrace_caller', glue: 39 },
    { version: '6.12', attached: LATE, far: true, bl: 'ftrace_caller', glue: 39 },
    { version: '7.3', attached: { fentry: 1 }, far: true, bl: 'ftrace_caller', glue: 6 },
    { version: '7.3', attached: LATE, bl: 'ftrace_caller', glue: 39 },
  ])('$version, $attached, far $far: $glue', ({ version, attached, far, bl, glue, before = 0 }) => {
    const kernel = kernelOf(version, far ?? false);
    const undo = attach(kernel, attached);
    try {
      const branch = branchOf(kernel, TARGET);
      // a literal call has no symbol; a trampoline's number depends on those before it
      const sort = branch.replace(/_\d+$/, '_1').replace(/^0x.*/, '');
      expect({ bl: sort, ...glueOf(kernel) }).toEqual({ bl, glue, before, result: 5n });
    } finally {
      undo();
    }
    expect(branchOf(kernel, TARGET)).toBe('nop');
  });

  it.each<{ version: FtraceVersion; attached: Attached; far?: boolean }>([
    { version: 'v5', attached: LATE },
    { version: '6.1', attached: 'regs' },
    { version: 'sep-2022', attached: { fentry: 1 }, far: true },
    { version: '6.2', attached: ORDINARY },
    { version: '6.3', attached: ORDINARY },
    { version: '6.12', attached: LATE },
    { version: '6.12', attached: { fentry: 1 }, far: true },
  ])(
    '$version, $attached: the body finds its registers as they were',
    ({ version, attached, far }) => {
      const kernel = kernelOf(version, far ?? false);
      const body = kernel.symbol(TARGET) + 8n;
      const seen: string[] = [];
      const end = kernel.executor.watch(kernel.cpus, body, (running) => {
        // a trampoline keeps the arguments that its function has
        const args = typeof attached === 'object' ? [0, 1, 8] : [0, 1, 2, 3, 4, 5, 6, 7, 8];
        const kept = [...args, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30];
        seen.push([...kept.map((n) => running.getX(n)), running.sp].join(' '));
      });
      const fresh = Array.from({ length: 31 }, (_, n) => BigInt(0x1000 + n));
      kernel.executor.freshRegisters = fresh;
      kernel.call(TARGET, 2n, 3n);
      const undo = attach(kernel, attached);
      kernel.call(TARGET, 2n, 3n);
      undo();
      end();
      kernel.executor.freshRegisters = fresh.map(() => 0n);
      expect(seen).toHaveLength(2);
      expect(seen[1]).toBe(seen[0]);
    },
  );
});

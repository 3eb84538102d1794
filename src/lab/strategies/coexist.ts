/**
 * Who may be on a site together, found by registering, calling and unregistering.
 *
 * `siteTable` tries combinations of ops on one function of 6.12 and reads what the site became: the table of
 * the kernel's coexistence rules. `partnersOf` tries, for one strategy, what else may be attached to a function
 * that has a program, before and after it. Where both are attached a call has to reach both.
 */
import { decode } from '../../a64/codec.js';
import { KernelError } from '../../common/errors.js';
import type { Attachment } from '../../kernel/bpf/bpf.js';
import { FTRACE_OPS_FL, type FtraceOps } from '../../kernel/ftrace/ops.js';
import type { Kernel } from '../../kernel/kernel.js';
import { FTRACE_OPS } from '../../kernel/offsets.js';
import { attachScenario } from '../scenario.js';
import { tracedRun } from '../traced-call.js';
import { writeFilterHashes } from './filter-hashes.js';
import type { StrategyLab } from './compare.js';
import type { Strategy } from './strategy.js';
import { kernelFunction } from './traced.js';
import { ALONE } from './situation.js';

/** What is put on a site: direct calls (of programs, or bare), and ops with flags. */
export type Occupant = 'programs' | 'direct' | 'ops' | 'RECURSION' | 'RCU' | 'IPMODIFY';

const FLAGS: Readonly<Record<Exclude<Occupant, 'programs' | 'direct'>, number>> = {
  ops: 0,
  RECURSION: FTRACE_OPS_FL.RECURSION,
  RCU: FTRACE_OPS_FL.RCU,
  IPMODIFY: FTRACE_OPS_FL.IPMODIFY,
};

/** Combinations of ops on one site. */
export const COMBINATIONS: readonly { readonly far: boolean; readonly on: readonly Occupant[] }[] =
  [
    { far: false, on: ['programs'] },
    { far: true, on: ['programs'] },
    { far: false, on: ['programs', 'ops'] },
    { far: true, on: ['programs', 'ops'] },
    { far: false, on: ['programs', 'ops', 'ops'] },
    { far: false, on: ['ops'] },
    { far: false, on: ['RECURSION'] },
    { far: false, on: ['RCU'] },
    { far: false, on: ['ops', 'ops'] },
    { far: false, on: ['programs', 'direct'] },
    { far: false, on: ['programs', 'IPMODIFY'] },
    { far: false, on: ['IPMODIFY', 'programs'] },
    { far: false, on: ['IPMODIFY', 'IPMODIFY'] },
  ];

export interface SiteState {
  readonly far: boolean;
  readonly on: readonly Occupant[];
  /** What the site calls, by symbol; `nop`. */
  readonly calls: string;
  /** The ops in front of the function. */
  readonly literal: string;
  /** What a call passed, in its order. */
  readonly path: readonly string[];
  /** The refusal of the last of them; the rest then says what the others have. */
  readonly refused?: string;
}

/** The rules of 6.12, by trying. */
export function siteTable(lab: StrategyLab, direct: Strategy): SiteState[] {
  return COMBINATIONS.map(({ far, on }) => siteState(lab.kernel(direct, far), far, on));
}

function siteState(kernel: Kernel, far: boolean, on: readonly Occupant[]): SiteState {
  const { name, address } = kernelFunction(kernel, ALONE);
  const undo: (() => void)[] = [];
  let refused: string | undefined;
  try {
    for (const occupant of on) {
      try {
        undo.push(occupy(kernel, name, occupant).leave);
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
        refused = error.message;
      }
    }
    undo.push(writeFilterHashes(kernel));
    const path = pathOf(kernel, address);
    const literal = kernel.memory.read64(address - 8n);
    return {
      far,
      on,
      calls: calledBy(kernel, address + 4n),
      literal: kernel.ftrace.opsAt(literal)?.name ?? 'none',
      path,
      ...(refused === undefined ? {} : { refused }),
    };
  } finally {
    for (const step of undo.reverse()) step();
  }
}

interface Occupied {
  leave(): void;
  /** How often it was called. */
  calls(): number;
}

function occupy(kernel: Kernel, name: string, occupant: Occupant): Occupied {
  switch (occupant) {
    case 'programs':
      return occupyByProgram(kernel, name, 'fentry');
    case 'direct':
      return occupyDirectly(kernel, name);
    default:
      return occupyByOps(kernel, name, FLAGS[occupant]);
  }
}

function occupyByProgram(kernel: Kernel, name: string, kind: 'fentry' | 'fexit'): Occupied {
  const { attachments, detach } = attachScenario(kernel, name, { [kind]: 1 });
  const [attachment] = attachments as [Attachment];
  let calls = 0;
  const end = kernel.executor.watch(kernel.cpus, attachment.program.entry, () => calls++);
  return {
    leave: () => {
      end();
      detach();
    },
    calls: () => calls,
  };
}

/** A bare ops, made and registered by hand. */
function newOps(kernel: Kernel, name: string, func: bigint): FtraceOps {
  const { ftrace } = kernel;
  const ip = ftrace.location(kernel.symbol(name));
  if (ip === undefined) throw ftrace.noSite(name);
  const ops = ftrace.createOps('lab_ops', kernel.kmalloc(ftrace.profile.ops.size), func);
  ftrace.setFilterIp(ops, ip, false);
  return ops;
}

function release(kernel: Kernel, ops: FtraceOps): void {
  kernel.ftrace.whenUnused(ops, () => {
    kernel.ftrace.forgetOps(ops);
    kernel.kfree(ops.address);
  });
}

function occupyDirectly(kernel: Kernel, name: string): Occupied {
  const ops = newOps(kernel, name, 0n);
  try {
    kernel.directCalls.register(ops, kernel.symbol('ftrace_stub_direct_tramp'));
  } catch (error) {
    release(kernel, ops);
    throw error;
  }
  return {
    leave: () => {
      kernel.directCalls.unregister(ops);
      release(kernel, ops);
    },
    calls: () => 0,
  };
}

const CALLBACK = 'lab_coexist_callback';

function occupyByOps(kernel: Kernel, name: string, flags: number): Occupied {
  if (!kernel.symbols.find(CALLBACK)) {
    kernel.define({
      name: CALLBACK,
      prototype: `void ${CALLBACK}(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs)`,
      parameters: 4,
      notrace: true,
      body: ({ memory }, _ip, _parent, op) => {
        const count = (op as bigint) + BigInt(FTRACE_OPS.private);
        memory.write64(count, memory.read64(count) + 1n);
      },
    });
  }
  const ops = newOps(kernel, name, kernel.symbol(CALLBACK));
  ops.flags |= flags;
  try {
    kernel.ftrace.register(ops);
  } catch (error) {
    release(kernel, ops);
    throw error;
  }
  return {
    leave: () => {
      kernel.ftrace.unregister(ops);
      release(kernel, ops);
    },
    calls: () => Number(kernel.memory.read64(ops.address + BigInt(FTRACE_OPS.private))),
  };
}

function calledBy(kernel: Kernel, site: bigint): string {
  const { row, fields } = decode(kernel.memory.read32(site)) ?? {};
  if (row?.name !== 'BL') return row?.name.toLowerCase() ?? '?';
  return kernel.symbols.lookup(site + BigInt(4 * (fields?.['imm26'] ?? 0)))?.name ?? '?';
}

/** Symbols that stand for a step of the path. What has a TypeScript body is seen when it returns. */
const STEPS: readonly (readonly [RegExp, string])[] = [
  [/^ftrace_caller$/, 'ftrace_caller'],
  [/^lab_list_func$/, 'list'],
  [/^ftrace_ops_assist_func$/, 'assist'],
  [/^lab_coexist_callback$/, 'callback'],
  [/^call_direct_funcs$/, 'call_direct_funcs'],
  [/^ftrace_caller_direct_late$/, 'late'],
  [/^ftrace_caller_direct$/, 'br x17'],
  [/^bpf_trampoline_/, 'image'],
];

/** First instructions of each step, in their order. */
function pathOf(kernel: Kernel, address: bigint): string[] {
  const { entries } = tracedRun(kernel, () => kernel.call(address, 1n));
  return entries.flatMap(({ pc }) => {
    const hit = kernel.symbols.lookup(pc);
    if (!hit || (hit.offset !== 0 && hit.name !== CALLBACK)) return [];
    return STEPS.find(([pattern]) => pattern.test(hit.name))?.[1] ?? [];
  });
}

export const PARTNERS = ['ops', 'RECURSION', 'IPMODIFY', '2nd program', 'fexit program'] as const;
export type Partner = (typeof PARTNERS)[number];

export interface Partnership {
  readonly strategy: Strategy;
  readonly partner: Partner;
  /** What is registered first. */
  readonly first: 'program' | 'partner';
  /** undefined: both are attached, and a call reaches both. */
  readonly refused: string | undefined;
}

/** What may be on a function beside a program of the strategy's, in both orders of coming and going. */
export function partnersOf(lab: StrategyLab, strategy: Strategy): Partnership[] {
  return PARTNERS.flatMap((partner) =>
    (['program', 'partner'] as const).map((first) => ({
      strategy,
      partner,
      first,
      refused: tryPartner(lab.kernel(strategy, false), strategy, partner, first),
    })),
  );
}

function tryPartner(
  kernel: Kernel,
  strategy: Strategy,
  partner: Partner,
  first: 'program' | 'partner',
): string | undefined {
  const { attach, address } = (strategy.traced ?? kernelFunction)(kernel, ALONE);
  if (typeof attach !== 'string') throw new RangeError(`${strategy.name}: no function of ftrace`);
  const makers = [
    () => occupyByProgram(kernel, attach, 'fentry'),
    () => occupyAs(kernel, attach, partner),
  ];
  if (first === 'partner') makers.reverse();
  const there: Occupied[] = [];
  try {
    for (const make of makers) there.push(make());
    const free = writeFilterHashes(kernel);
    kernel.call(address, 1n);
    free();
    if (there.some(({ calls }) => calls() !== 1)) return 'not called';
    // who came first goes first
    there.shift()?.leave();
    const left = there[0]?.calls() ?? 0;
    const freeRest = writeFilterHashes(kernel);
    kernel.call(address, 1n);
    freeRest();
    return there[0]?.calls() === left + 1 ? undefined : 'lost';
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return error.message;
  } finally {
    for (const each of there.reverse()) each.leave();
  }
}

function occupyAs(kernel: Kernel, name: string, partner: Partner): Occupied {
  switch (partner) {
    case '2nd program':
      return occupyByProgram(kernel, name, 'fentry');
    case 'fexit program':
      return occupyByProgram(kernel, name, 'fexit');
    default:
      return occupyByOps(kernel, name, FLAGS[partner]);
  }
}

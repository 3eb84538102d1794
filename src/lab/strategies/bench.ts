/**
 * Puts a strategy into a situation, calls the function, and measures what was executed.
 *
 *   const kernel = bootFor(boot, texts, strategy, { far: false });
 *   const outcome = measureIn(kernel, strategy, { ...ALONE, others: 1 });
 *   if (outcome.kind === 'attached') outcome.way.instructions
 *
 * The way to the programs and back is taken apart by whose text it is. Programs, `__bpf_prog_enter` and
 * kin, and the callbacks of others are not part of it: they cost the same in every strategy. Whether all
 * of them ran, with the right arguments, is looked at.
 */
import { viewOf } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import type { Registers } from '../../cpu/cpu.js';
import type { Attachment } from '../../kernel/bpf/bpf.js';
import { KernelOops } from '../../kernel/executor.js';
import type { FtraceOps } from '../../kernel/ftrace/ops.js';
import type { AsmSources, Kernel } from '../../kernel/kernel.js';
import { FTRACE_OPS } from '../../kernel/offsets.js';
import { BL_RANGE } from '../far-images.js';
import { attachScenario } from '../scenario.js';
import { tracedRun } from '../traced-call.js';
import { writeFilterHashes } from './filter-hashes.js';
import { emptyMeasure, measurePath, sumOf, type PartMeasure } from './measure.js';
import { OpsSite } from './sites.js';
import type { Situation } from './situation.js';
import type { Strategy, StrategyBooter, TracedFunction } from './strategy.js';
import { kernelFunction } from './traced.js';

export const PARTS = [
  /** The patch site. */
  'site',
  /** Entry code of ftrace, PLTs, literal calls. */
  'glue',
  /** The list function and its look into hashes. */
  'list',
  /** The callback of the strategy's own ops. */
  'callback',
  'trampoline',
  'programs',
  'enter/exit',
  /** Callbacks of other ops. */
  'others',
  'body',
] as const;
export type Part = (typeof PARTS)[number];

/** Parts that the way to the programs and back consists of. */
export const WAY: readonly Part[] = ['site', 'glue', 'list', 'callback', 'trampoline'];

export interface Attached {
  readonly kind: 'attached';
  readonly parts: ReadonlyMap<Part, PartMeasure>;
  /** All parts of the way together. */
  readonly way: PartMeasure;
  /** Bytes of stack between the caller and the first program. */
  readonly programStack: number;
  /** Of the whole call, the function's own RET included. */
  readonly returnMisses: number;
  readonly text: {
    /** Bytes at every function that can be traced. */
    readonly site: number;
    /** Bytes that attaching makes: the image, and what the strategy needs beside it. */
    readonly made: number;
  };
}

export interface Refused {
  readonly kind: 'refused';
  readonly errno: string;
  readonly message: string;
}

/** It was attached, and a call went wrong. */
export interface Wrong {
  readonly kind: 'wrong';
  readonly message: string;
}

export type Outcome = Attached | Refused | Wrong;

/** The list of ops is walked by text, not by a TypeScript body. */
const LIST_FUNC = 'lab_list_func';

/** Argument values: none is an address, a count or a saved register. */
function argumentValues(count: number): bigint[] {
  return Array.from({ length: count }, (_, i) => 0x5eed_0000_0000_0001n + (BigInt(i) << 32n));
}

/** A kernel as the strategy wants it. */
export function bootFor(
  boot: StrategyBooter,
  texts: AsmSources,
  strategy: Strategy,
  { far }: Pick<Situation, 'far'>,
): Kernel {
  const wanted = ['targets.s', ...strategy.texts];
  const kernel = boot({
    ...strategy.kernel,
    ...(far ? { vmallocUsed: Number(BL_RANGE) } : {}),
    texts: filesOf(texts, ['list-func.s']),
    listFunc: LIST_FUNC,
    modules: { ...filesOf(texts, wanted), ...strategy.ownTexts },
  });
  const list = new Uint8Array(8);
  viewOf(list).setBigUint64(0, kernel.ftrace.listHead, true);
  kernel.memory.pokeBytes(kernel.symbol(`${LIST_FUNC}_head`), list);
  return kernel;
}

function filesOf(texts: AsmSources, names: readonly string[]): AsmSources {
  return Object.fromEntries(
    Object.entries(texts).filter(([path]) => names.some((name) => path.endsWith(`/${name}`))),
  );
}

/** Measures in a kernel that is there, and leaves it as it was. */
export function measureIn(kernel: Kernel, strategy: Strategy, situation: Situation): Outcome {
  const traced = (strategy.traced ?? kernelFunction)(kernel, situation);
  const undo: (() => void)[] = [];
  try {
    const { attachments, ops } = attachAll(kernel, traced, situation, undo);
    undo.push(writeFilterHashes(kernel));
    return measureCall(kernel, strategy, traced, situation, attachments, ops);
  } catch (error) {
    if (error instanceof KernelOops) return { kind: 'wrong', message: error.message };
    if (!(error instanceof KernelError)) throw error;
    return { kind: 'refused', errno: error.errno, message: error.message };
  } finally {
    for (const step of undo.reverse()) step();
  }
}

function attachAll(
  kernel: Kernel,
  { attach }: TracedFunction,
  { programs, others, irrelevant }: Situation,
  undo: (() => void)[],
): { attachments: readonly Attachment[]; ops: readonly FtraceOps[] } {
  if (typeof attach !== 'string' && others > 0) {
    throw new KernelError('EINVAL', 'ftrace: a BPF program is no patch site');
  }
  const elsewhere = attachScenario(kernel, 'lab_elsewhere', { ops: irrelevant });
  undo.push(elsewhere.detach);
  const { attachments, ops, detach } = attachScenario(kernel, attach, {
    fentry: programs,
    ops: others,
  });
  undo.push(detach);
  return { attachments, ops };
}

function measureCall(
  kernel: Kernel,
  strategy: Strategy,
  traced: TracedFunction,
  { programs, args: argCount }: Situation,
  attachments: readonly Attachment[],
  others: readonly FtraceOps[],
): Attached | Wrong {
  const args = argumentValues(argCount);
  const wrong = (message: string): Wrong => ({ kind: 'wrong', message });
  const callsBefore = others.map((ops) => callsOf(kernel, ops));
  const atEntry = watchEntry(kernel, traced.address);
  const contexts: bigint[][] = [];
  const atPrograms = attachments.map(({ program }) =>
    watchEntry(kernel, program.entry, ({ x }) => {
      contexts.push(args.map((_, i) => kernel.memory.read64((x[0] ?? 0n) + BigInt(8 * i))));
    }),
  );
  const { result, entries } = tracedRun(kernel, () => kernel.call(traced.address, ...args));
  for (const { end } of [atEntry, ...atPrograms]) end();

  const start = atEntry.seen[0];
  if (!start) throw new Error(`${traced.name} was not called`);
  const ran = atPrograms.filter(({ seen }) => seen.length === 1).length;
  const called = others.filter((ops, i) => callsOf(kernel, ops) === (callsBefore[i] ?? 0n) + 1n);
  if (ran < programs) return wrong(`${ran} of ${programs} programs ran`);
  if (called.length < others.length) {
    return wrong(`${called.length} of ${others.length} other ops were called`);
  }
  const lost = args.findIndex((value, i) => contexts.some((context) => context[i] !== value));
  if (lost >= 0) return wrong(`a program got another argument ${lost}`);
  if (typeof traced.attach === 'string' && argCount > 0 && result !== args[0]) {
    return wrong('the function got another argument 0');
  }

  const parts = measurePath(entries, start, args, partOf(kernel, strategy, traced, attachments));
  const way = sumOf(WAY.map((part) => parts.get(part) ?? emptyMeasure(argCount)));
  const { trampoline } = attachments[0] ?? {};
  const image = strategy.withoutImage ? 0 : (trampoline?.image?.code.length ?? 0);
  const made = trampoline?.target instanceof OpsSite ? trampoline.target.generatedText : 0;
  return {
    kind: 'attached',
    parts,
    way,
    programStack: Number(start.sp - (atPrograms[0]?.seen[0]?.sp ?? start.sp)),
    returnMisses: sumOf([...parts.values()]).returnMisses,
    text: { site: traced.siteBytes, made: image + made },
  };
}

function callsOf(kernel: Kernel, ops: FtraceOps): bigint {
  return kernel.memory.read64(ops.address + BigInt(FTRACE_OPS.private));
}

function watchEntry(
  kernel: Kernel,
  address: bigint,
  look: (registers: Registers) => void = () => undefined,
): { readonly seen: Registers[]; readonly end: () => void } {
  const seen: Registers[] = [];
  const end = kernel.executor.watch(kernel.cpus, address, (cpu) => {
    const registers = cpu.saveRegisters();
    seen.push(registers);
    look(registers);
  });
  return { seen, end };
}

const BY_SYMBOL: readonly (readonly [RegExp, Part])[] = [
  [
    /^(lab_list_func|lab_hash_contains_ip|arch_ftrace_ops_list_func|ftrace_ops_assist_func)$/,
    'list',
  ],
  [/^call_direct_funcs$/, 'callback'],
  [/^lab_ops_callback$/, 'others'],
  [/^bpf_trampoline_/, 'trampoline'],
  [/^bpf_prog_/, 'programs'],
  [/^__bpf_/, 'enter/exit'],
];

function partOf(
  kernel: Kernel,
  strategy: Strategy,
  traced: TracedFunction,
  attachments: readonly Attachment[],
): (pc: bigint) => Part {
  const images = attachments.map(({ trampoline }) => trampoline.image?.code);
  return (pc) => {
    if (pc >= traced.address && pc < traced.siteEnd) return 'site';
    if (pc >= traced.siteEnd && pc < traced.end) return isPlt(traced, pc) ? 'glue' : 'body';
    if (images.some((code) => code && pc >= code.base && pc < code.base + BigInt(code.length))) {
      return 'trampoline';
    }
    const name = kernel.symbols.lookup(pc)?.name ?? '';
    if (strategy.callbacks?.includes(name)) return 'callback';
    return BY_SYMBOL.find(([pattern]) => pattern.test(name))?.[1] ?? 'glue';
  };
}

function isPlt({ plt }: TracedFunction, pc: bigint): boolean {
  return plt !== undefined && pc >= plt;
}

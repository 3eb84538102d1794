/**
 * Two CPUs side by side, until they differ.
 *
 * Both start from the same registers on memories with the same regions and contents. `lockstep`
 * compares after every instruction: X0..X30, SP, pc, NZCV, the stop, and what was written.
 * `compareRuns` lets both run freely, compares the ends, and only goes back to find the first
 * differing instruction when there is a difference: as exact in what it reports, and hundreds of times faster.
 *
 * Memory is compared wherever either CPU may have written (accesses of the word at pc), or everywhere
 * with `memory: 'all'`; at the end always everywhere. Faults are compared whole, so regions should
 * end at page ends when one of the engines knows pages only.
 *
 * Usage:
 *   const result = lockstep({ name: 'embedded', cpu: a }, { name: 'unicorn', cpu: b }, { until });
 *   if (result.kind === 'differ') console.log(printDifference(result));
 */
import { hex64, hex32, s64, u64 } from '../common/bytes.js';
import { decode } from '../a64/codec.js';
import { print } from '../a64/print.js';
import { accessesOf } from './access.js';
import { NZCV, SP, type Cpu, type RegisterChange, type Stop, type TraceEntry } from './cpu.js';
import { describeFault } from './fault.js';
import type { Memory } from './memory.js';

export interface Side {
  /** For reports: the engine's name, mostly. */
  readonly name: string;
  readonly cpu: Cpu;
}

export interface LockstepOptions {
  readonly until?: bigint;
  /** Most instructions. Default: 1e6. */
  readonly budget?: number;
  /** What is compared after each instruction. Default: `written`. */
  readonly memory?: 'written' | 'all';
  /** Executed instructions kept for the report. Default: 16. */
  readonly tail?: number;
}

/** One thing that differs; values in the order of the sides. */
export type Difference =
  | {
      readonly kind: 'register';
      readonly register: number;
      readonly values: readonly [bigint, bigint];
    }
  | { readonly kind: 'pc'; readonly values: readonly [bigint, bigint] }
  | {
      readonly kind: 'system';
      readonly register: string;
      readonly values: readonly [bigint, bigint];
    }
  | { readonly kind: 'stop'; readonly values: readonly [Stop, Stop] }
  | { readonly kind: 'executed'; readonly values: readonly [number, number] }
  | {
      readonly kind: 'memory';
      /** First differing byte. */
      readonly address: bigint;
      readonly values: readonly [number, number];
    };

export interface Disagreement {
  readonly kind: 'differ';
  /** Instructions that both had executed and agreed on. */
  readonly after: number;
  /** The instruction after which they differ. */
  readonly pc: bigint;
  readonly word: number;
  /** Values before it of the registers that it names. */
  readonly inputs: readonly RegisterChange[];
  readonly differences: readonly Difference[];
  /** Names of the sides, and the last instructions of each. */
  readonly names: readonly [string, string];
  readonly tails: readonly [readonly TraceEntry[], readonly TraceEntry[]];
}

export type LockstepResult =
  { readonly kind: 'agree'; readonly stop: Stop; readonly executed: number } | Disagreement;

/** Values of X0..X30, SP and NZCV. */
function registersOf(cpu: Cpu): bigint[] {
  const values = Array.from({ length: 31 }, (_, register) => cpu.getX(register));
  values.push(cpu.sp, BigInt(cpu.nzcv));
  return values;
}

function changesOf(before: readonly bigint[], after: readonly bigint[]): TraceEntry['changes'] {
  return after.flatMap((value, register) =>
    value === before[register] ? [] : [{ register, value }],
  );
}

/** First byte that differs in [address, address + size) of two memories. */
function firstDifference(
  a: Memory,
  b: Memory,
  address: bigint,
  size: number,
): Extract<Difference, { kind: 'memory' }> | undefined {
  const first = a.readBytes(address, size);
  const second = b.readBytes(address, size);
  const index = first.findIndex((byte, at) => byte !== second[at]);
  if (index < 0) return undefined;
  return {
    kind: 'memory',
    address: address + BigInt(index),
    values: [first[index] as number, second[index] as number],
  };
}

/** First byte that differs in the writable regions of two memories with the same layout. */
export function compareMemory(
  a: Memory,
  b: Memory,
): Extract<Difference, { kind: 'memory' }> | undefined {
  for (const region of a.regions) {
    if (!region.permissions.includes('w')) continue;
    const other = b.regionAt(region.address);
    if (other?.address !== region.address || other.size !== region.size) {
      throw new RangeError(`memories are laid out differently at region ${region.name}`);
    }
    const words = region.pageBytes >> 2;
    const first = new Int32Array(a.bytes.buffer, region.pageOffset, words);
    const second = new Int32Array(b.bytes.buffer, other.pageOffset, words);
    for (let i = 0; i < words; i++) {
      if (first[i] !== second[i]) return firstDifference(a, b, region.address, region.size);
    }
  }
  return undefined;
}

function sameStop(a: Stop, b: Stop): boolean {
  if (a.kind === 'fault' && b.kind === 'fault') {
    const [f, g] = [a.fault, b.fault];
    return (
      f.access === g.access && f.address === g.address && f.size === g.size && f.reason === g.reason
    );
  }
  if (a.kind === 'trap' && b.kind === 'trap') {
    return a.instruction === b.instruction && a.immediate === b.immediate;
  }
  if (a.kind === 'undefined' && b.kind === 'undefined') return a.word === b.word;
  return a.kind === b.kind;
}

function compareRegisters(a: readonly bigint[], b: readonly bigint[]): Difference[] {
  return a.flatMap((value, register): Difference[] =>
    value === b[register]
      ? []
      : [{ kind: 'register', register, values: [value, b[register] ?? 0n] }],
  );
}

function comparePc(a: Cpu, b: Cpu): Difference[] {
  return a.pc === b.pc ? [] : [{ kind: 'pc', values: [a.pc, b.pc] }];
}

function compareSystem(a: Cpu, b: Cpu): Difference[] {
  return (['sp_el0', 'tpidr_el0', 'tpidr_el1', 'tpidr_el2'] as const).flatMap(
    (register): Difference[] => {
      const values = [a.getSystem(register), b.getSystem(register)] as const;
      return values[0] === values[1] ? [] : [{ kind: 'system', register, values }];
    },
  );
}

function wordAt(memory: Memory, pc: bigint): number {
  return memory.faultAt(pc, 4, 'fetch') ? 0 : memory.read32(pc);
}

function inputsOf(word: number, values: readonly bigint[]): RegisterChange[] {
  const fields = decode(word)?.fields ?? {};
  const named = ['Rn', 'Rm', 'Ra', 'Rs', 'Rt', 'Rt2', 'Rd'].flatMap((name) => fields[name] ?? []);
  const registers = [...new Set([...named, NZCV])].toSorted((x, y) => x - y);
  return registers.map((register) => ({ register, value: values[register] ?? 0n }));
}

/** Runs both one instruction at a time, comparing after each. */
export function lockstep(a: Side, b: Side, options: LockstepOptions = {}): LockstepResult {
  const { budget = 1e6, tail = 16 } = options;
  const until = options.until === undefined ? undefined : u64(options.until);
  const sides = [a, b] as const;
  let before = sides.map(({ cpu }) => registersOf(cpu));
  const tails: [TraceEntry[], TraceEntry[]] = [[], []];

  const differ = (after: number, pc: bigint, differences: readonly Difference[]): Disagreement => ({
    kind: 'differ',
    after,
    pc,
    word: wordAt(a.cpu.memory, pc),
    inputs: inputsOf(wordAt(a.cpu.memory, pc), before[0] ?? []),
    differences,
    names: [a.name, b.name],
    tails,
  });

  const start = [
    ...compareRegisters(before[0] ?? [], before[1] ?? []),
    ...comparePc(a.cpu, b.cpu),
    ...compareSystem(a.cpu, b.cpu),
    ...atMost(compareMemory(a.cpu.memory, b.cpu.memory)),
  ];
  if (start.length > 0) return differ(0, a.cpu.pc, start);

  for (let executed = 0; ; executed++) {
    const { pc } = a.cpu;
    const atEnd: Stop | undefined =
      pc === until ? { kind: 'until' } : executed >= budget ? { kind: 'budget' } : undefined;
    if (atEnd) {
      const rest = compareEnds(a.cpu, b.cpu);
      return rest.length > 0
        ? differ(executed, pc, rest)
        : { kind: 'agree', stop: atEnd, executed };
    }
    const word = wordAt(a.cpu.memory, pc);
    const written = options.memory === 'all' ? [] : writesOf(a.cpu, word, pc);
    const stops = sides.map(({ cpu }) => cpu.step()) as [Stop, Stop];
    const after = sides.map(({ cpu }) => registersOf(cpu));
    sides.forEach((_, side) => {
      if (stops[side]?.kind !== 'budget') return;
      const changes = changesOf(before[side] ?? [], after[side] ?? []);
      tails[side]?.push({ pc, word, changes });
      if ((tails[side]?.length ?? 0) > tail) tails[side]?.shift();
    });
    const found: Difference[] = [
      ...compareRegisters(after[0] ?? [], after[1] ?? []),
      ...comparePc(a.cpu, b.cpu),
      ...(sameStop(...stops) ? [] : [{ kind: 'stop' as const, values: stops }]),
      ...(decode(word)?.row.sem.kind === 'writeSystem' ? compareSystem(a.cpu, b.cpu) : []),
      ...(options.memory === 'all'
        ? atMost(compareMemory(a.cpu.memory, b.cpu.memory))
        : written.flatMap(([address, size]) =>
            atMost(firstDifference(a.cpu.memory, b.cpu.memory, address, size)),
          )),
    ];
    if (found.length > 0) return differ(executed, pc, found);
    before = after;
    if (stops[0].kind !== 'budget') {
      const rest = compareEnds(a.cpu, b.cpu);
      return rest.length > 0
        ? differ(executed, pc, rest)
        : { kind: 'agree', stop: stops[0], executed };
    }
  }
}

function atMost<T>(value: T | undefined): T[] {
  return value === undefined ? [] : [value];
}

/** What the instruction at pc may write, cut to what can be read. */
function writesOf(cpu: Cpu, word: number, pc: bigint): (readonly [bigint, number])[] {
  const decoded = decode(word);
  if (!decoded) return [];
  const read = (register: number): bigint => (register === 31 ? cpu.sp : cpu.getX(register));
  return accessesOf(decoded, pc, read)
    .filter(
      ({ access, address, size }) =>
        access === 'write' && !cpu.memory.faultAt(address, size, 'read'),
    )
    .map(({ address, size }) => [address, size] as const);
}

function compareEnds(a: Cpu, b: Cpu): Difference[] {
  return [...compareSystem(a, b), ...atMost(compareMemory(a.memory, b.memory))];
}

/**
 * Runs both to their ends and compares those. When they differ, `rewind` must bring both back to
 * the start; the first differing instruction is then looked for in lockstep.
 */
export function compareRuns(
  a: Side,
  b: Side,
  rewind: () => void,
  options: LockstepOptions = {},
): LockstepResult {
  const run = {
    budget: options.budget ?? 1e6,
    ...(options.until === undefined ? {} : { until: options.until }),
  };
  const sides = [a, b] as const;
  const before = sides.map(({ cpu }) => cpu.executed);
  const stops = sides.map(({ cpu }) => cpu.run(run)) as [Stop, Stop];
  const executed = sides.map(({ cpu }, side) => cpu.executed - (before[side] ?? 0)) as [
    number,
    number,
  ];
  const differences: Difference[] = [
    ...compareRegisters(registersOf(a.cpu), registersOf(b.cpu)),
    ...comparePc(a.cpu, b.cpu),
    ...(sameStop(...stops) ? [] : [{ kind: 'stop' as const, values: stops }]),
    ...(executed[0] === executed[1] ? [] : [{ kind: 'executed' as const, values: executed }]),
    ...compareEnds(a.cpu, b.cpu),
  ];
  if (differences.length === 0) return { kind: 'agree', stop: stops[0], executed: executed[0] };
  const { pc } = a.cpu;
  rewind();
  const exact = lockstep(a, b, { ...options, memory: 'all' });
  if (exact.kind === 'differ') return exact;
  // equal step by step, different as a whole: an engine's fault in how it runs
  return {
    kind: 'differ',
    after: exact.executed,
    pc,
    word: wordAt(a.cpu.memory, pc),
    inputs: [],
    differences,
    names: [a.name, b.name],
    tails: [[], []],
  };
}

function registerName(register: number): string {
  if (register === SP) return 'sp';
  return register === NZCV ? 'nzcv' : `x${register}`;
}

function stopText(stop: Stop): string {
  switch (stop.kind) {
    case 'fault':
      return describeFault(stop.fault);
    case 'trap':
      return `${stop.instruction} #${stop.immediate}`;
    case 'undefined':
      return `undefined ${hex32(stop.word)}`;
    case 'budget':
      return 'executed';
    case 'until':
    case 'breakpoint':
      return stop.kind;
  }
}

function differenceTexts(difference: Difference): readonly [string, string, string] {
  switch (difference.kind) {
    case 'register':
      return [registerName(difference.register), ...hexes(difference.values)];
    case 'system':
      return [difference.register, ...hexes(difference.values)];
    case 'pc':
      return ['pc', ...hexes(difference.values)];
    case 'stop':
      return ['stop', stopText(difference.values[0]), stopText(difference.values[1])];
    case 'executed':
      return ['executed', String(difference.values[0]), String(difference.values[1])];
    case 'memory': {
      const [first, second] = difference.values;
      return [hex64(difference.address), hexByte(first), hexByte(second)];
    }
  }
}

const hexes = ([a, b]: readonly [bigint, bigint]): [string, string] => [hex64(a), hex64(b)];
const hexByte = (byte: number): string => byte.toString(16).padStart(2, '0');

function valuesText(values: readonly RegisterChange[]): string {
  const texts = values.map(({ register, value }) => {
    const small = s64(value) >= 0n && value < 4096n;
    return `${registerName(register)}=${small ? value : hex64(value)}`;
  });
  return texts.join(' ');
}

/** The instructions before, then what differs, in two columns. */
export function printDifference(found: Disagreement): string {
  const lines = [
    `${found.names[0]} and ${found.names[1]} differ after ${found.after} equal instructions, at ` +
      `${hex64(found.pc)}: ${hex32(found.word)} ${print(found.word, found.pc)}`,
  ];
  const texts = found.tails.map((entries) => entries.map(({ changes }) => valuesText(changes)));
  const count = Math.max(found.tails[0].length, found.tails[1].length);
  const width = Math.max(found.names[0].length, 18, ...(texts[0] ?? []).map((text) => text.length));
  const columns = (label: string, first: string, second: string): string =>
    `  ${label.padEnd(58)} ${first.padEnd(width)} | ${second}`.trimEnd();
  lines.push(columns('', found.names[0], found.names[1]));
  for (let i = 0; i < count; i++) {
    const entry = found.tails[0][i] ?? found.tails[1][i];
    if (!entry) continue;
    const label = `${hex64(entry.pc)} ${hex32(entry.word)} ${print(entry.word, entry.pc)}`;
    lines.push(columns(label, texts[0]?.[i] ?? '', texts[1]?.[i] ?? ''));
  }
  if (found.inputs.length > 0) lines.push(`  with ${valuesText(found.inputs)}`);
  for (const difference of found.differences) {
    const [label, first, second] = differenceTexts(difference);
    lines.push(columns(`differs: ${label}`, first, second));
  }
  return lines.join('\n');
}

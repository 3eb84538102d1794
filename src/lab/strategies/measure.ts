/**
 * Measures executed instructions: how many of each kind, how deep the stack went, how often each argument
 * was saved, how many returns a return-address predictor gets wrong.
 *
 * Kinds come from the semantics of the instruction table, not from names. An argument counts as saved when
 * a register that holds its value is stored, so give arguments values that occur nowhere else. What a
 * TypeScript body does is no A64 text and is not measured.
 *
 *   const measure = measurePath(entries, { x, sp }, args, (pc) => partOf(pc));
 *   measure.parts.get('glue')?.stores
 *
 * Left out: caches, micro-ops, and what prediction does besides returns.
 */
import { decode, type Decoded } from '../../a64/codec.js';
import { SP, type TraceEntry } from '../../cpu/cpu.js';

/** How many instructions of a kind were executed. An instruction can be of several kinds, or of none. */
export interface Counts {
  instructions: number;
  /** Instructions that read memory; a pair is one. */
  loads: number;
  stores: number;
  /** All branches, taken or not. */
  branches: number;
  /** BR and BLR. */
  indirect: number;
  /** RET. */
  returns: number;
  /** RETs that go elsewhere than behind the latest BL or BLR that has not been returned from. */
  returnMisses: number;
}

/** Registers at the first instruction. */
export interface StartState {
  /** X0..X30. */
  readonly x: readonly bigint[];
  readonly sp: bigint;
}

export interface PartMeasure extends Counts {
  /** Bytes below the stack pointer at the start. */
  stack: number;
  /** Bytes of distinct instructions. */
  text: number;
  /** How often each argument was stored, by number. */
  readonly saved: number[];
  /** How often each argument was loaded back. */
  readonly restored: number[];
}

export type Kind = 'load' | 'store' | 'branch' | 'indirect' | 'return' | 'call';

/** What an instruction is; empty for data processing, barriers and the like. */
export function kindsOf({ row }: Decoded): readonly Kind[] {
  const { sem } = row;
  switch (sem.kind) {
    case 'load':
    case 'loadPair':
    case 'loadExclusive':
      return ['load'];
    case 'store':
    case 'storePair':
    case 'storeExclusive':
      return ['store'];
    case 'atomic':
    case 'compareAndSwap':
      return ['load', 'store'];
    case 'branch':
      return sem.link ? ['branch', 'call'] : ['branch'];
    case 'branchConditional':
    case 'compareBranch':
    case 'testBranch':
      return ['branch'];
    case 'branchRegister':
      if (sem.returns) return ['branch', 'return'];
      return sem.link ? ['branch', 'indirect', 'call'] : ['branch', 'indirect'];
    default:
      return [];
  }
}

export function emptyMeasure(args = 0): PartMeasure {
  return {
    instructions: 0,
    loads: 0,
    stores: 0,
    branches: 0,
    indirect: 0,
    returns: 0,
    returnMisses: 0,
    stack: 0,
    text: 0,
    saved: Array.from({ length: args }, () => 0),
    restored: Array.from({ length: args }, () => 0),
  };
}

/** Measures of several parts as of one. */
export function sumOf(measures: readonly PartMeasure[]): PartMeasure {
  const args = Math.max(0, ...measures.map(({ saved }) => saved.length));
  const total = emptyMeasure(args);
  for (const each of measures) {
    for (const key of COUNTS) total[key] += each[key];
    total.text += each.text;
    total.stack = Math.max(total.stack, each.stack);
    each.saved.forEach((times, i) => (total.saved[i] = (total.saved[i] ?? 0) + times));
    each.restored.forEach((times, i) => (total.restored[i] = (total.restored[i] ?? 0) + times));
  }
  return total;
}

const COUNTS = [
  'instructions',
  'loads',
  'stores',
  'branches',
  'indirect',
  'returns',
  'returnMisses',
] as const satisfies readonly (keyof Counts)[];

/** @param partOf the part of the way that the instruction at an address belongs to */
export function measurePath<Part extends string>(
  entries: readonly TraceEntry[],
  start: StartState,
  args: readonly bigint[],
  partOf: (pc: bigint) => Part,
): Map<Part, PartMeasure> {
  const parts = new Map<Part, PartMeasure>();
  const seen = new Set<bigint>();
  const registers = [...start.x, start.sp];
  // what the caller's BL has pushed is not in the trace: x30 at the start
  const calls: bigint[] = [start.x[30] ?? 0n];
  for (const { pc, word, changes } of entries) {
    const part = partOf(pc);
    let measure = parts.get(part);
    if (!measure) parts.set(part, (measure = emptyMeasure(args.length)));
    const decoded = decode(word);
    const kinds = decoded ? kindsOf(decoded) : [];
    const transferred = decoded ? transferredRegisters(decoded) : [];

    measure.instructions++;
    if (!seen.has(pc)) {
      seen.add(pc);
      measure.text += 4;
    }
    if (kinds.includes('store')) {
      measure.stores++;
      count(measure.saved, args, transferred, registers);
    }
    if (kinds.includes('return')) {
      measure.returns++;
      const target = registers[decoded?.fields['Rn'] ?? 30];
      if (calls.pop() !== target) measure.returnMisses++;
    }
    for (const { register, value } of changes) {
      if (register <= SP) registers[register] = value;
    }
    if (kinds.includes('load')) {
      measure.loads++;
      count(measure.restored, args, transferred, registers);
    }
    if (kinds.includes('branch')) measure.branches++;
    if (kinds.includes('indirect')) measure.indirect++;
    if (kinds.includes('call')) calls.push(pc + 4n);
    measure.stack = Math.max(measure.stack, Number(start.sp - (registers[SP] ?? start.sp)));
  }
  return parts;
}

/** Registers that a load or store moves to or from memory; 31 is XZR, which holds no argument. */
function transferredRegisters({ fields }: Decoded): number[] {
  return ['Rt', 'Rt2'].flatMap((name) => fields[name] ?? []).filter((register) => register !== 31);
}

function count(
  into: number[],
  args: readonly bigint[],
  transferred: readonly number[],
  registers: readonly bigint[],
): void {
  for (const register of transferred) {
    const argument = args.indexOf(registers[register] ?? 0n);
    if (argument >= 0) into[argument] = (into[argument] ?? 0) + 1;
  }
}

/**
 * Random instructions: for every row of the table, words that decode to that row.
 *
 *   randomWord(random, { branches: false })     // any valid word but a branch
 *   randomWordOf(random, row)                   // any valid word of one row
 *
 * Fields are uniform, with registers drawn from `registers` when it is given. What the row's
 * `valid` refuses is drawn again, and a word that a more specific row claims (a HINT that is NOP)
 * counts as that row's.
 */
import type { Random } from '../common/random.js';
import { decode } from './codec.js';
import type { Field, Instruction } from './row.js';
import type { Semantics } from './semantics.js';
import { INSTRUCTIONS } from './table.js';

export interface GenerateOptions {
  /** B, CBZ, BR and kin. Default: true. */
  readonly branches?: boolean;
  /** MRS, MSR. Default: true. */
  readonly system?: boolean;
  /** BRK, SVC, HVC, SMC, HLT, UDF. Default: true. */
  readonly traps?: boolean;
  /** Loads, stores and atomics. Default: true. */
  readonly memory?: boolean;
  /** Hints, barriers and prefetch. Default: true. */
  readonly hints?: boolean;
  /** Register numbers to draw from (31 is SP or XZR). Default: 0..31. */
  readonly registers?: readonly number[];
}

type InstructionClass = 'branches' | 'system' | 'traps' | 'memory' | 'hints' | 'data';

const CLASSES: Readonly<Record<Semantics['kind'], InstructionClass>> = {
  arithmetic: 'data',
  logical: 'data',
  moveWide: 'data',
  address: 'data',
  bitfield: 'data',
  extract: 'data',
  conditionalSelect: 'data',
  conditionalCompare: 'data',
  multiply: 'data',
  multiplyHigh: 'data',
  divide: 'data',
  shiftVariable: 'data',
  reverse: 'data',
  crc32: 'data',
  branch: 'branches',
  branchConditional: 'branches',
  compareBranch: 'branches',
  testBranch: 'branches',
  branchRegister: 'branches',
  load: 'memory',
  store: 'memory',
  loadPair: 'memory',
  storePair: 'memory',
  loadExclusive: 'memory',
  storeExclusive: 'memory',
  atomic: 'memory',
  compareAndSwap: 'memory',
  clearExclusive: 'hints',
  nothing: 'hints',
  stripLink: 'system',
  readSystem: 'system',
  writeSystem: 'system',
  writePstate: 'system',
  trap: 'traps',
  undefined: 'traps',
};

/** The class that `GenerateOptions` switch. */
export function instructionClass(row: Instruction): InstructionClass {
  return CLASSES[row.sem.kind];
}

function randomField(random: Random, field: Field, registers?: readonly number[]): number {
  if (registers && field.width === 5 && field.name.startsWith('R')) return random.pick(registers);
  return random.below(2 ** field.width);
}

/** A random valid word of one row. `registers`: see `GenerateOptions`. */
export function randomWordOf(
  random: Random,
  row: Instruction,
  registers?: readonly number[],
): number {
  for (let attempt = 0; attempt < 10_000; attempt++) {
    let word = row.match;
    for (const field of row.fields) word |= randomField(random, field, registers) << field.lsb;
    if (decode(word)?.row === row) return word >>> 0;
  }
  throw new RangeError(`no valid word of ${row.name} with registers ${registers?.join(', ')}`);
}

/** Rows that the options leave in. */
export function rowsOf(options: GenerateOptions = {}): readonly Instruction[] {
  return INSTRUCTIONS.filter((row) => {
    const rowClass = instructionClass(row);
    return rowClass === 'data' || (options[rowClass] ?? true);
  });
}

/** A random valid word; every row that the options leave in is equally likely. */
export function randomWord(random: Random, options: GenerateOptions = {}): number {
  return randomWordOf(random, random.pick(rowsOf(options)), options.registers);
}

/**
 * Random instruction sequences that keep running, to compare engines with.
 *
 * Uniformly random words would fault or leave at once. Here x19..x22 and sp point into a data region
 * and are written by addressing modes only, x23 and x24 are small indexes, x25 and x26 are
 * addresses in the sequence for branches to registers, and the others hold random values, extremes
 * among them. Immediate branches mostly go forward inside the sequence. Some bases are misaligned or
 * near the region's end, some words are traps or no instructions: how engines stop is compared as well.
 *
 * Usage:
 *   const layout = { text, data, dataSize };
 *   const sequence = randomSequence(new Random(seed), layout);
 */
import type { Random } from '../common/random.js';
import { decode } from '../a64/codec.js';
import { instructionClass, randomWordOf, rowsOf } from '../a64/generate.js';
import type { Instruction } from '../a64/row.js';
import { systemRegisterFields } from '../a64/system-registers.js';
import type { Registers } from './cpu.js';

export interface SequenceLayout {
  /** Where the first word goes. */
  readonly text: bigint;
  readonly data: bigint;
  /** Bytes of data, at least 40 KiB so that unsigned offsets stay inside. */
  readonly dataSize: number;
}

export interface Sequence {
  readonly words: readonly number[];
  readonly registers: Registers;
}

const BASES = [19, 20, 21, 22, 31];
const INDEXES = [23, 24];
const TARGETS = [25, 26];
/** Registers that ordinary instructions read and write; BL writes x30. */
const FREE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 27, 28, 29, 30, 31];
/** Sources may also be bases and indexes. */
const SYSTEM_REGISTERS = ['nzcv', 'sp_el0', 'tpidr_el0', 'tpidr_el1', 'tpidr_el2'].map(
  systemRegisterFields,
);

const EXTREMES = [
  0n,
  1n,
  2n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_0000_0000n,
  0xffff_ffff_8000_0000n,
  0xffff_ffff_ffff_fffen,
  0xffff_ffff_ffff_ffffn,
];

const CLREX = 0xd5033f5f;
const FIXED_ROWS = rowsOf({ branches: false, system: false, traps: false });
const DATA_ROWS = FIXED_ROWS.filter((row) => instructionClass(row) === 'data');
const MEMORY_ROWS = FIXED_ROWS.filter((row) => instructionClass(row) === 'memory');
const HINT_ROWS = FIXED_ROWS.filter((row) => instructionClass(row) === 'hints');
const ALL_ROWS = rowsOf();
const BRANCH_ROWS = ALL_ROWS.filter((row) => instructionClass(row) === 'branches');
const SYSTEM_ROWS = ALL_ROWS.filter((row) => instructionClass(row) === 'system');
const TRAP_ROWS = ALL_ROWS.filter((row) => instructionClass(row) === 'traps');

const EXCLUSIVE_PAIRS = [
  ['LDXR', 'STXR'],
  ['LDAXR', 'STLXR'],
  ['LDXP', 'STXP'],
  ['LDAXP', 'STLXP'],
].map(([load, store]) => [rowOf(load), rowOf(store)] as const);

function rowOf(name: string | undefined): Instruction {
  const row = ALL_ROWS.find((each) => each.name === name);
  if (!row) throw new RangeError(`no A64 instruction ${name}`);
  return row;
}

/** Random words with their registers. The first word clears the exclusive monitor. */
export function randomSequence(random: Random, layout: SequenceLayout): Sequence {
  const length = 8 + random.below(9);
  const words = [CLREX];
  while (words.length < length) {
    if (random.below(16) === 0) words.push(...exclusivePair(random));
    else words.push(randomElement(random, Math.max(1, length - words.length)));
  }
  return { words, registers: randomRegisters(random, layout, words.length) };
}

/** A load exclusive, mostly something else, and the store exclusive that fits: alone they rarely meet. */
function exclusivePair(random: Random): number[] {
  const [load, store] = random.pick(EXCLUSIVE_PAIRS);
  const Rn = random.pick(BASES);
  const same = { Rn, size: random.below(4), sf: random.below(2) };
  const first = withFields(randomWordOf(random, load, FREE), load, same);
  const last = withFields(randomWordOf(random, store, FREE), store, same);
  if (random.below(4) === 0) return [first, last];
  const rows = random.below(2) === 0 ? DATA_ROWS : MEMORY_ROWS;
  const row = random.pick(rows);
  const between = rows === DATA_ROWS ? randomWordOf(random, row, FREE) : memoryWord(random, row);
  return [first, between, last];
}

/** @param left words from this one to the end of the sequence. */
function randomElement(random: Random, left: number): number {
  const kind = random.below(100);
  if (kind < 50) return randomWordOf(random, random.pick(DATA_ROWS), FREE);
  if (kind < 83) return memoryWord(random, random.pick(MEMORY_ROWS));
  if (kind < 92) return branchWord(random, random.pick(BRANCH_ROWS), left);
  if (kind < 95) return systemWord(random, random.pick(SYSTEM_ROWS));
  if (kind < 98) return randomWordOf(random, random.pick(HINT_ROWS), FREE);
  if (kind < 99) return randomWordOf(random, random.pick(TRAP_ROWS), FREE);
  return random.u32();
}

/** `word` with some fields replaced, or as it was when that is no longer the same instruction. */
function withFields(
  word: number,
  row: Instruction,
  values: Readonly<Record<string, number>>,
): number {
  let changed = word;
  for (const { name, lsb, width } of row.fields) {
    const value = values[name];
    if (value === undefined) continue;
    const mask = (2 ** width - 1) << lsb;
    changed = (changed & ~mask) | ((value << lsb) & mask);
  }
  return decode(changed)?.row === row ? changed >>> 0 : word;
}

function memoryWord(random: Random, row: Instruction): number {
  const word = randomWordOf(random, row, FREE);
  return withFields(word, row, { Rn: random.pick(BASES), ...indexField(random, row) });
}

function indexField(random: Random, row: Instruction): Readonly<Record<string, number>> {
  return row.fields.some(({ name }) => name === 'Rm') ? { Rm: random.pick(INDEXES) } : {};
}

function branchWord(random: Random, row: Instruction, left: number): number {
  const word = randomWordOf(random, row, FREE);
  // 1 in 16 goes a step back
  const distance = random.below(16) === 0 ? -1 : 1 + random.below(left);
  const values = {
    imm26: distance,
    imm19: distance,
    imm14: distance,
    ...(row.sem.kind === 'branchRegister' ? { Rn: random.pick(TARGETS) } : {}),
  };
  return withFields(word, row, values);
}

function systemWord(random: Random, row: Instruction): number {
  const word = randomWordOf(random, row, FREE);
  if (row.sem.kind !== 'readSystem' && row.sem.kind !== 'writeSystem') return word;
  return withFields(word, row, { ...random.pick(SYSTEM_REGISTERS) });
}

function randomValue(random: Random): bigint {
  switch (random.below(4)) {
    case 0:
      return random.pick(EXTREMES);
    case 1:
      return BigInt(random.below(256));
    case 2:
      return BigInt(random.u32());
    default:
      return random.u64();
  }
}

function randomRegisters(random: Random, layout: SequenceLayout, length: number): Registers {
  const x = Array.from({ length: 31 }, () => randomValue(random));
  for (const base of BASES) if (base < 31) x[base] = randomBase(random, layout);
  for (const index of INDEXES) x[index] = BigInt.asUintN(64, BigInt(random.below(512) - 128));
  for (const target of TARGETS) {
    x[target] = layout.text + BigInt(4 * (1 + random.below(length)));
  }
  return {
    x,
    sp: randomBase(random, layout) & ~15n,
    pc: layout.text,
    nzcv: random.below(16),
    system: {
      sp_el0: randomValue(random),
      tpidr_el0: randomValue(random),
      tpidr_el1: randomValue(random),
      tpidr_el2: randomValue(random),
    },
  };
}

function randomBase(random: Random, { data, dataSize }: SequenceLayout): bigint {
  switch (random.below(16)) {
    case 0:
      // across or behind the end
      return data + BigInt(dataSize - random.below(40));
    case 1:
      return data + BigInt(1024 + random.below(4096));
    case 2:
      return data + BigInt(random.below(64) * 16);
    default:
      return data + BigInt(1024 + 16 * random.below(256));
  }
}

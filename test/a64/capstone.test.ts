import { beforeAll, describe, expect, test } from 'vitest';
import { hex32 } from '../../src/common/bytes.js';
import { Random } from '../../src/common/random.js';
import { decode } from '../../src/a64/codec.js';
import { randomWordOf } from '../../src/a64/generate.js';
import { print } from '../../src/a64/print.js';
import { INSTRUCTIONS } from '../../src/a64/table.js';
import { capstonePrinter, jitWords } from './words.js';

const PC = 0xffff800080010000n;

/** `#-4` as `#0xfffffffffffffffc`. */
function unsigned(text: string): string {
  return text.replace(/#-(0x[0-9a-f]+|\d+)/g, (_, n: string) => {
    return `#0x${BigInt.asUintN(64, -BigInt(n)).toString(16)}`;
  });
}

/**
 * Where Capstone 5 writes something else than the manual's preferred form, and why that is known.
 */
const EXCEPTIONS: readonly {
  readonly rows: RegExp;
  readonly why: string;
  readonly explains: (ours: string, capstone: string) => boolean;
}[] = [
  {
    rows: /^ANDS_immediate$/,
    why: 'prints 64-bit masks of TST and ANDS as negative numbers, those of AND unsigned',
    explains: (ours, theirs) => ours === unsigned(theirs),
  },
  {
    rows: /^ANDS_immediate$/,
    why: 'puts a minus sign before the unsigned digits of INT32_MIN',
    explains: (ours, theirs) => ours.replace('#', '#-') === theirs && ours.endsWith('ffff80000000'),
  },
  {
    rows: /_post$/,
    why: 'prints a negative post-index offset unsigned, a pre-index one signed',
    explains: (ours, theirs) => unsigned(ours) === theirs,
  },
  {
    rows: /^LDTR/,
    why: 'takes LDTR with Rt = Rn for a writeback form',
    explains: (_, theirs) => theirs === 'none',
  },
  {
    rows: /^PRF/,
    why: 'leaves unnamed prefetch operations out',
    explains: (ours, theirs) => ours.replace(/(prfu?m) #\w+/, '$1 ') === theirs,
  },
  {
    rows: /^DSB$/,
    why: 'names CRm 12 by its Armv8-R alias',
    explains: (ours, theirs) => ours === 'dsb #0xc' && theirs === 'dfb',
  },
  {
    rows: /^(MRS|MSR_register)$/,
    why: 'names system registers that our list leaves out',
    explains: (ours) => /s[23]_\d_c\d+_c\d+_\d/.test(ours),
  },
  {
    rows: /^ORR_immediate$/,
    why: 'writes MOV also where the manual leaves it to MOVZ and MOVN (as LLVM does, it prints ORR)',
    explains: (ours, theirs) =>
      ours.replace(/^orr (\w+), [wx]zr,/, 'mov $1,') === theirs || unsigned(theirs) === ours,
  },
];

let capstone: (word: number, pc: bigint) => string;

beforeAll(async () => {
  capstone = await capstonePrinter();
});

function disagreement(word: number): string | undefined {
  const ours = print(word, PC);
  const theirs = capstone(word, PC);
  if (ours === theirs) return undefined;
  const name = decode(word)?.row.name ?? '';
  if (EXCEPTIONS.some(({ rows, explains }) => rows.test(name) && explains(ours, theirs))) {
    return undefined;
  }
  return `${hex32(word)} ${name}: ours '${ours}', Capstone '${theirs}'`;
}

describe('printer against Capstone', () => {
  test('every word of the JIT vectors', () => {
    const words = jitWords();
    expect(words.length).toBeGreaterThan(17_000);
    expect(words.map(disagreement).filter((text) => text !== undefined)).toEqual([]);
  });

  test.each(INSTRUCTIONS.map((row) => row.name))('random words of %s', (name) => {
    const row = INSTRUCTIONS.find((candidate) => candidate.name === name);
    if (!row) throw new Error(name);
    const random = new Random(7);
    const words = Array.from({ length: 60 }, () => randomWordOf(random, row));
    expect(words.map(disagreement).filter((text) => text !== undefined)).toEqual([]);
  });
});

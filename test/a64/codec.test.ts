import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { hex32 } from '../../src/common/bytes.js';
import { Random } from '../../src/common/random.js';
import { decode, encode } from '../../src/a64/codec.js';
import { randomWordOf } from '../../src/a64/generate.js';
import { print } from '../../src/a64/print.js';
import type { Fields } from '../../src/a64/row.js';
import { systemRegisterFields } from '../../src/a64/system-registers.js';
import { INSTRUCTIONS } from '../../src/a64/table.js';
import { jitWords } from './words.js';

/** Encodings checked with binutils and llvm-mc. */
const KNOWN: readonly (readonly [word: number, name: string, fields: Fields, text: string])[] = [
  [0xd503201f, 'NOP', {}, 'nop'],
  [0xaa1e03e9, 'ORR_shifted', { sf: 1, shift: 0, Rm: 30, imm6: 0, Rn: 31, Rd: 9 }, 'mov x9, x30'],
  [0xaa0903fe, 'ORR_shifted', { sf: 1, shift: 0, Rm: 9, imm6: 0, Rn: 31, Rd: 30 }, 'mov x30, x9'],
  [0xd503245f, 'BTI', { targets: 1 }, 'bti c'],
  [0xd503249f, 'BTI', { targets: 2 }, 'bti j'],
  [0xd50324df, 'BTI', { targets: 3 }, 'bti jc'],
  [0xd503233f, 'PACIASP', {}, 'paciasp'],
  [0xd50323bf, 'AUTIASP', {}, 'autiasp'],
  [0xd65f03c0, 'RET', { Rn: 30 }, 'ret'],
  [0xd65f0120, 'RET', { Rn: 9 }, 'ret x9'],
  [0xd61f0140, 'BR', { Rn: 10 }, 'br x10'],
  [0xd63f0140, 'BLR', { Rn: 10 }, 'blr x10'],
  [
    0x927df3cb,
    'AND_immediate',
    { sf: 1, N: 1, immr: 61, imms: 60, Rn: 30, Rd: 11 },
    'and x11, x30, #0xfffffffffffffff8',
  ],
  [0xf85f016b, 'LDUR', { sf: 1, imm9: -16, Rn: 11, Rt: 11 }, 'ldur x11, [x11, #-0x10]'],
  [0x5800004a, 'LDR_literal', { sf: 1, imm19: 2, Rt: 10 }, 'ldr x10, #0x1008'],
  [0x1000005e, 'ADR', { immlo: 0, immhi: 2, Rd: 30 }, 'adr x30, #0x1008'],
  [
    0xa9bf27fd,
    'STP_pre',
    { sf: 1, imm7: -2, Rt2: 9, Rn: 31, Rt: 29 },
    'stp x29, x9, [sp, #-0x10]!',
  ],
  [
    0xa8c17bfd,
    'LDP_post',
    { sf: 1, imm7: 2, Rt2: 30, Rn: 31, Rt: 29 },
    'ldp x29, x30, [sp], #0x10',
  ],
  [
    0xa9bf6bff,
    'STP_pre',
    { sf: 1, imm7: -2, Rt2: 26, Rn: 31, Rt: 31 },
    'stp xzr, x26, [sp, #-0x10]!',
  ],
  [
    0xa8c16bff,
    'LDP_post',
    { sf: 1, imm7: 2, Rt2: 26, Rn: 31, Rt: 31 },
    'ldp xzr, x26, [sp], #0x10',
  ],
  [0x910003fd, 'ADD_immediate', { sf: 1, sh: 0, imm12: 0, Rn: 31, Rd: 29 }, 'mov x29, sp'],
  [0x910003bf, 'ADD_immediate', { sf: 1, sh: 0, imm12: 0, Rn: 29, Rd: 31 }, 'mov sp, x29'],
  [0x94000000, 'BL', { imm26: 0 }, 'bl #0x1000'],
  [0x95ffffff, 'BL', { imm26: 0x1ffffff }, 'bl #0x8000ffc'],
  [0x96000000, 'BL', { imm26: -0x2000000 }, 'bl #0xfffffffff8001000'],
  [0x14000002, 'B', { imm26: 2 }, 'b #0x1008'],
  [0xd4202000, 'BRK', { imm16: 0x100 }, 'brk #0x100'],
  [0xd5033fdf, 'ISB', { CRm: 15 }, 'isb'],
  [0xd5033b9f, 'DSB', { CRm: 11 }, 'dsb ish'],
  [0xd538410a, 'MRS', { ...systemRegisterFields('sp_el0'), Rt: 10 }, 'mrs x10, sp_el0'],
];

/** Words that are no instruction, with the rule that makes them so. */
const RESERVED: readonly (readonly [why: string, word: number])[] = [
  ['add shifted with shift 11', 0x8bc00000],
  ['32-bit add shifted by 32', 0x0b008000],
  ['add extended by 5', 0x8b201400],
  ['32-bit and with N set', 0x12400000],
  ['logical mask of all ones', 0x9240fc00],
  ['32-bit movz lsl #32', 0x52c00000],
  ['64-bit ubfm with N clear', 0xd3000000],
  ['32-bit extr with imms 32', 0x13808000],
  ['ldr post with Rn = Rt', 0xf8408400],
  ['str pre with Rn = Rt', 0xf8008c21],
  ['ldp with Rt = Rt2', 0xa9400400 & ~0x7c00],
  ['stp pre with Rn = Rt2', 0xa9bf0421 & ~0x1f],
  ['stxr with Rs = Rt', 0xc8007c20],
  ['stxr with Rs = Rn', 0xc8017c20],
  ['casp with odd Rs', 0x48217c40],
  ['ldr register with option 0', 0xf8600800],
  ['fadd (floating point)', 0x1e622820],
  ['all ones', 0xffffffff],
];

describe('encode and decode', () => {
  test.each(KNOWN)('%i is %s', (word, name, fields, text) => {
    expect(hex32(encode(name, fields))).toBe(hex32(word));
    expect(decode(word)).toMatchObject({ row: { name }, fields });
    expect(print(word, 0x1000n)).toBe(text);
  });

  test.each(RESERVED)('%s does not decode', (_, word) => {
    expect(decode(word)?.row.name).toBeUndefined();
    expect(print(word, 0n)).toBe(`.inst 0x${hex32(word)}`);
  });

  test('every word of the JIT vectors encodes back to itself', () => {
    const wrong = jitWords().filter((word) => {
      const decoded = decode(word);
      return !decoded || encode(decoded.row.name, decoded.fields) !== word;
    });
    expect(wrong.map(hex32)).toEqual([]);
  });

  test('random words of every row encode back to themselves', () => {
    const rows = fc.constantFrom(...INSTRUCTIONS);
    const property = fc.property(rows, fc.integer(), (row, seed) => {
      const word = randomWordOf(new Random(seed), row);
      const decoded = decode(word);
      expect(decoded?.row.name).toBe(row.name);
      expect(encode(row.name, decoded?.fields ?? {})).toBe(word);
    });
    fc.assert(property, { numRuns: 5000, seed: 1 });
  });

  test('any word that decodes encodes back to itself', () => {
    const property = fc.property(fc.nat(0xffffffff), (word) => {
      const decoded = decode(word);
      if (decoded) expect(encode(decoded.row.name, decoded.fields)).toBe(word);
    });
    fc.assert(property, { numRuns: 20_000, seed: 1 });
  });

  test('names of rows are unique', () => {
    expect(new Set(INSTRUCTIONS.map((row) => row.name)).size).toBe(INSTRUCTIONS.length);
  });
});

describe('encode refuses', () => {
  const add = { sf: 1, sh: 0, imm12: 0, Rn: 0, Rd: 0 };
  test.each([
    ['ADD_immediate', { ...add, imm12: 4096 }, 'ADD_immediate: imm12 = 4096 does not fit 12 bits'],
    ['ADD_immediate', { ...add, imm12: -1 }, 'ADD_immediate: imm12 = -1 does not fit 12 bits'],
    ['ADD_immediate', { ...add, imm12: 0.5 }, 'ADD_immediate: imm12 = 0.5 does not fit 12 bits'],
    ['BL', { imm26: 0x2000000 }, 'BL: imm26 = 33554432 does not fit 26 bits'],
    ['RET', {}, 'RET: field Rn is missing'],
    ['NOP', { Rn: 1 }, 'NOP: no field Rn'],
    ['FADD', {}, 'no A64 instruction FADD'],
    ['MOVZ', { sf: 0, hw: 2, imm16: 1, Rd: 0 }, 'MOVZ: reserved encoding 52c00020'],
  ] as const)('%s %j', (name, fields, message) => {
    expect(() => encode(name, fields)).toThrow(RangeError);
    expect(() => encode(name, fields)).toThrow(message);
  });
});

import { describe, expect, test } from 'vitest';
import { encode } from '../../src/a64/codec.js';
import { print } from '../../src/a64/print.js';
import type { Fields } from '../../src/a64/row.js';
import { systemRegisterFields } from '../../src/a64/system-registers.js';
import { DATA, machine, TEXT } from './embedded-machine.js';

/**
 * Registers by number, `sp`, `nzcv`, `pc` (offset from the instruction) and `m`: 64 bits at DATA +
 * 64.
 */
interface State {
  readonly [register: number]: bigint;
  readonly sp?: bigint;
  readonly nzcv?: number;
  readonly pc?: number;
  readonly m?: bigint;
  readonly m2?: bigint;
}

type Case = readonly [name: string, fields: Fields, before: State, after: State];

const TOP = 1n << 63n;
const ALL = (1n << 64n) - 1n;
const rr = { Rd: 0, Rn: 1, Rm: 2 };
const x3 = { sf: 1, ...rr };
const w3 = { sf: 0, ...rr };
const at = DATA + 64n;

const ARITHMETIC: readonly Case[] = [
  ['ADD_immediate', { sf: 1, sh: 1, imm12: 1, Rn: 31, Rd: 31 }, { sp: 5n }, { sp: 0x1005n }],
  ['ADD_immediate', { sf: 0, sh: 0, imm12: 1, Rn: 1, Rd: 0 }, { 1: ALL }, { 0: 0n }],
  ['SUB_immediate', { sf: 1, sh: 0, imm12: 16, Rn: 1, Rd: 0 }, { 1: 15n }, { 0: ALL }],
  ['ADDS_immediate', { sf: 1, sh: 0, imm12: 1, Rn: 1, Rd: 0 }, { 1: ALL }, { 0: 0n, nzcv: 6 }],
  ['SUBS_immediate', { sf: 1, sh: 0, imm12: 1, Rn: 1, Rd: 0 }, { 1: 0n }, { 0: ALL, nzcv: 8 }],
  ['SUBS_immediate', { sf: 0, sh: 0, imm12: 1, Rn: 1, Rd: 31 }, { 1: 0x80000000n }, { nzcv: 3 }],
  ['ADD_shifted', { ...x3, shift: 0, imm6: 40 }, { 1: 1n, 2: 3n }, { 0: (3n << 40n) + 1n }],
  ['ADDS_shifted', { ...x3, shift: 0, imm6: 0 }, { 1: TOP, 2: TOP }, { 0: 0n, nzcv: 7 }],
  ['SUB_shifted', { ...x3, shift: 2, imm6: 4 }, { 1: 0n, 2: TOP }, { 0: 1n << 59n }],
  [
    'SUBS_shifted',
    { ...x3, shift: 0, imm6: 0 },
    { 1: 1n << 32n, 2: 1n },
    { 0: 0xffffffffn, nzcv: 2 },
  ],
  ['SUBS_shifted', { ...w3, shift: 0, imm6: 0 }, { 1: 5n, 2: 5n }, { 0: 0n, nzcv: 6 }],
  ['ADD_extended', { ...x3, option: 4, imm3: 2 }, { 1: 100n, 2: 0xffn }, { 0: 96n }],
  ['ADD_extended', { ...x3, Rn: 31, option: 2, imm3: 0 }, { sp: 1n, 2: ALL }, { 0: 1n << 32n }],
  ['SUBS_extended', { ...w3, Rd: 31, option: 1, imm3: 0 }, { 1: 0xffffn, 2: ALL }, { nzcv: 6 }],
  ['ADC', x3, { 1: ALL, 2: 0n, nzcv: 2 }, { 0: 0n, nzcv: 2 }],
  ['SBCS', x3, { 1: 0n, 2: 0n, nzcv: 0 }, { 0: ALL, nzcv: 8 }],
  ['MADD', { ...x3, Ra: 3 }, { 1: ALL, 2: 2n, 3: 5n }, { 0: 3n }],
  ['MSUB', { ...w3, Ra: 3 }, { 1: 3n, 2: 4n, 3: 2n }, { 0: 0xfffffff6n }],
  ['SMADDL', { ...rr, Ra: 31 }, { 1: 0xffffffffn, 2: 7n }, { 0: ALL - 6n }],
  ['UMSUBL', { ...rr, Ra: 3 }, { 1: 0xffffffffn, 2: 2n, 3: 0n }, { 0: ALL - 0x1fffffffdn }],
  ['SMULH', rr, { 1: ALL, 2: 2n }, { 0: ALL }],
  ['UMULH', rr, { 1: ALL, 2: 2n }, { 0: 1n }],
  ['UDIV', x3, { 1: ALL, 2: 0n }, { 0: 0n }],
  ['UDIV', w3, { 1: 0xffffffffn, 2: 2n }, { 0: 0x7fffffffn }],
  ['SDIV', x3, { 1: TOP, 2: ALL }, { 0: TOP }],
  ['SDIV', w3, { 1: 0xfffffff9n, 2: 2n }, { 0: 0xfffffffdn }],
];

const LOGIC: readonly Case[] = [
  ['AND_immediate', { sf: 1, N: 1, immr: 61, imms: 60, Rn: 1, Rd: 0 }, { 1: 15n }, { 0: 8n }],
  [
    'ORR_immediate',
    { sf: 0, N: 0, immr: 0, imms: 0, Rn: 1, Rd: 0 },
    { 1: TOP },
    { 0: 0x00000001n },
  ],
  [
    'ANDS_immediate',
    { sf: 1, N: 1, immr: 1, imms: 0, Rn: 1, Rd: 31 },
    { 1: TOP, nzcv: 3 },
    { nzcv: 8 },
  ],
  ['BIC_shifted', { ...x3, shift: 0, imm6: 0 }, { 1: 15n, 2: 5n }, { 0: 10n }],
  ['ORN_shifted', { ...w3, shift: 0, imm6: 0 }, { 1: 0n, 2: 1n }, { 0: 0xfffffffen }],
  ['EOR_shifted', { ...x3, shift: 3, imm6: 1 }, { 1: 0n, 2: 1n }, { 0: TOP }],
  ['ANDS_shifted', { ...w3, shift: 0, imm6: 0 }, { 1: TOP, 2: TOP, nzcv: 1 }, { 0: 0n, nzcv: 4 }],
  ['MOVN', { sf: 1, hw: 1, imm16: 1, Rd: 0 }, {}, { 0: ALL - 0x10000n }],
  ['MOVN', { sf: 0, hw: 0, imm16: 0, Rd: 0 }, {}, { 0: 0xffffffffn }],
  ['MOVK', { sf: 1, hw: 3, imm16: 0xabcd, Rd: 0 }, { 0: 1n }, { 0: 0xabcd000000000001n }],
  ['MOVK', { sf: 0, hw: 1, imm16: 1, Rd: 0 }, { 0: ALL }, { 0: 0x1ffffn }],
  ['UBFM', { sf: 1, N: 1, immr: 60, imms: 59, Rn: 1, Rd: 0 }, { 1: ALL }, { 0: ALL - 15n }],
  ['UBFM', { sf: 0, N: 0, immr: 28, imms: 3, Rn: 1, Rd: 0 }, { 1: 0xffn }, { 0: 0xf0n }],
  ['SBFM', { sf: 1, N: 1, immr: 8, imms: 15, Rn: 1, Rd: 0 }, { 1: 0x8000n }, { 0: ALL - 127n }],
  ['SBFM', { sf: 0, N: 0, immr: 0, imms: 7, Rn: 1, Rd: 0 }, { 1: 0x80n }, { 0: 0xffffff80n }],
  [
    'BFM',
    { sf: 1, N: 1, immr: 56, imms: 7, Rn: 1, Rd: 0 },
    { 0: ALL, 1: 0n },
    { 0: ALL - 0xff00n },
  ],
  ['BFM', { sf: 0, N: 0, immr: 4, imms: 7, Rn: 1, Rd: 0 }, { 0: 0n, 1: 0xa0n }, { 0: 10n }],
  ['EXTR', { ...x3, N: 1, imms: 4 }, { 1: 1n, 2: 0x20n }, { 0: (1n << 60n) | 2n }],
  ['LSLV', x3, { 1: 1n, 2: 65n }, { 0: 2n }],
  ['ASRV', x3, { 1: TOP, 2: 63n }, { 0: ALL }],
  ['RORV', w3, { 1: 1n, 2: 1n }, { 0: 0x80000000n }],
  ['RBIT', { sf: 1, Rn: 1, Rd: 0 }, { 1: 1n }, { 0: TOP }],
  ['REV16', { sf: 1, Rn: 1, Rd: 0 }, { 1: 0x1122334455667788n }, { 0: 0x2211443366558877n }],
  ['REV32', { Rn: 1, Rd: 0 }, { 1: 0x1122334455667788n }, { 0: 0x4433221188776655n }],
  ['REV_64', { Rn: 1, Rd: 0 }, { 1: 0x1122334455667788n }, { 0: 0x8877665544332211n }],
  ['REV_32', { Rn: 1, Rd: 0 }, { 1: 0x1122334455667788n }, { 0: 0x88776655n }],
  ['CLZ', { sf: 1, Rn: 1, Rd: 0 }, { 1: 1n }, { 0: 63n }],
  ['CLS', { sf: 0, Rn: 1, Rd: 0 }, { 1: 0xffffffffn }, { 0: 31n }],
  // check values of CRC-32 and CRC-32C for the byte 0x31 from an all-ones state
  [
    'CRC32',
    { sf: 0, Rm: 2, C: 0, sz: 0, Rn: 1, Rd: 0 },
    { 1: 0xffffffffn, 2: 0x31n },
    { 0: 0x7c231048n },
  ],
  ['CSEL', { ...x3, cond: 0 }, { 1: 1n, 2: 2n, nzcv: 4 }, { 0: 1n }],
  ['CSINC', { ...w3, cond: 1 }, { 1: 1n, 2: 0xffffffffn, nzcv: 4 }, { 0: 0n }],
  ['CSNEG', { ...x3, cond: 12 }, { 1: 1n, 2: 1n, nzcv: 8 }, { 0: ALL }],
  ['CCMP_immediate', { sf: 1, imm5: 3, cond: 0, Rn: 1, nzcv: 5 }, { 1: 3n, nzcv: 4 }, { nzcv: 6 }],
  ['CCMN_register', { sf: 1, Rm: 2, cond: 0, Rn: 1, nzcv: 5 }, { nzcv: 0 }, { nzcv: 5 }],
  ['ADR', { immlo: 1, immhi: -1, Rd: 0 }, {}, { 0: TEXT - 3n }],
  ['ADRP', { immlo: 1, immhi: 0, Rd: 0 }, {}, { 0: TEXT + 4096n }],
];

const BRANCHES: readonly Case[] = [
  ['B', { imm26: -1 }, {}, { pc: -4 }],
  ['BL', { imm26: 2 }, {}, { pc: 8, 30: TEXT + 4n }],
  ['B_cond', { imm19: 2, cond: 8 }, { nzcv: 2 }, { pc: 8 }],
  ['B_cond', { imm19: 2, cond: 8 }, { nzcv: 6 }, { pc: 4 }],
  ['B_cond', { imm19: 2, cond: 15 }, {}, { pc: 8 }],
  ['CBZ', { sf: 0, imm19: 2, Rt: 0 }, { 0: 1n << 32n }, { pc: 8 }],
  ['CBZ', { sf: 1, imm19: 2, Rt: 0 }, { 0: 1n << 32n }, { pc: 4 }],
  ['CBNZ', { sf: 1, imm19: 2, Rt: 31 }, {}, { pc: 4 }],
  ['TBZ', { b5: 1, b40: 31, imm14: 2, Rt: 0 }, { 0: TOP }, { pc: 4 }],
  ['TBNZ', { b5: 1, b40: 31, imm14: 2, Rt: 0 }, { 0: TOP }, { pc: 8 }],
  ['BLR', { Rn: 30 }, { 30: TEXT + 64n }, { pc: 64, 30: TEXT + 4n }],
  ['RET', { Rn: 9 }, { 9: TEXT + 64n }, { pc: 64 }],
];

const MEMORY: readonly Case[] = [
  [
    'LDR_unsigned',
    { sf: 1, imm12: 2, Rn: 1, Rt: 0 },
    { 1: at - 16n, m: ALL - 1n },
    { 0: ALL - 1n },
  ],
  ['LDUR', { sf: 0, imm9: -3, Rn: 1, Rt: 0 }, { 1: at + 4n, m: ALL }, { 0: 0xffffffffn }],
  [
    'LDRSB_post',
    { opc0: 1, imm9: -1, Rn: 1, Rt: 0 },
    { 1: at, m: 0x80n },
    { 0: 0xffffff80n, 1: at - 1n },
  ],
  [
    'LDRSH_pre',
    { opc0: 0, imm9: 2, Rn: 1, Rt: 0 },
    { 1: at, m: 0x80000000n },
    { 0: ALL - 0x7fffn, 1: at + 2n },
  ],
  [
    'LDRSW_unsigned',
    { imm12: 0, Rn: 1, Rt: 0 },
    { 1: at, m: 0x80000000n },
    { 0: ALL - 0x7fffffffn },
  ],
  [
    'LDR_register',
    { sf: 1, Rm: 2, option: 6, S: 1, Rn: 1, Rt: 0 },
    { 1: at + 8n, 2: 0xffffffffn, m: 7n },
    { 0: 7n },
  ],
  [
    'STRB_register',
    { Rm: 2, option: 3, S: 0, Rn: 1, Rt: 0 },
    { 0: ALL, 1: at - 1n, 2: 2n },
    { m: 0xff00n },
  ],
  ['STR_pre', { sf: 1, imm9: -16, Rn: 31, Rt: 0 }, { 0: 5n, sp: at + 16n }, { sp: at, m: 5n }],
  ['STR_unsigned', { sf: 1, imm12: 0, Rn: 1, Rt: 31 }, { 1: at, m: 1n }, { m: 0n }],
  ['STRH_post', { imm9: 255, Rn: 1, Rt: 0 }, { 0: ALL, 1: at }, { m: 0xffffn, 1: at + 255n }],
  [
    'STP_pre',
    { sf: 1, imm7: -2, Rt2: 3, Rn: 31, Rt: 2 },
    { 2: 1n, 3: 2n, sp: at + 16n },
    { sp: at, m: 1n, m2: 2n },
  ],
  [
    'LDP_post',
    { sf: 1, imm7: 2, Rt2: 3, Rn: 31, Rt: 31 },
    { sp: at, m: 1n, m2: 2n },
    { sp: at + 16n, 3: 2n },
  ],
  [
    'LDP_offset',
    { sf: 0, imm7: 1, Rt2: 3, Rn: 1, Rt: 1 },
    { 1: at - 4n, m: 0x200000001n },
    { 1: 1n, 3: 2n },
  ],
  [
    'LDPSW_post',
    { imm7: -1, Rt2: 3, Rn: 1, Rt: 2 },
    { 1: at, m: ALL },
    { 1: at - 4n, 2: ALL, 3: ALL },
  ],
  ['STNP', { sf: 1, imm7: 0, Rt2: 31, Rn: 1, Rt: 2 }, { 1: at, 2: 9n, m2: 1n }, { m: 9n, m2: 0n }],
  ['LDAR', { size: 1, Rn: 1, Rt: 0 }, { 1: at, m: ALL }, { 0: 0xffffn }],
  ['STLR', { size: 2, Rn: 1, Rt: 0 }, { 0: ALL, 1: at }, { m: 0xffffffffn }],
  [
    'LDADD',
    { size: 3, A: 1, R: 1, Rs: 2, Rn: 1, Rt: 0 },
    { 1: at, 2: 3n, m: ALL },
    { 0: ALL, m: 2n },
  ],
  [
    'LDADD',
    { size: 0, A: 0, R: 0, Rs: 2, Rn: 1, Rt: 31 },
    { 1: at, 2: 1n, m: 0xffffn },
    { m: 0xff00n },
  ],
  [
    'LDCLR',
    { size: 3, A: 0, R: 0, Rs: 2, Rn: 1, Rt: 0 },
    { 1: at, 2: 3n, m: 7n },
    { 0: 7n, m: 4n },
  ],
  [
    'LDSMAX',
    { size: 0, A: 0, R: 0, Rs: 2, Rn: 1, Rt: 0 },
    { 1: at, 2: 0xf8n, m: 0n },
    { 0: 0n, m: 0n },
  ],
  [
    'LDUMIN',
    { size: 1, A: 0, R: 0, Rs: 2, Rn: 1, Rt: 0 },
    { 1: at, 2: 0x10002n, m: 3n },
    { 0: 3n, m: 2n },
  ],
  [
    'SWP',
    { size: 2, A: 0, R: 0, Rs: 2, Rn: 1, Rt: 2 },
    { 1: at, 2: 5n, m: ALL },
    { 2: 0xffffffffn, m: (0xffffffffn << 32n) | 5n },
  ],
  [
    'CAS',
    { size: 3, L: 1, o0: 1, Rs: 2, Rn: 1, Rt: 3 },
    { 1: at, 2: 5n, 3: 6n, m: 5n },
    { 2: 5n, m: 6n },
  ],
  [
    'CAS',
    { size: 3, L: 0, o0: 0, Rs: 2, Rn: 1, Rt: 3 },
    { 1: at, 2: 4n, 3: 6n, m: 5n },
    { 2: 5n, m: 5n },
  ],
  [
    'CASP',
    { sf: 1, L: 0, o0: 0, Rs: 2, Rn: 1, Rt: 4 },
    { 1: at, 2: 1n, 3: 2n, 4: 3n, 5: 4n, m: 1n, m2: 2n },
    { m: 3n, m2: 4n },
  ],
];

const SYSTEM: readonly Case[] = [
  ['PACIASP', {}, { 30: TEXT }, { 30: TEXT }],
  ['XPACLRI', {}, { 30: 0x12ff800080000004n }, { 30: 0xffff800080000004n }],
  ['MRS', { ...systemRegisterFields('nzcv'), Rt: 0 }, { nzcv: 10 }, { 0: 0xa0000000n }],
  ['MSR_register', { ...systemRegisterFields('nzcv'), Rt: 0 }, { 0: 0x50000000n }, { nzcv: 5 }],
  ['MRS', { ...systemRegisterFields('currentel'), Rt: 0 }, {}, { 0: 4n }],
];

function run([name, fields, before, after]: Case): void {
  const { memory, cpu } = machine([encode(name, fields)]);
  for (const [register, value] of Object.entries(before)) {
    if (/^\d+$/.test(register)) cpu.setX(Number(register), value as bigint);
  }
  cpu.sp = before.sp ?? cpu.sp;
  cpu.nzcv = before.nzcv ?? 0;
  memory.write64(at, before.m ?? 0n);
  memory.write64(at + 8n, before.m2 ?? 0n);
  const start = cpu.saveRegisters();
  expect(cpu.step()).toEqual({ kind: 'budget' });
  expect(cpu.saveRegisters()).toEqual({
    x: start.x.map((value, register) => after[register] ?? value),
    sp: after.sp ?? start.sp,
    pc: TEXT + BigInt(after.pc ?? 4),
    nzcv: after.nzcv ?? start.nzcv,
    system: start.system,
  });
  expect(memory.read64(at)).toBe(after.m ?? before.m ?? 0n);
  expect(memory.read64(at + 8n)).toBe(after.m2 ?? before.m2 ?? 0n);
}

const named = (cases: readonly Case[]): [string, Case][] =>
  cases.map((row) => [print(encode(row[0], row[1]), TEXT), row]);

describe('one instruction', () => {
  test.each(named(ARITHMETIC))('%s', (_, row) => run(row));
  test.each(named(LOGIC))('%s', (_, row) => run(row));
  test.each(named(BRANCHES))('%s', (_, row) => run(row));
  test.each(named(MEMORY))('%s', (_, row) => run(row));
  test.each(named(SYSTEM))('%s', (_, row) => run(row));
});

/**
 * The A64 instructions that the JIT and the trampolines use, each as a function that gives its word.
 *
 * A thin layer over the one table of `a64/`: here arguments are in the order of assembly text, aliases
 * have their names, and immediates are checked and scaled (aarch64_insn_gen_*() in the kernel). `sf` is 1
 * for X registers and 0 for W; `size` is the log2 of an access's bytes. Branch distances are in words.
 *
 * Usage:
 *   stpPreIndex(29, 30, SP, -16)      // stp x29, x30, [sp, #-16]!
 *   subsImmediate(0, ZR, 3, 33)       // cmp w3, #33
 */
import { encode } from '../a64/codec.js';

export const FP = 29;
export const LR = 30;
/** Register 31 is SP or ZR, by instruction. */
export const SP = 31;
export const ZR = 31;

const CONDITIONS = [
  'eq',
  'ne',
  'cs',
  'cc',
  'mi',
  'pl',
  'vs',
  'vc',
  'hi',
  'ls',
  'ge',
  'lt',
  'gt',
  'le',
] as const;
export type Condition = (typeof CONDITIONS)[number];

// Add and subtract, immediate: 12 bits, or 12 bits shifted left by 12.

function addSub(name: string, sf: number, rd: number, rn: number, imm: number): number {
  const sh = (imm & ~0xfff) === 0 ? 0 : 1;
  if (sh === 1 && (imm & ~0xfff000) !== 0) throw new RangeError(`${name}: immediate ${imm}`);
  return encode(name, { sf, sh, imm12: sh ? imm >>> 12 : imm, Rn: rn, Rd: rd });
}
export function addImmediate(sf: number, rd: number, rn: number, imm: number): number {
  return addSub('ADD_immediate', sf, rd, rn, imm);
}
export function addsImmediate(sf: number, rd: number, rn: number, imm: number): number {
  return addSub('ADDS_immediate', sf, rd, rn, imm);
}
export function subImmediate(sf: number, rd: number, rn: number, imm: number): number {
  return addSub('SUB_immediate', sf, rd, rn, imm);
}
export function subsImmediate(sf: number, rd: number, rn: number, imm: number): number {
  return addSub('SUBS_immediate', sf, rd, rn, imm);
}

// Bitmask immediates; `undefined` where the value is none.

interface Bitmask {
  readonly N: number;
  readonly immr: number;
  readonly imms: number;
}

/** Start and length of the one run of ones in `pattern` (not 0), if it is one. */
function oneRun(pattern: number): readonly [start: number, length: number] | undefined {
  const start = 31 - Math.clz32(pattern & -pattern);
  const run = pattern >>> start;
  return (run & (run + 1)) === 0 ? [start, 32 - Math.clz32(run)] : undefined;
}

/** The shortest of 2, 4, .. 32 bits that `value` repeats. */
function period(value: number): number {
  for (let bits = 32; bits > 2; bits /= 2) {
    const half = bits / 2;
    const mask = 2 ** half - 1;
    if ((value & mask) !== ((value >>> half) & mask)) return bits;
  }
  return 2;
}

/**
 * N:immr:imms of a bitmask immediate: a run of ones, rotated, repeated over the register. `value` is an
 * Int32, sign-extended when `sf`. Reference: aarch64_encode_immediate; DecodeBitMasks in the Arm ARM.
 * The general form for any 64-bit mask is in a64/immediates.ts; a sign-extended Int32 other than 0 and
 * -1 never repeats, so for X registers its element is the whole register.
 */
export function bitmaskImmediate(sf: number, value: number): Bitmask | undefined {
  if (value === 0 || value === -1) return undefined;
  const element = sf ? 64 : period(value);
  const mask = element >= 32 ? -1 : 2 ** element - 1;
  // the run of ones, or around the run of zeros; of 64 bits the upper half follows the sign
  const ones = sf && value < 0 ? undefined : oneRun(value & mask);
  const zeros = ones ?? oneRun(~value & mask);
  if (zeros === undefined || (sf && value > 0 && ones === undefined)) return undefined;
  const [start, length] = ones ?? [zeros[0] + zeros[1], element - zeros[1]];
  // imms: 0xxxxx for 32-bit elements, 10xxxx for 16, ... 11110x for 2; N is set for 64
  const size = ~(2 * element - 1) & 0x3f;
  return { N: sf, immr: (element - start) % element, imms: size | (length - 1) };
}

function logicalImmediate(
  name: string,
  sf: number,
  rd: number,
  rn: number,
  value: number,
): number | undefined {
  const mask = bitmaskImmediate(sf, value);
  return mask && encode(name, { sf, ...mask, Rn: rn, Rd: rd });
}
export function andImmediate(
  sf: number,
  rd: number,
  rn: number,
  value: number,
): number | undefined {
  return logicalImmediate('AND_immediate', sf, rd, rn, value);
}
export function orrImmediate(
  sf: number,
  rd: number,
  rn: number,
  value: number,
): number | undefined {
  return logicalImmediate('ORR_immediate', sf, rd, rn, value);
}
export function eorImmediate(
  sf: number,
  rd: number,
  rn: number,
  value: number,
): number | undefined {
  return logicalImmediate('EOR_immediate', sf, rd, rn, value);
}
export function andsImmediate(
  sf: number,
  rd: number,
  rn: number,
  value: number,
): number | undefined {
  return logicalImmediate('ANDS_immediate', sf, rd, rn, value);
}

// Three registers, no shift.

function shifted(name: string, sf: number, rd: number, rn: number, rm: number): number {
  return encode(name, { sf, shift: 0, imm6: 0, Rm: rm, Rn: rn, Rd: rd });
}
export function addRegister(sf: number, rd: number, rn: number, rm: number): number {
  return shifted('ADD_shifted', sf, rd, rn, rm);
}
export function subRegister(sf: number, rd: number, rn: number, rm: number): number {
  return shifted('SUB_shifted', sf, rd, rn, rm);
}
export function subsRegister(sf: number, rd: number, rn: number, rm: number): number {
  return shifted('SUBS_shifted', sf, rd, rn, rm);
}
export function andRegister(sf: number, rd: number, rn: number, rm: number): number {
  return shifted('AND_shifted', sf, rd, rn, rm);
}
export function andsRegister(sf: number, rd: number, rn: number, rm: number): number {
  return shifted('ANDS_shifted', sf, rd, rn, rm);
}
export function orrRegister(sf: number, rd: number, rn: number, rm: number): number {
  return shifted('ORR_shifted', sf, rd, rn, rm);
}
export function eorRegister(sf: number, rd: number, rn: number, rm: number): number {
  return shifted('EOR_shifted', sf, rd, rn, rm);
}
export function mvn(sf: number, rd: number, rm: number): number {
  return shifted('ORN_shifted', sf, rd, ZR, rm);
}

function twoSource(name: string, sf: number, rd: number, rn: number, rm: number): number {
  return encode(name, { sf, Rm: rm, Rn: rn, Rd: rd });
}
export function udiv(sf: number, rd: number, rn: number, rm: number): number {
  return twoSource('UDIV', sf, rd, rn, rm);
}
export function sdiv(sf: number, rd: number, rn: number, rm: number): number {
  return twoSource('SDIV', sf, rd, rn, rm);
}
export function lslv(sf: number, rd: number, rn: number, rm: number): number {
  return twoSource('LSLV', sf, rd, rn, rm);
}
export function lsrv(sf: number, rd: number, rn: number, rm: number): number {
  return twoSource('LSRV', sf, rd, rn, rm);
}
export function asrv(sf: number, rd: number, rn: number, rm: number): number {
  return twoSource('ASRV', sf, rd, rn, rm);
}
export function mul(sf: number, rd: number, rn: number, rm: number): number {
  return encode('MADD', { sf, Rm: rm, Ra: ZR, Rn: rn, Rd: rd });
}
/** rd = ra - rn * rm. */
export function msub(sf: number, rd: number, rn: number, rm: number, ra: number): number {
  return encode('MSUB', { sf, Rm: rm, Ra: ra, Rn: rn, Rd: rd });
}

// Constants, shifts by a constant, extensions, reversals.

/** `shift` is 0, 16, 32 or 48. */
function moveWide(name: string, sf: number, rd: number, imm16: number, shift: number): number {
  return encode(name, { sf, hw: shift >> 4, imm16, Rd: rd });
}
export function movz(sf: number, rd: number, imm16: number, shift: number): number {
  return moveWide('MOVZ', sf, rd, imm16, shift);
}
export function movn(sf: number, rd: number, imm16: number, shift: number): number {
  return moveWide('MOVN', sf, rd, imm16, shift);
}
export function movk(sf: number, rd: number, imm16: number, shift: number): number {
  return moveWide('MOVK', sf, rd, imm16, shift);
}

function bitfield(
  name: string,
  sf: number,
  rd: number,
  rn: number,
  immr: number,
  imms: number,
): number {
  return encode(name, { sf, N: sf, immr, imms, Rn: rn, Rd: rd });
}
export function lslImmediate(sf: number, rd: number, rn: number, shift: number): number {
  const bits = sf ? 64 : 32;
  return bitfield('UBFM', sf, rd, rn, (bits - shift) % bits, bits - 1 - shift);
}
export function lsrImmediate(sf: number, rd: number, rn: number, shift: number): number {
  return bitfield('UBFM', sf, rd, rn, shift, sf ? 63 : 31);
}
export function asrImmediate(sf: number, rd: number, rn: number, shift: number): number {
  return bitfield('SBFM', sf, rd, rn, shift, sf ? 63 : 31);
}
export function sxtb(sf: number, rd: number, rn: number): number {
  return bitfield('SBFM', sf, rd, rn, 0, 7);
}
export function sxth(sf: number, rd: number, rn: number): number {
  return bitfield('SBFM', sf, rd, rn, 0, 15);
}
export function sxtw(sf: number, rd: number, rn: number): number {
  return bitfield('SBFM', sf, rd, rn, 0, 31);
}
export function uxth(sf: number, rd: number, rn: number): number {
  return bitfield('UBFM', sf, rd, rn, 0, 15);
}
export function uxtw(sf: number, rd: number, rn: number): number {
  return bitfield('UBFM', sf, rd, rn, 0, 31);
}
export function rev16(sf: number, rd: number, rn: number): number {
  return encode('REV16', { sf, Rn: rn, Rd: rd });
}
/** rev wd, wn. */
export function rev32(rd: number, rn: number): number {
  return encode('REV_32', { Rn: rn, Rd: rd });
}
/** rev xd, xn. */
export function rev64(rd: number, rn: number): number {
  return encode('REV_64', { Rn: rn, Rd: rd });
}

// Branches. Distances in words from the instruction itself.

export function b(distance: number): number {
  return encode('B', { imm26: distance });
}
export function bl(distance: number): number {
  return encode('BL', { imm26: distance });
}
export function bCond(condition: Condition, distance: number): number {
  return encode('B_cond', { imm19: distance, cond: CONDITIONS.indexOf(condition) });
}
export function cbz(sf: number, rt: number, distance: number): number {
  return encode('CBZ', { sf, imm19: distance, Rt: rt });
}
export function cbnz(sf: number, rt: number, distance: number): number {
  return encode('CBNZ', { sf, imm19: distance, Rt: rt });
}
export function br(rn: number): number {
  return encode('BR', { Rn: rn });
}
export function blr(rn: number): number {
  return encode('BLR', { Rn: rn });
}
export function ret(rn: number): number {
  return encode('RET', { Rn: rn });
}
/** adr rd, . + `bytes`. */
export function adr(rd: number, bytes: number): number {
  return encode('ADR', { immlo: bytes & 3, immhi: bytes >> 2, Rd: rd });
}

// Loads and stores.

const SUFFIX = ['B', 'H', '', ''] as const;

function loadName(size: number, sign: boolean): string {
  if (!sign) return `LDR${SUFFIX[size] ?? ''}`;
  return size === 2 ? 'LDRSW' : `LDRS${SUFFIX[size] ?? ''}`;
}

function scaled(size: number, offset: number): number {
  const imm12 = offset / 2 ** size;
  if (!Number.isInteger(imm12) || imm12 < 0 || imm12 > 0xfff) {
    throw new RangeError(`offset ${offset} does not fit a scaled imm12`);
  }
  return imm12;
}

/** What selects W or X: `sf` in LDR and STR; `opc0` in LDRSB and LDRSH, 0 for X. */
function width(size: number, sign = false): { sf?: number; opc0?: number } {
  if (sign) return size === 2 ? {} : { opc0: 0 };
  return size >= 2 ? { sf: size - 2 } : {};
}

/** ldr{b,h,sb,sh,sw} rt, [rn, #offset]; a sign-extending load fills the X register. */
export function loadImmediate(
  size: number,
  sign: boolean,
  rt: number,
  rn: number,
  offset: number,
): number {
  const imm12 = scaled(size, offset);
  return encode(`${loadName(size, sign)}_unsigned`, {
    ...width(size, sign),
    imm12,
    Rn: rn,
    Rt: rt,
  });
}
/** ldr{b,h} rt, [rn, xm]; ldrs{b,h,w} xt, [rn, xm, sxtx] (which is the same address). */
export function loadRegister(
  size: number,
  sign: boolean,
  rt: number,
  rn: number,
  rm: number,
): number {
  const fields = { ...width(size, sign), Rm: rm, option: sign ? 7 : 3, S: 0, Rn: rn, Rt: rt };
  return encode(`${loadName(size, sign)}_register`, fields);
}
export function storeImmediate(size: number, rt: number, rn: number, offset: number): number {
  const imm12 = scaled(size, offset);
  return encode(`STR${SUFFIX[size] ?? ''}_unsigned`, { ...width(size), imm12, Rn: rn, Rt: rt });
}
export function storeRegister(size: number, rt: number, rn: number, rm: number): number {
  const fields = { ...width(size), Rm: rm, option: 3, S: 0, Rn: rn, Rt: rt };
  return encode(`STR${SUFFIX[size] ?? ''}_register`, fields);
}
/** ldr xt, . + 4 * `distance`. */
export function ldrLiteral(rt: number, distance: number): number {
  return encode('LDR_literal', { sf: 1, imm19: distance, Rt: rt });
}
/** stp xt, xt2, [rn, #offset]! */
export function stpPreIndex(rt: number, rt2: number, rn: number, offset: number): number {
  return encode('STP_pre', { sf: 1, imm7: offset / 8, Rt2: rt2, Rn: rn, Rt: rt });
}
/** ldp xt, xt2, [rn], #offset */
export function ldpPostIndex(rt: number, rt2: number, rn: number, offset: number): number {
  return encode('LDP_post', { sf: 1, imm7: offset / 8, Rt2: rt2, Rn: rn, Rt: rt });
}

// Exclusives and LSE atomics.

export function ldxr(size: number, rt: number, rn: number): number {
  return encode('LDXR', { size, Rn: rn, Rt: rt });
}
/** rs gets 0 when the store happened. */
export function stxr(size: number, rs: number, rt: number, rn: number): number {
  return encode('STXR', { size, Rs: rs, Rn: rn, Rt: rt });
}
export function stlxr(size: number, rs: number, rt: number, rn: number): number {
  return encode('STLXR', { size, Rs: rs, Rn: rn, Rt: rt });
}
export function ldar(size: number, rt: number, rn: number): number {
  return encode('LDAR', { size, Rn: rn, Rt: rt });
}
export function stlr(size: number, rt: number, rn: number): number {
  return encode('STLR', { size, Rn: rn, Rt: rt });
}

export type LseOperation = 'add' | 'clr' | 'eor' | 'set';

const LSE_ROW: Readonly<Record<LseOperation, string>> = {
  add: 'LDADD',
  clr: 'LDCLR',
  eor: 'LDEOR',
  set: 'LDSET',
};

/** ld<op>al rs, rt, [rn]: rt gets the old value. */
export function lseFetch(
  op: LseOperation,
  size: number,
  rs: number,
  rt: number,
  rn: number,
): number {
  return encode(LSE_ROW[op], { size, A: 1, R: 1, Rs: rs, Rn: rn, Rt: rt });
}
/** st<op> rs, [rn]. */
export function lseStore(op: LseOperation, size: number, rs: number, rn: number): number {
  return encode(LSE_ROW[op], { size, A: 0, R: 0, Rs: rs, Rn: rn, Rt: ZR });
}
export function swpal(size: number, rs: number, rt: number, rn: number): number {
  return encode('SWP', { size, A: 1, R: 1, Rs: rs, Rn: rn, Rt: rt });
}
/** Stores rt if [rn] equals rs; rs gets the old value. */
export function casal(size: number, rs: number, rt: number, rn: number): number {
  return encode('CAS', { size, L: 1, o0: 1, Rs: rs, Rn: rn, Rt: rt });
}

// Hints, barriers, system registers.

export function nop(): number {
  return encode('NOP', {});
}
export function paciasp(): number {
  return encode('PACIASP', {});
}
export function autiasp(): number {
  return encode('AUTIASP', {});
}
const BTI_TARGETS = { c: 1, j: 2, jc: 3 } as const;
export function bti(targets: keyof typeof BTI_TARGETS): number {
  return encode('BTI', { targets: BTI_TARGETS[targets] });
}
export function dmbIsh(): number {
  return encode('DMB', { CRm: 11 });
}
export function dsbNsh(): number {
  return encode('DSB', { CRm: 7 });
}
/** isb #0: the operand means nothing, but is what the 7.3 JIT writes. */
export function isb(): number {
  return encode('ISB', { CRm: 0 });
}
export function sb(): number {
  return encode('SB', {});
}

/** o0 (op0 - 2), op1, CRn, CRm, op2. */
const SYSTEM_REGISTER = {
  sp_el0: { o0: 1, op1: 0, CRn: 4, CRm: 1, op2: 0 },
  tpidr_el1: { o0: 1, op1: 0, CRn: 13, CRm: 0, op2: 4 },
  tpidr_el2: { o0: 1, op1: 4, CRn: 13, CRm: 0, op2: 2 },
} as const;
export function mrs(register: keyof typeof SYSTEM_REGISTER, rt: number): number {
  return encode('MRS', { ...SYSTEM_REGISTER[register], Rt: rt });
}

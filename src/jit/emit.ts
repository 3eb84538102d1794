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
import { encoder, type Encoder } from '../a64/codec.js';

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

const ADD_SUB_FIELDS = 'sf sh imm12 Rn Rd';
const ADD_IMMEDIATE = encoder('ADD_immediate', ADD_SUB_FIELDS);
const ADDS_IMMEDIATE = encoder('ADDS_immediate', ADD_SUB_FIELDS);
const SUB_IMMEDIATE = encoder('SUB_immediate', ADD_SUB_FIELDS);
const SUBS_IMMEDIATE = encoder('SUBS_immediate', ADD_SUB_FIELDS);

function addSub(encode: Encoder, sf: number, rd: number, rn: number, imm: number): number {
  if ((imm & ~0xfff) === 0) return encode(sf, 0, imm, rn, rd);
  if ((imm & ~0xfff000) !== 0) throw new RangeError(`add or subtract of immediate ${imm}`);
  return encode(sf, 1, imm >>> 12, rn, rd);
}
export function addImmediate(sf: number, rd: number, rn: number, imm: number): number {
  return addSub(ADD_IMMEDIATE, sf, rd, rn, imm);
}
export function addsImmediate(sf: number, rd: number, rn: number, imm: number): number {
  return addSub(ADDS_IMMEDIATE, sf, rd, rn, imm);
}
export function subImmediate(sf: number, rd: number, rn: number, imm: number): number {
  return addSub(SUB_IMMEDIATE, sf, rd, rn, imm);
}
export function subsImmediate(sf: number, rd: number, rn: number, imm: number): number {
  return addSub(SUBS_IMMEDIATE, sf, rd, rn, imm);
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

const LOGICAL_FIELDS = 'sf N immr imms Rn Rd';
const AND_IMMEDIATE = encoder('AND_immediate', LOGICAL_FIELDS);
const ORR_IMMEDIATE = encoder('ORR_immediate', LOGICAL_FIELDS);
const EOR_IMMEDIATE = encoder('EOR_immediate', LOGICAL_FIELDS);
const ANDS_IMMEDIATE = encoder('ANDS_immediate', LOGICAL_FIELDS);

function logicalImmediate(
  encode: Encoder,
  sf: number,
  rd: number,
  rn: number,
  value: number,
): number | undefined {
  const mask = bitmaskImmediate(sf, value);
  return mask && encode(sf, mask.N, mask.immr, mask.imms, rn, rd);
}
export function andImmediate(
  sf: number,
  rd: number,
  rn: number,
  value: number,
): number | undefined {
  return logicalImmediate(AND_IMMEDIATE, sf, rd, rn, value);
}
export function orrImmediate(
  sf: number,
  rd: number,
  rn: number,
  value: number,
): number | undefined {
  return logicalImmediate(ORR_IMMEDIATE, sf, rd, rn, value);
}
export function eorImmediate(
  sf: number,
  rd: number,
  rn: number,
  value: number,
): number | undefined {
  return logicalImmediate(EOR_IMMEDIATE, sf, rd, rn, value);
}
export function andsImmediate(
  sf: number,
  rd: number,
  rn: number,
  value: number,
): number | undefined {
  return logicalImmediate(ANDS_IMMEDIATE, sf, rd, rn, value);
}

// Three registers, no shift.

/** Rm, Rn and Rd of a row whose shift is none. */
function unshifted(name: string): Encoder {
  return encoder(`${name}_shifted`, 'sf Rm Rn Rd', { shift: 0, imm6: 0 });
}
const ADD_REGISTER = unshifted('ADD');
const SUB_REGISTER = unshifted('SUB');
const SUBS_REGISTER = unshifted('SUBS');
const AND_REGISTER = unshifted('AND');
const ANDS_REGISTER = unshifted('ANDS');
const ORR_REGISTER = unshifted('ORR');
const EOR_REGISTER = unshifted('EOR');
const ORN_REGISTER = unshifted('ORN');

export function addRegister(sf: number, rd: number, rn: number, rm: number): number {
  return ADD_REGISTER(sf, rm, rn, rd);
}
export function subRegister(sf: number, rd: number, rn: number, rm: number): number {
  return SUB_REGISTER(sf, rm, rn, rd);
}
export function subsRegister(sf: number, rd: number, rn: number, rm: number): number {
  return SUBS_REGISTER(sf, rm, rn, rd);
}
export function andRegister(sf: number, rd: number, rn: number, rm: number): number {
  return AND_REGISTER(sf, rm, rn, rd);
}
export function andsRegister(sf: number, rd: number, rn: number, rm: number): number {
  return ANDS_REGISTER(sf, rm, rn, rd);
}
export function orrRegister(sf: number, rd: number, rn: number, rm: number): number {
  return ORR_REGISTER(sf, rm, rn, rd);
}
export function eorRegister(sf: number, rd: number, rn: number, rm: number): number {
  return EOR_REGISTER(sf, rm, rn, rd);
}
export function mvn(sf: number, rd: number, rm: number): number {
  return ORN_REGISTER(sf, rm, ZR, rd);
}

const TWO_SOURCE_FIELDS = 'sf Rm Rn Rd';
const UDIV = encoder('UDIV', TWO_SOURCE_FIELDS);
const SDIV = encoder('SDIV', TWO_SOURCE_FIELDS);
const LSLV = encoder('LSLV', TWO_SOURCE_FIELDS);
const LSRV = encoder('LSRV', TWO_SOURCE_FIELDS);
const ASRV = encoder('ASRV', TWO_SOURCE_FIELDS);
const MADD = encoder('MADD', 'sf Rm Ra Rn Rd');
const MSUB = encoder('MSUB', 'sf Rm Ra Rn Rd');

export function udiv(sf: number, rd: number, rn: number, rm: number): number {
  return UDIV(sf, rm, rn, rd);
}
export function sdiv(sf: number, rd: number, rn: number, rm: number): number {
  return SDIV(sf, rm, rn, rd);
}
export function lslv(sf: number, rd: number, rn: number, rm: number): number {
  return LSLV(sf, rm, rn, rd);
}
export function lsrv(sf: number, rd: number, rn: number, rm: number): number {
  return LSRV(sf, rm, rn, rd);
}
export function asrv(sf: number, rd: number, rn: number, rm: number): number {
  return ASRV(sf, rm, rn, rd);
}
export function mul(sf: number, rd: number, rn: number, rm: number): number {
  return MADD(sf, rm, ZR, rn, rd);
}
/** rd = ra - rn * rm. */
export function msub(sf: number, rd: number, rn: number, rm: number, ra: number): number {
  return MSUB(sf, rm, ra, rn, rd);
}

// Constants, shifts by a constant, extensions, reversals.

const MOVZ = encoder('MOVZ', 'sf hw imm16 Rd');
const MOVN = encoder('MOVN', 'sf hw imm16 Rd');
const MOVK = encoder('MOVK', 'sf hw imm16 Rd');
const SBFM = encoder('SBFM', 'sf N immr imms Rn Rd');
const UBFM = encoder('UBFM', 'sf N immr imms Rn Rd');
const REV16 = encoder('REV16', 'sf Rn Rd');
const REV_32 = encoder('REV_32', 'Rn Rd');
const REV_64 = encoder('REV_64', 'Rn Rd');

/** `shift` is 0, 16, 32 or 48. */
export function movz(sf: number, rd: number, imm16: number, shift: number): number {
  return MOVZ(sf, shift >> 4, imm16, rd);
}
export function movn(sf: number, rd: number, imm16: number, shift: number): number {
  return MOVN(sf, shift >> 4, imm16, rd);
}
export function movk(sf: number, rd: number, imm16: number, shift: number): number {
  return MOVK(sf, shift >> 4, imm16, rd);
}

export function lslImmediate(sf: number, rd: number, rn: number, shift: number): number {
  const bits = sf ? 64 : 32;
  return UBFM(sf, sf, (bits - shift) % bits, bits - 1 - shift, rn, rd);
}
export function lsrImmediate(sf: number, rd: number, rn: number, shift: number): number {
  return UBFM(sf, sf, shift, sf ? 63 : 31, rn, rd);
}
export function asrImmediate(sf: number, rd: number, rn: number, shift: number): number {
  return SBFM(sf, sf, shift, sf ? 63 : 31, rn, rd);
}
export function sxtb(sf: number, rd: number, rn: number): number {
  return SBFM(sf, sf, 0, 7, rn, rd);
}
export function sxth(sf: number, rd: number, rn: number): number {
  return SBFM(sf, sf, 0, 15, rn, rd);
}
export function sxtw(sf: number, rd: number, rn: number): number {
  return SBFM(sf, sf, 0, 31, rn, rd);
}
export function uxth(sf: number, rd: number, rn: number): number {
  return UBFM(sf, sf, 0, 15, rn, rd);
}
export function uxtw(sf: number, rd: number, rn: number): number {
  return UBFM(sf, sf, 0, 31, rn, rd);
}
export function rev16(sf: number, rd: number, rn: number): number {
  return REV16(sf, rn, rd);
}
/** rev wd, wn. */
export function rev32(rd: number, rn: number): number {
  return REV_32(rn, rd);
}
/** rev xd, xn. */
export function rev64(rd: number, rn: number): number {
  return REV_64(rn, rd);
}

// Branches. Distances in words from the instruction itself.

const B = encoder('B', 'imm26');
const BL = encoder('BL', 'imm26');
const B_COND = encoder('B_cond', 'imm19 cond');
const CBZ = encoder('CBZ', 'sf imm19 Rt');
const CBNZ = encoder('CBNZ', 'sf imm19 Rt');
const BR = encoder('BR', 'Rn');
const BLR = encoder('BLR', 'Rn');
const RET = encoder('RET', 'Rn');
const ADR = encoder('ADR', 'immlo immhi Rd');

export function b(distance: number): number {
  return B(distance);
}
export function bl(distance: number): number {
  return BL(distance);
}
export function bCond(condition: Condition, distance: number): number {
  return B_COND(distance, CONDITIONS.indexOf(condition));
}
export function cbz(sf: number, rt: number, distance: number): number {
  return CBZ(sf, distance, rt);
}
export function cbnz(sf: number, rt: number, distance: number): number {
  return CBNZ(sf, distance, rt);
}
export function br(rn: number): number {
  return BR(rn);
}
export function blr(rn: number): number {
  return BLR(rn);
}
export function ret(rn: number): number {
  return RET(rn);
}
/** adr rd, . + `bytes`. */
export function adr(rd: number, bytes: number): number {
  return ADR(bytes & 3, bytes >> 2, rd);
}

// Loads and stores.

function scaled(size: number, offset: number): number {
  const imm12 = offset / 2 ** size;
  if (!Number.isInteger(imm12) || imm12 < 0 || imm12 > 0xfff) {
    throw new RangeError(`offset ${offset} does not fit a scaled imm12`);
  }
  return imm12;
}

/** Rows of one addressing mode by log2 of the size. */
type BySize = readonly [Encoder, Encoder, Encoder, Encoder];

/** `sf` selects W or X in LDR and STR. */
function plainAccess(name: 'LDR' | 'STR', mode: string, fields: string, fixed = {}): BySize {
  return [
    encoder(`${name}B_${mode}`, fields, fixed),
    encoder(`${name}H_${mode}`, fields, fixed),
    encoder(`${name}_${mode}`, fields, { ...fixed, sf: 0 }),
    encoder(`${name}_${mode}`, fields, { ...fixed, sf: 1 }),
  ];
}

/** Into X: `opc0` 0 in LDRSB and LDRSH. There is none of 8 bytes. */
function signedLoad(mode: string, fields: string, fixed = {}): readonly Encoder[] {
  return [
    encoder(`LDRSB_${mode}`, fields, { ...fixed, opc0: 0 }),
    encoder(`LDRSH_${mode}`, fields, { ...fixed, opc0: 0 }),
    encoder(`LDRSW_${mode}`, fields, fixed),
  ];
}

const IMMEDIATE_FIELDS = 'imm12 Rn Rt';
const REGISTER_FIELDS = 'Rm Rn Rt';
/** option: Xm as it is (LSL #0), or SXTX, which is the same address. */
const LSL = { option: 3, S: 0 };
const SXTX = { option: 7, S: 0 };
const LOAD_IMMEDIATE = plainAccess('LDR', 'unsigned', IMMEDIATE_FIELDS);
const LOAD_SIGNED_IMMEDIATE = signedLoad('unsigned', IMMEDIATE_FIELDS);
const LOAD_REGISTER = plainAccess('LDR', 'register', REGISTER_FIELDS, LSL);
const LOAD_SIGNED_REGISTER = signedLoad('register', REGISTER_FIELDS, SXTX);
const STORE_IMMEDIATE = plainAccess('STR', 'unsigned', IMMEDIATE_FIELDS);
const STORE_REGISTER = plainAccess('STR', 'register', REGISTER_FIELDS, LSL);
const LDR_LITERAL = encoder('LDR_literal', 'imm19 Rt', { sf: 1 });
const STP_PRE = encoder('STP_pre', 'imm7 Rt2 Rn Rt', { sf: 1 });
const LDP_POST = encoder('LDP_post', 'imm7 Rt2 Rn Rt', { sf: 1 });

function ofSize(encoders: readonly Encoder[], size: number): Encoder {
  const found = encoders[size];
  if (!found) throw new RangeError(`no access of ${2 ** size} bytes`);
  return found;
}

/** ldr{b,h,sb,sh,sw} rt, [rn, #offset]; a sign-extending load fills the X register. */
export function loadImmediate(
  size: number,
  sign: boolean,
  rt: number,
  rn: number,
  offset: number,
): number {
  const encode = ofSize(sign ? LOAD_SIGNED_IMMEDIATE : LOAD_IMMEDIATE, size);
  return encode(scaled(size, offset), rn, rt);
}
/** ldr{b,h} rt, [rn, xm]; ldrs{b,h,w} xt, [rn, xm, sxtx]. */
export function loadRegister(
  size: number,
  sign: boolean,
  rt: number,
  rn: number,
  rm: number,
): number {
  return ofSize(sign ? LOAD_SIGNED_REGISTER : LOAD_REGISTER, size)(rm, rn, rt);
}
export function storeImmediate(size: number, rt: number, rn: number, offset: number): number {
  return ofSize(STORE_IMMEDIATE, size)(scaled(size, offset), rn, rt);
}
export function storeRegister(size: number, rt: number, rn: number, rm: number): number {
  return ofSize(STORE_REGISTER, size)(rm, rn, rt);
}
/** ldr xt, . + 4 * `distance`. */
export function ldrLiteral(rt: number, distance: number): number {
  return LDR_LITERAL(distance, rt);
}
/** stp xt, xt2, [rn, #offset]! */
export function stpPreIndex(rt: number, rt2: number, rn: number, offset: number): number {
  return STP_PRE(offset / 8, rt2, rn, rt);
}
/** ldp xt, xt2, [rn], #offset */
export function ldpPostIndex(rt: number, rt2: number, rn: number, offset: number): number {
  return LDP_POST(offset / 8, rt2, rn, rt);
}

// Exclusives and LSE atomics.

const LDXR = encoder('LDXR', 'size Rn Rt');
const STXR = encoder('STXR', 'size Rs Rn Rt');
const STLXR = encoder('STLXR', 'size Rs Rn Rt');
const LDAR = encoder('LDAR', 'size Rn Rt');
const STLR = encoder('STLR', 'size Rn Rt');
/** Acquire and release. */
const ORDERED = { A: 1, R: 1 };
const SWPAL = encoder('SWP', 'size Rs Rn Rt', ORDERED);
const CASAL = encoder('CAS', 'size Rs Rn Rt', { L: 1, o0: 1 });

export type LseOperation = 'add' | 'clr' | 'eor' | 'set';

const LSE_FETCH: Readonly<Record<LseOperation, Encoder>> = {
  add: encoder('LDADD', 'size Rs Rn Rt', ORDERED),
  clr: encoder('LDCLR', 'size Rs Rn Rt', ORDERED),
  eor: encoder('LDEOR', 'size Rs Rn Rt', ORDERED),
  set: encoder('LDSET', 'size Rs Rn Rt', ORDERED),
};
const STORE_ONLY = { A: 0, R: 0, Rt: ZR };
const LSE_STORE: Readonly<Record<LseOperation, Encoder>> = {
  add: encoder('LDADD', 'size Rs Rn', STORE_ONLY),
  clr: encoder('LDCLR', 'size Rs Rn', STORE_ONLY),
  eor: encoder('LDEOR', 'size Rs Rn', STORE_ONLY),
  set: encoder('LDSET', 'size Rs Rn', STORE_ONLY),
};

export function ldxr(size: number, rt: number, rn: number): number {
  return LDXR(size, rn, rt);
}
/** rs gets 0 when the store happened. */
export function stxr(size: number, rs: number, rt: number, rn: number): number {
  return STXR(size, rs, rn, rt);
}
export function stlxr(size: number, rs: number, rt: number, rn: number): number {
  return STLXR(size, rs, rn, rt);
}
export function ldar(size: number, rt: number, rn: number): number {
  return LDAR(size, rn, rt);
}
export function stlr(size: number, rt: number, rn: number): number {
  return STLR(size, rn, rt);
}

/** ld<op>al rs, rt, [rn]: rt gets the old value. */
export function lseFetch(
  op: LseOperation,
  size: number,
  rs: number,
  rt: number,
  rn: number,
): number {
  return LSE_FETCH[op](size, rs, rn, rt);
}
/** st<op> rs, [rn]. */
export function lseStore(op: LseOperation, size: number, rs: number, rn: number): number {
  return LSE_STORE[op](size, rs, rn);
}
export function swpal(size: number, rs: number, rt: number, rn: number): number {
  return SWPAL(size, rs, rn, rt);
}
/** Stores rt if [rn] equals rs; rs gets the old value. */
export function casal(size: number, rs: number, rt: number, rn: number): number {
  return CASAL(size, rs, rn, rt);
}

// Hints, barriers, system registers.

const NOP = encoder('NOP', '')();
const PACIASP = encoder('PACIASP', '')();
const AUTIASP = encoder('AUTIASP', '')();
const BTI = encoder('BTI', 'targets');
const BARRIER = {
  dmbIsh: encoder('DMB', 'CRm')(11),
  dsbNsh: encoder('DSB', 'CRm')(7),
  isb: encoder('ISB', 'CRm')(0),
  sb: encoder('SB', '')(),
} as const;

export function nop(): number {
  return NOP;
}
export function paciasp(): number {
  return PACIASP;
}
export function autiasp(): number {
  return AUTIASP;
}
const BTI_TARGETS = { c: 1, j: 2, jc: 3 } as const;
export function bti(targets: keyof typeof BTI_TARGETS): number {
  return BTI(BTI_TARGETS[targets]);
}
export function dmbIsh(): number {
  return BARRIER.dmbIsh;
}
export function dsbNsh(): number {
  return BARRIER.dsbNsh;
}
/** isb #0: the operand means nothing, but is what the 7.3 JIT writes. */
export function isb(): number {
  return BARRIER.isb;
}
export function sb(): number {
  return BARRIER.sb;
}

/** o0 (op0 - 2), op1, CRn, CRm, op2. */
const MRS = {
  sp_el0: encoder('MRS', 'Rt', { o0: 1, op1: 0, CRn: 4, CRm: 1, op2: 0 }),
  tpidr_el1: encoder('MRS', 'Rt', { o0: 1, op1: 0, CRn: 13, CRm: 0, op2: 4 }),
  tpidr_el2: encoder('MRS', 'Rt', { o0: 1, op1: 4, CRn: 13, CRm: 0, op2: 2 }),
} as const;
export function mrs(register: keyof typeof MRS, rt: number): number {
  return MRS[register](rt);
}

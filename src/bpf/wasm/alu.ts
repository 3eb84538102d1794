/**
 * eBPF arithmetic, byte swaps and jump conditions in WebAssembly.
 *
 * Shift amounts are masked by wasm as by BPF. Division needs care: wasm traps on zero and on the most
 * negative number by -1, BPF gives 0 (modulo: dst) and the number itself. Reference: RFC 9669 §4.
 */
import type { Slot } from '../instruction.js';
import type { AluOperation, JumpOperation, Opcode } from '../opcodes.js';
import { I32, I64, OP, type CodeWriter } from './emitter.js';

interface Pair {
  readonly w64: number;
  readonly w32: number;
}

const BINARY: Readonly<Partial<Record<AluOperation, Pair>>> = {
  add: { w64: OP.i64_add, w32: OP.i32_add },
  sub: { w64: OP.i64_sub, w32: OP.i32_sub },
  mul: { w64: OP.i64_mul, w32: OP.i32_mul },
  or: { w64: OP.i64_or, w32: OP.i32_or },
  and: { w64: OP.i64_and, w32: OP.i32_and },
  xor: { w64: OP.i64_xor, w32: OP.i32_xor },
  lsh: { w64: OP.i64_shl, w32: OP.i32_shl },
  rsh: { w64: OP.i64_shr_u, w32: OP.i32_shr_u },
  arsh: { w64: OP.i64_shr_s, w32: OP.i32_shr_s },
};

const COMPARE: Readonly<Record<Exclude<JumpOperation, 'jset'>, Pair>> = {
  jeq: { w64: OP.i64_eq, w32: OP.i32_eq },
  jne: { w64: OP.i64_ne, w32: OP.i32_ne },
  jgt: { w64: OP.i64_gt_u, w32: OP.i32_gt_u },
  jge: { w64: OP.i64_ge_u, w32: OP.i32_ge_u },
  jlt: { w64: OP.i64_lt_u, w32: OP.i32_lt_u },
  jle: { w64: OP.i64_le_u, w32: OP.i32_le_u },
  jsgt: { w64: OP.i64_gt_s, w32: OP.i32_gt_s },
  jsge: { w64: OP.i64_ge_s, w32: OP.i32_ge_s },
  jslt: { w64: OP.i64_lt_s, w32: OP.i32_lt_s },
  jsle: { w64: OP.i64_le_s, w32: OP.i32_le_s },
};

/** `registers` maps a BPF register to its local. */
export type RegisterLocals = readonly number[];

/** dst = dst op src. */
export function emitAlu(
  code: CodeWriter,
  registers: RegisterLocals,
  slot: Slot,
  opcode: Opcode & { readonly kind: 'alu' },
): void {
  const dst = registers[slot.dst] as number;
  const is64 = opcode.width === 64;
  if (opcode.op === 'mov') emitMove(code, registers, slot, opcode);
  else if (opcode.op === 'div' || opcode.op === 'mod') {
    emitDivision(code, registers, slot, opcode);
  } else {
    const pair = BINARY[opcode.op] as Pair;
    getAs(code, dst, is64);
    emitOperand(code, registers, slot, opcode);
    code.op(is64 ? pair.w64 : pair.w32);
  }
  setFrom(code, dst, is64);
}

/** Pushes the source operand at the instruction's width. */
function emitOperand(
  code: CodeWriter,
  registers: RegisterLocals,
  slot: Slot,
  { width, source }: { readonly width: 32 | 64; readonly source: 'immediate' | 'register' },
): void {
  if (source === 'register') getAs(code, registers[slot.src] as number, width === 64);
  else if (width === 64) code.i64(slot.imm);
  else code.i32(slot.imm);
}

function getAs(code: CodeWriter, local: number, is64: boolean): void {
  code.get(local);
  if (!is64) code.op(OP.i32_wrap_i64);
}

function setFrom(code: CodeWriter, local: number, is64: boolean): void {
  if (!is64) code.op(OP.i64_extend_i32_u);
  code.set(local);
}

const EXTEND: Readonly<Record<number, Pair>> = {
  8: { w64: OP.i64_extend8_s, w32: OP.i32_extend8_s },
  16: { w64: OP.i64_extend16_s, w32: OP.i32_extend16_s },
  32: { w64: OP.i64_extend32_s, w32: OP.i64_extend32_s },
};

function emitMove(
  code: CodeWriter,
  registers: RegisterLocals,
  slot: Slot,
  opcode: Opcode & { readonly kind: 'alu' },
): void {
  emitOperand(code, registers, slot, opcode);
  const extend = EXTEND[slot.off];
  if (extend) code.op(opcode.width === 64 ? extend.w64 : extend.w32);
}

function emitDivision(
  code: CodeWriter,
  registers: RegisterLocals,
  slot: Slot,
  opcode: Opcode & { readonly kind: 'alu' },
): void {
  const { op, width, source } = opcode;
  const dst = registers[slot.dst] as number;
  const operand = (): void => emitOperand(code, registers, slot, opcode);
  const is64 = width === 64;
  const isSigned = slot.off === 1;
  const isDivision = op === 'div';
  const operation = divisionOpcode(isDivision, isSigned, is64);
  const divide = (): void => {
    getAs(code, dst, is64);
    operand();
    code.op(operation);
  };
  const isSafe = slot.imm !== 0 && !(isDivision && isSigned && slot.imm === -1);
  if (source === 'immediate' && isSafe) {
    divide();
    return;
  }
  operand();
  if (isDivision && isSigned) {
    // 0 and -1: dst * src is what BPF wants, 0 and -dst
    if (is64) code.i64(1).op(OP.i64_add).i64(1).op(OP.i64_gt_u);
    else code.i32(1).op(OP.i32_add).i32(1).op(OP.i32_gt_u);
  } else if (is64) code.i64(0).op(OP.i64_ne);
  code.op(OP.if).u8(is64 ? I64 : I32);
  divide();
  code.op(OP.else);
  if (isDivision && isSigned) {
    getAs(code, dst, is64);
    operand();
    code.op(is64 ? OP.i64_mul : OP.i32_mul);
  } else if (!isDivision) getAs(code, dst, is64);
  else if (is64) code.i64(0);
  else code.i32(0);
  code.op(OP.end);
}

function divisionOpcode(isDivision: boolean, isSigned: boolean, is64: boolean): number {
  if (is64) {
    if (isDivision) return isSigned ? OP.i64_div_s : OP.i64_div_u;
    return isSigned ? OP.i64_rem_s : OP.i64_rem_u;
  }
  if (isDivision) return isSigned ? OP.i32_div_s : OP.i32_div_u;
  return isSigned ? OP.i32_rem_s : OP.i32_rem_u;
}

export function emitNegate(code: CodeWriter, local: number, width: 32 | 64): void {
  if (width === 64) code.i64(0).get(local).op(OP.i64_sub).set(local);
  else {
    code.i32(0).get(local).op(OP.i32_wrap_i64).op(OP.i32_sub).op(OP.i64_extend_i32_u).set(local);
  }
}

/** `le` truncates; `be` and `swap` reverse the low `bits`. */
export function emitByteSwap(
  code: CodeWriter,
  local: number,
  to: 'le' | 'be' | 'swap',
  bits: number,
): void {
  if (to === 'le') {
    if (bits === 64) return;
    if (bits === 16) code.get(local).i64(0xffff).op(OP.i64_and).set(local);
    else code.get(local).op(OP.i32_wrap_i64).op(OP.i64_extend_i32_u).set(local);
    return;
  }
  const swapLow = (): void => void reverse32(code, () => code.get(local).op(OP.i32_wrap_i64));
  if (bits === 64) {
    swapLow();
    code.op(OP.i64_extend_i32_u).i64(32).op(OP.i64_shl);
    reverse32(code, () => code.get(local).i64(32).op(OP.i64_shr_u).op(OP.i32_wrap_i64));
    code.op(OP.i64_extend_i32_u).op(OP.i64_or).set(local);
    return;
  }
  swapLow();
  if (bits === 16) code.i32(16).op(OP.i32_shr_u);
  code.op(OP.i64_extend_i32_u).set(local);
}

/** Bytes 3210 to 0123: rotated left by 8 the even bytes are right, by 24 the odd ones. */
function reverse32(code: CodeWriter, push: () => void): void {
  push();
  code.i32(8).op(OP.i32_rotl).i32(0x00ff00ff).op(OP.i32_and);
  push();
  code.i32(24).op(OP.i32_rotl).i32(0xff00ff00).op(OP.i32_and).op(OP.i32_or);
}

/** Pushes an i32 that is not 0 when the jump is taken. */
export function emitCondition(
  code: CodeWriter,
  registers: RegisterLocals,
  slot: Slot,
  opcode: Opcode & { readonly kind: 'jump' },
): void {
  const is64 = opcode.width === 64;
  getAs(code, registers[slot.dst] as number, is64);
  emitOperand(code, registers, slot, opcode);
  if (opcode.op !== 'jset') {
    const pair = COMPARE[opcode.op];
    code.op(is64 ? pair.w64 : pair.w32);
  } else if (is64) code.op(OP.i64_and).i64(0).op(OP.i64_ne);
  else code.op(OP.i32_and);
}

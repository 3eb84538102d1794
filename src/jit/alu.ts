/**
 * Arithmetic: add .. arsh, neg, byte swaps, moves with sign extension and address casts.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: build_insn, the BPF_ALU and BPF_ALU64 cases. An immediate goes
 * into the instruction where A64 can hold it (imm12, imm12<<12, or negated in the opposite instruction;
 * bitmask immediates), else through x10. Division by an immediate 0 and shifts out of range do not reach
 * the JIT: the verifier refuses them.
 */
import type { Slot } from '../bpf/instruction.js';
import { moveInt32 } from './constants.js';
import type { FunctionContext } from './context.js';
import {
  addImmediate,
  addRegister,
  andImmediate,
  andRegister,
  asrImmediate,
  asrv,
  eorImmediate,
  eorRegister,
  lslImmediate,
  lslv,
  lsrImmediate,
  lsrv,
  mrs,
  msub,
  mul,
  orrImmediate,
  orrRegister,
  rev16,
  rev32,
  rev64,
  sdiv,
  subImmediate,
  subRegister,
  sxtb,
  sxth,
  sxtw,
  udiv,
  uxth,
  uxtw,
  ZR,
} from './emit.js';

/** Operations that are one three-register instruction. */
const REGISTER_FORM: Readonly<
  Record<number, (sf: number, rd: number, rn: number, rm: number) => number>
> = {
  0x00: addRegister,
  0x10: subRegister,
  0x20: mul,
  0x40: orrRegister,
  0x50: andRegister,
  0x60: lslv,
  0x70: lsrv,
  0xa0: eorRegister,
  0xc0: asrv,
};

const BITMASK_FORM: Readonly<
  Record<number, (sf: number, rd: number, rn: number, value: number) => number | undefined>
> = { 0x40: orrImmediate, 0x50: andImmediate, 0xa0: eorImmediate };

const SHIFT_FORM: Readonly<
  Record<number, (sf: number, rd: number, rn: number, shift: number) => number>
> = { 0x60: lslImmediate, 0x70: lsrImmediate, 0xc0: asrImmediate };

/** BPF_ADDR_SPACE_CAST and BPF_ADDR_PERCPU: values of a MOV's off. */
const CAST = 1;
const PERCPU = -1;
/** imm of a cast to user space: from address space 1 to 0. */
const CAST_USER = 1 << 16;

/** Whether an add, sub or compare can hold `imm`: 12 bits, or 12 bits shifted by 12. */
export function isAddSubImmediate(imm: number): boolean {
  return (imm & ~0xfff) === 0 || (imm & ~0xfff000) === 0;
}

/** One instruction of class ALU or ALU64. */
export function buildAlu(ctx: FunctionContext, slot: Slot): void {
  const sf = (slot.code & 7) === 7 ? 1 : 0;
  const operation = slot.code & 0xf0;
  const dst = ctx.reg(slot.dst);
  if (operation === 0xd0) return buildSwap(ctx, slot, sf, dst);
  if (operation === 0x80) {
    if (slot.code & 8) throw ctx.unsupported();
    return ctx.emit(subRegister(sf, dst, ZR, dst));
  }
  if (slot.code & 8) buildRegister(ctx, slot, sf, operation, dst);
  else buildImmediate(ctx, slot, sf, operation, dst);
}

function buildRegister(
  ctx: FunctionContext,
  slot: Slot,
  sf: number,
  operation: number,
  dst: number,
): void {
  const src = ctx.reg(slot.src);
  const { tmp1 } = ctx.registers;
  const form = REGISTER_FORM[operation];
  if (form !== undefined) return ctx.emit(form(sf, dst, dst, src));
  switch (operation) {
    case 0x30:
      return ctx.emit(divide(ctx, slot)(sf, dst, dst, src));
    case 0x90:
      ctx.emit(divide(ctx, slot)(sf, tmp1, dst, src));
      return ctx.emit(msub(sf, dst, tmp1, src, dst));
    case 0xb0:
      return buildMove(ctx, slot, sf, dst, src);
    default:
      throw ctx.unsupported();
  }
}

function buildImmediate(
  ctx: FunctionContext,
  slot: Slot,
  sf: number,
  operation: number,
  dst: number,
): void {
  const { tmp1, tmp2 } = ctx.registers;
  const { imm } = slot;
  const shift = SHIFT_FORM[operation];
  if (shift !== undefined) {
    if (imm < 0 || imm >= (sf ? 64 : 32)) throw ctx.refuse(`shift by ${imm}`);
    return ctx.emit(shift(sf, dst, dst, imm));
  }
  const bitmask = BITMASK_FORM[operation]?.(sf, dst, dst, imm);
  if (bitmask !== undefined) return ctx.emit(bitmask);
  switch (operation) {
    case 0x00:
    case 0x10: {
      const negated = operation === 0x10;
      if (isAddSubImmediate(imm)) {
        return ctx.emit((negated ? subImmediate : addImmediate)(sf, dst, dst, imm));
      }
      if (isAddSubImmediate(-imm)) {
        return ctx.emit((negated ? addImmediate : subImmediate)(sf, dst, dst, -imm));
      }
      break;
    }
    case 0x30:
      ctx.code.emitAll(moveInt32(sf, tmp1, imm));
      return ctx.emit(divide(ctx, slot)(sf, dst, dst, tmp1));
    case 0x90:
      ctx.code.emitAll(moveInt32(sf, tmp2, imm));
      ctx.emit(divide(ctx, slot)(sf, tmp1, dst, tmp2));
      return ctx.emit(msub(sf, dst, tmp1, tmp2, dst));
    case 0xb0:
      return ctx.code.emitAll(moveInt32(sf, dst, imm));
    default:
  }
  const form = REGISTER_FORM[operation];
  if (form === undefined) throw ctx.unsupported();
  ctx.code.emitAll(moveInt32(sf, tmp1, imm));
  ctx.emit(form(sf, dst, dst, tmp1));
}

/** off 1 makes a division signed, from ISA v4 on; older JITs do not look. */
function divide(
  ctx: FunctionContext,
  slot: Slot,
): (sf: number, rd: number, rn: number, rm: number) => number {
  return slot.off !== 0 && ctx.profile.cpuV4 ? sdiv : udiv;
}

function buildMove(ctx: FunctionContext, slot: Slot, sf: number, dst: number, src: number): void {
  if (!ctx.profile.cpuV4) return ctx.move(sf, dst, src);
  if (sf && slot.off === CAST && slot.imm === CAST_USER) {
    const { arena } = ctx.env;
    if (arena === undefined) throw ctx.refuse('arena cast in a program without an arena');
    return ctx.profile.buildCastUser(ctx, arena, dst, src);
  }
  if (sf && slot.off === PERCPU) return buildPercpuAddress(ctx, dst, src);
  switch (slot.off) {
    case 0:
      return ctx.move(sf, dst, src);
    case 8:
      return ctx.emit(sxtb(sf, dst, src));
    case 16:
      return ctx.emit(sxth(sf, dst, src));
    case 32:
      return ctx.emit(sxtw(sf, dst, src));
    default:
      throw ctx.refuse(`move with off ${slot.off}`);
  }
}

/** This CPU's copy of a per-CPU object. */
function buildPercpuAddress(ctx: FunctionContext, dst: number, src: number): void {
  if (dst !== src) ctx.move(1, dst, src);
  addPercpuOffset(ctx, dst);
}

/** Adds this CPU's offset, which is in TPIDR_EL1, under VHE in TPIDR_EL2. */
export function addPercpuOffset(ctx: FunctionContext, register: number): void {
  const { tmp1 } = ctx.registers;
  ctx.emit(mrs(ctx.env.cpu.vhe ? 'tpidr_el2' : 'tpidr_el1', tmp1));
  ctx.emit(addRegister(1, register, register, tmp1));
}

/** BPF_END: on a little-endian CPU `to le` truncates, `to be` and bswap reverse and truncate. */
function buildSwap(ctx: FunctionContext, slot: Slot, sf: number, dst: number): void {
  const toBig = (slot.code & 8) !== 0;
  if (sf && (toBig || !ctx.profile.cpuV4)) throw ctx.unsupported();
  if (toBig || sf) {
    switch (slot.imm) {
      case 16:
        ctx.emit(rev16(sf, dst, dst));
        return ctx.emit(uxth(sf, dst, dst));
      case 32:
        return ctx.emit(rev32(dst, dst));
      case 64:
        return ctx.emit(rev64(dst, dst));
      default:
    }
  } else {
    switch (slot.imm) {
      case 16:
        return ctx.emit(uxth(sf, dst, dst));
      case 32:
        return ctx.emit(uxtw(sf, dst, dst));
      case 64:
        return;
      default:
    }
  }
  throw ctx.refuse(`byte swap of ${slot.imm} bits`);
}

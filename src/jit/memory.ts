/**
 * Loads and stores: plain, sign-extending, on the stack, through the arena, and those that may fault.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: build_insn, BPF_LDX, BPF_ST and BPF_STX with the modes MEM,
 * MEMSX, PROBE_MEM, PROBE_MEMSX, PROBE_MEM32 (and PROBE_MEM32SX). An offset that fits the scaled unsigned
 * 12 bits goes into the instruction; otherwise it goes into a temporary and the base stays what BPF
 * said, R10 included. The value of a store of an immediate is in x10.
 */
import type { Slot } from '../bpf/instruction.js';
import { moveInt32 } from './constants.js';
import type { FunctionContext } from './context.js';
import { addRegister, loadImmediate, loadRegister, storeImmediate, storeRegister } from './emit.js';
import { loadArgument, STACK_ARGUMENTS, storeArgument } from './stack-arguments.js';
import { addExtableEntry, DONT_CLEAR } from './extable.js';
import type { JitProfile, StackAccess } from './profile.js';

const MODE = {
  PROBE_MEM: 0x20,
  PROBE_MEMSX: 0x40,
  MEM: 0x60,
  MEMSX: 0x80,
  PROBE_MEM32: 0xa0,
  PROBE_MEM32SX: 0xc0,
} as const;

/** log2 of the access size by the size bits of an opcode (W, H, B, DW). */
const SIZE_LOG2 = [2, 1, 0, 3] as const;

export function sizeLog2(code: number): number {
  return SIZE_LOG2[(code >> 3) & 3] ?? 0;
}

/** Whether `offset` fits the scaled unsigned immediate of an access of 1 << `scale` bytes. */
export function isScaledOffset(offset: number, scale: number): boolean {
  return offset >= 0 && offset <= 0xfff << scale && (offset & ((1 << scale) - 1)) === 0;
}

/** Loads from v4 on: sign extension, and the arena's. */
const V4_LOADS: readonly number[] = [MODE.MEMSX, MODE.PROBE_MEMSX, MODE.PROBE_MEM32];

function allowsLoad(profile: JitProfile, mode: number): boolean {
  if (mode === MODE.MEM || mode === MODE.PROBE_MEM) return true;
  if (mode === MODE.PROBE_MEM32SX) return profile.arenaSignedLoad;
  return profile.cpuV4 && V4_LOADS.includes(mode);
}

/** The base register as it is, or where the version keeps R10. */
function access(ctx: FunctionContext, bpfBase: number, base: number, offset: number): StackAccess {
  return bpfBase === 10 ? ctx.profile.stackAccess(ctx, offset) : { base, offset };
}

/** `scratch` = base + arena. */
function arenaAddress(ctx: FunctionContext, scratch: number, base: number): number {
  ctx.emit(addRegister(1, scratch, base, ctx.registers.arenaBase));
  return scratch;
}

export function buildLoad(ctx: FunctionContext, slot: Slot): void {
  if (slot.src === STACK_ARGUMENTS && ctx.profile.stackArguments) return loadArgument(ctx, slot);
  const mode = slot.code & 0xe0;
  const size = sizeLog2(slot.code);
  const signed = mode === MODE.MEMSX || mode === MODE.PROBE_MEMSX || mode === MODE.PROBE_MEM32SX;
  if ((signed && size === 3) || !allowsLoad(ctx.profile, mode)) throw ctx.unsupported();
  const arena = mode === MODE.PROBE_MEM32 || mode === MODE.PROBE_MEM32SX;
  const dst = ctx.reg(slot.dst);
  const src = arena ? arenaAddress(ctx, ctx.registers.tmp2, ctx.reg(slot.src)) : ctx.reg(slot.src);
  const adjusted = access(ctx, arena ? 0 : slot.src, src, slot.off);
  if (isScaledOffset(adjusted.offset, size)) {
    ctx.emit(loadImmediate(size, signed, dst, adjusted.base, adjusted.offset));
  } else {
    const { tmp1 } = ctx.registers;
    ctx.code.emitAll(moveInt32(1, tmp1, slot.off));
    ctx.emit(loadRegister(size, signed, dst, src, tmp1));
  }
  if (mode !== MODE.MEM && mode !== MODE.MEMSX) {
    addExtableEntry(
      ctx,
      dst,
      arena ? { register: ctx.reg(slot.src), slot, write: false } : undefined,
    );
  }
}

/** ST (an immediate) and STX (a register). */
export function buildStore(ctx: FunctionContext, slot: Slot): void {
  if (slot.dst === STACK_ARGUMENTS && ctx.profile.stackArguments) return storeArgument(ctx, slot);
  const mode = slot.code & 0xe0;
  const size = sizeLog2(slot.code);
  const arena = mode === MODE.PROBE_MEM32 && ctx.profile.cpuV4;
  if (mode !== MODE.MEM && !arena) throw ctx.unsupported();
  const { tmp1, tmp2 } = ctx.registers;
  const immediate = (slot.code & 7) === 2;
  const arenaBase = immediate ? ctx.registers[ctx.profile.arenaStoreBase] : tmp2;
  const base = arena ? arenaAddress(ctx, arenaBase, ctx.reg(slot.dst)) : ctx.reg(slot.dst);
  const adjusted = access(ctx, arena ? 0 : slot.dst, base, slot.off);
  let value = ctx.reg(slot.src);
  let offsetRegister = tmp1;
  if (immediate) {
    ctx.code.emitAll(moveInt32(1, tmp1, slot.imm));
    value = tmp1;
    offsetRegister = tmp2;
  }
  if (isScaledOffset(adjusted.offset, size)) {
    ctx.emit(storeImmediate(size, value, adjusted.base, adjusted.offset));
  } else {
    ctx.code.emitAll(moveInt32(1, offsetRegister, slot.off));
    ctx.emit(storeRegister(size, value, base, offsetRegister));
  }
  if (arena) addExtableEntry(ctx, DONT_CLEAR, { register: ctx.reg(slot.dst), slot, write: true });
}

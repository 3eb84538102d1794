/**
 * Prologue and epilogue of 6.1: every program saves x19..x22 and x25..x28, used or not.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c of 6.1: build_prologue, build_epilogue, find_fpb_offset. The
 * tail-call count is x26; only a main program clears it, and the count that a subprogram makes is lost
 * when its x26 is restored. x27 (FP_BOTTOM) is R10 minus the deepest offset at which the program
 * accesses its stack, so that these offsets become positive.
 */
import type { Slot } from '../bpf/instruction.js';
import { isAddSubImmediate } from './alu.js';
import type { FunctionContext } from './context.js';
import { addImmediate, bti, FP, LR, movz, SP, subImmediate } from './emit.js';
import { buildEntry, buildReturn, pop, push } from './frame.js';
import type { StackAccess } from './profile.js';

const BPF_REG_FP = 10;

const SAVED: readonly (readonly [number, number])[] = [
  [19, 20],
  [21, 22],
  [25, 26],
  [27, 28],
];

/** Atomic operations that write their result to src_reg: fetches and xchg. */
const FETCHES: readonly number[] = [0x01, 0x41, 0x51, 0xa1, 0xe1];

/** A slot that writes R10: then x27 cannot stand for it. */
function writesFp(slot: Slot): boolean {
  switch (slot.code & 7) {
    case 3:
      return (slot.code & 0xe0) === 0xc0 && slot.src === BPF_REG_FP && FETCHES.includes(slot.imm);
    case 2:
    case 5:
    case 6:
      return false;
    default:
      return slot.dst === BPF_REG_FP;
  }
}

/** Bytes from R10 down to x27. */
function fpBottomOffset(slots: readonly Slot[]): number {
  let lowest = 0;
  for (const slot of slots) {
    if (writesFp(slot)) return 0;
    if ((slot.code & 0xe0) !== 0x60) continue;
    const base = (slot.code & 7) === 1 ? slot.src : slot.dst;
    const memory = (slot.code & 7) >= 1 && (slot.code & 7) <= 3;
    if (memory && base === BPF_REG_FP) lowest = Math.min(lowest, slot.off);
  }
  return -lowest & ~7;
}

export function buildPrologue61(ctx: FunctionContext): void {
  const fp = ctx.reg(BPF_REG_FP);
  const { x27, tailCallCount } = ctx.registers;
  ctx.fpBottom = fpBottomOffset(ctx.slots);
  if (!isAddSubImmediate(ctx.fpBottom)) throw ctx.refuse(`stack access at -${ctx.fpBottom}`);
  buildEntry(ctx, true);
  push(ctx, FP, LR);
  ctx.move(1, FP, SP);
  for (const [r1, r2] of SAVED) push(ctx, r1, r2);
  ctx.move(1, fp, SP);
  if (ctx.isMain) {
    ctx.emit(movz(1, tailCallCount, 0, 0));
    if (ctx.env.config.bti) ctx.emit(bti('j'));
  }
  ctx.emit(subImmediate(1, x27, fp, ctx.fpBottom));
  ctx.emit(subImmediate(1, SP, SP, ctx.stackSize));
}

export function buildEpilogue61(ctx: FunctionContext): void {
  ctx.emit(addImmediate(1, SP, SP, ctx.stackSize));
  for (const [r1, r2] of SAVED.toReversed()) pop(ctx, r1, r2);
  pop(ctx, FP, LR);
  buildReturn(ctx);
}

export function stackAccess61(ctx: FunctionContext, offset: number): StackAccess {
  if (ctx.fpBottom === 0) return { base: ctx.reg(BPF_REG_FP), offset };
  return { base: ctx.registers.x27, offset: offset + ctx.fpBottom };
}

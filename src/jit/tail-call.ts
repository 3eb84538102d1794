/**
 * bpf_tail_call(ctx, array, index), which falls through when it cannot jump.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: emit_bpf_tail_call; MAX_TAIL_CALL_CNT is 33 per entry of a main
 * program. From 6.12 on the count is in the main program's frame and x26 points to it, so that
 * subprograms share it; the callee lands behind its own frame setup, with the registers as this
 * function found them. In 6.1 the count is x26 itself and all frames have the same shape.
 */
import { moveInt64 } from './constants.js';
import type { FunctionContext } from './context.js';
import {
  addImmediate,
  addRegister,
  bCond,
  br,
  cbz,
  loadImmediate,
  loadRegister,
  lslImmediate,
  SP,
  storeImmediate,
  subsRegister,
  ZR,
} from './emit.js';
import { popCallee, releaseStack } from './frame.js';

export const MAX_TAIL_CALL_CNT = 33;

/** Words from a main program's entry to where tail calls land. */
function tailCallEntry(ctx: FunctionContext): number {
  const { pac, bti } = ctx.env.config;
  return ctx.profile.tailCallEntry + (pac ? 1 : 0) + (bti ? 1 : 0);
}

/** `if (index >= array->map.max_entries) goto out`; gives the branch to patch. */
function checkIndex(ctx: FunctionContext): number {
  const { tmp1 } = ctx.registers;
  const array = ctx.reg(2);
  const index = ctx.reg(3);
  ctx.code.emitAll(moveInt64(tmp1, BigInt(ctx.env.offsets.maxEntries)));
  ctx.emit(loadRegister(2, false, tmp1, array, tmp1));
  ctx.move(0, index, index);
  ctx.emit(subsRegister(0, ZR, index, tmp1));
  return ctx.code.hole();
}

/** x11 = array->ptrs[index]; gives the branch to patch for an empty slot. */
function loadProgram(ctx: FunctionContext): number {
  const { tmp1, tmp2 } = ctx.registers;
  ctx.code.emitAll(moveInt64(tmp1, BigInt(ctx.env.offsets.ptrs)));
  ctx.emit(addRegister(1, tmp1, ctx.reg(2), tmp1));
  ctx.emit(lslImmediate(1, tmp2, ctx.reg(3), 3));
  ctx.emit(loadRegister(3, false, tmp2, tmp1, tmp2));
  return ctx.code.hole();
}

/** x10 = prog->bpf_func + the landing offset. */
function loadTarget(ctx: FunctionContext): void {
  const { tmp1, tmp2 } = ctx.registers;
  ctx.code.emitAll(moveInt64(tmp1, BigInt(ctx.env.offsets.bpfFunc)));
  ctx.emit(loadRegister(3, false, tmp1, tmp2, tmp1));
  ctx.emit(addImmediate(1, tmp1, tmp1, 4 * tailCallEntry(ctx)));
}

function patchOut(ctx: FunctionContext, beyond: readonly number[], empty: number): void {
  const { code } = ctx;
  for (const hole of beyond) code.patch(hole, bCond('cs', code.length - hole));
  code.patch(empty, cbz(1, ctx.registers.tmp2, code.length - empty));
}

/** 6.12 and 7.3. */
export function buildTailCall(ctx: FunctionContext): void {
  const { tmp1, tmp3, tailCallCount } = ctx.registers;
  const beyondIndex = checkIndex(ctx);
  ctx.code.emitAll(moveInt64(tmp1, BigInt(MAX_TAIL_CALL_CNT)));
  ctx.emit(loadImmediate(3, false, tmp3, tailCallCount, 0));
  ctx.emit(subsRegister(1, ZR, tmp3, tmp1));
  const beyondCount = ctx.code.hole();
  ctx.emit(addImmediate(1, tmp3, tmp3, 1));
  const empty = loadProgram(ctx);
  ctx.emit(storeImmediate(3, tmp3, tailCallCount, 0));
  releaseStack(ctx);
  popCallee(ctx);
  loadTarget(ctx);
  ctx.emit(br(tmp1));
  patchOut(ctx, [beyondIndex, beyondCount], empty);
}

/** 6.1: counted before the slot is seen to be empty. */
export function buildTailCall61(ctx: FunctionContext): void {
  const { tmp1, tailCallCount } = ctx.registers;
  const beyondIndex = checkIndex(ctx);
  ctx.code.emitAll(moveInt64(tmp1, BigInt(MAX_TAIL_CALL_CNT)));
  ctx.emit(subsRegister(1, ZR, tailCallCount, tmp1));
  const beyondCount = ctx.code.hole();
  ctx.emit(addImmediate(1, tailCallCount, tailCallCount, 1));
  const empty = loadProgram(ctx);
  loadTarget(ctx);
  ctx.emit(addImmediate(1, SP, SP, ctx.stackSize));
  ctx.emit(br(tmp1));
  patchOut(ctx, [beyondIndex, beyondCount], empty);
}

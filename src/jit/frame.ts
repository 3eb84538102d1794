/**
 * Prologue and epilogue of 6.12 and 7.3: only the callee-saved registers that the program uses are saved.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: build_prologue, prepare_bpf_tail_call_cnt, push_callee_regs,
 * build_epilogue. The frame, high to low:
 *
 *   x29 x30            frame record
 *   xzr x26            a main program's tail-call count and the caller's x26, which then points to the count
 *   (x26 x26)          in a subprogram: the pointer goes on
 *   x19 x20 ...        used callee-saved registers in pairs, an odd one with xzr
 *   BPF stack          x25 = R10 is its top
 *   stack arguments    of calls, 7.3
 *
 * An exception boundary saves x19 to x28 whole; an exception callback borrows the boundary's frame.
 * Left out: programs made from classic BPF (no tail-call pad, branch-history clearing).
 */
import { addPercpuOffset } from './alu.js';
import { moveInt64 } from './constants.js';
import type { FunctionContext } from './context.js';
import {
  addImmediate,
  autiasp,
  bti,
  FP,
  ldpPostIndex,
  LR,
  nop,
  paciasp,
  ret,
  SP,
  stpPreIndex,
  subImmediate,
  ZR,
} from './emit.js';
import type { StackAccess } from './profile.js';
import { stackArgumentSize } from './stack-arguments.js';

const BPF_REG_FP = 10;

/** What an exception boundary saves, in the order of the pushes. */
const ALL_CALLEE: readonly (readonly [number, number])[] = [
  [19, 20],
  [21, 22],
  [23, 24],
  [25, 26],
  [27, 28],
];
/** Bytes from a boundary's frame record to the end of its saved registers. */
const BOUNDARY_FRAME = 96;
/** PRIV_STACK_GUARD_SZ: bytes below and above a private stack that show an overflow. */
export const PRIVATE_STACK_GUARD = 16n;

/** STP r1, r2 below SP. */
export function push(ctx: FunctionContext, r1: number, r2: number): void {
  ctx.emit(stpPreIndex(r1, r2, SP, -16));
}

export function pop(ctx: FunctionContext, r1: number, r2: number): void {
  ctx.emit(ldpPostIndex(r1, r2, SP, 16));
}

/** `[bti jc]; mov x9, x30; nop [; paciasp]`: every image starts so; the nop is the poke site. */
export function buildEntry(ctx: FunctionContext, sign: boolean): void {
  const { config } = ctx.env;
  if (config.bti) ctx.emit(bti(ctx.profile.entryPad));
  ctx.move(1, 9, LR);
  ctx.emit(nop());
  if (sign && config.pac) ctx.emit(paciasp());
}

/** `mov x0, R0; [autiasp;] ret`. */
export function buildReturn(ctx: FunctionContext): void {
  ctx.move(1, 0, ctx.reg(0));
  if (ctx.env.config.pac) ctx.emit(autiasp());
  ctx.emit(ret(LR));
}

/** Which callee-saved registers the slots name: R6..R9, R10, then x27 and x28 for what lives there. */
function findUsedCallee(ctx: FunctionContext): void {
  let named = 0;
  for (const slot of ctx.slots) named |= (1 << slot.dst) | (1 << slot.src);
  ctx.fpUsed = (named & (1 << BPF_REG_FP)) !== 0;
  const used = [6, 7, 8, 9, BPF_REG_FP].filter((r) => named & (1 << r)).map((r) => ctx.reg(r));
  if (ctx.fpUsed && ctx.fn.privateStack !== undefined) used.push(ctx.registers.x27);
  if (ctx.env.arena !== undefined) used.push(ctx.registers.arenaBase);
  ctx.usedCallee = used;
}

function calleePairs(ctx: FunctionContext): readonly (readonly [number, number])[] {
  if (ctx.fn.exceptionBoundary || ctx.fn.exceptionCallback) return ALL_CALLEE;
  const pairs: [number, number][] = [];
  const used = ctx.usedCallee;
  for (let i = 0; i < used.length; i += 2) pairs.push([used[i] ?? ZR, used[i + 1] ?? ZR]);
  return pairs;
}

/** Restores the callee-saved registers: the frame then is what it was at the tail-call entry. */
export function popCallee(ctx: FunctionContext): void {
  for (const [r1, r2] of calleePairs(ctx).toReversed()) pop(ctx, r1, r2);
}

export function buildPrologue(ctx: FunctionContext): void {
  const callback = ctx.fn.exceptionCallback === true;
  const { tailCallCount, arenaBase } = ctx.registers;
  findUsedCallee(ctx);
  if (ctx.fn.exceptionBoundary) ctx.fpUsed = true;
  buildEntry(ctx, !callback);
  if (callback) {
    ctx.move(1, FP, 2);
    ctx.emit(subImmediate(1, SP, FP, BOUNDARY_FRAME));
  } else {
    push(ctx, FP, LR);
    ctx.move(1, FP, SP);
    if (ctx.isMain) {
      push(ctx, ZR, tailCallCount);
      ctx.move(1, tailCallCount, SP);
      if (ctx.env.config.bti) ctx.emit(bti('j'));
    } else {
      push(ctx, tailCallCount, tailCallCount);
    }
    for (const [r1, r2] of calleePairs(ctx)) push(ctx, r1, r2);
  }
  buildStack(ctx);
  if (ctx.env.arena !== undefined) {
    ctx.code.emitAll(moveInt64(arenaBase, ctx.env.arena.kernVmStart));
  }
}

export function buildEpilogue(ctx: FunctionContext): void {
  releaseStack(ctx);
  popCallee(ctx);
  pop(ctx, ZR, ctx.registers.tailCallCount);
  pop(ctx, FP, LR);
  buildReturn(ctx);
}

/** R10 and the stack below it: at SP, or a private one of this CPU (7.3). */
function buildStack(ctx: FunctionContext): void {
  const fp = ctx.reg(BPF_REG_FP);
  const { privateStack } = ctx.fn;
  if (ctx.fpUsed && privateStack !== undefined) {
    const { x27 } = ctx.registers;
    ctx.code.emitAll(moveInt64(x27, privateStack + PRIVATE_STACK_GUARD));
    addPercpuOffset(ctx, x27);
    ctx.emit(addImmediate(1, fp, x27, ctx.stackSize));
  } else if (ctx.fpUsed) {
    ctx.move(1, fp, SP);
  }
  if (ctx.stackSize && privateStack === undefined) {
    ctx.emit(subImmediate(1, SP, SP, ctx.stackSize));
  }
  const argumentsSize = stackArgumentSize(ctx);
  if (argumentsSize) ctx.emit(subImmediate(1, SP, SP, argumentsSize));
}

/** Undoes `buildStack`. */
export function releaseStack(ctx: FunctionContext): void {
  const argumentsSize = stackArgumentSize(ctx);
  if (argumentsSize) ctx.emit(addImmediate(1, SP, SP, argumentsSize));
  if (ctx.stackSize && ctx.fn.privateStack === undefined) {
    ctx.emit(addImmediate(1, SP, SP, ctx.stackSize));
  }
}

/** R10 - n is the lower end of the stack plus its size minus n. */
export function stackAccess(ctx: FunctionContext, offset: number): StackAccess {
  const fromBottom = offset + ctx.stackSize;
  if (ctx.fn.privateStack !== undefined) return { base: ctx.registers.x27, offset: fromBottom };
  return { base: SP, offset: fromBottom + stackArgumentSize(ctx) };
}

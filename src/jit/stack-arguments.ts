/**
 * Arguments beyond the fifth (7.3): R11 addresses them, the first three are in registers all the same.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: build_insn, accesses through BPF_REG_PARAMS. A caller stores at
 * [R11 - 8], [R11 - 16] ..; the callee loads from [R11 + 8], [R11 + 16] ..: argument 6, 7, 8 are x5, x6,
 * x7; from the ninth on they lie on the stack, at the caller's SP and so above the callee's frame record.
 */
import type { Slot } from '../bpf/instruction.js';
import { moveInt32 } from './constants.js';
import type { FunctionContext } from './context.js';
import { FP, loadImmediate, SP, storeImmediate } from './emit.js';

/** BPF_REG_PARAMS. */
export const STACK_ARGUMENTS = 11;

/** MEM with size DW. */
const MODE_SIZE = 0x78;
/** x5: argument 6. */
const FIRST_REGISTER = 5;
const IN_REGISTERS = 3;
/** Bytes of the callee's frame record, below which the caller's SP was. */
const FRAME_RECORD = 16;

/** Bytes of outgoing stack arguments at SP. */
export function stackArgumentSize(ctx: FunctionContext): number {
  const slots = Math.max(0, (ctx.fn.outgoingStackArguments ?? 0) - IN_REGISTERS);
  return Math.ceil(slots / 2) * 16;
}

/** 0 for the sixth argument, from the distance to R11. */
function argumentIndex(ctx: FunctionContext, slot: Slot, distance: number): number {
  const index = distance / 8 - 1;
  if ((slot.code & 0xf8) !== MODE_SIZE || !Number.isInteger(index) || index < 0) {
    throw ctx.refuse(`access of a stack argument at ${slot.off}`);
  }
  return index;
}

/** An argument of this function. */
export function loadArgument(ctx: FunctionContext, slot: Slot): void {
  const index = argumentIndex(ctx, slot, slot.off);
  const dst = ctx.reg(slot.dst);
  if (index < IN_REGISTERS) return ctx.move(1, dst, FIRST_REGISTER + index);
  ctx.emit(loadImmediate(3, false, dst, FP, FRAME_RECORD + 8 * (index - IN_REGISTERS)));
}

/** An argument for the next call. */
export function storeArgument(ctx: FunctionContext, slot: Slot): void {
  const index = argumentIndex(ctx, slot, -slot.off);
  const immediate = (slot.code & 7) === 2;
  const { tmp1 } = ctx.registers;
  if (index < IN_REGISTERS) {
    const register = FIRST_REGISTER + index;
    if (immediate) ctx.code.emitAll(moveInt32(1, register, slot.imm));
    else ctx.move(1, register, ctx.reg(slot.src));
    return;
  }
  if (immediate) ctx.code.emitAll(moveInt32(1, tmp1, slot.imm));
  const value = immediate ? tmp1 : ctx.reg(slot.src);
  ctx.emit(storeImmediate(3, value, SP, 8 * (index - IN_REGISTERS)));
}

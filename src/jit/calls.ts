/**
 * Calls: helpers and kfuncs, other functions of the program, and the helpers that become code.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: emit_call, emit_direct_call, emit_indirect_call;
 * kernel/bpf/core.c: bpf_jit_get_func_addr. From 6.12 on a call is one BL if the image has its place, the
 * target is known and it is within 128 MiB; so an image may shrink from pass to pass, never grow.
 */
import { hex64 } from '../common/bytes.js';
import type { Slot } from '../bpf/instruction.js';
import type { CodeBuffer } from './code-buffer.js';
import { moveAddress, moveInt32, moveInt64 } from './constants.js';
import type { FunctionContext } from './context.js';
import { bl, blr, loadImmediate, loadRegister, mrs } from './emit.js';
import { isScaledOffset } from './memory.js';

const BPF_FUNC_GET_SMP_PROCESSOR_ID = 8;
const BPF_FUNC_GET_CURRENT_TASK = 35;
const BPF_FUNC_GET_CURRENT_TASK_BTF = 158;

/** bpf_jit_inlines_helper_call, from 6.12 on. */
export const INLINED_HELPERS: ReadonlySet<number> = new Set([
  BPF_FUNC_GET_SMP_PROCESSOR_ID,
  BPF_FUNC_GET_CURRENT_TASK,
  BPF_FUNC_GET_CURRENT_TASK_BTF,
]);

const PSEUDO_CALL = 1;
const PSEUDO_FUNC = 4;

const REACH = 128n << 20n;

/** Whether B or BL at `pc` reaches `target`. */
export function inBranchRange(pc: bigint, target: bigint): boolean {
  const offset = BigInt.asIntN(64, target - pc);
  return offset >= -REACH && offset < REACH;
}

/** BL, or the address in `scratch` and BLR. An unknown target takes the long form. */
export function emitCall(
  code: CodeBuffer,
  target: bigint | undefined,
  direct: boolean,
  scratch: number,
): void {
  const { pc } = code;
  if (direct && pc !== undefined && target !== undefined && inBranchRange(pc, target)) {
    code.emit(bl(Number(BigInt.asIntN(64, target - pc)) / 4));
    return;
  }
  code.emitAll(moveAddress(scratch, target ?? 0n));
  code.emit(blr(scratch));
}

/** opcode 0x85. The result comes back in x0, that of arch_bpf_timed_may_goto in AX. */
export function buildCall(ctx: FunctionContext, slot: Slot): void {
  const r0 = ctx.reg(0);
  if (slot.src === 0 && ctx.profile.inlinesHelpers && buildInlined(ctx, slot, r0)) return;
  const target =
    slot.src === PSEUDO_CALL
      ? functionAddress(ctx, slot.off)
      : BigInt.asUintN(64, ctx.env.callBase + BigInt(slot.imm));
  if (target !== undefined && (target & 3n) !== 0n) {
    throw ctx.refuse(`call of unaligned address ${hex64(target)}`);
  }
  emitCall(ctx.code, target, ctx.profile.directCalls, ctx.registers.tmp1);
  if (target === undefined || target !== ctx.env.timedMayGoto) ctx.move(1, r0, 0);
}

function buildInlined(ctx: FunctionContext, slot: Slot, r0: number): boolean {
  const { tmp1, tmp2 } = ctx.registers;
  switch (slot.imm) {
    case BPF_FUNC_GET_SMP_PROCESSOR_ID: {
      const offset = ctx.env.offsets.threadInfoCpu;
      ctx.emit(mrs('sp_el0', tmp1));
      if (isScaledOffset(offset, 2)) {
        ctx.emit(loadImmediate(2, false, r0, tmp1, offset));
      } else {
        ctx.code.emitAll(moveInt32(1, tmp2, offset));
        ctx.emit(loadRegister(2, false, r0, tmp1, tmp2));
      }
      return true;
    }
    case BPF_FUNC_GET_CURRENT_TASK:
    case BPF_FUNC_GET_CURRENT_TASK_BTF:
      ctx.emit(mrs('sp_el0', r0));
      return true;
    default:
      return false;
  }
}

/** Entry of a function of this program; unknown until all have their places. */
function functionAddress(ctx: FunctionContext, index: number): bigint | undefined {
  if (ctx.entries === undefined) return undefined;
  const address = ctx.entries[index];
  if (address === undefined) throw ctx.refuse(`call of function ${index}`);
  return address;
}

/** ld_imm64: a constant, or a function's address in fixed length. */
export function buildLoadImm64(ctx: FunctionContext, slot: Slot, second: Slot): void {
  const dst = ctx.reg(slot.dst);
  if (slot.src === PSEUDO_FUNC) {
    ctx.code.emitAll(moveAddress(dst, functionAddress(ctx, second.off) ?? 0n));
    return;
  }
  const value = (BigInt(second.imm >>> 0) << 32n) | BigInt(slot.imm >>> 0);
  ctx.code.emitAll(moveInt64(dst, value));
}

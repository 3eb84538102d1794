/**
 * Arena pointers: casts to user space, and what the exception table says about arena accesses.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: build_insn (insn_is_cast_user), add_exception_handler. A program
 * handles arena memory by 32-bit offsets; loads and stores add the arena's kernel base (x28), a cast adds
 * the upper half of its user address. NULL stays NULL.
 */
import { moveInt32 } from './constants.js';
import type { Arena } from '../bpf/program.js';
import type { FunctionContext } from './context.js';
import { cbz, lslImmediate, movk, orrRegister } from './emit.js';
import { type ArenaAccess, offsetFixup } from './extable.js';

function userHigh(arena: Arena): number {
  return Number(BigInt.asIntN(32, arena.userVmStart >> 32n));
}

/** 6.12. */
export function buildCastUser(ctx: FunctionContext, arena: Arena, dst: number, src: number): void {
  const { tmp1 } = ctx.registers;
  ctx.move(0, tmp1, src);
  ctx.code.emitAll(moveInt32(0, dst, userHigh(arena)));
  ctx.emit(lslImmediate(1, dst, dst, 32));
  ctx.emit(cbz(1, tmp1, 2));
  ctx.emit(orrRegister(1, tmp1, dst, tmp1));
  ctx.move(1, dst, tmp1);
}

/** 7.3: the upper half is 16 bits, user addresses have 48. */
export function buildCastUserMovk(
  ctx: FunctionContext,
  arena: Arena,
  dst: number,
  src: number,
): void {
  ctx.move(0, dst, src);
  ctx.emit(cbz(0, dst, 2));
  ctx.emit(movk(1, dst, userHigh(arena) & 0xffff, 32));
}

/** Bits of a 7.3 fixup. */
const ARENA_WRITE = 1 << 22;
const ARENA = 1 << 21;
const ARENA_REGISTER_SHIFT = 16;

/**
 * fixup of 7.3: the handler finds where to resume by itself, and reports the arena address that was
 * accessed:
 *
 *   rrrrr 0000 w a bbbbb oooooooo oooooooo
 *   register to clear, write, arena, register with the arena offset, off of the BPF instruction
 */
export function arenaFixup(
  ctx: FunctionContext,
  register: number,
  _offset: number,
  arena: ArenaAccess | undefined,
): number {
  const clear = offsetFixup(ctx, register, 0);
  if (arena === undefined) return clear;
  const write = arena.write ? ARENA_WRITE : 0;
  const base = arena.register << ARENA_REGISTER_SHIFT;
  return (clear | write | ARENA | base | (arena.slot.off & 0xffff)) >>> 0;
}

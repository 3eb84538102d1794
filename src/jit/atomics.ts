/**
 * Atomic operations, as LSE instructions or as load-exclusive/store-exclusive loops.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: emit_lse_atomic, emit_ll_sc_atomic, emit_atomic_ld_st. What
 * fetches is fully ordered: the `al` forms, or STLXR and a DMB after the loop. LSE has no AND and
 * no fetch-AND; it clears the bits of the complement. Not modelled, as in the kernel: arena atomics
 * without LSE (-EINVAL).
 */
import type { Slot } from '../bpf/instruction.js';
import { isAddSubImmediate } from './alu.js';
import { moveInt32 } from './constants.js';
import type { FunctionContext } from './context.js';
import {
  addImmediate,
  addRegister,
  andRegister,
  casal,
  cbnz,
  dmbIsh,
  eorRegister,
  ldar,
  type LseOperation,
  lseFetch,
  lseStore,
  ldxr,
  mvn,
  orrRegister,
  stlr,
  stlxr,
  stxr,
  subImmediate,
  swpal,
} from './emit.js';
import { addExtableEntry, DONT_CLEAR } from './extable.js';
import { sizeLog2 } from './memory.js';

const MODE_PROBE_ATOMIC = 0xe0;
const FETCH = 1;
const XCHG = 0xe1;
const CMPXCHG = 0xf1;
const LOAD_ACQ = 0x100;
const STORE_REL = 0x110;

interface Operation {
  readonly lse: LseOperation;
  /** The LSE form takes the complement of the operand. */
  readonly complement: boolean;
  readonly plain: (sf: number, rd: number, rn: number, rm: number) => number;
}

/** By imm without the fetch bit. */
const OPERATIONS: Readonly<Record<number, Operation>> = {
  0x00: { lse: 'add', complement: false, plain: addRegister },
  0x40: { lse: 'set', complement: false, plain: orrRegister },
  0x50: { lse: 'clr', complement: true, plain: andRegister },
  0xa0: { lse: 'eor', complement: false, plain: eorRegister },
};

export function buildAtomic(ctx: FunctionContext, slot: Slot): void {
  const arena = (slot.code & 0xe0) === MODE_PROBE_ATOMIC;
  const size = sizeLog2(slot.code);
  if (arena && !ctx.profile.cpuV4) throw ctx.unsupported();
  const acquireRelease = slot.imm === LOAD_ACQ || slot.imm === STORE_REL;
  if (acquireRelease && ctx.profile.acquireRelease) {
    buildLoadAcquireStoreRelease(ctx, slot, size, arena);
  } else if (size < 2) {
    throw ctx.unsupported();
  } else if (ctx.env.cpu.lse) {
    buildLse(ctx, slot, size, atomicAddress(ctx, slot.dst, slot.off, arena));
  } else if (arena) {
    throw ctx.refuse('arena atomics need LSE');
  } else {
    buildLlSc(ctx, slot, size, atomicAddress(ctx, slot.dst, slot.off, false));
  }
  if (!arena) return;
  const load = slot.imm === LOAD_ACQ;
  const address = ctx.reg(load ? slot.src : slot.dst);
  addExtableEntry(ctx, clearedByFault(ctx, slot), { register: address, slot, write: !load });
}

/** The register that a faulting arena access clears: its result. */
function clearedByFault(ctx: FunctionContext, slot: Slot): number {
  if (!ctx.profile.atomicFixupClears) return DONT_CLEAR;
  if (slot.imm === LOAD_ACQ) return ctx.reg(slot.dst);
  if (slot.imm === CMPXCHG) return ctx.reg(0);
  return slot.imm & FETCH ? ctx.reg(slot.src) : DONT_CLEAR;
}

function unknown(ctx: FunctionContext, slot: Slot): Error {
  return ctx.refuse(`atomic operation 0x${(slot.imm >>> 0).toString(16)} not supported`);
}

/** The register with the address: the BPF one if there is nothing to add. */
function atomicAddress(ctx: FunctionContext, bpf: number, off: number, arena: boolean): number {
  const { tmp1, arenaBase } = ctx.registers;
  let register = ctx.reg(bpf);
  if (off !== 0) {
    if (ctx.profile.atomicAddImmediate && isAddSubImmediate(off)) {
      ctx.emit(addImmediate(1, tmp1, register, off));
    } else if (ctx.profile.atomicAddImmediate && isAddSubImmediate(-off)) {
      ctx.emit(subImmediate(1, tmp1, register, -off));
    } else {
      ctx.code.emitAll(moveInt32(1, tmp1, off));
      const added = ctx.profile.atomicAddImmediate;
      ctx.emit(addRegister(1, tmp1, added ? register : tmp1, added ? tmp1 : register));
    }
    register = tmp1;
  }
  if (arena) {
    ctx.emit(addRegister(1, tmp1, register, arenaBase));
    register = tmp1;
  }
  return register;
}

function buildLse(ctx: FunctionContext, slot: Slot, size: number, address: number): void {
  const src = ctx.reg(slot.src);
  if (slot.imm === XCHG) return ctx.emit(swpal(size, src, src, address));
  if (slot.imm === CMPXCHG) return ctx.emit(casal(size, ctx.reg(0), src, address));
  const operation = OPERATIONS[slot.imm & ~FETCH];
  if (operation === undefined) throw unknown(ctx, slot);
  let operand = src;
  if (operation.complement) {
    operand = ctx.registers.tmp2;
    ctx.emit(mvn(size === 3 ? 1 : 0, operand, src));
  }
  if (slot.imm & FETCH) ctx.emit(lseFetch(operation.lse, size, operand, src, address));
  else ctx.emit(lseStore(operation.lse, size, operand, address));
}

function buildLlSc(ctx: FunctionContext, slot: Slot, size: number, address: number): void {
  const { tmp2, tmp3, ax } = ctx.registers;
  const sf = size === 3 ? 1 : 0;
  const src = ctx.reg(slot.src);
  const operation = OPERATIONS[slot.imm & ~FETCH];
  if (operation !== undefined && !(slot.imm & FETCH)) {
    ctx.emit(ldxr(size, tmp2, address));
    ctx.emit(operation.plain(sf, tmp2, tmp2, src));
    ctx.emit(stxr(size, tmp3, tmp2, address));
    return ctx.emit(cbnz(0, tmp3, -3));
  }
  if (operation !== undefined) {
    ctx.move(sf, ax, src);
    ctx.emit(ldxr(size, src, address));
    ctx.emit(operation.plain(sf, tmp2, src, ax));
    ctx.emit(stlxr(size, tmp3, tmp2, address));
    ctx.emit(cbnz(0, tmp3, -3));
  } else if (slot.imm === XCHG) {
    ctx.move(sf, tmp2, src);
    ctx.emit(ldxr(size, src, address));
    ctx.emit(stlxr(size, tmp3, tmp2, address));
    ctx.emit(cbnz(0, tmp3, -2));
  } else if (slot.imm === CMPXCHG) {
    const r0 = ctx.reg(0);
    ctx.move(sf, tmp2, r0);
    ctx.emit(ldxr(size, r0, address));
    ctx.emit(eorRegister(sf, tmp3, r0, tmp2));
    ctx.emit(cbnz(sf, tmp3, 4));
    ctx.emit(stlxr(size, tmp3, src, address));
    ctx.emit(cbnz(0, tmp3, -4));
  } else {
    throw unknown(ctx, slot);
  }
  ctx.emit(dmbIsh());
}

/** dst = load_acquire(src + off), store_release(dst + off, src); all four sizes. */
function buildLoadAcquireStoreRelease(
  ctx: FunctionContext,
  slot: Slot,
  size: number,
  arena: boolean,
): void {
  if (slot.imm === LOAD_ACQ) {
    const address = atomicAddress(ctx, slot.src, slot.off, arena);
    ctx.emit(ldar(size, ctx.reg(slot.dst), address));
  } else {
    const address = atomicAddress(ctx, slot.dst, slot.off, arena);
    ctx.emit(stlr(size, ctx.reg(slot.src), address));
  }
}

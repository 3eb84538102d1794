/**
 * Loads, stores and atomics of eBPF in WebAssembly, checked to the byte.
 *
 * An access through R10 with a known distance needs no check beyond that distance. All others compare
 * with the cached region of their pointer class and, when it is another one, ask the slow path, which
 * searches the region table, fills the cache, or ends the run with a fault. Reference: RFC 9669 §5.
 */
import type { Slot } from '../instruction.js';
import type { Opcode, Size } from '../opcodes.js';
import type { FunctionContext, PointerClass } from './context.js';
import { I64, OP } from './emitter.js';
import { classOf, type Origin } from './origins.js';
import { ACCESS, SLOT, STACK_SIZE } from './state.js';

/** Where an access goes: an i32 local and a constant to add. */
export interface Place {
  readonly local: number;
  readonly offset: number;
}

export interface Access {
  /** BPF register that holds the base. */
  readonly register: number;
  readonly origin: Origin;
  readonly off: number;
  readonly size: number;
  readonly write: boolean;
  readonly probe?: boolean;
  readonly insn: number;
}

/** Distance from R10 of an access that needs no check; undefined for all others. */
export function stackDistance(origin: Origin, off: number, size: number): number | undefined {
  if (origin.stack === undefined) return undefined;
  const distance = origin.stack + off;
  return distance >= -STACK_SIZE && distance + size <= 0 ? distance : undefined;
}

/** Writes the check and gives the place; with `probe` the local is negative where nothing is. */
export function emitAccess(context: FunctionContext, access: Access): Place {
  const { code, locals, plan } = context;
  const distance = stackDistance(access.origin, access.off, access.size);
  if (distance !== undefined) return { local: locals.frame, offset: STACK_SIZE + distance };
  const kind = plan.classes[classOf(access.origin).slot];
  if (!kind) throw new RangeError(`${plan.name} insn ${access.insn}: no pointer class`);
  let address = locals.registers[access.register] as number;
  if (access.off !== 0) {
    code.get(address).i64(access.off).op(OP.i64_add).set(locals.address);
    address = locals.address;
  }
  code.get(address).op(OP.i32_wrap_i64);
  emitSlot(context, kind, 'delta');
  code.op(OP.i32_add).set(locals.at);
  code.get(address);
  emitSlot(context, kind, 'lo');
  code.op(OP.i64_sub);
  emitSlot(context, kind, 'limit');
  const isExact = kind.size !== 0 && locals.copies.has(kind);
  if (access.size !== 8 && !isExact) code.i64(8 - access.size).op(OP.i64_add);
  code.op(OP.i64_gt_u);
  code.open(OP.if);
  const bits =
    (access.size << ACCESS.sizeShift) |
    (access.write ? ACCESS.write : 0) |
    (kind.needsWrite ? ACCESS.needsWrite : 0) |
    (access.probe === true ? ACCESS.probe : 0);
  code.get(address).i32(context.program.site(plan, access.insn)).i32(bits).i32(kind.slot);
  code.call(context.program.locate).set(locals.at);
  emitCopy(context, kind);
  code.end();
  return { local: locals.at, offset: 0 };
}

/** Pushes a part of a slot. */
export function emitSlot(
  { code, locals }: FunctionContext,
  kind: PointerClass,
  part: 'lo' | 'limit' | 'delta',
): void {
  const copy = locals.copies.get(kind);
  if (copy) code.get(copy[part]);
  else code.i32(0).memory(part === 'delta' ? OP.i32_load : OP.i64_load, kind.slot + SLOT[part]);
}

/** Brings the copy of a slot up to date, when there is one. */
export function emitCopy({ code, locals }: FunctionContext, kind: PointerClass): void {
  const copy = locals.copies.get(kind);
  if (!copy) return;
  code
    .i32(0)
    .memory(OP.i64_load, kind.slot + SLOT.lo)
    .set(copy.lo);
  code.i32(0).memory(OP.i64_load, kind.slot + SLOT.limit);
  if (kind.size !== 0 && kind.size !== 8) code.i64(8 - kind.size).op(OP.i64_add);
  code.set(copy.limit);
  code
    .i32(0)
    .memory(OP.i32_load, kind.slot + SLOT.delta)
    .set(copy.delta);
}

export function emitCopies(context: FunctionContext): void {
  for (const kind of context.locals.copies.keys()) emitCopy(context, kind);
}

const LOAD_UNSIGNED: Readonly<Record<Size, number>> = {
  1: OP.i64_load8_u,
  2: OP.i64_load16_u,
  4: OP.i64_load32_u,
  8: OP.i64_load,
};
const LOAD_SIGNED: Readonly<Record<Size, number>> = {
  1: OP.i64_load8_s,
  2: OP.i64_load16_s,
  4: OP.i64_load32_s,
  8: OP.i64_load,
};
const STORE: Readonly<Record<Size, number>> = {
  1: OP.i64_store8,
  2: OP.i64_store16,
  4: OP.i64_store32,
  8: OP.i64_store,
};

export function emitLoad(
  context: FunctionContext,
  insn: number,
  slot: Slot,
  { size, signed, probe }: Opcode & { readonly kind: 'load' },
): void {
  const { code, locals } = context;
  const access: Access = {
    register: slot.src,
    origin: baseOf(context, insn),
    off: slot.off,
    size,
    write: false,
    probe,
    insn,
  };
  const place = emitAccess(context, access);
  const opcode = (signed ? LOAD_SIGNED : LOAD_UNSIGNED)[size];
  const isChecked = place.local === locals.at;
  if (probe && isChecked) {
    code.get(place.local).i32(0).op(OP.i32_lt_s).op(OP.if).u8(I64).i64(0).op(OP.else);
  }
  code.get(place.local).memory(opcode, place.offset);
  if (probe && isChecked) code.op(OP.end);
  code.set(locals.registers[slot.dst] as number);
}

export function emitStore(
  context: FunctionContext,
  insn: number,
  slot: Slot,
  { size, source }: Opcode & { readonly kind: 'store' },
): void {
  const { code, locals } = context;
  const place = emitAccess(context, {
    register: slot.dst,
    origin: baseOf(context, insn),
    off: slot.off,
    size,
    write: true,
    insn,
  });
  code.get(place.local);
  if (source === 'register') code.get(locals.registers[slot.src] as number);
  else code.i64(slot.imm);
  code.memory(STORE[size], place.offset);
}

const FETCH: Readonly<Record<number, number | undefined>> = {
  0x00: OP.i64_add,
  0x40: OP.i64_or,
  0x50: OP.i64_and,
  0xa0: OP.i64_xor,
};

/** One program runs at a time, so a load and a store behind each other are atomic. */
export function emitAtomic(
  context: FunctionContext,
  insn: number,
  slot: Slot,
  { size }: Opcode & { readonly kind: 'atomic' },
): void {
  const { code, locals } = context;
  const isLoad = slot.imm === 0x100;
  const { local, offset } = emitAccess(context, {
    register: isLoad ? slot.src : slot.dst,
    origin: baseOf(context, insn),
    off: slot.off,
    size,
    write: !isLoad,
    insn,
  });
  const src = locals.registers[slot.src] as number;
  if (isLoad) {
    code.get(local).memory(LOAD_UNSIGNED[size], offset);
    code.set(locals.registers[slot.dst] as number);
    return;
  }
  if (slot.imm === 0x110) {
    code.get(local).get(src).memory(STORE[size], offset);
    return;
  }
  code.get(local).memory(LOAD_UNSIGNED[size], offset).set(locals.temporary);
  if (slot.imm === 0xf1) {
    const expected = locals.registers[0] as number;
    code.get(locals.temporary).get(expected);
    if (size === 4) code.op(OP.i32_wrap_i64).op(OP.i64_extend_i32_u);
    code.op(OP.i64_eq);
    code.open(OP.if);
    code.get(local).get(src).memory(STORE[size], offset);
    code.end();
    code.get(locals.temporary).set(expected);
    return;
  }
  const operation = FETCH[slot.imm & 0xf0];
  code.get(local);
  if (operation === undefined) code.get(src);
  else code.get(locals.temporary).get(src).op(operation);
  code.memory(STORE[size], offset);
  if ((slot.imm & 1) === 1) code.get(locals.temporary).set(src);
}

function baseOf({ plan }: FunctionContext, insn: number): Origin {
  const origin = plan.origins.bases[insn];
  if (!origin) throw new RangeError(`${plan.name} insn ${insn}: no base`);
  return origin;
}

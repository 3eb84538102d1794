/**
 * Loads and stores on the program's stack.
 *
 * Whole slots keep the value stored in them, pointers included; parts of a slot become bytes of no
 * known content or zero. Never written stack may be read, as the kernel lets privileged programs.
 * Reference: check_stack_read_fixed_off, check_stack_write_fixed_off, check_stack_write_var_off in
 * kernel/bpf/verifier.c. Dynptrs and iterators: `stack-objects.ts`.
 */
import type { Env } from './env.js';
import { constScalar, markPrecise, truncate, unknownScalar, unsignedScalar } from './scalar.js';
import { destroyDynptr } from './stack-objects.js';
import { stackReach } from './stack-reach.js';
import {
  ALL_MISC,
  ALL_ZERO,
  BYTE,
  isObject,
  noteStackRead,
  noteStackWrite,
  type Frame,
  type StackSlot,
} from './state.js';
import { variableText, type Pointer, type Value } from './value.js';

function frameOf(env: Env, pointer: Pointer): Frame {
  return env.state.frames[pointer.frame] as Frame;
}

/** Index of the slot that `off` is in. */
function slotAt(off: number): number {
  return (-off - 1) >> 3;
}

function checkAligned(env: Env, pointer: Pointer, off: number, size: number): void {
  if (!isAligned(pointer, off, size)) {
    env.refuse(
      'EACCES',
      `misaligned stack access off ${variableText(pointer)}+${pointer.off}+${off} size ${size}`,
    );
  }
}

/** Whether every address is a multiple of `size`, when where the pointer began is. */
export function isAligned(pointer: Pointer, off: number, size: number): boolean {
  const { value, mask } = pointer.variable?.bits ?? { value: 0n, mask: 0n };
  const base = pointer.off + off + Number(value & 7n);
  return (base & (size - 1)) === 0 && (Number(mask & 7n) & (size - 1)) === 0;
}

/** What a load of `size` bytes gives. */
export function loadStack(
  env: Env,
  register: number,
  pointer: Pointer,
  off: number,
  size: number,
): Value {
  checkAligned(env, pointer, off, size);
  const { low, high } = stackReach(env, register, pointer, off, size, 'read');
  const { stack } = frameOf(env, pointer);
  if (low !== high || pointer.variable) {
    let allZero = true;
    for (let at = low; at < high + size; at++) {
      const index = slotAt(at);
      const slot = stack[index];
      if (slot && isObject(slot)) {
        env.refuse(
          'EACCES',
          `invalid read from stack R${register} var_off ${variableText(pointer)}+${at - low} size ${size}`,
        );
      }
      noteStackRead(env.state, pointer.frame, index);
      if (byteOf(slot, at & 7) !== BYTE.zero) allZero = false;
    }
    return allZero ? constScalar(0n) : unknownOf(size);
  }
  const index = slotAt(low);
  const slot = stack[index];
  if (slot && isObject(slot)) {
    env.refuse('EACCES', `invalid read from stack off ${low}+0 size ${size}`);
  }
  noteStackRead(env.state, pointer.frame, index);
  const first = low & 7;
  if (slot?.kind === 'spill') {
    const { value } = slot;
    if (value.kind === 'pointer') {
      if (size !== 8) env.refuse('EACCES', 'invalid size of register fill');
      return value;
    }
    if (first === 0 && size <= slot.size) return truncate(value, size);
    if (first + size <= slot.size) {
      if (!value.is(0n)) return unknownOf(size);
      markPrecise(value);
      return constScalar(0n, value);
    }
  }
  for (let i = 0; i < size; i++) {
    if (byteOf(slot, first + i) !== BYTE.zero) return unknownOf(size);
  }
  return constScalar(0n);
}

function unknownOf(size: number): Value {
  return size === 8 ? unknownScalar() : unsignedScalar((1n << BigInt(8 * size)) - 1n);
}

function byteOf(slot: StackSlot | undefined, index: number): number {
  if (!slot) return BYTE.invalid;
  if (slot.kind === 'spill') return index < slot.size ? BYTE.misc : (slot.rest >> (2 * index)) & 3;
  if (slot.kind !== 'bytes') return BYTE.misc;
  return (slot.bytes >> (2 * index)) & 3;
}

/** A store of `size` bytes of `value`. */
export function storeStack(
  env: Env,
  register: number,
  pointer: Pointer,
  off: number,
  size: number,
  value: Value,
): void {
  checkAligned(env, pointer, off, size);
  const { low, high } = stackReach(env, register, pointer, off, size, 'write');
  if (value.kind === 'pointer') {
    if (size !== 8) env.refuse('EACCES', 'invalid size of register spill');
    if (value.type === 'stack' && pointer.frame !== env.state.frames.length - 1) {
      env.refuse('EINVAL', 'cannot spill pointers to stack into stack frame of the caller');
    }
  }
  const { stack } = frameOf(env, pointer);
  const isZero = value.kind === 'scalar' && value.is(0n);
  for (let at = low; at < high + size; at++) destroyDynptr(env, pointer.frame, slotAt(at));
  if (pointer.variable) {
    if (isZero) markPrecise(value);
    for (let at = low; at < high + size; at++) {
      const index = slotAt(at);
      const slot = stack[index];
      // it may be written or not: zero stays zero only when zero is written
      const stays = isZero && slot?.kind === 'bytes' && byteOf(slot, at & 7) === BYTE.zero;
      if (!stays) setByte(stack, index, at & 7, BYTE.misc);
      noteStackRead(env.state, pointer.frame, index);
    }
    return;
  }
  const index = slotAt(low);
  const first = low & 7;
  if (first === 0 && (size === 8 || value.kind === 'scalar')) {
    const kept = value.kind === 'scalar' ? truncate(value, size) : value;
    stack[index] = { kind: 'spill', value: kept, size, rest: restOf(stack[index], size) };
    if (size === 8) noteStackWrite(env.state, pointer.frame, index);
    return;
  }
  if (isZero) markPrecise(value);
  for (let i = 0; i < size; i++) {
    setByte(stack, index, first + i, isZero ? BYTE.zero : BYTE.misc);
  }
}

/** What the bytes from `size` on are when the ones below are overwritten: zero stays, others are not known. */
function restOf(slot: StackSlot | undefined, size: number): number {
  let rest = 0;
  for (let i = size; i < 8; i++) {
    const byte = byteOf(slot, i);
    rest |= byte << (2 * i);
  }
  return rest;
}

/** The constant that `size` bytes of a map's key are (get_constant_map_key). */
export function constantAt(env: Env, pointer: Pointer, size: number): bigint | undefined {
  if (pointer.type !== 'stack' || pointer.variable) return undefined;
  const slot = frameOf(env, pointer).stack[slotAt(pointer.off)];
  const first = pointer.off & 7;
  const isZero = (i: number): boolean => byteOf(slot, first + i) === BYTE.zero;
  if (first + size <= 8 && Array.from({ length: size }, (_, i) => i).every(isZero)) return 0n;
  // a number of just that size
  if (slot?.kind !== 'spill' || slot.size - first !== size) return undefined;
  const { value } = slot;
  if (value.kind !== 'scalar' || !value.isConst) return undefined;
  markPrecise(value);
  return value.umin;
}

function setByte(stack: (StackSlot | undefined)[], index: number, at: number, kind: number): void {
  const slot = stack[index];
  let bytes = slot?.kind === 'bytes' ? slot.bytes : slot && isObject(slot) ? ALL_MISC : 0;
  if (slot?.kind === 'spill') {
    // zero that was spilled stays zero in the bytes that are left
    const isZero = slot.value.kind === 'scalar' && slot.value.is(0n) && slot.size === 8;
    if (isZero && slot.value.kind === 'scalar') markPrecise(slot.value);
    bytes = isZero ? ALL_ZERO : ALL_MISC;
  }
  stack[index] = { kind: 'bytes', bytes: (bytes & ~(3 << (2 * at))) | (kind << (2 * at)) };
}

/** Checks memory that a helper reads (and, when `writes`, fills with something). */
export function helperStack(
  env: Env,
  register: number,
  pointer: Pointer,
  size: number,
  writes: boolean,
): void {
  const { low, high } = stackReach(env, register, pointer, 0, size, writes ? 'write' : 'read');
  const { stack } = frameOf(env, pointer);
  // without a constant place what is written may not be all of it
  const fills = writes && !pointer.variable;
  for (let at = low; at < high + size; at++) {
    const index = slotAt(at);
    const slot = stack[index];
    if (slot?.kind === 'dynptr' && fills) {
      env.refuse('EACCES', `potential write to dynptr at off=${at} disallowed`);
    }
    if (slot && isObject(slot) && !fills) {
      const place = pointer.variable ? `var_off ${variableText(pointer)}` : `off ${low}`;
      env.refuse(
        'EACCES',
        `invalid indirect read from stack R${register} ${place}+${at - low} size ${size}`,
      );
    }
    noteStackRead(env.state, pointer.frame, index);
    if (writes) setByte(stack, index, at & 7, BYTE.misc);
  }
}

/**
 * Objects on the stack that only calls may touch: where they are, what a store does to them.
 *
 * A dynptr takes two slots, an iterator as many as its struct. Writing over one destroys it, with the slices
 * of a dynptr; one that holds a reference cannot be overwritten (dynptr) or is never given back (iterator).
 * Reading their bytes is refused. Reference: stack_slot_obj_get_spi, mark_stack_slots_dynptr,
 * destroy_if_dynptr_stack_slot, invalidate_dynptr in kernel/bpf/verifier.c.
 */
import type { Env } from './env.js';
import { unknownScalar } from './scalar.js';
import { noteStackRead, noteStackWrite, replaceValues, type StackSlot } from './state.js';
import { stackReach } from './stack-reach.js';
import type { Pointer } from './value.js';

/** An object's slots in a frame: `index` is that of its lowest address. */
export interface Place {
  readonly frame: number;
  readonly index: number;
}

/** Slots from `place` towards R10 that hold an object of `count` slots. */
export function slotsAt(
  env: Env,
  { frame, index }: Place,
  count: number,
): (StackSlot | undefined)[] {
  const stack = env.state.frames[frame]?.stack ?? [];
  return Array.from({ length: count }, (_, i) => stack[index - i]);
}

/** Where an object of `count` slots at `pointer` is; refuses what cannot be one. */
export function placeOf(env: Env, pointer: Pointer, what: string, count: number): Place {
  if (pointer.variable) env.refuse('EINVAL', `${what} has to be at a constant offset`);
  const { off, frame } = pointer;
  const index = (-off - 1) >> 3;
  if (off % 8 !== 0 || index + 1 < count) {
    env.refuse('EINVAL', `cannot pass in ${what} at an offset=${off}`);
  }
  return { frame, index };
}

/** Puts an object where it may be: whole slots inside the frame. */
export function putObject(
  env: Env,
  register: number,
  pointer: Pointer,
  { frame, index }: Place,
  slots: readonly StackSlot[],
): void {
  for (const i of slots.keys()) stackReach(env, register, pointer, 8 * i, 8, 'write');
  for (const i of slots.keys()) destroyDynptr(env, frame, index - i);
  const stack = env.state.frames[frame]?.stack;
  for (const [i, slot] of slots.entries()) {
    if (stack) stack[index - i] = slot;
    noteStackWrite(env.state, frame, index - i);
  }
}

/** Slots of an object that is no more. */
export function clearObject(env: Env, { frame, index }: Place, count: number): void {
  const stack = env.state.frames[frame]?.stack;
  for (let i = 0; i < count; i++) {
    if (stack) stack[index - i] = undefined;
    noteStackWrite(env.state, frame, index - i);
  }
}

/** The object's slots matter in all states since it was made. */
export function noteObjectRead(env: Env, { frame, index }: Place, count: number): void {
  for (let i = 0; i < count; i++) noteStackRead(env.state, frame, index - i);
}

/** A slot is about to be written: the dynptr that it belongs to is gone. */
export function destroyDynptr(env: Env, frame: number, index: number): void {
  const slot = env.state.frames[frame]?.stack[index];
  if (slot?.kind !== 'dynptr') return;
  if (slot.ref !== 0) env.refuse('EINVAL', 'cannot overwrite referenced dynptr');
  clearObject(env, { frame, index: slot.first ? index : index + 1 }, 2);
  invalidateSlices(env, slot.id);
}

/** Slices of dynptr `id` become plain numbers. */
export function invalidateSlices(env: Env, id: number): void {
  replaceValues(env.state, (value) =>
    value.kind === 'pointer' && value.dynptr === id ? unknownScalar() : value,
  );
}

/**
 * Dynptrs as arguments of calls: made, used, given back.
 *
 * Reference: process_dynptr_func, unmark_stack_slots_dynptr in kernel/bpf/verifier.c. Differently from there, giving
 * back a ring buffer's dynptr invalidates slices that bpf_dynptr_slice gave of it too, and clones in
 * other frames.
 */
import type { Env } from './env.js';
import { acquire, release } from './references.js';
import {
  clearObject,
  invalidateSlices,
  noteObjectRead,
  placeOf,
  putObject,
  slotsAt,
  type Place,
} from './stack-objects.js';
import type { DynptrSlot, DynptrType } from './state.js';
import { Pointer } from './value.js';

const NR_SLOTS = 2;

/** Makes a dynptr in R`register`; `clonedRef` is the reference of the one that it is a copy of. */
export function makeDynptr(
  env: Env,
  register: number,
  pointer: Pointer,
  type: DynptrType,
  clonedRef = 0,
): void {
  const place = placeOf(env, pointer, 'dynptr', NR_SLOTS);
  const id = env.nextId();
  const ref = type !== 'ringbuf' ? 0 : clonedRef === 0 ? acquire(env) : clonedRef;
  const slot = { kind: 'dynptr', type, id, ref } as const;
  putObject(env, register, pointer, place, [
    { ...slot, first: true },
    { ...slot, first: false },
  ]);
}

function find(env: Env, place: Place): DynptrSlot | undefined {
  const [first, second] = slotsAt(env, place, NR_SLOTS);
  const isWhole = first?.kind === 'dynptr' && first.first && second?.kind === 'dynptr';
  return isWhole ? first : undefined;
}

/** A dynptr that a function gets as an argument. */
export function dynptrArgument(env: Env): Pointer {
  return new Pointer('dynptr', { dynptr: env.nextId() });
}

/** The dynptr that R`register` points to. */
export function useDynptr(env: Env, register: number, pointer: Pointer): DynptrSlot {
  if (pointer.type === 'dynptr') {
    const { dynptr: id } = pointer;
    return { kind: 'dynptr', type: 'local', first: true, id, ref: 0 };
  }
  const place = placeOf(env, pointer, 'dynptr', NR_SLOTS);
  const dynptr = find(env, place);
  if (!dynptr) {
    return env.refuse('EINVAL', `Expected an initialized dynptr as arg #${register - 1}`);
  }
  noteObjectRead(env, place, NR_SLOTS);
  return dynptr;
}

/** Gives back what R`register` points to, with all copies and slices of it. */
export function releaseDynptr(env: Env, register: number, pointer: Pointer): void {
  if (pointer.type === 'dynptr') env.refuse('EINVAL', 'cannot release unowned const bpf_dynptr');
  const place = placeOf(env, pointer, 'dynptr', NR_SLOTS);
  const [slot] = slotsAt(env, place, 1);
  if (slot?.kind !== 'dynptr' || slot.ref === 0) {
    env.refuse('EINVAL', `arg ${register} is an unacquired reference`);
  }
  const { ref } = useDynptr(env, register, pointer);
  release(env, ref);
  for (const [frame, { stack }] of env.state.frames.entries()) {
    for (const [index, each] of stack.entries()) {
      if (each?.kind !== 'dynptr' || each.ref !== ref || !each.first) continue;
      clearObject(env, { frame, index }, NR_SLOTS);
      invalidateSlices(env, each.id);
    }
  }
}

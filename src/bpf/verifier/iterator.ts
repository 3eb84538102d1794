/**
 * Open-coded iterators: an object on the stack that is made, asked for the next, and given back.
 *
 * Asking splits the path: on one way the iterator is drained and gives NULL for good, on the other it gives
 * one more. The second comes back to the same call sooner or later; numbers that nobody needed and that
 * changed since the last time are any number from there on, so that the loop converges. Reference:
 * process_iter_arg, process_iter_next_call in kernel/bpf/verifier.c.
 */
import type { Env } from './env.js';
import { findEntry, widenFrom } from './function-call.js';
import { acquire, release } from './references.js';
import { constScalar } from './scalar.js';
import {
  clearObject,
  noteObjectRead,
  placeOf,
  putObject,
  slotsAt,
  type Place,
} from './stack-objects.js';
import { copyState, topFrame, type IteratorSlot, type State } from './state.js';
import { withFields, type Pointer } from './value.js';

/** What kind of iterator an argument is: `num`, and how many slots it takes. */
export interface IteratorType {
  readonly name: string;
  readonly slots: number;
}

export function makeIterator(
  env: Env,
  register: number,
  pointer: Pointer,
  { name, slots: count }: IteratorType,
): void {
  const place = placeOf(env, pointer, 'iter', count);
  if (slotsAt(env, place, count).some((slot) => slot?.kind === 'iterator')) {
    env.refuse('EINVAL', `expected uninitialized iter_${name} as arg #${register - 1}`);
  }
  const ref = acquire(env);
  const slot = { kind: 'iterator', type: name, active: true, depth: 0 } as const;
  putObject(
    env,
    register,
    pointer,
    place,
    Array.from({ length: count }, (_, i) => ({ ...slot, ref: i === 0 ? ref : 0 })),
  );
}

/** Where the iterator is that R`register` points to, and its first slot. */
export function useIterator(
  env: Env,
  register: number,
  pointer: Pointer,
  { name, slots: count }: IteratorType,
): { readonly place: Place; readonly first: IteratorSlot } {
  const place = placeOf(env, pointer, 'iter', count);
  const [first, ...others] = slotsAt(env, place, count);
  const isPart = others.every((slot) => slot?.kind === 'iterator' && slot.ref === 0);
  if (first?.kind !== 'iterator' || first.ref === 0 || first.type !== name || !isPart) {
    return env.refuse('EINVAL', `expected an initialized iter_${name} as arg #${register - 1}`);
  }
  noteObjectRead(env, place, count);
  return { place, first };
}

export function destroyIterator(
  env: Env,
  place: Place,
  { ref }: IteratorSlot,
  slots: number,
): void {
  release(env, ref);
  clearObject(env, place, slots);
}

/**
 * R0 holds what the iterator gives, or NULL. Goes on with the drained iterator; gives the state in which there
 * is one more.
 */
export function splitAtNext(env: Env, { frame, index }: Place): State | undefined {
  const { state } = env;
  const stack = state.frames[frame]?.stack ?? [];
  const slot = stack[index];
  if (slot?.kind !== 'iterator') return undefined;
  let more: State | undefined;
  if (slot.active) {
    more = copyState(state);
    const { stack: ahead } = more.frames[frame] ?? { stack: [] };
    ahead[index] = { ...slot, depth: slot.depth + 1 };
    const { regs } = topFrame(more);
    const given = regs[0];
    if (given?.kind === 'pointer') regs[0] = withFields(given, { orNull: false, id: 0 });
    // the nearest parent is the checkpoint of this very call
    const before = findEntry(state.parent?.parent, state, env.at);
    if (before) widenFrom(more, before);
  }
  stack[index] = { ...slot, active: false };
  topFrame(state).regs[0] = constScalar(0n);
  return more;
}

/** Whether R1 points to an iterator that may give more. */
export function asksActiveIterator(state: State): boolean {
  const [, pointer] = topFrame(state).regs;
  if (pointer?.kind !== 'pointer' || pointer.type !== 'stack') return false;
  const slot = state.frames[pointer.frame]?.stack[(-pointer.off - 1) >> 3];
  return slot?.kind === 'iterator' && slot.active;
}

/** may_goto: goes on where it jumps to; gives the state in which it does not, at the next instruction. */
export function splitAtMayGoto(env: Env, distance: number): State {
  const { state } = env;
  const more = copyState(state);
  more.mayGotoDepth++;
  more.at = env.at + 1;
  const before = findEntry(state.parent?.parent, state, env.at);
  if (before) widenFrom(more, before);
  state.at = env.at + 1 + distance;
  return more;
}

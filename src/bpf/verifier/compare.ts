/**
 * Whether a state has nothing new over one that was kept: then its path need not be walked.
 *
 * Reference: states_equal, regsafe, stacksafe, check_ids, propagate_precision in
 * kernel/bpf/verifier.c. How:
 *   `walked`  the kept state was walked to all its ends: numbers whose range nobody needed may differ,
 *             registers and stack slots that nobody reads too
 *   `within`  the kept state is still being walked (a callback that repeats): every range must contain
 *   `exact`   nothing differs: the program is in an endless loop
 */
import { sameBounds } from './range.js';
import { boundsContain, markPrecise, UNKNOWN_RANGE, type Scalar } from './scalar.js';
import {
  ALL_ZERO,
  inheritReads,
  isObject,
  isRead,
  noteStackRead,
  topFrame,
  type Checkpoint,
  type Frame,
  type StackSlot,
  type State,
} from './state.js';
import type { Structure } from './structure.js';
import type { Pointer, Value } from './value.js';

export type How = 'walked' | 'within' | 'exact';

/** Which id, or which scalar, of the new state stands for one of the kept state. */
interface Pairs {
  readonly ids: Map<number, number>;
  readonly scalars: Map<Scalar, Scalar>;
}

const CALLEE_SAVED = 0b1111000000;

/** Registers that matter in frame `depth` of `state`. */
function liveIn(state: State, depth: number, structures: readonly Structure[]): number {
  const frame = state.frames[depth] as Frame;
  const live = (structures[frame.fn] as Structure).live;
  const inner = state.frames[depth + 1];
  if (!inner) return live[state.at] ?? 0;
  // a callback comes back to the call itself
  if (inner.callback) return live[inner.callSite] ?? 0;
  return (live[inner.callSite + 1] ?? 0) & CALLEE_SAVED;
}

export function covers(
  checkpoint: Checkpoint,
  state: State,
  how: How,
  structures: readonly Structure[],
): boolean {
  const old = checkpoint.state;
  if (old.frames.length !== state.frames.length || old.refs.length !== state.refs.length) {
    return false;
  }
  const pairs: Pairs = { ids: new Map(), scalars: new Map() };
  for (const [i, { id }] of old.refs.entries()) {
    if (!sameId(id, state.refs[i]?.id ?? 0, pairs)) return false;
  }
  if (old.rcuLocked !== state.rcuLocked || old.preemptDisabled !== state.preemptDisabled) {
    return false;
  }
  if ((old.lock === undefined) !== (state.lock === undefined)) return false;
  if (old.lock && state.lock) {
    if (old.lock.owner !== state.lock.owner || !sameId(old.lock.id, state.lock.id, pairs))
      return false;
  }
  for (let depth = state.frames.length - 1; depth >= 0; depth--) {
    const a = old.frames[depth] as Frame;
    const b = state.frames[depth] as Frame;
    if (a.fn !== b.fn || a.callSite !== b.callSite) return false;
    if (how !== 'walked' && a.callback?.helper !== b.callback?.helper) return false;
    // a callback that ran more often had fewer rounds left
    if (a.callbackDepth > b.callbackDepth) return false;
    const live = liveIn(state, depth, structures);
    for (let i = 0; i < 10; i++) {
      if ((live & (1 << i)) !== 0 && !safe(a.regs[i], b.regs[i], how, pairs)) return false;
    }
    if (!stackSafe(checkpoint, depth, a, b, how, pairs)) return false;
  }
  return true;
}

function stackSafe(
  checkpoint: Checkpoint,
  depth: number,
  a: Frame,
  b: Frame,
  how: How,
  pairs: Pairs,
): boolean {
  const count = how === 'exact' ? Math.max(a.stack.length, b.stack.length) : a.stack.length;
  for (let i = 0; i < count; i++) {
    if (how === 'walked' && !isRead(checkpoint, depth, i)) continue;
    const [old, now] = [a.stack[i], b.stack[i]];
    if (old !== now && !slotSafe(old, now, how, pairs)) return false;
    // the same object: its value is paired with itself
    if (old === now && old && old.kind !== 'bytes' && !slotSafe(old, old, how, pairs)) return false;
  }
  return true;
}

function slotSafe(
  old: StackSlot | undefined,
  now: StackSlot | undefined,
  how: How,
  pairs: Pairs,
): boolean {
  if (!old) return how !== 'exact' || !now;
  if (isObject(old) || (now && isObject(now))) return objectSafe(old, now, how, pairs);
  if (old.kind === 'spill') {
    if (now?.kind === 'spill') {
      const zeros = old.rest & ALL_ZERO;
      if (how === 'exact' ? old.rest !== now.rest : (zeros & ~now.rest) !== 0) return false;
      return old.size === now.size && safe(old.value, now.value, how, pairs);
    }
    if (how === 'exact' || old.value.kind === 'pointer' || old.value.kernel) return false;
    if (how === 'walked' && !old.value.precise) return true;
    return old.size === 8 && sameBounds(old.value.bounds, UNKNOWN_RANGE);
  }
  if (how === 'exact') return now?.kind === 'bytes' && now.bytes === old.bytes;
  if (now?.kind === 'spill' && now.value.kind === 'pointer') return old.bytes === 0;
  const zeros = old.bytes & ALL_ZERO;
  if (zeros === 0) return true;
  if (now?.kind === 'spill') {
    if ((zeros & ~now.rest) === 0) return true;
    if (now.size !== 8 || now.value.kind !== 'scalar' || !now.value.is(0n)) return false;
    markPrecise(now.value);
    return true;
  }
  return (zeros & ~(now?.bytes ?? 0)) === 0;
}

/** A dynptr or an iterator is one of the same kind in the new state; how often it went round does not matter. */
function objectSafe(old: StackSlot, now: StackSlot | undefined, how: How, pairs: Pairs): boolean {
  switch (old.kind) {
    case 'dynptr':
      return (
        now?.kind === 'dynptr' &&
        old.type === now.type &&
        old.first === now.first &&
        sameId(old.ref, now.ref, pairs) &&
        sameId(old.id, now.id, pairs)
      );
    case 'iterator':
      return (
        now?.kind === 'iterator' &&
        old.type === now.type &&
        old.active === now.active &&
        sameId(old.ref, now.ref, pairs)
      );
    case 'bytes':
      return how !== 'exact' && old.bytes === 0;
    case 'spill':
      return false;
  }
}

/** Whether an iterator that may give more went round more often in one of the states. */
export function iteratorDepthsDiffer(old: State, now: State): boolean {
  return old.frames.some(({ stack }, depth) =>
    stack.some((slot, i) => {
      if (slot?.kind !== 'iterator' || !slot.active) return false;
      const other = now.frames[depth]?.stack[i];
      return other?.kind === 'iterator' && other.depth !== slot.depth;
    }),
  );
}

function safe(old: Value | undefined, now: Value | undefined, how: How, pairs: Pairs): boolean {
  if (!old) return how !== 'exact' || !now;
  if (!now || old.kind !== now.kind) return false;
  if (old.kind === 'pointer') return pointerSafe(old, now as Pointer, how, pairs);
  return scalarSafe(old, now as Scalar, how, pairs);
}

function scalarSafe(old: Scalar, now: Scalar, how: How, pairs: Pairs): boolean {
  if (how === 'exact') return old.kernel === now.kernel && sameBounds(old.bounds, now.bounds);
  if (old.kernel && !now.kernel) return false;
  if (how === 'walked' && !old.precise) return true;
  // places that shared a number must still share one
  if (!isPaired(old, now, pairs)) return false;
  if (old.link) {
    const { delta, width } = old.link;
    if (delta !== now.link?.delta || width !== now.link.width) return false;
    if (!isPaired(old.link.base, now.link.base, pairs)) return false;
  }
  return old === now || boundsContain(old.bounds, now.bounds);
}

function isPaired(old: Scalar, now: Scalar, { scalars }: Pairs): boolean {
  const paired = scalars.get(old);
  if (paired !== undefined) return paired === now;
  scalars.set(old, now);
  return true;
}

function pointerSafe(old: Pointer, now: Pointer, how: How, pairs: Pairs): boolean {
  if (
    old.type !== now.type ||
    old.off !== now.off ||
    old.orNull !== now.orNull ||
    old.map !== now.map ||
    old.mapId !== now.mapId ||
    old.size !== now.size ||
    old.frame !== now.frame ||
    old.readOnly !== now.readOnly ||
    old.memory !== now.memory ||
    old.btf !== now.btf ||
    old.typeId !== now.typeId ||
    old.trusted !== now.trusted ||
    old.untrusted !== now.untrusted ||
    old.alloc !== now.alloc ||
    old.nonOwning !== now.nonOwning ||
    old.rcu !== now.rcu ||
    old.perCpu !== now.perCpu ||
    (how === 'exact' || old.range < 0 || now.range < 0
      ? old.range !== now.range
      : old.range > now.range)
  ) {
    return false;
  }
  if (!sameId(old.id, now.id, pairs) || !sameId(old.ref, now.ref, pairs)) return false;
  if (!sameId(old.dynptr, now.dynptr, pairs)) return false;
  if (!old.variable || !now.variable) return old.variable === now.variable;
  if (how === 'exact') return sameBounds(old.variable.bounds, now.variable.bounds);
  return boundsContain(old.variable.bounds, now.variable.bounds);
}

function sameId(old: number, now: number, pairs: Pairs): boolean {
  if (old === 0 || now === 0) return old === now;
  const paired = pairs.ids.get(old);
  if (paired !== undefined) return paired === now;
  for (const taken of pairs.ids.values()) if (taken === now) return false;
  pairs.ids.set(old, now);
  return true;
}

/** The path of `state` ends at `checkpoint`: what was needed from there is needed from here. */
export function inherit(
  checkpoint: Checkpoint,
  state: State,
  structures: readonly Structure[],
): void {
  if (checkpoint.branches > 0) {
    assumeAll(state);
    return;
  }
  inheritReads(state, checkpoint);
  for (const [depth, old] of checkpoint.state.frames.entries()) {
    const frame = state.frames[depth] as Frame;
    const live = liveIn(state, depth, structures);
    for (let i = 0; i < 10; i++) {
      if ((live & (1 << i)) !== 0) inheritMark(old.regs[i], frame.regs[i]);
    }
    for (const [i, slot] of old.stack.entries()) {
      const now = frame.stack[i];
      if (slot?.kind !== 'spill' || now?.kind !== 'spill') continue;
      if (isRead(checkpoint, depth, i)) inheritMark(slot.value, now.value);
    }
  }
}

function inheritMark(old: Value | undefined, now: Value | undefined): void {
  if (old?.kind !== 'scalar' || now?.kind !== 'scalar' || !old.precise) return;
  markPrecise(now, !old.needed);
}

/** A loop that is still walked: all that is here may be needed in it. */
function assumeAll(state: State): void {
  for (const [depth, { regs, stack }] of state.frames.entries()) {
    for (const value of regs) if (value?.kind === 'scalar') markPrecise(value, true);
    for (const [i, slot] of stack.entries()) {
      noteStackRead(state, depth, i);
      if (slot?.kind === 'spill' && slot.value.kind === 'scalar') markPrecise(slot.value, true);
    }
  }
}

/** Cheap look whether an endless loop is possible: registers of the innermost frame are alike. */
export function looksAlike(a: State, b: State): boolean {
  if (a.frames.length !== b.frames.length) return false;
  const [one, two] = [topFrame(a), topFrame(b)];
  return one.fn === two.fn && one.callSite === two.callSite;
}

/**
 * The abstract machine's state: call frames with registers and stack, references, the lock held.
 *
 * Values are shared between states, so a copy is a copy of arrays. States that were kept at branch
 * targets (`Checkpoint`) form a chain along each path; reads of stack slots are noted on it, so that
 * slots nobody reads later do not matter in comparisons. Reference: struct bpf_verifier_state,
 * bpf_func_state, mark_reg_read in kernel/bpf/verifier.c.
 */
import { Scalar } from './scalar.js';
import type { Value } from './value.js';

export const MAX_STACK = 512;
export const MAX_FRAMES = 8;

/** Bytes of a slot that hold no spilled value, 2 bits each, lowest address first. */
export const BYTE = { invalid: 0, misc: 1, zero: 2 } as const;
export const ALL_MISC = 0x5555;
export const ALL_ZERO = 0xaaaa;

/** Eight bytes of stack. */
export type StackSlot =
  /** `size` bytes at the lower end hold the value; `rest` has what is in those above, as in `bytes`. */
  | {
      readonly kind: 'spill';
      readonly value: Value;
      readonly size: number;
      readonly rest: number;
    }
  | { readonly kind: 'bytes'; readonly bytes: number }
  | DynptrSlot
  | IteratorSlot;

export type DynptrType = 'local' | 'ringbuf' | 'xdp';

/** One of the two slots of a dynptr; the first is at the lower address. */
export interface DynptrSlot {
  readonly kind: 'dynptr';
  readonly type: DynptrType;
  readonly first: boolean;
  /** Ties slices to it. */
  readonly id: number;
  /** Reference that must be given back; 0 for none. */
  readonly ref: number;
}

/** A slot of an iterator. */
export interface IteratorSlot {
  readonly kind: 'iterator';
  /** `num` of struct bpf_iter_num. */
  readonly type: string;
  /** Reference of the iterator in its first slot, 0 in others. */
  readonly ref: number;
  /** May give more; false after it gave NULL. */
  readonly active: boolean;
  /** How often it was assumed to give one more on this path. */
  readonly depth: number;
}

/** Whether a slot belongs to an object that only calls may touch. */
export function isObject(slot: StackSlot): slot is DynptrSlot | IteratorSlot {
  return slot.kind === 'dynptr' || slot.kind === 'iterator';
}

/** Why a frame was entered, if not by a plain call. */
export interface CallbackInfo {
  readonly helper: number;
  /** Most its result may be. */
  readonly maxResult: bigint;
  /** Runs later, on its own: its end is the end of the path. */
  readonly isAsync: boolean;
  /** Compares nodes of a tree, whose lock is held. */
  readonly inTree?: true;
}

export interface Frame {
  readonly fn: number;
  /** Slot of the call in the caller; -1 for the outermost. */
  readonly callSite: number;
  readonly callback: CallbackInfo | undefined;
  /** R0..R10; undefined is not initialised. */
  readonly regs: (Value | undefined)[];
  /** Index 0 is the slot right below R10. Undefined was never written. */
  readonly stack: (StackSlot | undefined)[];
  /** How often the callback of the call at hand was entered on this path. */
  callbackDepth: number;
}

/** Something acquired that must be given back. */
export interface Acquired {
  readonly id: number;
  /** Where, for the message. */
  readonly insn: number;
}

/** A lock by what it lies in: a map, or the BTF of allocated objects; `id` tells values and objects apart. */
export interface Lock {
  readonly owner: object;
  readonly id: number;
}

/** A state kept for comparison. */
export interface Checkpoint {
  readonly state: State;
  readonly parent: Checkpoint | undefined;
  /** Stack slots written since the parent, by frame: two words of 32 slots each. */
  readonly written: readonly number[];
  /** Stack slots that are read from here on. */
  readonly read: number[];
  /** Paths from here that are not finished. */
  branches: number;
  hits: number;
  misses: number;
}

export interface State {
  readonly frames: Frame[];
  refs: readonly Acquired[];
  lock: Lock | undefined;
  /** Inside bpf_rcu_read_lock. */
  rcuLocked: boolean;
  /** How often bpf_preempt_disable was called and not undone. */
  preemptDisabled: number;
  /** How often a may_goto was assumed not to jump on this path. */
  mayGotoDepth: number;
  /** Slot to execute next in the innermost frame's function. */
  at: number;
  /** callback_unroll_depth: how often this path entered callbacks that a helper repeats. */
  callbacksEntered: number;
  parent: Checkpoint | undefined;
  written: number[];
}

export function topFrame(state: State): Frame {
  return state.frames[state.frames.length - 1] as Frame;
}

export function newFrame(
  fn: number,
  callSite: number,
  callback: CallbackInfo | undefined = undefined,
): Frame {
  const regs: (Value | undefined)[] = Array.from({ length: 11 }, () => undefined);
  return { fn, callSite, callback, regs, stack: [], callbackDepth: 0 };
}

export function copyState(state: State): State {
  return {
    frames: state.frames.map((frame) => ({
      fn: frame.fn,
      callSite: frame.callSite,
      callback: frame.callback,
      regs: frame.regs.slice(),
      stack: frame.stack.slice(),
      callbackDepth: frame.callbackDepth,
    })),
    refs: state.refs,
    lock: state.lock,
    rcuLocked: state.rcuLocked,
    preemptDisabled: state.preemptDisabled,
    mayGotoDepth: state.mayGotoDepth,
    at: state.at,
    callbacksEntered: state.callbacksEntered,
    parent: state.parent,
    written: state.written.slice(),
  };
}

/** Puts another value wherever one is held: what `change` gives for it. */
export function replaceValues(state: State, change: (value: Value) => Value): void {
  for (const { regs, stack } of state.frames) {
    for (let i = 0; i < 10; i++) {
      const value = regs[i];
      if (value) regs[i] = change(value);
    }
    for (let i = 0; i < stack.length; i++) {
      const slot = stack[i];
      if (slot?.kind !== 'spill') continue;
      const value = change(slot.value);
      if (value !== slot.value) stack[i] = { ...slot, value };
    }
  }
}

/**
 * Gives every scalar that is marked precise a fresh, unmarked successor: marks count from here on. A link to
 * something that is nowhere any more goes.
 */
export function freshenScalars(state: State): void {
  const places = countPlaces(state);
  const fresh = new Map<Scalar, Scalar>();
  const freshened = (value: Scalar): Scalar => {
    const done = fresh.get(value);
    if (done) return done;
    const { link } = value;
    const base = link && (places.get(link.base) ?? 0) > 1 ? freshened(link.base) : undefined;
    const isSame = !value.precise && base === link?.base;
    const copy = isSame
      ? value
      : new Scalar(value.bounds, value, undefined, value.kernel, link && base && { ...link, base });
    fresh.set(value, copy);
    return copy;
  };
  replaceValues(state, (value) =>
    value.kind === 'scalar' && (value.precise || value.link) ? freshened(value) : value,
  );
}

/** In how many places each scalar that something is linked to is, or what is linked to it. */
function countPlaces(state: State): ReadonlyMap<Scalar, number> {
  const places = new Map<Scalar, number>();
  let linked = false;
  const count = (value: Value): Value => {
    if (value.kind !== 'scalar' || value.isConst) return value;
    const root = value.link?.base ?? value;
    linked ||= value.link !== undefined;
    places.set(root, (places.get(root) ?? 0) + 1);
    return value;
  };
  replaceValues(state, count);
  return linked ? places : new Map();
}

function hasBit(words: readonly number[], frame: number, slot: number): boolean {
  return (((words[2 * frame + (slot >> 5)] ?? 0) >>> (slot & 31)) & 1) === 1;
}

function setBit(words: number[], frame: number, slot: number): void {
  const index = 2 * frame + (slot >> 5);
  while (words.length <= index) words.push(0);
  words[index] = (words[index] ?? 0) | (1 << (slot & 31));
}

/** Notes that all eight bytes of a slot were written. */
export function noteStackWrite(state: State, frame: number, slot: number): void {
  setBit(state.written, frame, slot);
}

/** Notes that a slot is read: it matters in all states since it was written. */
export function noteStackRead(state: State, frame: number, slot: number): void {
  if (hasBit(state.written, frame, slot)) return;
  for (let at = state.parent; at; at = at.parent) {
    if (hasBit(at.read, frame, slot)) return;
    setBit(at.read, frame, slot);
    if (hasBit(at.written, frame, slot)) return;
  }
}

export function isRead(checkpoint: Checkpoint, frame: number, slot: number): boolean {
  return hasBit(checkpoint.read, frame, slot);
}

/** What is read from `checkpoint` on is read from `state` on, when that ends there. */
export function inheritReads(state: State, checkpoint: Checkpoint): void {
  for (const [index, word] of checkpoint.read.entries()) {
    for (let bits = word; bits !== 0; bits &= bits - 1) {
      const bit = 31 - Math.clz32(bits & -bits);
      noteStackRead(state, index >> 1, (index & 1) * 32 + bit);
    }
  }
}

/**
 * The graph of one CPU's own states: what it is in front of, what it saw, where that leads.
 *
 * A node is everything private to the CPU and its task in front of an action that others can see or that sees
 * others; an edge is what the CPU does from there, given the versions that it saw. `executor.ts` makes both, by
 * executing; `explore.ts` and `transitions.ts` walk them.
 */
import type { Registers } from '../../cpu/cpu.js';
import type { Problem } from './invariants.js';

export type ActionKind = 'start' | 'fetch' | 'load' | 'store' | 'body' | 'sleep' | 'wake';

export interface Action {
  readonly kind: ActionKind;
  readonly pc: bigint;
  /** Objects that it touches, in the order of the versions in an observation. */
  readonly objects: readonly number[];
  /** Where it first loads or stores what is shared. */
  readonly address?: bigint;
}

/** What others must know of where a CPU is. */
export interface Standing {
  /** Between two calls, or asleep in one: a quiescent state of RCU tasks. */
  readonly quiescent: boolean;
  /** It cannot be preempted: inside a recursion guard. */
  readonly guarded: boolean;
  readonly rcuReader: boolean;
  readonly traceReader: boolean;
  /** The plan's interrupts are not taken here. */
  readonly uninterrupted: boolean;
}

export interface LocalNode {
  readonly id: number;
  readonly action: Action;
  readonly standing: Standing;
  /** By the versions that were seen. */
  readonly edges: Map<string | number, LocalEdge>;
}

/** A callback was entered. */
export interface CallbackEvent {
  readonly at: bigint;
  readonly ip: bigint;
  readonly ops: bigint;
}

export interface ExecutedWord {
  readonly pc: bigint;
  readonly word: number;
}

export interface LocalEdge {
  readonly to: number;
  readonly callbacks: readonly CallbackEvent[];
  /** New value of a counter. */
  readonly counter?: { readonly object: number; readonly value: number };
  readonly problem?: Problem;
  readonly path: readonly ExecutedWord[];
}

/** What a node stands for. */
export interface LocalState {
  readonly registers: Registers;
  readonly stack: Uint8Array;
  readonly task: Uint8Array;
  /** Private words elsewhere that differ from the start, by address. */
  readonly words: ReadonlyMap<bigint, bigint>;
  readonly mode: 'idle' | 'running' | 'asleep';
  /** Times that the body behind the site was entered. */
  readonly bodies: number;
  /** Something of `plan.always` was entered. */
  readonly reached: boolean;
  /** Versions of the text that it executes: of an instruction in front of its loads, of a range while it is inside. */
  readonly fetched: ReadonlyMap<number, number>;
}

/** Equal for equal states. */
export function keyOf(state: LocalState): string {
  const { registers, stack, task, words, mode, bodies, reached, fetched } = state;
  const { x, sp, pc, nzcv } = registers;
  const decoder = (bytes: Uint8Array): string => String.fromCharCode(...bytes);
  return [
    x.join(),
    sp,
    pc,
    nzcv,
    decoder(stack),
    decoder(task),
    [...words].map(([address, value]) => `${address}=${value}`).join(),
    mode,
    bodies,
    reached,
    [...fetched].join(),
  ].join('|');
}

/**
 * A random case as trees: straight instructions, branches, counted loops, calls, map calls, tail calls.
 *
 * The tree is what is generated and what the minimiser cuts; `emit-tree.ts` turns it into slots. Every tree
 * is a valid program: jumps lead to the end of their block, loops end, registers and stack are
 * written before they are read, pointers stay where they are. So every subtree with nodes taken out is
 * one too.
 *
 * Registers are scalars but for: the one that a function keeps the address of the case's memory in, that
 * which a lookup keeps the address of a value in, r10. An instruction that needs an address beside these
 * makes it and forgets it again (a node of several slots).
 */
import type { Slot } from '../../bpf/instruction.js';
import type { MapSpec } from '../../bpf/maps/map.js';

export type Node =
  /** Instructions without a jump that belong together. */
  | { readonly kind: 'insn'; readonly slots: readonly Slot[] }
  /**
   * `if (condition) skip the body`; the condition is a jump instruction whose offset is filled in. With
   * `otherwise` the body ends in a jump over that; `long`: a gotol.
   */
  | {
      readonly kind: 'branch';
      readonly jump: Slot;
      readonly body: readonly Node[];
      readonly otherwise?: readonly Node[];
      readonly long?: boolean;
    }
  /**
   * The body, `count` times; `depth` picks the counter's slot. The condition is at the end, or at the
   * beginning with a jump back at the end.
   */
  | {
      readonly kind: 'loop';
      readonly count: number;
      readonly depth: number;
      readonly body: readonly Node[];
      readonly form: 'until' | 'while';
    }
  /** A call of function `callee`: its arguments are what r1..r5 hold. */
  | { readonly kind: 'call'; readonly callee: number }
  /** A call of helper `id` with `count` arguments. */
  | { readonly kind: 'helper'; readonly id: number; readonly count: number }
  /** r0 = lookup of `key` in map `map`; the body runs with `pointer` at the value, if there is one. */
  | {
      readonly kind: 'lookup';
      readonly map: number;
      readonly key: number;
      readonly pointer: number;
      readonly body: readonly Node[];
    }
  /** Update of `key` in map `map` with bytes of the frame's data area. */
  | { readonly kind: 'update'; readonly map: number; readonly key: number; readonly at: number }
  | { readonly kind: 'delete'; readonly map: number; readonly key: number }
  /** A tail call through slot `index` of the prog array. */
  | { readonly kind: 'tail'; readonly index: number };

export interface FunctionTree {
  readonly body: readonly Node[];
  /** Where the address of the case's memory is. */
  readonly memory: number;
  /** First values of the scalars, by register; in a function that is called, those of r1..r5 come from the caller. */
  readonly values: readonly number[];
  /** Scalars that the result depends on. */
  readonly mixed: readonly number[];
  /** Bytes from r10 down to the lower end of the data area; a multiple of 8. */
  readonly stack: number;
}

/** Functions, main first. */
export type FunctionTrees = readonly FunctionTree[];

export interface CaseTree {
  /** The program that runs, then those that tail calls reach. */
  readonly programs: readonly FunctionTrees[];
  /** Bytes that r1 points at when main begins. */
  readonly memory: Uint8Array;
}

/** Bytes of a frame that loads, stores and atomics may use: [r10-stack, r10-stack+DATA_SIZE). */
export const DATA_SIZE = 64;
/** Bytes behind the memory register. */
export const MEMORY_SIZE = 64;
export const VALUE_SIZE = 32;
/** Slots for loop counters, r10-8, .., and for the key of map calls: above the data area. */
export const COUNTERS = 3;
export const KEY_OFFSET = -8 * (COUNTERS + 1);
/** The smallest `stack`. */
export const LEAST_STACK = 8 * (COUNTERS + 1) + DATA_SIZE;

/** Maps of every generated case, in the order of their indexes. */
export const FUZZ_MAPS: readonly MapSpec[] = [
  { name: 'array', type: 'ARRAY', keySize: 4, valueSize: VALUE_SIZE, maxEntries: 4, flags: 0 },
  { name: 'hash', type: 'HASH', keySize: 4, valueSize: VALUE_SIZE, maxEntries: 4, flags: 0 },
  { name: 'programs', type: 'PROG_ARRAY', keySize: 4, valueSize: 4, maxEntries: 4, flags: 0 },
];
export const PROGRAMS_MAP = 2;
/** Slots of the prog array: up to three programs, and one that is always empty. */
export const PROGRAM_SLOTS = 4;

export function bodiesOf(node: Node): readonly (readonly Node[])[] {
  switch (node.kind) {
    case 'branch':
      return node.otherwise ? [node.body, node.otherwise] : [node.body];
    case 'loop':
    case 'lookup':
      return [node.body];
    case 'insn':
    case 'call':
    case 'helper':
    case 'update':
    case 'delete':
    case 'tail':
      return [];
  }
}

/** Calls `visit` with every node, outer ones first. */
export function visitNodes(nodes: readonly Node[], visit: (node: Node) => void): void {
  for (const node of nodes) {
    visit(node);
    for (const body of bodiesOf(node)) visitNodes(body, visit);
  }
}

export function countNodes({ programs }: CaseTree): number {
  let count = 0;
  for (const functions of programs) {
    for (const { body } of functions) visitNodes(body, () => count++);
  }
  return count;
}

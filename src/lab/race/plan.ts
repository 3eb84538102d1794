/**
 * A patch plan: what one CPU does to text and data that others execute and read, step by step.
 *
 * Plans come from recording a real operation of the kernel (record.ts), from a file (plan-file.ts), or from code
 * that has a patching strategy of its own to try. `explorePlan` (explore.ts) lets CPUs execute the plan's calls
 * between any two of its steps.
 *
 * Usage:
 *   const plan: PatchPlan = {
 *     name: 'enable',
 *     steps: [
 *       storeData(f - 8n, ops, 'literal := ops'),
 *       storeInstruction(f + 4n, branchWord(f + 4n, target, true), 'site := bl target'),
 *       sync(f + 4n, f + 8n),
 *     ],
 *     call: { entry: f, args: [1n], result: 2n, body: f + 8n },
 *   };
 */
import { viewOf } from '../../common/bytes.js';
import type { Problem } from './invariants.js';
import type { RcuFlavour } from '../../kernel/patch-observer.js';

export type PlanStep =
  /**
   * A store. `instruction`: one word of text; `text`: many; `data`: what CPUs load (a literal, a PLT target, a
   * field). Single-copy atomic if aligned to its size, else by halves.
   */
  | {
      readonly kind: 'store';
      readonly as: 'instruction' | 'text' | 'data';
      readonly address: bigint;
      readonly bytes: Uint8Array;
      readonly what: string;
    }
  /** An atomic addition to a u64 that executing CPUs add to as well. */
  | {
      readonly kind: 'add';
      readonly address: bigint;
      readonly amount: number;
      readonly what: string;
    }
  /** Cache maintenance of text and the barrier behind it. */
  | { readonly kind: 'sync'; readonly start: bigint; readonly end: bigint; readonly what: string }
  /** Every CPU is interrupted and has come back: a context synchronisation event. */
  | { readonly kind: 'ipi'; readonly what: string }
  /** A grace period begins, and what follows happens after its end. */
  | { readonly kind: 'wait'; readonly flavour: RcuFlavour; readonly what: string }
  /** What follows happens once the u64 is 0. */
  | { readonly kind: 'drain'; readonly address: bigint; readonly what: string }
  /** Steps that are taken beside those that follow: what call_rcu calls. */
  | { readonly kind: 'later'; readonly steps: readonly PlanStep[]; readonly what: string }
  /** The memory is others' from here on. */
  | {
      readonly kind: 'free';
      readonly address: bigint;
      readonly size: number;
      readonly what: string;
    };

/** What executing CPUs call, again and again. */
export interface PlanCall {
  readonly entry: bigint;
  /** x0..x7. */
  readonly args: readonly bigint[];
  /** x0 that every call has to return, as far as `resultBits` go. */
  readonly result: bigint;
  /** Default 32. */
  readonly resultBits?: 32 | 64;
  /** Argument registers that the body finds as they were; default: as many as there are `args`. */
  readonly keeps?: number;
  /** Other registers that the way to the body may change. Default none. */
  readonly clobbers?: readonly number[];
  /** First instruction of the function behind its patch site: every call passes there once. */
  readonly body: bigint;
}

/** An ops whose callback may be called until its memory is freed. */
export interface PlanTracer {
  readonly name: string;
  /** x2 of its callback. */
  readonly ops: bigint;
  /** What it is called back at; default: any of the plan's callbacks. */
  readonly func?: bigint;
  /** Sites that it covers, or covered. */
  readonly covers: (ip: bigint) => boolean;
}

export interface PatchPlan {
  readonly name: string;
  /** What memory holds at first, other than the kernel has it. */
  readonly before?: readonly { readonly address: bigint; readonly bytes: Uint8Array }[];
  readonly steps: readonly PlanStep[];
  readonly call: PlanCall;
  /** Callbacks by the address at which they start; x0 = ip, x2 = ops there. */
  readonly callbacks?: ReadonlyMap<bigint, string>;
  /** Who may be called back. Empty: not looked at. */
  readonly tracers?: readonly PlanTracer[];
  /** Addresses of which each call has to pass one: where something is attached all the time. */
  readonly always?: readonly bigint[];
  /** ftrace_ops whose direct_call has to be 0 at these addresses (nop_ops, list_ops). */
  readonly zeroWords?: readonly bigint[];
  /** Every value that a literal may have. Default: not looked at. */
  readonly literal?: { readonly address: bigint; readonly values: readonly bigint[] };
  /** Ranges of text in which no interrupt of the plan is taken. */
  readonly uninterrupted?: readonly { readonly start: bigint; readonly end: bigint }[];
  /** Ranges of text in which a CPU is taken for an RCU reader though nothing says that it is one. */
  readonly readers?: readonly { readonly start: bigint; readonly end: bigint }[];
  /** What holds when all steps are done: address and the bytes expected there. */
  readonly final?: readonly {
    readonly address: bigint;
    readonly bytes: Uint8Array;
    readonly what: string;
  }[];
  /** What was wrong with the operation itself, before any interleaving. */
  readonly complaint?: Problem;
  /**
   * Old and new instruction fetches keep the order of the program: who has fetched a branch that was written
   * after text was made coherent sees that text. Default true; false is Neoverse-N1 erratum 1542419.
   */
  readonly orderedFetches?: boolean;
  /** Loads that depend on no load may be as old as the CPU's last context synchronisation. Default true. */
  readonly earlyLoads?: boolean;
}

export function word32(word: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, word, true);
  return bytes;
}

export function word64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  viewOf(bytes).setBigUint64(0, BigInt.asUintN(64, value), true);
  return bytes;
}

export function storeInstruction(address: bigint, word: number, what: string): PlanStep {
  return { kind: 'store', as: 'instruction', address, bytes: word32(word), what };
}

export function storeText(address: bigint, words: readonly number[], what: string): PlanStep {
  const bytes = new Uint8Array(4 * words.length);
  const view = viewOf(bytes);
  words.forEach((word, i) => view.setUint32(4 * i, word, true));
  return { kind: 'store', as: 'text', address, bytes, what };
}

export function storeData(address: bigint, value: bigint, what: string): PlanStep {
  return { kind: 'store', as: 'data', address, bytes: word64(value), what };
}

export function sync(start: bigint, end: bigint, what = 'cache maintenance, dsb ish'): PlanStep {
  return { kind: 'sync', start, end, what };
}

export function ipi(what = 'IPI to every CPU'): PlanStep {
  return { kind: 'ipi', what };
}

export function wait(flavour: RcuFlavour): PlanStep {
  return {
    kind: 'wait',
    flavour,
    what: `synchronize_rcu${flavour.replace(/^rcu$/, '').replace(/^tasks/, '_tasks')}`,
  };
}

export function free(address: bigint, size: number, what: string): PlanStep {
  return { kind: 'free', address, size, what };
}

/** Steps one by one, those of `later` in their place; `change` gives what stands instead of each. */
export function changeSteps(
  steps: readonly PlanStep[],
  change: (step: PlanStep) => readonly PlanStep[],
): PlanStep[] {
  return steps.flatMap((step) =>
    step.kind === 'later' ? [{ ...step, steps: changeSteps(step.steps, change) }] : change(step),
  );
}

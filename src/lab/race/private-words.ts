/**
 * Words that an executing CPU stores to and nobody else reads: each of its states has its own.
 *
 * Per-CPU areas, run statistics, recursion counters. The task's stack and task_struct are kept as a whole, by the
 * executor. A word is known from the first store on; until then all states have what memory held at first.
 *
 * Usage:
 *   words.keep(address);              // before a store
 *   const state = words.changed();
 *   words.restore(state);             // memory is as in that state again
 */
import type { Memory } from '../../cpu/memory.js';

export class PrivateWords {
  readonly #memory: Memory;
  /** What they held at first. */
  readonly #first = new Map<bigint, bigint>();

  constructor(memory: Memory) {
    this.#memory = memory;
  }

  has(address: bigint): boolean {
    return this.#first.has(address);
  }

  /** Remembers a u64 that is about to be stored to; a store that will fault is left alone. */
  keep(address: bigint): void {
    if (this.#memory.faultAt(address, 8, 'write')) return;
    this.#first.set(address, this.#memory.read64(address));
  }

  /** Those that are not as they were at first. */
  changed(): ReadonlyMap<bigint, bigint> {
    const words = new Map<bigint, bigint>();
    for (const [address, first] of this.#first) {
      const value = this.#memory.read64(address);
      if (value !== first) words.set(address, value);
    }
    return words;
  }

  /** Brings back what `changed` gave; by default what they held at first. */
  restore(words: ReadonlyMap<bigint, bigint> = new Map()): void {
    for (const [address, first] of this.#first) {
      this.#memory.write64(address, words.get(address) ?? first);
    }
  }
}

/**
 * First-fit allocation of address ranges: what vmalloc does inside its window.
 *
 * Reference: mm/vmalloc.c (lowest address that fits). Only addresses are given out; whoever
 * takes a range maps memory there.
 */
import { KernelError } from '../common/errors.js';

interface Range {
  readonly start: bigint;
  readonly end: bigint;
}

export class RangeAllocator {
  readonly #name: string;
  readonly #window: Range;
  /** Sorted by address. */
  readonly #taken: Range[] = [];

  constructor(name: string, start: bigint, end: bigint) {
    this.#name = name;
    this.#window = { start, end };
  }

  /** The lowest aligned range of `size` bytes. Throws -ENOMEM. */
  take(size: bigint, alignment: bigint): bigint {
    let at = align(this.#window.start, alignment);
    let index = 0;
    for (; index < this.#taken.length; index++) {
      const range = this.#taken[index] as Range;
      if (at + size <= range.start) break;
      if (range.end > at) at = align(range.end, alignment);
    }
    if (at + size > this.#window.end) {
      throw new KernelError('ENOMEM', `no ${size} bytes left in ${this.#name}`);
    }
    this.#taken.splice(index, 0, { start: at, end: at + size });
    return at;
  }

  /** Takes exactly [start, end). */
  reserve(start: bigint, end: bigint): void {
    const clash = this.#taken.find((range) => range.start < end && start < range.end);
    if (clash) throw new RangeError(`${this.#name}: 0x${start.toString(16)} is taken`);
    let index = this.#taken.findIndex((range) => range.start >= end);
    if (index < 0) index = this.#taken.length;
    this.#taken.splice(index, 0, { start, end });
  }

  release(start: bigint): void {
    const index = this.#taken.findIndex((range) => range.start === start);
    if (index < 0) throw new RangeError(`${this.#name}: 0x${start.toString(16)} is not taken`);
    this.#taken.splice(index, 1);
  }
}

function align(address: bigint, alignment: bigint): bigint {
  return ((address + alignment - 1n) / alignment) * alignment;
}

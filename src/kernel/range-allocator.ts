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

export interface Placement {
  /** Where the range has to lie. Default: the allocator's own window. */
  readonly window?: Range;
  /** A range may not cross a multiple of this. Default: it may. */
  readonly boundary?: bigint;
}

/** What a mapped region may not cross (`Memory`): whoever maps what it takes asks for it. */
export const MAPPABLE: Placement = { boundary: 1n << 32n };

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
  take(size: bigint, alignment: bigint, placement: Placement = {}): bigint {
    const at = this.find(size, alignment, placement);
    if (at === undefined) throw new KernelError('ENOMEM', `no ${size} bytes left in ${this.#name}`);
    this.#insert({ start: at, end: at + size });
    return at;
  }

  /** Where `take` would find it. */
  find(size: bigint, alignment: bigint, placement: Placement = {}): bigint | undefined {
    const { window = this.#window, boundary } = placement;
    let at = align(window.start, alignment);
    const skipBoundary = (): void => {
      if (boundary === undefined || size > boundary) return;
      const last = at + size - 1n;
      if (at / boundary !== last / boundary) at = last - (last % boundary);
    };
    skipBoundary();
    for (const range of this.#taken) {
      if (range.end <= at) continue;
      if (at + size <= range.start) break;
      at = align(range.end, alignment);
      skipBoundary();
    }
    return at + size > window.end ? undefined : at;
  }

  /** Takes the lowest free bytes of a window, in as many ranges as it needs; returns how many were there. */
  fill(bytes: bigint, window: Range): bigint {
    let left = bytes;
    let at = window.start;
    const free: Range[] = [];
    for (const next of [...this.#taken, { start: window.end, end: window.end }]) {
      if (next.end < at) continue;
      const end = next.start < window.end ? next.start : window.end;
      const size = end - at < left ? end - at : left;
      if (size > 0n) {
        free.push({ start: at, end: at + size });
        left -= size;
      }
      if (next.end > at) at = next.end;
    }
    for (const range of free) this.#insert(range);
    return bytes - left;
  }

  /** Takes exactly [start, end). */
  reserve(start: bigint, end: bigint): void {
    const clash = this.#taken.find((range) => range.start < end && start < range.end);
    if (clash) throw new RangeError(`${this.#name}: 0x${start.toString(16)} is taken`);
    this.#insert({ start, end });
  }

  release(start: bigint): void {
    const index = this.#taken.findIndex((range) => range.start === start);
    if (index < 0) throw new RangeError(`${this.#name}: 0x${start.toString(16)} is not taken`);
    this.#taken.splice(index, 1);
  }

  /** Gives [start, end) back, a part of one range that was taken. */
  cut(start: bigint, end: bigint): void {
    const index = this.#taken.findIndex((range) => range.start <= start && end <= range.end);
    const range = this.#taken[index];
    if (!range) throw new RangeError(`${this.#name}: 0x${start.toString(16)} is not taken`);
    const rest = [
      { start: range.start, end: start },
      { start: end, end: range.end },
    ].filter((each) => each.start < each.end);
    this.#taken.splice(index, 1, ...rest);
  }

  #insert(range: Range): void {
    let index = this.#taken.findIndex((each) => each.start >= range.end);
    if (index < 0) index = this.#taken.length;
    this.#taken.splice(index, 0, range);
  }
}

function align(address: bigint, alignment: bigint): bigint {
  return ((address + alignment - 1n) / alignment) * alignment;
}

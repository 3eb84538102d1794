/**
 * Per-CPU memory: an area for each CPU, at whose start its TPIDR_EL1 points.
 *
 * Reference: mm/percpu.c, alloc_percpu. A pointer to per-CPU data is an offset into every area. Left out: chunks
 * that are added when the first is full.
 */
import type { Memory } from '../cpu/memory.js';
import { RangeAllocator } from './range-allocator.js';

export const PER_CPU_SIZE = 4096;

export class PerCpu {
  readonly #memory: Memory;
  readonly #areas: readonly bigint[];
  /** Nothing is at 0, which is NULL. */
  readonly #space = new RangeAllocator('the per-CPU areas', 16n, BigInt(PER_CPU_SIZE));

  /** @param areas addresses of PER_CPU_SIZE zeroed bytes, one for each CPU */
  constructor(memory: Memory, areas: readonly bigint[]) {
    this.#memory = memory;
    this.#areas = areas;
  }

  /** `size` zeroed bytes of each area, 16-byte aligned. Throws -ENOMEM. */
  alloc(size: number): bigint {
    const pointer = this.#space.take(BigInt(size), 16n);
    for (const area of this.#areas) this.#memory.writeBytes(area + pointer, new Uint8Array(size));
    return pointer;
  }

  free(pointer: bigint): void {
    this.#space.release(pointer);
  }

  /** Where a CPU has what `alloc` gave. */
  address(pointer: bigint, cpuNumber: number): bigint {
    return this.area(cpuNumber) + pointer;
  }

  area(cpuNumber: number): bigint {
    return this.#areas[cpuNumber] ?? 0n;
  }
}

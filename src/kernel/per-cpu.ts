/**
 * Per-CPU memory: a unit of addresses for each CPU, at whose start its TPIDR_EL1 points.
 *
 * Reference: mm/percpu.c, alloc_percpu; pcpu_get_vm_areas of mm/vmalloc.c, which takes addresses at the end of
 * vmalloc space. A pointer to per-CPU data is an offset into every unit, so what lies in one unit lies at the same
 * distance from its start in all of them. Small objects share the first pages; big ones (the values of maps) get
 * regions of their own behind these. Left out: chunks that are added when the first is full, and the limit of 32 KiB
 * for one object.
 */
import type { PerCpuRegions } from '../bpf/host.js';
import { alignUp } from '../common/bytes.js';
import { PAGE_SIZE, type Memory, type Region } from '../cpu/memory.js';
import { RangeAllocator } from './range-allocator.js';

const AREA_SIZE = 4096n;
/** Bytes from one CPU's unit to the next: no region in it crosses a multiple of 4 GiB (`Memory`). */
const UNIT = 1n << 30n;

export class PerCpu {
  readonly #memory: Memory;
  readonly #units: readonly bigint[];
  /** Nothing is at 0, which is NULL. */
  readonly #space = new RangeAllocator('the per-CPU areas', 16n, AREA_SIZE);
  readonly #pages = new RangeAllocator('per-CPU space', AREA_SIZE + BigInt(PAGE_SIZE), UNIT);

  /** Takes the last units of `space`, which ends at `end`. */
  constructor(memory: Memory, space: RangeAllocator, end: bigint, cpuCount: number) {
    this.#memory = memory;
    const size = UNIT * BigInt(cpuCount);
    const start = ((end - size) / UNIT) * UNIT;
    space.reserve(start, start + size);
    this.#units = Array.from({ length: cpuCount }, (_, cpu) => start + UNIT * BigInt(cpu));
    for (const [cpu, address] of this.#units.entries()) {
      const name = `per-CPU area of CPU ${cpu}`;
      memory.map({ name, address, size: Number(AREA_SIZE), permissions: 'rw' });
    }
  }

  /** `size` zeroed bytes of each area, 16-byte aligned. Throws -ENOMEM. */
  alloc(size: number): bigint {
    const pointer = this.#space.take(BigInt(size), 16n);
    for (const area of this.#units) this.#memory.writeBytes(area + pointer, new Uint8Array(size));
    return pointer;
  }

  free(pointer: bigint): void {
    this.#space.release(pointer);
  }

  /** A region for each CPU that ends at a page end. Throws -ENOMEM, and RangeError when memory is full. */
  map(name: string, size: number): PerCpuRegions {
    const span = BigInt(alignUp(size, PAGE_SIZE) + PAGE_SIZE);
    const page = this.#pages.take(span, BigInt(PAGE_SIZE));
    const regions: Region[] = [];
    try {
      for (const unit of this.#units) {
        const pageAddress = unit + page;
        regions.push(this.#memory.mapAtPageEnd({ name, size, permissions: 'rw', pageAddress }));
      }
    } catch (error) {
      for (const region of regions) this.#memory.unmap(region);
      this.#pages.release(page);
      throw error;
    }
    return { pointer: page + span - BigInt(PAGE_SIZE + size), regions };
  }

  unmap({ regions }: PerCpuRegions): void {
    for (const region of regions) this.#memory.unmap(region);
    const [first] = regions;
    if (first) this.#pages.release(first.pageAddress - this.area(0));
  }

  /** Where a CPU has what `alloc` gave. */
  address(pointer: bigint, cpuNumber: number): bigint {
    return this.area(cpuNumber) + pointer;
  }

  area(cpuNumber: number): bigint {
    return this.#units[cpuNumber] ?? 0n;
  }
}

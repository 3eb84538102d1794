/**
 * The lab's RAM in the linear map: whole pages and slab objects.
 *
 * Reference: mm/page_alloc.c, mm/slub.c, reduced to what callers can see: addresses of the linear
 * map, zeroed memory, power-of-two size classes. A freed object is filled with 0x6b
 * (POISON_FREE), so that a use after free shows.
 */
import { KernelError } from '../common/errors.js';
import { PAGE_SIZE, type Memory, type Region } from '../cpu/memory.js';

const POISON_FREE = 0x6b;
const SMALLEST_CLASS = 16;

export class LinearMap {
  readonly region: Region;
  readonly #memory: Memory;
  /** Bytes handed out from the start of the region so far. */
  #used = 0;
  /** Free blocks by size. */
  readonly #free = new Map<number, bigint[]>();
  /** Live blocks: address to size. */
  readonly #live = new Map<bigint, number>();

  constructor(memory: Memory, address: bigint, size: number) {
    this.#memory = memory;
    this.region = memory.map({ name: 'linear map', address, size, permissions: 'rw' });
  }

  kmalloc(size: number): bigint {
    if (size > PAGE_SIZE) return this.#take(Math.ceil(size / PAGE_SIZE) * PAGE_SIZE);
    let block = SMALLEST_CLASS;
    while (block < size) block *= 2;
    return this.#take(block);
  }

  allocPages(count: number): bigint {
    return this.#take(count * PAGE_SIZE);
  }

  /** Frees what `kmalloc` or `allocPages` gave. */
  free(address: bigint): void {
    const size = this.#live.get(address);
    if (size === undefined) throw new RangeError(`0x${address.toString(16)} is not allocated`);
    this.#live.delete(address);
    const offset = this.#offsetOf(address);
    this.#memory.bytes.fill(POISON_FREE, offset, offset + size);
    const list = this.#free.get(size);
    if (list) list.push(address);
    else this.#free.set(size, [address]);
  }

  /** Bytes in live blocks: a leak shows as a difference. */
  get liveBytes(): number {
    let total = 0;
    for (const size of this.#live.values()) total += size;
    return total;
  }

  #take(size: number): bigint {
    let address = this.#free.get(size)?.pop();
    if (address === undefined) {
      // blocks of a page or more are page aligned, smaller ones aligned to their own size
      const alignment = Math.min(size, PAGE_SIZE);
      const start = Math.ceil(this.#used / alignment) * alignment;
      if (start + size > this.region.size) {
        throw new KernelError('ENOMEM', `no ${size} bytes left in the linear map`);
      }
      this.#used = start + size;
      address = this.region.address + BigInt(start);
    }
    this.#live.set(address, size);
    const offset = this.#offsetOf(address);
    this.#memory.bytes.fill(0, offset, offset + size);
    return address;
  }

  #offsetOf(address: bigint): number {
    return this.region.offset + Number(address - this.region.address);
  }
}

/**
 * The lab's RAM in the linear map: whole pages and slab objects.
 *
 * Reference: mm/page_alloc.c, mm/slub.c, reduced to what callers can see: addresses of the linear
 * map, zeroed memory, power-of-two size classes. A freed object is filled with 0x6b
 * (POISON_FREE), so that a use after free shows. Pages that nobody asked to be zeroed are not touched: as
 * without __GFP_ZERO they hold what was in them.
 */
import { KernelError } from '../common/errors.js';
import { hex64 } from '../common/bytes.js';
import { PAGE_SIZE, type Memory, type Region } from '../cpu/memory.js';
import type { PhysicalAllocator } from './function.js';

const POISON_FREE = 0x6b;
const SMALLEST_CLASS = 16;
const CLASS_SHIFT = 4;
/** Those of 1 MiB. */
const FIRST_SLOTS = 0x10000;

export class LinearMap {
  readonly region: Region;
  /** The same by physical address. */
  readonly physical: PhysicalAllocator;
  readonly #memory: Memory;
  /** Bytes handed out from the start of the region so far. */
  #used = 0;
  #liveBytes = 0;
  /** Physical addresses of free blocks by size. */
  readonly #free = new Map<number, number[]>();
  /** Size of the live block that starts at each multiple of 16; 0: none does. As long as what is handed out. */
  #live = new Int32Array(FIRST_SLOTS);

  constructor(memory: Memory, address: bigint, size: number) {
    this.#memory = memory;
    this.region = memory.map({ name: 'linear map', address, size, permissions: 'rw' });
    this.physical = {
      alloc: (bytes) => this.#alloc(bytes),
      free: (at) => void this.#release(at),
      allocPages: (count) => this.#take(count * PAGE_SIZE),
      allocDirtyPages: (count) => this.#reserve(count * PAGE_SIZE),
      freePages: (at) => void this.#release(at),
      freeDirtyPages: (at) => void this.#forget(at),
    };
  }

  kmalloc(size: number): bigint {
    return this.#addressOf(this.#alloc(size));
  }

  allocPages(count: number): bigint {
    return this.#addressOf(this.#take(count * PAGE_SIZE));
  }

  /** Frees what `kmalloc` or `allocPages` gave; returns its bytes. */
  free(address: bigint): number {
    return this.#release(this.region.offset + Number(address - this.region.address));
  }

  /** Bytes in live blocks: a leak shows as a difference. */
  get liveBytes(): number {
    return this.#liveBytes;
  }

  #addressOf(at: number): bigint {
    return this.region.address + BigInt(at - this.region.offset);
  }

  #alloc(size: number): number {
    if (size > PAGE_SIZE) return this.#take(Math.ceil(size / PAGE_SIZE) * PAGE_SIZE);
    let block = SMALLEST_CLASS;
    while (block < size) block *= 2;
    return this.#take(block);
  }

  #release(at: number): number {
    const size = this.#forget(at);
    this.#memory.bytes.fill(POISON_FREE, at, at + size);
    return size;
  }

  /** Takes a block back as it is. */
  #forget(at: number): number {
    const within = at - this.region.offset;
    const slot = within >> CLASS_SHIFT;
    const size = (within & (SMALLEST_CLASS - 1)) === 0 ? (this.#live[slot] ?? 0) : 0;
    if (size === 0) throw new RangeError(`${hex64(this.#addressOf(at))} is not allocated`);
    this.#live[slot] = 0;
    this.#liveBytes -= size;
    const list = this.#free.get(size);
    if (list) list.push(at);
    else this.#free.set(size, [at]);
    return size;
  }

  #addSlots(): void {
    const needed = this.#used >>> CLASS_SHIFT;
    if (needed <= this.#live.length) return;
    const before = this.#live;
    this.#live = new Int32Array(Math.max(needed, 2 * before.length));
    this.#live.set(before);
  }

  #take(size: number): number {
    const at = this.#reserve(size);
    this.#memory.bytes.fill(0, at, at + size);
    return at;
  }

  /** A block with what was in it. */
  #reserve(size: number): number {
    let at = this.#free.get(size)?.pop();
    if (at === undefined) {
      // blocks of a page or more are page aligned, smaller ones aligned to their own size
      const alignment = Math.min(size, PAGE_SIZE);
      const start = Math.ceil(this.#used / alignment) * alignment;
      if (start + size > this.region.size) {
        throw new KernelError('ENOMEM', `no ${size} bytes left in the linear map`);
      }
      this.#used = start + size;
      this.#addSlots();
      at = this.region.offset + start;
    }
    this.#live[(at - this.region.offset) >> CLASS_SHIFT] = size;
    this.#liveBytes += size;
    return at;
  }
}

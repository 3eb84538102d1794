/**
 * kmalloc for a host without a kernel: blocks of power-of-two sizes, cut from pages.
 *
 * When no block is in use all slabs go back. Reference: mm/slub.c, reduced to that; the lab's kernel has its own
 * (`kernel/linear-map.ts`).
 */
import type { Region } from '../../cpu/memory.js';

const SMALLEST = 16;
const SLAB_SIZE = 16384;

/** Where slabs come from and go to. */
export interface SlabSource {
  allocate(name: string, size: number): Region;
  release(region: Region): void;
}

export class Slab {
  readonly #source: SlabSource;
  readonly #regions: Region[] = [];
  readonly #free = new Map<number, bigint[]>();
  readonly #live = new Map<bigint, number>();

  constructor(source: SlabSource) {
    this.#source = source;
  }

  /** Bytes of blocks that are in use. */
  get liveBytes(): number {
    let bytes = 0;
    for (const size of this.#live.values()) bytes += size;
    return bytes;
  }

  /** Address and size class of a block of at least `size` bytes, whose contents are anything. */
  take(size: number): { readonly address: bigint; readonly size: number } {
    let block = SMALLEST;
    while (block < size) block *= 2;
    let list = this.#free.get(block);
    if (!list) this.#free.set(block, (list = []));
    const address = list.pop() ?? this.#cut(block, list);
    this.#live.set(address, block);
    return { address, size: block };
  }

  put(address: bigint): void {
    const size = this.#live.get(address);
    if (size === undefined) throw new RangeError(`0x${address.toString(16)} is not allocated`);
    this.#live.delete(address);
    this.#free.get(size)?.push(address);
    if (this.#live.size > 0) return;
    this.#free.clear();
    for (const region of this.#regions.splice(0)) this.#source.release(region);
  }

  /** A new slab: its first block, the others are free. */
  #cut(block: number, list: bigint[]): bigint {
    const size = Math.max(SLAB_SIZE, block);
    const region = this.#source.allocate('slab', size);
    this.#regions.push(region);
    const { address } = region;
    for (let at = size - block; at > 0; at -= block) list.push(address + BigInt(at));
    return address;
  }
}

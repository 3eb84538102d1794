/**
 * Memory for BPF images, in the way of a kernel version: packs that are shared, or pages of their own.
 *
 * Reference: kernel/bpf/core.c: bpf_jit_binary_alloc, bpf_jit_alloc_exec (6.1: vmalloc in whole pages, a
 * guard page behind each). Left out: the random start inside the allocation, limits of bpf_jit_limit.
 */
import { AARCH64_BREAK_FAULT } from '../../a64/immediates.js';
import { alignUp, viewOf } from '../../common/bytes.js';
import { PAGE_SIZE, type Memory, type Region } from '../../cpu/memory.js';
import { MAPPABLE, type RangeAllocator } from '../range-allocator.js';

export interface ImageMemory {
  /** Room for `size` bytes of code, full of AARCH64_BREAK_FAULT. Throws -ENOMEM. */
  alloc(size: number): bigint;
  /** Gives back what `alloc` gave; nothing may run there any more. */
  free(address: bigint): void;
  /** Live images: a leak shows as a difference. */
  readonly liveImages: number;
}

/** `size` bytes of the instruction that no code has. */
export function breakFill(size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  viewOf(bytes).setUint32(0, AARCH64_BREAK_FAULT, true);
  for (let filled = 4; filled < size; filled *= 2) bytes.copyWithin(filled, 0, filled);
  return bytes;
}

/** 6.1: every image in pages of its own. */
export class ImagePages implements ImageMemory {
  readonly #memory: Memory;
  readonly #space: RangeAllocator;
  readonly #guarded: boolean;
  readonly #live = new Map<bigint, Region>();

  constructor(memory: Memory, space: RangeAllocator, guarded = false) {
    this.#memory = memory;
    this.#space = space;
    this.#guarded = guarded;
  }

  alloc(size: number): bigint {
    const bytes = alignUp(size, PAGE_SIZE);
    const address = this.#space.take(BigInt(bytes + PAGE_SIZE), BigInt(PAGE_SIZE), MAPPABLE);
    const name = 'bpf_jit_binary';
    const guarded = this.#guarded;
    const region = this.#memory.map({ name, address, size: bytes, permissions: 'rx', guarded });
    this.#memory.pokeBytes(address, breakFill(bytes));
    this.#live.set(address, region);
    return address;
  }

  free(address: bigint): void {
    const region = this.#live.get(address);
    if (!region) throw new RangeError(`0x${address.toString(16)} is no BPF image`);
    this.#live.delete(address);
    this.#memory.unmap(region);
    this.#space.release(address);
  }

  get liveImages(): number {
    return this.#live.size;
  }
}

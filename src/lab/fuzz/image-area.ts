/**
 * Memory for the A64 images of a batch: allocated once, filled one image behind the other, cleared between
 * batches. What is not in use holds AARCH64_BREAK_FAULT, as in the kernel's own packs.
 */
import { AARCH64_BREAK_FAULT } from '../../a64/immediates.js';
import { alignUp, high32, low32 } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { Kernel } from '../../kernel/kernel.js';

export const AREA_SIZE = 1 << 20;

export class ImageArea {
  readonly base: bigint;
  readonly #kernel: Kernel;
  readonly #words = new Uint32Array(AREA_SIZE / 4).fill(AARCH64_BREAK_FAULT);
  #used = 0;
  /** Bytes that hold code of the batch before. */
  #stale = 0;

  /** @param around the area is on both sides of this address; default: where the kernel has room */
  constructor(kernel: Kernel, around?: bigint) {
    this.#kernel = kernel;
    if (around === undefined) {
      this.base = kernel.bpf.images.alloc(AREA_SIZE);
      return;
    }
    this.base = (around - BigInt(AREA_SIZE / 2)) & ~0xfffn;
    kernel.memory.map({
      name: 'bpf images',
      address: this.base,
      size: AREA_SIZE,
      permissions: 'rx',
    });
  }

  /** Bytes that are left. */
  get room(): number {
    return AREA_SIZE - this.#used;
  }

  take(size: number): bigint {
    const at = this.#used;
    if (size > this.room) throw new InputError(`image of ${size} bytes: larger than the room`);
    this.#used = alignUp(at + size, 16);
    return this.base + BigInt(at);
  }

  /** Room for `size` bytes at `address`, if that is behind everything taken and fits. */
  takeAt(address: bigint, size: number): bigint | undefined {
    const at = Number(address - this.base);
    if (at < this.#used || at + size > AREA_SIZE) return undefined;
    this.#used = alignUp(at + size, 16);
    return address;
  }

  put(address: bigint, words: Uint32Array, target?: bigint): void {
    const at = Number(address - this.base) / 4;
    this.#words.set(words, at);
    if (target === undefined) return;
    this.#words[at + words.length] = low32(target);
    this.#words[at + words.length + 1] = high32(target);
  }

  /** Everything is in its place: CPUs see it. */
  publish(): void {
    const size = Math.max(this.#used, this.#stale);
    this.#kernel.memory.pokeBytes(this.base, new Uint8Array(this.#words.buffer, 0, size));
    this.#kernel.syncText(this.base, this.base + BigInt(size));
  }

  /** The next batch begins. */
  clear(): void {
    this.#words.fill(AARCH64_BREAK_FAULT, 0, this.#used / 4);
    this.#stale = this.#used;
    this.#used = 0;
  }
}

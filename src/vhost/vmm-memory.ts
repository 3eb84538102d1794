/**
 * Memory that the VMM allocates for itself: shadow rings, copies of what the guest sent.
 *
 * It lies in the same store as the guest's, from the kernel's page allocator; what makes it the VMM's is that
 * no descriptor of the guest leads there. What is live is counted, so that leaks show. A request beyond
 * `limit` ends the VMM, as a failed allocation does (qemu_memalign, g_malloc), and is not made.
 *
 * Usage:
 *   const buffer = vmm.alloc(4096);
 *   vmm.free(buffer);
 *   vmm.live;                 // 0
 */
import { alignUp } from '../common/bytes.js';
import { PAGE_SIZE } from '../cpu/memory.js';
import type { PhysicalAllocator } from '../kernel/function.js';
import { VmmAbort } from './abort.js';

/** Bytes that a VMM has here for itself. */
const MEMORY_LIMIT = 16 << 20;

export class VmmMemory {
  /** Bytes of the largest request so far. */
  largestRequest = 0;
  /** Bytes copied between the guest and the VMM. */
  copied = 0;
  readonly #physical: PhysicalAllocator;
  readonly #sizes = new Map<number, number>();

  constructor(physical: PhysicalAllocator) {
    this.#physical = physical;
  }

  /** Buffers that were not freed. */
  get live(): number {
    return this.#sizes.size;
  }

  /** Live buffers and the bytes asked for. */
  get buffers(): ReadonlyMap<number, number> {
    return this.#sizes;
  }

  /** Zeroed whole pages. */
  alloc(size: number): number {
    this.largestRequest = Math.max(this.largestRequest, size);
    if (size > MEMORY_LIMIT) throw new VmmAbort(`allocation of ${size} bytes`);
    const at = this.#physical.allocPages(Math.max(1, alignUp(size, PAGE_SIZE) / PAGE_SIZE));
    this.#sizes.set(at, size);
    return at;
  }

  free(at: number): void {
    if (!this.#sizes.delete(at)) throw new RangeError("a buffer is freed that is not the VMM's");
    this.#physical.freePages(at);
  }
}

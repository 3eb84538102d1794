/**
 * Uses up memory near the kernel, so that BPF images that come lie out of BL range of what is there: calls
 * then take their full length, and patch sites need a detour.
 */
import type { Kernel } from '../kernel/kernel.js';

/** What BL reaches. */
export const BL_RANGE = 128n << 20n;
/** Allocations of the prog pack. */
const CHUNK = 64;

/** Brings the images to come out of reach of those that are there, and of the kernel. */
export function moveImagesAway(kernel: Kernel): void {
  const { images } = kernel.bpf;
  kernel.vmalloc.take(BL_RANGE, 4096n);
  const first = images.alloc(CHUNK);
  // what is left of the packs in reach is taken in ever smaller pieces
  for (let size = 1 << 16; size >= CHUNK; size /= 2) {
    let next = first;
    while (next - first < BL_RANGE) next = images.alloc(size);
    images.free(next);
  }
}

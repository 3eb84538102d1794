/**
 * The split virtqueue in memory: where its three parts lie and what their bits mean.
 *
 * Reference: virtio 1.x, "Split Virtqueues". All fields are little-endian. The two sides that work on
 * it are `split-ring-driver.ts` (drivers/virtio/virtio_ring.c) and `split-ring-device.ts`.
 *
 *   descriptor table  16·N   addr u64 @0, len u32 @8, flags u16 @12, next u16 @14
 *   available ring    6+2·N  flags u16 @0, idx u16 @2, ring[N] u16 @4, used_event u16 @4+2N
 *   used ring         6+8·N  flags u16 @0, idx u16 @2, ring[N] {id u32, len u32} @4, avail_event @4+8N
 *
 * Usage:
 *   const layout = splitRingLayout(256, base);   // layout.desc, layout.avail, layout.used
 */
import { alignUp } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';

export const VRING_DESC_F_NEXT = 1;
/** The device writes this buffer. */
export const VRING_DESC_F_WRITE = 2;
/** The buffer holds a table of descriptors. */
export const VRING_DESC_F_INDIRECT = 4;

/** In `avail.flags`: the driver does not want interrupts. */
export const VRING_AVAIL_F_NO_INTERRUPT = 1;
/** In `used.flags`: the device does not want notifications. */
export const VRING_USED_F_NO_NOTIFY = 1;

export const VRING_DESC_SIZE = 16;
export const VIRTQUEUE_MAX_SIZE = 32768;

export interface SplitRingLayout {
  readonly kind: 'split';
  /** Queue size N, a power of two. */
  readonly num: number;
  readonly desc: bigint;
  readonly avail: bigint;
  readonly used: bigint;
}

/** Bytes that `splitRingLayout` spans. */
export function splitRingSize(num: number): number {
  return usedOffset(num) + 6 + 8 * num;
}

/** The parts of a ring of `num` entries laid out one behind the other from `base` (16-aligned). */
export function splitRingLayout(num: number, base: bigint): SplitRingLayout {
  checkQueueSize(num);
  return {
    kind: 'split',
    num,
    desc: base,
    avail: base + BigInt(VRING_DESC_SIZE * num),
    used: base + BigInt(usedOffset(num)),
  };
}

export function checkQueueSize(num: number): void {
  const powerOfTwo = Number.isInteger(num) && num > 0 && (num & (num - 1)) === 0;
  if (!powerOfTwo || num > VIRTQUEUE_MAX_SIZE) {
    throw new InputError(`queue size ${num} is not a power of two up to ${VIRTQUEUE_MAX_SIZE}`);
  }
}

/** Whether moving an index from `oldIndex` to `newIndex` passes `event` (`vring_need_event`). */
export function needEvent(event: number, newIndex: number, oldIndex: number): boolean {
  return ((newIndex - event - 1) & 0xffff) < ((newIndex - oldIndex) & 0xffff);
}

function usedOffset(num: number): number {
  return alignUp(VRING_DESC_SIZE * num + 6 + 2 * num, 4);
}

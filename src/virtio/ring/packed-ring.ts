/**
 * The packed virtqueue in memory: one ring of descriptors that both sides write, and their flags.
 *
 * Reference: virtio 1.x, "Packed Virtqueues". All fields are little-endian. The two sides that work on
 * it are `packed-ring-driver.ts` (drivers/virtio/virtio_ring.c) and `packed-ring-device.ts`. A position is
 * a slot with a wrap counter, which starts as 1 and changes at the end of the ring; `off_wrap` holds both.
 *
 *   descriptor ring  16·N  addr u64 @0, len u32 @8, id u16 @12, flags u16 @14
 *   driver area      4     off_wrap {offset:15, wrap:1} u16 @0, flags u16 @2: read by the device
 *   device area      4     the same: read by the driver
 *
 *   flags     available  AVAIL = wrap, USED = !wrap     used  AVAIL = USED = wrap
 *
 * Usage:
 *   const layout = packedRingLayout(100, base);   // layout.desc, layout.driver, layout.device
 */
import { InputError } from '../../common/errors.js';
import { VIRTQUEUE_MAX_SIZE, needEvent } from './split-ring.js';

export const VRING_PACKED_DESC_SIZE = 16;
export const VRING_PACKED_DESC_F_AVAIL = 1 << 7;
export const VRING_PACKED_DESC_F_USED = 1 << 15;

/** In the flags of an event suppression area: always, never, at one position (EVENT_IDX only). */
export const VRING_PACKED_EVENT_FLAG_ENABLE = 0;
export const VRING_PACKED_EVENT_FLAG_DISABLE = 1;
export const VRING_PACKED_EVENT_FLAG_DESC = 2;
/** Bits of the flags word that count. */
export const VRING_PACKED_EVENT_FLAGS = 3;

/** The wrap counter in `off_wrap`. */
export const WRAP = 0x8000;
export const OFFSET = 0x7fff;

export interface PackedRingLayout {
  readonly kind: 'packed';
  /** Queue size N: any number from 1 to 32768. */
  readonly num: number;
  readonly desc: bigint;
  /** Driver event suppression. */
  readonly driver: bigint;
  /** Device event suppression. */
  readonly device: bigint;
}

/** Bytes that `packedRingLayout` spans. */
export function packedRingSize(num: number): number {
  return VRING_PACKED_DESC_SIZE * num + 8;
}

/** The parts of a ring of `num` descriptors laid out one behind the other from `base` (16-aligned). */
export function packedRingLayout(num: number, base: bigint): PackedRingLayout {
  checkPackedQueueSize(num);
  const driver = base + BigInt(VRING_PACKED_DESC_SIZE * num);
  return { kind: 'packed', num, desc: base, driver, device: driver + 4n };
}

export function checkPackedQueueSize(num: number): void {
  if (Number.isInteger(num) && num > 0 && num <= VIRTQUEUE_MAX_SIZE) return;
  throw new InputError(`queue size ${num} is not a number from 1 to ${VIRTQUEUE_MAX_SIZE}`);
}

/** The position `slots` behind `position` (an `off_wrap`) in a ring of `num`; `slots` is at most `num`. */
export function advance(position: number, slots: number, num: number): number {
  const offset = (position & OFFSET) + slots;
  const wrap = position & WRAP;
  return offset >= num ? (offset - num) | (wrap ^ WRAP) : offset | wrap;
}

/**
 * Whether moving `moved` slots up to `position` passes the position `event`: an offset with the other wrap
 * counter lies one ring behind.
 */
export function needPackedEvent(
  event: number,
  position: number,
  moved: number,
  num: number,
): boolean {
  const behind = ((event ^ position) & WRAP) === 0 ? 0 : num;
  const offset = position & OFFSET;
  return needEvent(((event & OFFSET) - behind) & 0xffff, offset, (offset - moved) & 0xffff);
}

/** Flags that mark a descriptor at `position` as available. */
export function availableFlags(position: number): number {
  return (position & WRAP) === 0 ? VRING_PACKED_DESC_F_USED : VRING_PACKED_DESC_F_AVAIL;
}

/** Whether flags mark a descriptor at `position` as available. */
export function isAvailable(flags: number, position: number): boolean {
  const both = VRING_PACKED_DESC_F_AVAIL | VRING_PACKED_DESC_F_USED;
  return (flags & both) === availableFlags(position);
}

/** Flags that mark a descriptor at `position` as used. */
export function usedFlags(position: number): number {
  return (position & WRAP) === 0 ? 0 : VRING_PACKED_DESC_F_AVAIL | VRING_PACKED_DESC_F_USED;
}

/** Whether flags mark a descriptor at `position` as used. */
export function isUsed(flags: number, position: number): boolean {
  const both = VRING_PACKED_DESC_F_AVAIL | VRING_PACKED_DESC_F_USED;
  return (flags & both) === usedFlags(position);
}

/**
 * The driver's side of a packed virtqueue.
 *
 * Reference: drivers/virtio/virtio_ring.c (virtqueue_add_packed, virtqueue_add_indirect_packed,
 * virtqueue_get_buf_ctx_packed, virtqueue_kick_prepare_packed, virtqueue_{disable,enable}_cb*_packed).
 * State and what both layouts share are in `vring-virtqueue.ts`; callers go through `virtqueue.ts`. A
 * chain takes as many buffer ids as descriptors, and the first of them is its own. With IN_ORDER its id is
 * its slot, so that those outstanding are known by where the device returns them.
 */
import { ERRNO } from '../../common/errno.js';
import type { Ram } from '../../cpu/ram.js';
import type { KernelContext } from '../../kernel/function.js';
import {
  OFFSET,
  VRING_PACKED_DESC_SIZE,
  VRING_PACKED_EVENT_FLAGS,
  VRING_PACKED_EVENT_FLAG_DESC,
  VRING_PACKED_EVENT_FLAG_DISABLE,
  VRING_PACKED_EVENT_FLAG_ENABLE,
  advance,
  availableFlags,
  isUsed,
  needPackedEvent,
} from './packed-ring.js';
import { VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE } from './split-ring.js';
import {
  SCATTERLIST,
  VRING_DESC_EXTRA,
  VRING_DESC_STATE,
  VRING_VIRTQUEUE,
  beginBatch,
  breakQueue,
  copyPiece,
  extraOf,
  isInBatch,
  lengthInBatch,
  noteOutstanding,
  refuseUsed,
  stateOf,
  takeOutstanding,
  usesIndirect,
  type UsedBuffer,
} from './vring-virtqueue.js';

const VQ = VRING_VIRTQUEUE.offset;
const STATE = VRING_DESC_STATE.offset;
const NEXT = VRING_DESC_EXTRA.offset.next;
const SG = SCATTERLIST.offset;

/** See `virtqueueAdd`. */
export function addPacked(
  kernel: KernelContext,
  vq: number,
  sg: number,
  out: number,
  input: number,
  data: number,
  ctx: number,
): number {
  const { ram } = kernel.memory;
  const pieces = out + input;
  if (usesIndirect(ram, vq, pieces)) return addIndirect(kernel, vq, sg, out, pieces, data);
  if (ram.u32(vq + VQ.num_free) < pieces) return -ERRNO.ENOSPC;

  const ring = ram.pointer(vq + VQ.desc);
  const num = ram.u32(vq + VQ.num);
  const first = ram.u16(vq + VQ.next_avail_idx);
  const id = nextId(ram, vq, first);
  let totalIn = 0;
  let firstFlags = 0;
  let position = first;
  for (let n = 0; n < pieces; n++) {
    const piece = sg + n * SCATTERLIST.size;
    const desc = ring + VRING_PACKED_DESC_SIZE * (position & OFFSET);
    const flags =
      availableFlags(position) |
      (n >= out ? VRING_DESC_F_WRITE : 0) |
      (n + 1 < pieces ? VRING_DESC_F_NEXT : 0);
    copyPiece(ram, desc, piece);
    ram.set16(desc + 12, id);
    if (n === 0) firstFlags = flags;
    else ram.set16(desc + 14, flags);
    if (n >= out) totalIn += ram.u32(piece + SG.length);
    position = advance(position, 1, num);
  }
  const state = stateOf(ram, vq, id);
  noteOutstanding(ram, state, data, ctx, pieces, totalIn);
  publish(ram, vq, state, pieces, firstFlags);
  return 0;
}

/** The same through a table of its own; there is a free descriptor. */
function addIndirect(
  kernel: KernelContext,
  vq: number,
  sg: number,
  out: number,
  pieces: number,
  data: number,
): number {
  const { ram } = kernel.memory;
  const table = kernel.physical.alloc(VRING_PACKED_DESC_SIZE * pieces);
  let totalIn = 0;
  for (let n = 0; n < pieces; n++) {
    const piece = sg + n * SCATTERLIST.size;
    const entry = table + VRING_PACKED_DESC_SIZE * n;
    copyPiece(ram, entry, piece);
    ram.set16(entry + 14, n >= out ? VRING_DESC_F_WRITE : 0);
    if (n >= out) totalIn += ram.u32(piece + SG.length);
  }
  const first = ram.u16(vq + VQ.next_avail_idx);
  const id = nextId(ram, vq, first);
  const desc = descriptorAt(ram, vq, first);
  ram.setPointer(desc, table);
  ram.set32(desc + 8, VRING_PACKED_DESC_SIZE * pieces);
  ram.set16(desc + 12, id);
  const state = stateOf(ram, vq, id);
  noteOutstanding(ram, state, data, 0, 1, totalIn);
  ram.setPointer(state + STATE.indir_desc, table);
  publish(ram, vq, state, 1, VRING_DESC_F_INDIRECT | availableFlags(first));
  return 0;
}

/** Id of a chain that begins at a position. */
function nextId(ram: Ram, vq: number, position: number): number {
  return ram.u8(vq + VQ.in_order) === 0 ? ram.u32(vq + VQ.free_head) : position & OFFSET;
}

/** Makes a chain available, its first descriptor, whose flags these are, last. */
function publish(ram: Ram, vq: number, state: number, slots: number, flags: number): void {
  if (ram.u8(vq + VQ.in_order) === 0) takeIds(ram, vq, state, slots);
  const first = ram.u16(vq + VQ.next_avail_idx);
  ram.set32(vq + VQ.num_free, ram.u32(vq + VQ.num_free) - slots);
  ram.set16(vq + VQ.next_avail_idx, advance(first, slots, ram.u32(vq + VQ.num)));
  ram.set16(vq + VQ.num_added, (ram.u16(vq + VQ.num_added) + slots) & 0xffff);
  // a write barrier stands here: the device sees all of the chain or nothing
  ram.set16(descriptorAt(ram, vq, first) + 14, flags);
}

/** Takes `count` ids off the free list; the last is kept with the chain's state. */
function takeIds(ram: Ram, vq: number, state: number, count: number): void {
  const extra = ram.pointer(vq + VQ.desc_extra);
  let last = ram.u32(vq + VQ.free_head);
  for (let n = 1; n < count; n++) last = ram.u16(extraOf(extra, last) + NEXT);
  ram.set16(state + STATE.last, last);
  ram.set32(vq + VQ.free_head, ram.u16(extraOf(extra, last) + NEXT));
}

export function kickPreparePacked(ram: Ram, vq: number): boolean {
  const added = ram.u16(vq + VQ.num_added);
  ram.set16(vq + VQ.num_added, 0);
  const event = ram.pointer(vq + VQ.device);
  const flags = ram.u16(event + 2) & VRING_PACKED_EVENT_FLAGS;
  if (flags !== VRING_PACKED_EVENT_FLAG_DESC) return flags !== VRING_PACKED_EVENT_FLAG_DISABLE;
  const position = ram.u16(vq + VQ.next_avail_idx);
  return needPackedEvent(ram.u16(event), position, added, ram.u32(vq + VQ.num));
}

/** See `virtqueueGetBuf`. */
export function getBufPacked(
  kernel: KernelContext,
  vq: number,
  result: UsedBuffer,
): string | undefined {
  const { ram } = kernel.memory;
  const lastUsed = ram.u16(vq + VQ.last_used_idx);
  const inOrder = ram.u8(vq + VQ.in_order) !== 0;
  let id: number;
  if (inOrder && isInBatch(ram, vq)) {
    id = lastUsed & OFFSET;
    result.length = lengthInBatch(ram, vq, id);
  } else {
    if (!isUsedPacked(ram, vq, lastUsed)) return undefined;
    const desc = descriptorAt(ram, vq, lastUsed);
    id = ram.u16(desc + 12);
    const length = ram.u32(desc + 8);
    const refusal = refuseUsed(ram, vq, id, length);
    if (refusal !== undefined) return breakQueue(ram, vq, refusal);
    result.length = length;
    if (inOrder) {
      beginBatch(ram, vq, id, length);
      id = lastUsed & OFFSET;
      result.length = lengthInBatch(ram, vq, id);
    }
  }
  const slots = ram.u16(stateOf(ram, vq, id) + STATE.num);
  detachPacked(kernel, vq, id, result);
  const next = advance(lastUsed, slots, ram.u32(vq + VQ.num));
  ram.set16(vq + VQ.last_used_idx, next);
  if (ram.u16(vq + VQ.event_flags_shadow) === VRING_PACKED_EVENT_FLAG_DESC) {
    ram.set16(ram.pointer(vq + VQ.driver), next);
  }
  return undefined;
}

/** `is_used_desc_packed` at a position. */
export function isUsedPacked(ram: Ram, vq: number, position: number): boolean {
  return isUsed(ram.u16(descriptorAt(ram, vq, position) + 14), position);
}

export function disableCbPacked(ram: Ram, vq: number): void {
  writeEventFlags(ram, vq, VRING_PACKED_EVENT_FLAG_DISABLE);
}

/** Asks for an interrupt when the device has used `after` slots behind those taken. */
export function enableCbPacked(ram: Ram, vq: number, after: number): void {
  const hasEvent = ram.u8(vq + VQ.event) !== 0;
  if (hasEvent) {
    const position = advance(ram.u16(vq + VQ.last_used_idx), after, ram.u32(vq + VQ.num));
    ram.set16(ram.pointer(vq + VQ.driver), position);
  }
  // a write barrier stands here: the position is visible before the flags that make it count
  if (ram.u16(vq + VQ.event_flags_shadow) !== VRING_PACKED_EVENT_FLAG_DISABLE) return;
  writeEventFlags(
    ram,
    vq,
    hasEvent ? VRING_PACKED_EVENT_FLAG_DESC : VRING_PACKED_EVENT_FLAG_ENABLE,
  );
}

/** `virtqueue_enable_cb_delayed_packed`: at three quarters; false when something is used already. */
export function enableCbDelayedPacked(ram: Ram, vq: number): boolean {
  const outstanding = ram.u32(vq + VQ.num) - ram.u32(vq + VQ.num_free);
  enableCbPacked(ram, vq, Math.floor((outstanding * 3) / 4));
  return !isUsedPacked(ram, vq, ram.u16(vq + VQ.last_used_idx));
}

/** Takes an outstanding chain back: its slots and ids are free. */
export function detachPacked(
  kernel: KernelContext,
  vq: number,
  id: number,
  result: UsedBuffer,
): void {
  const { ram } = kernel.memory;
  const state = stateOf(ram, vq, id);
  takeOutstanding(kernel, state, result);
  ram.set32(vq + VQ.num_free, ram.u32(vq + VQ.num_free) + ram.u16(state + STATE.num));
  if (ram.u8(vq + VQ.in_order) !== 0) return;
  const last = extraOf(ram.pointer(vq + VQ.desc_extra), ram.u16(state + STATE.last));
  ram.set16(last + NEXT, ram.u32(vq + VQ.free_head));
  ram.set32(vq + VQ.free_head, id);
}

function writeEventFlags(ram: Ram, vq: number, flags: number): void {
  if (ram.u16(vq + VQ.event_flags_shadow) === flags) return;
  ram.set16(vq + VQ.event_flags_shadow, flags);
  ram.set16(ram.pointer(vq + VQ.driver) + 2, flags);
}

function descriptorAt(ram: Ram, vq: number, position: number): number {
  return ram.pointer(vq + VQ.desc) + VRING_PACKED_DESC_SIZE * (position & OFFSET);
}

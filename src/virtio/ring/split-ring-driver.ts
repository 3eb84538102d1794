/**
 * The driver's side of a split virtqueue.
 *
 * Reference: drivers/virtio/virtio_ring.c (virtqueue_add_split, virtqueue_get_buf_ctx_split,
 * virtqueue_kick_prepare_split, virtqueue_{disable,enable}_cb*_split). State and what both layouts share
 * are in `vring-virtqueue.ts`; callers go through `virtqueue.ts`. With IN_ORDER descriptors are taken in
 * ring order, so that those outstanding follow on each other.
 */
import { ERRNO } from '../../common/errno.js';
import type { Ram } from '../../cpu/ram.js';
import type { KernelContext } from '../../kernel/function.js';
import {
  VRING_AVAIL_F_NO_INTERRUPT,
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
  VRING_USED_F_NO_NOTIFY,
  needEvent,
} from './split-ring.js';
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
const EXTRA = VRING_DESC_EXTRA.offset;
const SG = SCATTERLIST.offset;

/** See `virtqueueAdd`. */
export function addSplit(
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
  const free = ram.u32(vq + VQ.num_free);
  if (free < pieces) return -ERRNO.ENOSPC;

  const descriptors = ram.pointer(vq + VQ.desc);
  const extra = ram.pointer(vq + VQ.desc_extra);
  const head = ram.u32(vq + VQ.free_head);
  let totalIn = 0;
  let i = head;
  for (let n = 0; n < pieces; n++) {
    const piece = sg + n * SCATTERLIST.size;
    const desc = descriptors + VRING_DESC_SIZE * i;
    const own = extraOf(extra, i);
    i = ram.u16(own + EXTRA.next);
    const flags = chainFlags(n, out, pieces);
    copyPiece(ram, desc, piece);
    ram.set16(desc + 12, flags);
    ram.set16(desc + 14, i);
    ram.set16(own + EXTRA.flags, flags);
    if (n >= out) totalIn += ram.u32(piece + SG.length);
  }
  ram.set32(vq + VQ.num_free, free - pieces);
  ram.set32(vq + VQ.free_head, i);
  noteOutstanding(ram, stateOf(ram, vq, head), data, ctx, pieces, totalIn);
  publish(ram, vq, head);
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
  const table = kernel.physical.alloc(VRING_DESC_SIZE * pieces);
  let totalIn = 0;
  for (let n = 0; n < pieces; n++) {
    const piece = sg + n * SCATTERLIST.size;
    const entry = table + VRING_DESC_SIZE * n;
    copyPiece(ram, entry, piece);
    ram.set16(entry + 12, chainFlags(n, out, pieces));
    ram.set16(entry + 14, n + 1);
    if (n >= out) totalIn += ram.u32(piece + SG.length);
  }
  const head = ram.u32(vq + VQ.free_head);
  const desc = ram.pointer(vq + VQ.desc) + VRING_DESC_SIZE * head;
  ram.setPointer(desc, table);
  ram.set32(desc + 8, VRING_DESC_SIZE * pieces);
  ram.set16(desc + 12, VRING_DESC_F_INDIRECT);
  const own = extraOf(ram.pointer(vq + VQ.desc_extra), head);
  ram.set16(own + EXTRA.flags, VRING_DESC_F_INDIRECT);
  ram.set32(vq + VQ.num_free, ram.u32(vq + VQ.num_free) - 1);
  ram.set32(vq + VQ.free_head, ram.u16(own + EXTRA.next));
  const state = stateOf(ram, vq, head);
  noteOutstanding(ram, state, data, 0, 1, totalIn);
  ram.setPointer(state + STATE.indir_desc, table);
  publish(ram, vq, head);
  return 0;
}

/** Flags of piece `n` of a chain. */
function chainFlags(n: number, out: number, pieces: number): number {
  return (n + 1 < pieces ? VRING_DESC_F_NEXT : 0) | (n >= out ? VRING_DESC_F_WRITE : 0);
}

function publish(ram: Ram, vq: number, head: number): void {
  const avail = ram.pointer(vq + VQ.driver);
  const idx = ram.u16(vq + VQ.avail_idx_shadow);
  ram.set16(avail + 4 + 2 * (idx & (ram.u32(vq + VQ.num) - 1)), head);
  // a write barrier stands here: the ring entry is visible before the index that covers it
  const newIdx = (idx + 1) & 0xffff;
  ram.set16(vq + VQ.avail_idx_shadow, newIdx);
  ram.set16(avail + 2, newIdx);
  ram.set16(vq + VQ.num_added, (ram.u16(vq + VQ.num_added) + 1) & 0xffff);
}

export function kickPrepareSplit(ram: Ram, vq: number): boolean {
  const newIdx = ram.u16(vq + VQ.avail_idx_shadow);
  const oldIdx = (newIdx - ram.u16(vq + VQ.num_added)) & 0xffff;
  ram.set16(vq + VQ.num_added, 0);
  const used = ram.pointer(vq + VQ.device);
  if (ram.u8(vq + VQ.event) !== 0) {
    const availEvent = ram.u16(used + 4 + 8 * ram.u32(vq + VQ.num));
    return needEvent(availEvent, newIdx, oldIdx);
  }
  return (ram.u16(used) & VRING_USED_F_NO_NOTIFY) === 0;
}

/** See `virtqueueGetBuf`. */
export function getBufSplit(
  kernel: KernelContext,
  vq: number,
  result: UsedBuffer,
): string | undefined {
  const { ram } = kernel.memory;
  const num = ram.u32(vq + VQ.num);
  const used = ram.pointer(vq + VQ.device);
  const lastUsed = ram.u16(vq + VQ.last_used_idx);
  const inOrder = ram.u8(vq + VQ.in_order) !== 0;
  const ahead = (ram.u16(used + 2) - lastUsed) & 0xffff;
  if (ahead === 0) {
    const isCut = inOrder && isInBatch(ram, vq);
    return isCut ? breakQueue(ram, vq, `used index ${lastUsed} ends within a batch`) : undefined;
  }
  if (ahead > num) return breakQueue(ram, vq, `used index is ${ahead} ahead, queue size ${num}`);

  const element = used + 4 + 8 * (lastUsed & (num - 1));
  let id = ram.u32(element);
  let length = ram.u32(element + 4);
  const isWithinBatch = inOrder && isInBatch(ram, vq);
  if (!isWithinBatch) {
    const refusal = refuseUsed(ram, vq, id, length);
    if (refusal !== undefined) return breakQueue(ram, vq, refusal);
  }
  if (inOrder) {
    if (!isWithinBatch) beginBatch(ram, vq, id, length);
    // descriptors outstanding end where the free ones begin
    id = (ram.u32(vq + VQ.free_head) + ram.u32(vq + VQ.num_free)) & (num - 1);
    length = lengthInBatch(ram, vq, id);
  }
  result.length = length;
  detachSplit(kernel, vq, id, result);
  const newLast = (lastUsed + 1) & 0xffff;
  ram.set16(vq + VQ.last_used_idx, newLast);
  if ((ram.u16(vq + VQ.avail_flags_shadow) & VRING_AVAIL_F_NO_INTERRUPT) === 0) {
    writeUsedEvent(ram, vq, newLast);
  }
  return undefined;
}

/** `more_used_split` at a used index. */
export function isUsedSplit(ram: Ram, vq: number, lastUsed: number): boolean {
  return ram.u16(ram.pointer(vq + VQ.device) + 2) !== lastUsed;
}

export function disableCbSplit(ram: Ram, vq: number): void {
  const flags = ram.u16(vq + VQ.avail_flags_shadow);
  if ((flags & VRING_AVAIL_F_NO_INTERRUPT) !== 0) return;
  ram.set16(vq + VQ.avail_flags_shadow, flags | VRING_AVAIL_F_NO_INTERRUPT);
  if (ram.u8(vq + VQ.event) !== 0) writeUsedEvent(ram, vq, 0);
  else ram.set16(ram.pointer(vq + VQ.driver), flags | VRING_AVAIL_F_NO_INTERRUPT);
}

/** Asks for an interrupt when `after` more buffers were used than were taken. */
export function enableCbSplit(ram: Ram, vq: number, after: number): void {
  const flags = ram.u16(vq + VQ.avail_flags_shadow) & ~VRING_AVAIL_F_NO_INTERRUPT;
  ram.set16(vq + VQ.avail_flags_shadow, flags);
  if (ram.u8(vq + VQ.event) === 0) ram.set16(ram.pointer(vq + VQ.driver), flags);
  writeUsedEvent(ram, vq, (ram.u16(vq + VQ.last_used_idx) + after) & 0xffff);
}

/** `virtqueue_enable_cb_delayed_split`: at three quarters; false when that many are used already. */
export function enableCbDelayedSplit(ram: Ram, vq: number): boolean {
  const lastUsed = ram.u16(vq + VQ.last_used_idx);
  const outstanding = (ram.u16(vq + VQ.avail_idx_shadow) - lastUsed) & 0xffff;
  const after = Math.floor((outstanding * 3) / 4);
  enableCbSplit(ram, vq, after);
  return ((ram.u16(ram.pointer(vq + VQ.device) + 2) - lastUsed) & 0xffff) <= after;
}

/** Takes an outstanding chain back: its descriptors are free. */
export function detachSplit(
  kernel: KernelContext,
  vq: number,
  head: number,
  result: UsedBuffer,
): void {
  const { ram } = kernel.memory;
  const state = stateOf(ram, vq, head);
  takeOutstanding(kernel, state, result);
  const slots = ram.u16(state + STATE.num);
  ram.set32(vq + VQ.num_free, ram.u32(vq + VQ.num_free) + slots);
  if (ram.u8(vq + VQ.in_order) !== 0) return;
  const extra = ram.pointer(vq + VQ.desc_extra);
  let own = extraOf(extra, head);
  while ((ram.u16(own + EXTRA.flags) & VRING_DESC_F_NEXT) !== 0) {
    own = extraOf(extra, ram.u16(own + EXTRA.next));
  }
  ram.set16(own + EXTRA.next, ram.u32(vq + VQ.free_head));
  ram.set32(vq + VQ.free_head, head);
}

/** `virtqueue_detach_unused_buf_split` takes the chain back from the available ring too. */
export function unpublishSplit(ram: Ram, vq: number): void {
  const idx = (ram.u16(vq + VQ.avail_idx_shadow) - 1) & 0xffff;
  ram.set16(vq + VQ.avail_idx_shadow, idx);
  ram.set16(ram.pointer(vq + VQ.driver) + 2, idx);
}

function writeUsedEvent(ram: Ram, vq: number, value: number): void {
  ram.set16(ram.pointer(vq + VQ.driver) + 4 + 2 * ram.u32(vq + VQ.num), value);
}

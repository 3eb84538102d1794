/**
 * A virtqueue's state on the driver's side, in kernel memory, and what both layouts do with it.
 *
 * Reference: drivers/virtio/virtio_ring.c (struct vring_virtqueue, vring_desc_state_*, vring_desc_extra).
 * Names of fields are those of Linux, the layout is our own; one struct holds the fields of both layouts,
 * and `packed_ring` says which is meant. The driver never trusts what it wrote where a device could have
 * overwritten it: chains are freed by `desc_state` and `desc_extra`, private copies. `batch_last_*` and
 * `in_order` are those of later kernels: 6.12 does not know IN_ORDER. `validate_length` is what 5.16 did
 * unless a driver checked lengths itself (suppress_used_validation). Leaves out DMA mapping and
 * event_triggered.
 *
 * Usage:
 *   const VQ = VRING_VIRTQUEUE.offset;
 *   ram.u32(vq + VQ.num_free);
 */
import { struct } from '../../common/struct.js';
import type { Ram } from '../../cpu/ram.js';
import type { KernelContext } from '../../kernel/function.js';

export const VRING_VIRTQUEUE = struct({
  vdev: 'u64',
  /** Position among the device's queues: rx of pair i is 2i, tx is 2i+1. */
  index: 'u32',
  num: 'u32',
  desc: 'u64',
  /** Available ring, or driver event suppression of a packed ring. */
  driver: 'u64',
  /** Used ring, or device event suppression. */
  device: 'u64',
  /** Array of VRING_DESC_STATE. */
  desc_state: 'u64',
  /** Array of VRING_DESC_EXTRA. */
  desc_extra: 'u64',
  num_free: 'u32',
  /** First of the free descriptors (split) or buffer ids (packed). */
  free_head: 'u32',
  /** Used index, or slot and wrap counter of a packed ring. */
  last_used_idx: 'u16',
  /** Split. */
  avail_idx_shadow: 'u16',
  avail_flags_shadow: 'u16',
  /** Packed: slot and wrap counter. */
  next_avail_idx: 'u16',
  event_flags_shadow: 'u16',
  /** Entries added since the last kick decision. */
  num_added: 'u16',
  /** Id and length of the used element that ends the batch being taken. */
  batch_last_id: 'u32',
  batch_last_len: 'u32',
  packed_ring: 'u8',
  broken: 'u8',
  /** EVENT_IDX negotiated. */
  event: 'u8',
  /** INDIRECT_DESC negotiated, and buffers have no context. */
  indirect: 'u8',
  /** IN_ORDER negotiated. */
  in_order: 'u8',
  /** A used length beyond the buffer breaks the queue. */
  validate_length: 'u8',
});

/** Per head (split) or buffer id (packed): its cookie, 0 when it is not outstanding, and more. */
export const VRING_DESC_STATE = struct({
  data: 'u64',
  ctx: 'u64',
  /** The indirect table, or 0. */
  indir_desc: 'u64',
  /** Bytes that the device may write; what is more than a u32 holds is cut off. */
  total_in_len: 'u32',
  /** Descriptors in the ring. */
  num: 'u16',
  /** Packed: the last id of the chain. */
  last: 'u16',
});

/** Per descriptor (split) or buffer id (packed): the driver's own copy of flags and next. */
export const VRING_DESC_EXTRA = struct({ flags: 'u16', next: 'u16' });

/** One piece of a buffer: `struct scatterlist` reduced to address and length. */
export const SCATTERLIST = struct({ address: 'u64', length: 'u32' });

/** In `batch_last_id`: no batch is being taken. */
export const NO_BATCH = 0xffff_ffff;

const VQ = VRING_VIRTQUEUE.offset;
const STATE = VRING_DESC_STATE.offset;
const SG = SCATTERLIST.offset;

/** A completed buffer: the cookie (0: none), the written length, the context. */
export interface UsedBuffer {
  data: number;
  length: number;
  ctx: number;
}

export function stateOf(ram: Ram, vq: number, index: number): number {
  return ram.pointer(vq + VQ.desc_state) + index * VRING_DESC_STATE.size;
}

export function extraOf(extra: number, index: number): number {
  return extra + index * VRING_DESC_EXTRA.size;
}

/** Copies address and length of a piece into a descriptor: they lie in the same place in both layouts. */
export function copyPiece(ram: Ram, desc: number, piece: number): void {
  ram.set32(desc, ram.s32(piece + SG.address));
  ram.set32(desc + 4, ram.s32(piece + SG.address + 4));
  ram.set32(desc + 8, ram.s32(piece + SG.length));
}

/** Links all descriptors or ids into the free list, none outstanding. */
export function initFreeList(ram: Ram, vq: number): void {
  const num = ram.u32(vq + VQ.num);
  const extra = ram.pointer(vq + VQ.desc_extra);
  for (let i = 0; i < num; i++) {
    ram.set16(extraOf(extra, i) + VRING_DESC_EXTRA.offset.next, i + 1 === num ? 0 : i + 1);
  }
  ram.set32(vq + VQ.num_free, num);
  ram.set32(vq + VQ.free_head, 0);
}

/** `virtqueue_use_indirect` */
export function usesIndirect(ram: Ram, vq: number, pieces: number): boolean {
  return pieces > 1 && ram.u8(vq + VQ.indirect) !== 0 && ram.u32(vq + VQ.num_free) > 0;
}

/** Notes a buffer as outstanding that takes `slots` of the ring. */
export function noteOutstanding(
  ram: Ram,
  state: number,
  data: number,
  ctx: number,
  slots: number,
  totalIn: number,
): void {
  ram.setPointer(state + STATE.data, data);
  ram.setWord(state + STATE.ctx, ctx);
  ram.set32(state + STATE.total_in_len, totalIn > 0xffff_ffff ? 0xffff_ffff : totalIn);
  ram.set16(state + STATE.num, slots);
}

/** Whether the chain with this VRING_DESC_STATE is outstanding. */
export function isOutstanding(ram: Ram, state: number): boolean {
  return (ram.s32(state + STATE.data) | ram.s32(state + STATE.data + 4)) !== 0;
}

/** Takes a buffer's cookie and context, and frees its indirect table: it is outstanding no more. */
export function takeOutstanding(kernel: KernelContext, state: number, result: UsedBuffer): void {
  const { ram } = kernel.memory;
  result.data = ram.pointer(state + STATE.data);
  result.ctx = ram.u32(state + STATE.ctx);
  ram.setWord(state + STATE.data, 0);
  const hasTable =
    (ram.s32(state + STATE.indir_desc) | ram.s32(state + STATE.indir_desc + 4)) !== 0;
  if (!hasTable) return;
  kernel.physical.free(ram.pointer(state + STATE.indir_desc));
  ram.setWord(state + STATE.indir_desc, 0);
}

/** What is wrong with a used element, in the words of BAD_RING; `undefined` when nothing is. */
export function refuseUsed(ram: Ram, vq: number, id: number, length: number): string | undefined {
  if (id >= ram.u32(vq + VQ.num)) return `id ${id} out of range`;
  const state = stateOf(ram, vq, id);
  if (!isOutstanding(ram, state)) return `id ${id} is not a head!`;
  if (ram.u8(vq + VQ.validate_length) === 0) return undefined;
  const most = ram.u32(state + STATE.total_in_len);
  if (length <= most) return undefined;
  return `used length ${length} is larger than in buflen ${most}`;
}

/**
 * With IN_ORDER: the length of the outstanding buffer `id`, which comes next, in a batch that ends with
 * `batch_last_id`; the batch is over when it is that one. One that was skipped was used completely.
 */
export function lengthInBatch(ram: Ram, vq: number, id: number): number {
  if (ram.u32(vq + VQ.batch_last_id) !== id) {
    return ram.u32(stateOf(ram, vq, id) + STATE.total_in_len);
  }
  ram.set32(vq + VQ.batch_last_id, NO_BATCH);
  return ram.u32(vq + VQ.batch_last_len);
}

/** With IN_ORDER: whether buffers of a batch are still to be taken. */
export function isInBatch(ram: Ram, vq: number): boolean {
  return ram.u32(vq + VQ.batch_last_id) !== NO_BATCH;
}

export function beginBatch(ram: Ram, vq: number, id: number, length: number): void {
  ram.set32(vq + VQ.batch_last_id, id);
  ram.set32(vq + VQ.batch_last_len, length);
}

export function breakQueue(ram: Ram, vq: number, why: string): string {
  ram.set8(vq + VQ.broken, 1);
  return why;
}

/**
 * The structures of a shadow virtqueue in memory, by physical address.
 *
 * Reference: QEMU hw/virtio/vhost-shadow-virtqueue.h (VhostShadowVirtqueue, SVQDescState), VirtQueueElement.
 * Names of fields are QEMU's, the layout is our own. `in_iova`, `out_iova`, `in_len` are those of the
 * proposal's SVQElement; `order` counts the elements taken from the guest.
 */
import { struct } from '../common/struct.js';
import type { Ram } from '../cpu/ram.js';

export const SHADOW_VIRTQUEUE = struct({
  num: 'u32',
  /** Index among the device's queues. */
  index: 'u32',
  /** Driver area: descriptor table and available ring. Device area: used ring. */
  desc: 'u64',
  avail: 'u64',
  used: 'u64',
  /** Array of SVQ_DESC_STATE, by head. */
  desc_state: 'u64',
  /** u16 by descriptor: links of chains and of the free list, a private copy. */
  desc_next: 'u64',
  /** hwaddr by segment: addresses of the element that is being added. */
  sgs: 'u64',
  /** The element that did not fit. */
  next_guest_avail_elem: 'u64',
  free_head: 'u32',
  num_free: 'u32',
  shadow_avail_idx: 'u16',
  shadow_used_idx: 'u16',
  last_used_idx: 'u16',
  /** Elements taken from the guest and not put back. */
  next_order: 'u32',
  /** EVENT_IDX negotiated. */
  event: 'u8',
  running: 'u8',
  /** The guest broke its ring. */
  broken: 'u8',
  /** The proposal's flag. */
  copy_descs: 'u8',
  /** Of the used element taken last: a kind of GOT, its id and length. */
  scratch_kind: 'u8',
  scratch_head: 'u32',
  scratch_len: 'u32',
});

export const SVQ_DESC_STATE = struct({ elem: 'u64', ndescs: 'u32' });

export const IOVEC = struct({ base: 'u64', len: 'u64' });

export const SVQ_ELEMENT = struct({
  /** Head in the guest's ring. */
  index: 'u32',
  order: 'u32',
  out_num: 'u32',
  in_num: 'u32',
  /** Arrays of IOVEC. */
  out_sg: 'u64',
  in_sg: 'u64',
  /** Arrays of guest addresses. */
  out_addr: 'u64',
  in_addr: 'u64',
  out_iova: 'u64',
  in_iova: 'u64',
  in_len: 'u64',
});

/** Segments a chain may have: VIRTQUEUE_MAX_SIZE of QEMU. */
export const MAX_SEGMENTS = 1024;

/** Bytes in the segments of an array of IOVEC: `iov_size`. */
export function iovSize(ram: Ram, iov: number, count: number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += ram.u53(iov + i * IOVEC.size + IOVEC.offset.len);
  return total;
}

/** Copies at most `size` bytes out of the segments to `to`: `iov_to_buf`. Returns how many. */
export function iovToBuf(ram: Ram, iov: number, count: number, to: number, size: number): number {
  let done = 0;
  for (let i = 0; i < count && done < size; i++) {
    const each = iov + i * IOVEC.size;
    const part = Math.min(size - done, ram.u53(each + IOVEC.offset.len));
    ram.copy(to + done, ram.pointer(each + IOVEC.offset.base), part);
    done += part;
  }
  return done;
}

/** Copies at most `size` bytes from `from` into the segments: `iov_from_buf`. Returns how many. */
export function iovFromBuf(
  ram: Ram,
  iov: number,
  count: number,
  from: number,
  size: number,
): number {
  let done = 0;
  for (let i = 0; i < count && done < size; i++) {
    const each = iov + i * IOVEC.size;
    const part = Math.min(size - done, ram.u53(each + IOVEC.offset.len));
    ram.copy(ram.pointer(each + IOVEC.offset.base), from + done, part);
    done += part;
  }
  return done;
}

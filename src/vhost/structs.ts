/**
 * The structures of a shadow virtqueue in memory, by physical address.
 *
 * Reference: QEMU 10.0 hw/virtio/vhost-shadow-virtqueue.h (VhostShadowVirtqueue, SVQDescState), VirtQueueElement,
 * net/vhost-vdpa.c (VhostVDPAState), include/hw/virtio/vhost-vdpa.h. Names of fields are QEMU's, the layout is our
 * own; `copy_descs` and SVQElement are the proposal's. `scratch_*` fields are what QEMU keeps elsewhere. Leaves out
 * event notifiers, `vq`, `vdev` and `iova_tree`, which are objects here (`queue.ts`). `types.ts` declares them as BTF.
 */
import { struct } from '../common/struct.js';
import type { Ram } from '../cpu/ram.js';

/** `struct vring`: the shadow ring. Driver area: desc and avail. Device area: used. */
export const VRING = struct({ num: 'u32', desc: 'u64', avail: 'u64', used: 'u64' });

export const SHADOW_VIRTQUEUE = struct({
  vring: VRING.size,
  /** Array of SVQ_DESC_STATE, by head. */
  desc_state: 'u64',
  /** The element that did not fit. */
  next_guest_avail_elem: 'u64',
  /** u16 by descriptor: links of chains and of the free list, a private copy. */
  desc_next: 'u64',
  /** VHOST_VDPA_STATE of the backend. */
  ops_opaque: 'u64',
  shadow_avail_idx: 'u16',
  shadow_used_idx: 'u16',
  last_used_idx: 'u16',
  free_head: 'u32',
  num_free: 'u32',
  copy_descs: 'u8',
  /** Index among the device's queues. */
  scratch_index: 'u32',
  /** hwaddr by segment: addresses of the element that is being added. */
  scratch_sgs: 'u64',
  /** Elements taken from the guest and not put back. */
  scratch_next_order: 'u32',
  /** EVENT_IDX negotiated. */
  scratch_event: 'u8',
  scratch_running: 'u8',
  /** The guest broke its ring. */
  scratch_broken: 'u8',
  /** Of the used element taken last: a kind of GOT, its id and length. */
  scratch_kind: 'u8',
  scratch_head: 'u32',
  scratch_len: 'u32',
  /** What lies behind an array without elements that the proposal writes to. */
  scratch_behind_array: 'u64',
});

/** Fields of the shadow ring within SHADOW_VIRTQUEUE. */
export const SVQ_VRING = {
  num: SHADOW_VIRTQUEUE.offset.vring + VRING.offset.num,
  desc: SHADOW_VIRTQUEUE.offset.vring + VRING.offset.desc,
  avail: SHADOW_VIRTQUEUE.offset.vring + VRING.offset.avail,
  used: SHADOW_VIRTQUEUE.offset.vring + VRING.offset.used,
} as const;

export const SVQ_DESC_STATE = struct({ elem: 'u64', ndescs: 'u32' });

export const IOVEC = struct({ iov_base: 'u64', iov_len: 'u64' });

export const VIRT_QUEUE_ELEMENT = struct({
  /** Head in the guest's ring. */
  index: 'u32',
  out_num: 'u32',
  in_num: 'u32',
  /** Arrays of guest addresses. */
  in_addr: 'u64',
  out_addr: 'u64',
  /** Arrays of IOVEC. */
  in_sg: 'u64',
  out_sg: 'u64',
});

export const SVQ_ELEMENT = struct({
  elem: VIRT_QUEUE_ELEMENT.size,
  in_iova: 'u64',
  out_iova: 'u64',
  in_len: 'u64',
  /** Which of the guest's elements it is, counted. */
  scratch_order: 'u32',
});

/** Fields of both: an element is the first member. */
export const SVQ_ELEMENT_FIELDS = {
  ...VIRT_QUEUE_ELEMENT.offset,
  ...SVQ_ELEMENT.offset,
} as const;

export const VHOST_VDPA_SHARED = struct({
  iova_first: 'u64',
  iova_last: 'u64',
  /** Data queues are shadowed: guest memory has IOVAs. */
  shadow_data: 'u8',
});

export const VHOST_VDPA = struct({
  index: 'u32',
  address_space_id: 'u32',
  shadow_vqs_enabled: 'u8',
  shared: 'u64',
});

/** Of the control queue. */
export const VHOST_VDPA_STATE = struct({
  vhost_vdpa: VHOST_VDPA.size,
  /** The two buffers of mode `landed`. */
  cvq_cmd_out_buffer: 'u64',
  status: 'u64',
  /** All queues are shadowed, always: `x-svq`. */
  always_svq: 'u8',
  /** The control queue is a group of its own. */
  cvq_isolated: 'u8',
  started: 'u8',
});

/** Segments a chain may have: VIRTQUEUE_MAX_SIZE of QEMU. */
export const MAX_SEGMENTS = 1024;

/** Bytes in the segments of an array of IOVEC: `iov_size`. */
export function iovSize(ram: Ram, iov: number, count: number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += ram.u53(iov + i * IOVEC.size + IOVEC.offset.iov_len);
  return total;
}

/** Copies at most `size` bytes out of the segments to `to`: `iov_to_buf`. Returns how many. */
export function iovToBuf(ram: Ram, iov: number, count: number, to: number, size: number): number {
  let done = 0;
  for (let i = 0; i < count && done < size; i++) {
    const each = iov + i * IOVEC.size;
    const part = Math.min(size - done, ram.u53(each + IOVEC.offset.iov_len));
    ram.copy(to + done, ram.pointer(each + IOVEC.offset.iov_base), part);
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
    const part = Math.min(size - done, ram.u53(each + IOVEC.offset.iov_len));
    ram.copy(ram.pointer(each + IOVEC.offset.iov_base), from + done, part);
    done += part;
  }
  return done;
}

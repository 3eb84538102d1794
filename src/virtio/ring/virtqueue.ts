/**
 * The driver's side of a virtqueue in either layout: one interface, chosen by what the struct says.
 *
 * Reference: drivers/virtio/virtio_ring.c (vring_create_virtqueue and the virtqueue_* functions, which
 * choose by vq->packed_ring). All state lies in kernel memory. `virtqueue-functions.ts` makes kernel
 * functions of these.
 *
 * Usage:
 *   const vq = createVirtqueue(kernel, { num: 256, index: 0, vdev: vi, eventIdx: true });
 *   virtqueueAdd(kernel, vq, sg, 0, 1, buffer, ctx);   // 0, -ENOSPC or -EIO
 */
import { ERRNO } from '../../common/errno.js';
import type { Memory } from '../../cpu/memory.js';
import type { Ram } from '../../cpu/ram.js';
import type { KernelContext } from '../../kernel/function.js';
import type { RingLayout } from './open-device-queue.js';
import {
  addPacked,
  detachPacked,
  disableCbPacked,
  enableCbDelayedPacked,
  enableCbPacked,
  getBufPacked,
  isUsedPacked,
  kickPreparePacked,
} from './packed-ring-driver.js';
import {
  VRING_PACKED_EVENT_FLAG_ENABLE,
  WRAP,
  packedRingLayout,
  packedRingSize,
} from './packed-ring.js';
import {
  addSplit,
  detachSplit,
  disableCbSplit,
  enableCbDelayedSplit,
  enableCbSplit,
  getBufSplit,
  isUsedSplit,
  kickPrepareSplit,
  unpublishSplit,
} from './split-ring-driver.js';
import { splitRingLayout, splitRingSize } from './split-ring.js';
import {
  NO_BATCH,
  VRING_DESC_EXTRA,
  VRING_DESC_STATE,
  VRING_VIRTQUEUE,
  initFreeList,
  stateOf,
  type UsedBuffer,
} from './vring-virtqueue.js';

const VQ = VRING_VIRTQUEUE.offset;
const DATA = VRING_DESC_STATE.offset.data;

export interface VirtqueueOptions {
  /** Queue size: a power of two up to 32768; with a packed ring any number up to that. */
  readonly num: number;
  readonly index: number;
  /** What the queue belongs to: a physical address, or 0. */
  readonly vdev: number;
  /** VIRTIO_F_RING_PACKED. Default false. */
  readonly packed?: boolean;
  /** VIRTIO_F_EVENT_IDX. Default false. */
  readonly eventIdx?: boolean;
  /** VIRTIO_F_INDIRECT_DESC. Default false. */
  readonly indirect?: boolean;
  /** VIRTIO_F_IN_ORDER. Default false. */
  readonly inOrder?: boolean;
  /** Buffers have a context, which indirect descriptors leave no room for. Default false. */
  readonly context?: boolean;
  /** Whether a used length beyond the buffer breaks the queue. Default true. */
  readonly validateLength?: boolean;
}

/** Allocates rings and state; all descriptors are free, callbacks enabled. */
export function createVirtqueue(kernel: KernelContext, options: VirtqueueOptions): number {
  const { ram } = kernel.memory;
  const { physical } = kernel;
  const { num } = options;
  const isPacked = options.packed ?? false;
  const bytes = isPacked ? packedRingSize(num) : splitRingSize(num);
  const rings = physical.allocPages(Math.ceil(bytes / 4096));
  const base = ram.physToVirt(rings);
  const layout = isPacked ? packedRingLayout(num, base) : splitRingLayout(num, base);
  const vq = physical.alloc(VRING_VIRTQUEUE.size);
  ram.setPointer(vq + VQ.vdev, options.vdev);
  ram.set32(vq + VQ.index, options.index);
  ram.set32(vq + VQ.num, num);
  ram.set64(vq + VQ.desc, layout.desc);
  ram.set64(vq + VQ.driver, layout.kind === 'packed' ? layout.driver : layout.avail);
  ram.set64(vq + VQ.device, layout.kind === 'packed' ? layout.device : layout.used);
  ram.setPointer(vq + VQ.desc_state, physical.alloc(VRING_DESC_STATE.size * num));
  ram.setPointer(vq + VQ.desc_extra, physical.alloc(VRING_DESC_EXTRA.size * num));
  const setFlag = (at: number, value: boolean): void => ram.set8(vq + at, value ? 1 : 0);
  setFlag(VQ.packed_ring, isPacked);
  setFlag(VQ.event, options.eventIdx ?? false);
  setFlag(VQ.indirect, (options.indirect ?? false) && !(options.context ?? false));
  setFlag(VQ.in_order, options.inOrder ?? false);
  setFlag(VQ.validate_length, options.validateLength ?? true);
  initIndexes(ram, vq);
  return vq;
}

/** Frees rings and state; no chain may be outstanding. */
export function destroyVirtqueue({ memory, physical }: KernelContext, vq: number): void {
  const { ram } = memory;
  physical.freePages(ram.pointer(vq + VQ.desc));
  physical.free(ram.pointer(vq + VQ.desc_state));
  physical.free(ram.pointer(vq + VQ.desc_extra));
  physical.free(vq);
}

/** Where a queue's rings lie, as the driver tells it to the device. */
export function virtqueueLayout({ ram }: Memory, vq: number): RingLayout {
  const num = ram.u32(vq + VQ.num);
  const desc = ram.u64(vq + VQ.desc);
  const driver = ram.u64(vq + VQ.driver);
  const device = ram.u64(vq + VQ.device);
  if (isPackedRing(ram, vq)) return { kind: 'packed', num, desc, driver, device };
  return { kind: 'split', num, desc, avail: driver, used: device };
}

export function virtqueueNumFree({ ram }: Memory, vq: number): number {
  return ram.u32(vq + VQ.num_free);
}

export function virtqueueIsBroken({ ram }: Memory, vq: number): boolean {
  return ram.u8(vq + VQ.broken) !== 0;
}

/**
 * Makes one buffer available: `out` device-readable pieces, then `input` device-writable ones, from
 * an array of SCATTERLIST at `sg`. `data` is a pointer, not NULL, that may be tagged in its low bits; `ctx`
 * a u32. Returns 0, -ENOSPC or -EIO.
 */
export function virtqueueAdd(
  kernel: KernelContext,
  vq: number,
  sg: number,
  out: number,
  input: number,
  data: number,
  ctx: number,
): number {
  const { ram } = kernel.memory;
  if (ram.u8(vq + VQ.broken) !== 0) return -ERRNO.EIO;
  if (isPackedRing(ram, vq)) return addPacked(kernel, vq, sg, out, input, data, ctx);
  return addSplit(kernel, vq, sg, out, input, data, ctx);
}

/** Whether the device must be notified of what was added since the last call. */
export function virtqueueKickPrepare({ ram }: Memory, vq: number): boolean {
  return isPackedRing(ram, vq) ? kickPreparePacked(ram, vq) : kickPrepareSplit(ram, vq);
}

/**
 * Takes the next completed buffer into `result`; its `data` is 0 when there is none. What the device
 * cannot have meant (an id that is not outstanding, a length beyond the buffer, an index too far ahead)
 * marks the queue broken. Returns why it broke, or `undefined`.
 */
export function virtqueueGetBuf(
  kernel: KernelContext,
  vq: number,
  result: UsedBuffer,
): string | undefined {
  const { ram } = kernel.memory;
  result.data = 0;
  if (ram.u8(vq + VQ.broken) !== 0) return undefined;
  if (isPackedRing(ram, vq)) return getBufPacked(kernel, vq, result);
  return getBufSplit(kernel, vq, result);
}

/** Position of the next used buffer: what `virtqueuePoll` is asked about later. */
export function virtqueueLastUsed({ ram }: Memory, vq: number): number {
  return ram.u16(vq + VQ.last_used_idx);
}

/** Whether the device completed something at a position; by default whether there is anything to take. */
export function virtqueuePoll(
  { ram }: Memory,
  vq: number,
  lastUsed = ram.u16(vq + VQ.last_used_idx),
): boolean {
  return isPackedRing(ram, vq) ? isUsedPacked(ram, vq, lastUsed) : isUsedSplit(ram, vq, lastUsed);
}

/** Asks for no interrupts: a hint, the device may still send one. */
export function virtqueueDisableCb({ ram }: Memory, vq: number): void {
  if (isPackedRing(ram, vq)) disableCbPacked(ram, vq);
  else disableCbSplit(ram, vq);
}

/** Asks for an interrupt at the next completion; the caller re-checks with `virtqueuePoll`. */
export function virtqueueEnableCb({ ram }: Memory, vq: number): void {
  if (isPackedRing(ram, vq)) enableCbPacked(ram, vq, 0);
  else enableCbSplit(ram, vq, 0);
}

/**
 * Asks for an interrupt when three quarters of what is outstanding are used. False when there is enough to
 * take already.
 */
export function virtqueueEnableCbDelayed({ ram }: Memory, vq: number): boolean {
  return isPackedRing(ram, vq) ? enableCbDelayedPacked(ram, vq) : enableCbDelayedSplit(ram, vq);
}

/** Cookies of all chains that the device has not completed, or whose completion was not taken. */
export function virtqueueOutstanding({ ram }: Memory, vq: number): readonly number[] {
  const cookies: number[] = [];
  for (let i = 0; i < ram.u32(vq + VQ.num); i++) {
    const data = ram.pointer(stateOf(ram, vq, i) + DATA);
    if (data !== 0) cookies.push(data);
  }
  return cookies;
}

/** `virtqueue_detach_unused_buf`: takes an outstanding buffer back; its cookie, or 0 when there is none. */
export function virtqueueDetachUnusedBuf(
  kernel: KernelContext,
  vq: number,
  result: UsedBuffer,
): number {
  const { ram } = kernel.memory;
  result.data = 0;
  const num = ram.u32(vq + VQ.num);
  let i = 0;
  while (i < num && ram.pointer(stateOf(ram, vq, i) + DATA) === 0) i++;
  if (i === num) return 0;
  if (isPackedRing(ram, vq)) {
    detachPacked(kernel, vq, i, result);
  } else {
    detachSplit(kernel, vq, i, result);
    unpublishSplit(ram, vq);
  }
  return result.data;
}

/**
 * Takes all outstanding buffers back, once the device has let go of the queue; their cookies. The queue
 * is broken until `virtqueueReinit`.
 */
export function virtqueueDetachUnused(kernel: KernelContext, vq: number): readonly number[] {
  const { ram } = kernel.memory;
  const cookies: number[] = [];
  const result: UsedBuffer = { data: 0, length: 0, ctx: 0 };
  for (let i = 0; i < ram.u32(vq + VQ.num); i++) {
    if (ram.pointer(stateOf(ram, vq, i) + DATA) === 0) continue;
    if (isPackedRing(ram, vq)) detachPacked(kernel, vq, i, result);
    else detachSplit(kernel, vq, i, result);
    cookies.push(result.data);
  }
  ram.set8(vq + VQ.broken, 1);
  return cookies;
}

/** `virtqueue_reinit_split`, `virtqueue_reinit_packed`: as new, callbacks enabled; none is outstanding. */
export function virtqueueReinit({ ram }: Memory, vq: number): void {
  const num = ram.u32(vq + VQ.num);
  const bytes = isPackedRing(ram, vq) ? packedRingSize(num) : splitRingSize(num);
  ram.zero(ram.pointer(vq + VQ.desc), bytes);
  initIndexes(ram, vq);
}

function initIndexes(ram: Ram, vq: number): void {
  const isPacked = isPackedRing(ram, vq);
  initFreeList(ram, vq);
  ram.set16(vq + VQ.last_used_idx, isPacked ? WRAP : 0);
  ram.set16(vq + VQ.next_avail_idx, isPacked ? WRAP : 0);
  ram.set16(vq + VQ.avail_idx_shadow, 0);
  ram.set16(vq + VQ.avail_flags_shadow, 0);
  ram.set16(vq + VQ.event_flags_shadow, VRING_PACKED_EVENT_FLAG_ENABLE);
  ram.set16(vq + VQ.num_added, 0);
  ram.set32(vq + VQ.batch_last_id, NO_BATCH);
  ram.set8(vq + VQ.broken, 0);
}

function isPackedRing(ram: Ram, vq: number): boolean {
  return ram.u8(vq + VQ.packed_ring) !== 0;
}

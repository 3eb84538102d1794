/**
 * The driver's side of a split virtqueue, with its state in kernel memory.
 *
 * Reference: drivers/virtio/virtio_ring.c (virtqueue_add_split, virtqueue_get_buf_ctx_split,
 * virtqueue_kick_prepare_split, virtqueue_{disable,enable}_cb*_split). `struct vring_virtqueue` has a
 * layout of our own. As in Linux the driver never trusts what it wrote where a device could have
 * overwritten it: chains are freed along `desc_extra`, a private copy. Leaves out indirect tables (the
 * driver posts none), DMA mapping, IN_ORDER.
 *
 * Usage:
 *   const vq = createVirtqueue(kernel, { num: 256, index: 0, vdev: vi, eventIdx: true });
 *   virtqueueAdd(memory, vq, sg, 0, 1, buffer, ctx);   // 0, -ENOSPC or -EIO
 */
import { ERRNO } from '../common/errno.js';
import type { Memory } from '../cpu/memory.js';
import type { KernelContext } from '../kernel/function.js';
import {
  VRING_AVAIL_F_NO_INTERRUPT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_USED_F_NO_NOTIFY,
  needEvent,
  splitRingLayout,
  splitRingSize,
  type SplitRingLayout,
} from './split-ring.js';
import { struct } from './struct.js';

export const VRING_VIRTQUEUE = struct({
  vdev: 'u64',
  /** Position among the device's queues: rx of pair i is 2i, tx is 2i+1. */
  index: 'u32',
  num: 'u32',
  desc: 'u64',
  avail: 'u64',
  used: 'u64',
  /** Array of VRING_DESC_STATE. */
  desc_state: 'u64',
  /** Array of VRING_DESC_EXTRA. */
  desc_extra: 'u64',
  num_free: 'u32',
  free_head: 'u32',
  last_used_idx: 'u16',
  avail_idx_shadow: 'u16',
  avail_flags_shadow: 'u16',
  /** Buffers added since the last kick decision. */
  num_added: 'u16',
  broken: 'u8',
  /** EVENT_IDX negotiated. */
  event: 'u8',
});

/** Per descriptor: the cookie of a chain's head; 0 when it is no outstanding head. */
const VRING_DESC_STATE = struct({ data: 'u64', ctx: 'u64' });

/** Per descriptor: the driver's own copy of flags and next. */
const VRING_DESC_EXTRA = struct({ flags: 'u16', next: 'u16' });

/** One piece of a buffer: `struct scatterlist` reduced to address and length. */
export const SCATTERLIST = struct({ address: 'u64', length: 'u32' });

const VQ = VRING_VIRTQUEUE.offset;

export interface VirtqueueOptions {
  readonly num: number;
  readonly index: number;
  readonly vdev: bigint;
  readonly eventIdx: boolean;
}

/** Allocates rings and state; all descriptors are free, callbacks enabled. */
export function createVirtqueue(kernel: KernelContext, options: VirtqueueOptions): bigint {
  const { memory } = kernel;
  const { num } = options;
  const rings = kernel.allocPages(Math.ceil(splitRingSize(num) / 4096));
  const layout = splitRingLayout(num, rings);
  const vq = kernel.kmalloc(VRING_VIRTQUEUE.size);
  memory.write64(vq + VQ.vdev, options.vdev);
  memory.write32(vq + VQ.index, options.index);
  memory.write32(vq + VQ.num, num);
  memory.write64(vq + VQ.desc, layout.desc);
  memory.write64(vq + VQ.avail, layout.avail);
  memory.write64(vq + VQ.used, layout.used);
  memory.write64(vq + VQ.desc_state, kernel.kmalloc(VRING_DESC_STATE.size * num));
  const extra = kernel.kmalloc(VRING_DESC_EXTRA.size * num);
  memory.write64(vq + VQ.desc_extra, extra);
  memory.write32(vq + VQ.num_free, num);
  memory.write8(vq + VQ.event, options.eventIdx ? 1 : 0);
  for (let i = 0; i < num; i++) {
    memory.write16(extraOf(extra, i) + VRING_DESC_EXTRA.offset.next, (i + 1) & (num - 1));
  }
  return vq;
}

/** Where a queue's rings lie, as the driver tells it to the device. */
export function virtqueueLayout(memory: Memory, vq: bigint): SplitRingLayout {
  return {
    num: memory.read32(vq + VQ.num),
    desc: memory.read64(vq + VQ.desc),
    avail: memory.read64(vq + VQ.avail),
    used: memory.read64(vq + VQ.used),
  };
}

export function virtqueueNumFree(memory: Memory, vq: bigint): number {
  return memory.read32(vq + VQ.num_free);
}

export function virtqueueIsBroken(memory: Memory, vq: bigint): boolean {
  return memory.read8(vq + VQ.broken) !== 0;
}

/**
 * Makes one buffer available: `out` device-readable pieces, then `input` device-writable ones, from
 * an array of SCATTERLIST at `sg`. `data` must not be 0. Returns 0, -ENOSPC or -EIO.
 */
export function virtqueueAdd(
  memory: Memory,
  vq: bigint,
  sg: bigint,
  out: number,
  input: number,
  data: bigint,
  ctx: bigint,
): number {
  const total = out + input;
  if (virtqueueIsBroken(memory, vq)) return -ERRNO.EIO;
  const free = memory.read32(vq + VQ.num_free);
  if (free < total) return -ERRNO.ENOSPC;

  const table = memory.read64(vq + VQ.desc);
  const extra = memory.read64(vq + VQ.desc_extra);
  const head = memory.read32(vq + VQ.free_head);
  let i = head;
  for (let n = 0; n < total; n++) {
    const piece = sg + BigInt(n * SCATTERLIST.size);
    const desc = table + BigInt(16 * i);
    const own = extraOf(extra, i);
    const next = memory.read16(own + VRING_DESC_EXTRA.offset.next);
    const flags = (n + 1 < total ? VRING_DESC_F_NEXT : 0) | (n >= out ? VRING_DESC_F_WRITE : 0);
    memory.write64(desc, memory.read64(piece + SCATTERLIST.offset.address));
    memory.write32(desc + 8n, memory.read32(piece + SCATTERLIST.offset.length));
    memory.write16(desc + 12n, flags);
    memory.write16(desc + 14n, next);
    memory.write16(own + VRING_DESC_EXTRA.offset.flags, flags);
    i = next;
  }
  memory.write32(vq + VQ.num_free, free - total);
  memory.write32(vq + VQ.free_head, i);
  const state = stateOf(memory, vq, head);
  memory.write64(state + VRING_DESC_STATE.offset.data, data);
  memory.write64(state + VRING_DESC_STATE.offset.ctx, ctx);

  const avail = memory.read64(vq + VQ.avail);
  const idx = memory.read16(vq + VQ.avail_idx_shadow);
  const slot = idx & (memory.read32(vq + VQ.num) - 1);
  memory.write16(avail + BigInt(4 + 2 * slot), head);
  // a write barrier stands here: the ring entry is visible before the index that covers it
  const newIdx = (idx + 1) & 0xffff;
  memory.write16(vq + VQ.avail_idx_shadow, newIdx);
  memory.write16(avail + 2n, newIdx);
  memory.write16(vq + VQ.num_added, (memory.read16(vq + VQ.num_added) + 1) & 0xffff);
  return 0;
}

/** Whether the device must be notified of what was added since the last call. */
export function virtqueueKickPrepare(memory: Memory, vq: bigint): boolean {
  const newIdx = memory.read16(vq + VQ.avail_idx_shadow);
  const oldIdx = (newIdx - memory.read16(vq + VQ.num_added)) & 0xffff;
  memory.write16(vq + VQ.num_added, 0);
  const used = memory.read64(vq + VQ.used);
  if (memory.read8(vq + VQ.event) !== 0) {
    const availEvent = memory.read16(used + BigInt(4 + 8 * memory.read32(vq + VQ.num)));
    return needEvent(availEvent, newIdx, oldIdx);
  }
  return (memory.read16(used) & VRING_USED_F_NO_NOTIFY) === 0;
}

/** What `virtqueueGetBuf` took: the cookie (0n: nothing), the written length, the context. */
export interface UsedBuffer {
  data: bigint;
  length: number;
  ctx: bigint;
}

/**
 * Takes the next completed buffer into `result`. An id out of range or one that is no outstanding
 * head marks the queue broken. Returns why it broke, or `undefined`.
 */
export function virtqueueGetBuf(
  memory: Memory,
  vq: bigint,
  result: UsedBuffer,
): string | undefined {
  result.data = 0n;
  if (virtqueueIsBroken(memory, vq) || !virtqueuePoll(memory, vq)) return undefined;
  const num = memory.read32(vq + VQ.num);
  const used = memory.read64(vq + VQ.used);
  const lastUsed = memory.read16(vq + VQ.last_used_idx);
  const entry = used + BigInt(4 + 8 * (lastUsed & (num - 1)));
  const id = memory.read32(entry);
  if (id >= num) return breakQueue(memory, vq, `id ${id} out of range`);
  const state = stateOf(memory, vq, id);
  const data = memory.read64(state + VRING_DESC_STATE.offset.data);
  if (data === 0n) return breakQueue(memory, vq, `id ${id} is not a head!`);

  result.data = data;
  result.length = memory.read32(entry + 4n);
  result.ctx = memory.read64(state + VRING_DESC_STATE.offset.ctx);
  memory.write64(state + VRING_DESC_STATE.offset.data, 0n);
  freeChain(memory, vq, id);
  const newLast = (lastUsed + 1) & 0xffff;
  memory.write16(vq + VQ.last_used_idx, newLast);
  if ((memory.read16(vq + VQ.avail_flags_shadow) & VRING_AVAIL_F_NO_INTERRUPT) === 0) {
    writeUsedEvent(memory, vq, newLast);
  }
  return undefined;
}

/** Whether the device completed something that was not taken yet. */
export function virtqueuePoll(memory: Memory, vq: bigint): boolean {
  const used = memory.read64(vq + VQ.used);
  return memory.read16(used + 2n) !== memory.read16(vq + VQ.last_used_idx);
}

/** Asks for no interrupts: a hint, the device may still send one. */
export function virtqueueDisableCb(memory: Memory, vq: bigint): void {
  const flags = memory.read16(vq + VQ.avail_flags_shadow);
  if ((flags & VRING_AVAIL_F_NO_INTERRUPT) !== 0) return;
  memory.write16(vq + VQ.avail_flags_shadow, flags | VRING_AVAIL_F_NO_INTERRUPT);
  if (memory.read8(vq + VQ.event) !== 0) writeUsedEvent(memory, vq, 0);
  else memory.write16(memory.read64(vq + VQ.avail), flags | VRING_AVAIL_F_NO_INTERRUPT);
}

/** Asks for an interrupt at the next completion; the caller re-checks with `virtqueuePoll`. */
export function virtqueueEnableCb(memory: Memory, vq: bigint): void {
  const flags = memory.read16(vq + VQ.avail_flags_shadow) & ~VRING_AVAIL_F_NO_INTERRUPT;
  memory.write16(vq + VQ.avail_flags_shadow, flags);
  if (memory.read8(vq + VQ.event) === 0) memory.write16(memory.read64(vq + VQ.avail), flags);
  writeUsedEvent(memory, vq, memory.read16(vq + VQ.last_used_idx));
}

/** Cookies of all chains that the device has not completed, or whose completion was not taken. */
export function virtqueueOutstanding(memory: Memory, vq: bigint): readonly bigint[] {
  const cookies: bigint[] = [];
  for (let i = 0; i < memory.read32(vq + VQ.num); i++) {
    const data = memory.read64(stateOf(memory, vq, i) + VRING_DESC_STATE.offset.data);
    if (data !== 0n) cookies.push(data);
  }
  return cookies;
}

/** `virtqueue_detach_unused_buf` for all: the queue is given up, its cookies go back to the caller. */
export function virtqueueDetachUnused(memory: Memory, vq: bigint): readonly bigint[] {
  const cookies = virtqueueOutstanding(memory, vq);
  for (let i = 0; i < memory.read32(vq + VQ.num); i++) {
    memory.write64(stateOf(memory, vq, i) + VRING_DESC_STATE.offset.data, 0n);
  }
  memory.write8(vq + VQ.broken, 1);
  return cookies;
}

/** Frees rings and state; no chain may be outstanding. */
export function destroyVirtqueue(kernel: KernelContext, vq: bigint): void {
  const { memory } = kernel;
  kernel.freePages(memory.read64(vq + VQ.desc));
  kernel.kfree(memory.read64(vq + VQ.desc_state));
  kernel.kfree(memory.read64(vq + VQ.desc_extra));
  kernel.kfree(vq);
}

function writeUsedEvent(memory: Memory, vq: bigint, value: number): void {
  const num = memory.read32(vq + VQ.num);
  memory.write16(memory.read64(vq + VQ.avail) + BigInt(4 + 2 * num), value);
}

function freeChain(memory: Memory, vq: bigint, head: number): void {
  const extra = memory.read64(vq + VQ.desc_extra);
  let count = 1;
  let i = head;
  let own = extraOf(extra, i);
  while ((memory.read16(own + VRING_DESC_EXTRA.offset.flags) & VRING_DESC_F_NEXT) !== 0) {
    i = memory.read16(own + VRING_DESC_EXTRA.offset.next);
    own = extraOf(extra, i);
    count++;
  }
  memory.write16(own + VRING_DESC_EXTRA.offset.next, memory.read32(vq + VQ.free_head));
  memory.write32(vq + VQ.free_head, head);
  memory.write32(vq + VQ.num_free, memory.read32(vq + VQ.num_free) + count);
}

function breakQueue(memory: Memory, vq: bigint, why: string): string {
  memory.write8(vq + VQ.broken, 1);
  return why;
}

function extraOf(extra: bigint, index: number): bigint {
  return extra + BigInt(index * VRING_DESC_EXTRA.size);
}

function stateOf(memory: Memory, vq: bigint, index: number): bigint {
  return memory.read64(vq + VQ.desc_state) + BigInt(index * VRING_DESC_STATE.size);
}

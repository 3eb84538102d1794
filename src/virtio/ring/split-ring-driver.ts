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
import { ERRNO } from '../../common/errno.js';
import type { Memory } from '../../cpu/memory.js';
import type { Ram } from '../../cpu/ram.js';
import type { KernelContext } from '../../kernel/function.js';
import {
  VRING_AVAIL_F_NO_INTERRUPT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
  VRING_USED_F_NO_NOTIFY,
  needEvent,
  splitRingLayout,
  splitRingSize,
  type SplitRingLayout,
} from './split-ring.js';
import { struct } from '../../common/struct.js';

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
const STATE = VRING_DESC_STATE.offset;
const EXTRA = VRING_DESC_EXTRA.offset;
const SG = SCATTERLIST.offset;

export interface VirtqueueOptions {
  readonly num: number;
  readonly index: number;
  /** What the queue belongs to: a physical address, or 0. */
  readonly vdev: number;
  readonly eventIdx: boolean;
}

/** Allocates rings and state; all descriptors are free, callbacks enabled. */
export function createVirtqueue(kernel: KernelContext, options: VirtqueueOptions): number {
  const { ram } = kernel.memory;
  const { physical } = kernel;
  const { num } = options;
  const rings = physical.allocPages(Math.ceil(splitRingSize(num) / 4096));
  const layout = splitRingLayout(num, ram.physToVirt(rings));
  const vq = physical.alloc(VRING_VIRTQUEUE.size);
  ram.setPointer(vq + VQ.vdev, options.vdev);
  ram.set32(vq + VQ.index, options.index);
  ram.set32(vq + VQ.num, num);
  ram.set64(vq + VQ.desc, layout.desc);
  ram.set64(vq + VQ.avail, layout.avail);
  ram.set64(vq + VQ.used, layout.used);
  ram.setPointer(vq + VQ.desc_state, physical.alloc(VRING_DESC_STATE.size * num));
  const extra = physical.alloc(VRING_DESC_EXTRA.size * num);
  ram.setPointer(vq + VQ.desc_extra, extra);
  ram.set32(vq + VQ.num_free, num);
  ram.set8(vq + VQ.event, options.eventIdx ? 1 : 0);
  for (let i = 0; i < num; i++) {
    ram.set16(extraOf(extra, i) + EXTRA.next, (i + 1) & (num - 1));
  }
  return vq;
}

/** Where a queue's rings lie, as the driver tells it to the device. */
export function virtqueueLayout({ ram }: Memory, vq: number): SplitRingLayout {
  return {
    kind: 'split',
    num: ram.u32(vq + VQ.num),
    desc: ram.u64(vq + VQ.desc),
    avail: ram.u64(vq + VQ.avail),
    used: ram.u64(vq + VQ.used),
  };
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
  { ram }: Memory,
  vq: number,
  sg: number,
  out: number,
  input: number,
  data: number,
  ctx: number,
): number {
  const total = out + input;
  if (ram.u8(vq + VQ.broken) !== 0) return -ERRNO.EIO;
  const free = ram.u32(vq + VQ.num_free);
  if (free < total) return -ERRNO.ENOSPC;

  const table = ram.pointer(vq + VQ.desc);
  const extra = ram.pointer(vq + VQ.desc_extra);
  const head = ram.u32(vq + VQ.free_head);
  let i = head;
  for (let n = 0; n < total; n++) {
    const piece = sg + n * SCATTERLIST.size;
    const desc = table + VRING_DESC_SIZE * i;
    const own = extraOf(extra, i);
    const next = ram.u16(own + EXTRA.next);
    const flags = (n + 1 < total ? VRING_DESC_F_NEXT : 0) | (n >= out ? VRING_DESC_F_WRITE : 0);
    ram.set32(desc, ram.s32(piece + SG.address));
    ram.set32(desc + 4, ram.s32(piece + SG.address + 4));
    ram.set32(desc + 8, ram.s32(piece + SG.length));
    ram.set16(desc + 12, flags);
    ram.set16(desc + 14, next);
    ram.set16(own + EXTRA.flags, flags);
    i = next;
  }
  ram.set32(vq + VQ.num_free, free - total);
  ram.set32(vq + VQ.free_head, i);
  const state = stateOf(ram, vq, head);
  ram.setPointer(state + STATE.data, data);
  ram.setWord(state + STATE.ctx, ctx);

  const avail = ram.pointer(vq + VQ.avail);
  const idx = ram.u16(vq + VQ.avail_idx_shadow);
  const slot = idx & (ram.u32(vq + VQ.num) - 1);
  ram.set16(avail + 4 + 2 * slot, head);
  // a write barrier stands here: the ring entry is visible before the index that covers it
  const newIdx = (idx + 1) & 0xffff;
  ram.set16(vq + VQ.avail_idx_shadow, newIdx);
  ram.set16(avail + 2, newIdx);
  ram.set16(vq + VQ.num_added, (ram.u16(vq + VQ.num_added) + 1) & 0xffff);
  return 0;
}

/** Whether the device must be notified of what was added since the last call. */
export function virtqueueKickPrepare({ ram }: Memory, vq: number): boolean {
  const newIdx = ram.u16(vq + VQ.avail_idx_shadow);
  const oldIdx = (newIdx - ram.u16(vq + VQ.num_added)) & 0xffff;
  ram.set16(vq + VQ.num_added, 0);
  const used = ram.pointer(vq + VQ.used);
  if (ram.u8(vq + VQ.event) !== 0) {
    const availEvent = ram.u16(used + 4 + 8 * ram.u32(vq + VQ.num));
    return needEvent(availEvent, newIdx, oldIdx);
  }
  return (ram.u16(used) & VRING_USED_F_NO_NOTIFY) === 0;
}

/** What `virtqueueGetBuf` took: the cookie (0: nothing), the written length, the context. */
export interface UsedBuffer {
  data: number;
  length: number;
  ctx: number;
}

/**
 * Takes the next completed buffer into `result`. An id out of range or one that is no outstanding
 * head marks the queue broken. Returns why it broke, or `undefined`.
 */
export function virtqueueGetBuf(
  memory: Memory,
  vq: number,
  result: UsedBuffer,
): string | undefined {
  const { ram } = memory;
  result.data = 0;
  if (ram.u8(vq + VQ.broken) !== 0 || !virtqueuePoll(memory, vq)) return undefined;
  const num = ram.u32(vq + VQ.num);
  const lastUsed = ram.u16(vq + VQ.last_used_idx);
  const entry = ram.pointer(vq + VQ.used) + 4 + 8 * (lastUsed & (num - 1));
  const id = ram.u32(entry);
  if (id >= num) return breakQueue(ram, vq, `id ${id} out of range`);
  const state = stateOf(ram, vq, id);
  const data = ram.pointer(state + STATE.data);
  if (data === 0) return breakQueue(ram, vq, `id ${id} is not a head!`);

  result.data = data;
  result.length = ram.u32(entry + 4);
  result.ctx = ram.u32(state + STATE.ctx);
  ram.setPointer(state + STATE.data, 0);
  freeChain(ram, vq, id);
  const newLast = (lastUsed + 1) & 0xffff;
  ram.set16(vq + VQ.last_used_idx, newLast);
  if ((ram.u16(vq + VQ.avail_flags_shadow) & VRING_AVAIL_F_NO_INTERRUPT) === 0) {
    writeUsedEvent(ram, vq, newLast);
  }
  return undefined;
}

/** Whether the device completed something that was not taken yet. */
export function virtqueuePoll({ ram }: Memory, vq: number): boolean {
  return ram.u16(ram.pointer(vq + VQ.used) + 2) !== ram.u16(vq + VQ.last_used_idx);
}

/** Asks for no interrupts: a hint, the device may still send one. */
export function virtqueueDisableCb({ ram }: Memory, vq: number): void {
  const flags = ram.u16(vq + VQ.avail_flags_shadow);
  if ((flags & VRING_AVAIL_F_NO_INTERRUPT) !== 0) return;
  ram.set16(vq + VQ.avail_flags_shadow, flags | VRING_AVAIL_F_NO_INTERRUPT);
  if (ram.u8(vq + VQ.event) !== 0) writeUsedEvent(ram, vq, 0);
  else ram.set16(ram.pointer(vq + VQ.avail), flags | VRING_AVAIL_F_NO_INTERRUPT);
}

/** Asks for an interrupt at the next completion; the caller re-checks with `virtqueuePoll`. */
export function virtqueueEnableCb({ ram }: Memory, vq: number): void {
  const flags = ram.u16(vq + VQ.avail_flags_shadow) & ~VRING_AVAIL_F_NO_INTERRUPT;
  ram.set16(vq + VQ.avail_flags_shadow, flags);
  if (ram.u8(vq + VQ.event) === 0) ram.set16(ram.pointer(vq + VQ.avail), flags);
  writeUsedEvent(ram, vq, ram.u16(vq + VQ.last_used_idx));
}

/** Cookies of all chains that the device has not completed, or whose completion was not taken. */
export function virtqueueOutstanding({ ram }: Memory, vq: number): readonly number[] {
  const cookies: number[] = [];
  for (let i = 0; i < ram.u32(vq + VQ.num); i++) {
    const data = ram.pointer(stateOf(ram, vq, i) + STATE.data);
    if (data !== 0) cookies.push(data);
  }
  return cookies;
}

/** `virtqueue_detach_unused_buf` for all: the queue is given up, its cookies go back to the caller. */
export function virtqueueDetachUnused(memory: Memory, vq: number): readonly number[] {
  const { ram } = memory;
  const cookies = virtqueueOutstanding(memory, vq);
  for (let i = 0; i < ram.u32(vq + VQ.num); i++) {
    ram.setPointer(stateOf(ram, vq, i) + STATE.data, 0);
  }
  ram.set8(vq + VQ.broken, 1);
  return cookies;
}

/** Frees rings and state; no chain may be outstanding. */
export function destroyVirtqueue({ memory, physical }: KernelContext, vq: number): void {
  const { ram } = memory;
  physical.freePages(ram.pointer(vq + VQ.desc));
  physical.free(ram.pointer(vq + VQ.desc_state));
  physical.free(ram.pointer(vq + VQ.desc_extra));
  physical.free(vq);
}

function writeUsedEvent(ram: Ram, vq: number, value: number): void {
  ram.set16(ram.pointer(vq + VQ.avail) + 4 + 2 * ram.u32(vq + VQ.num), value);
}

function freeChain(ram: Ram, vq: number, head: number): void {
  const extra = ram.pointer(vq + VQ.desc_extra);
  let count = 1;
  let own = extraOf(extra, head);
  while ((ram.u16(own + EXTRA.flags) & VRING_DESC_F_NEXT) !== 0) {
    own = extraOf(extra, ram.u16(own + EXTRA.next));
    count++;
  }
  ram.set16(own + EXTRA.next, ram.u32(vq + VQ.free_head));
  ram.set32(vq + VQ.free_head, head);
  ram.set32(vq + VQ.num_free, ram.u32(vq + VQ.num_free) + count);
}

function breakQueue(ram: Ram, vq: number, why: string): string {
  ram.set8(vq + VQ.broken, 1);
  return why;
}

function extraOf(extra: number, index: number): number {
  return extra + index * VRING_DESC_EXTRA.size;
}

function stateOf(ram: Ram, vq: number, index: number): number {
  return ram.pointer(vq + VQ.desc_state) + index * VRING_DESC_STATE.size;
}

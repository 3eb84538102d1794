/** A queue of either layout with its driver's and its device's side, and shorthand for using both. */
import { ERRNO } from '../../../src/common/errno.js';
import type { Memory } from '../../../src/cpu/memory.js';
import type { DeviceQueue } from '../../../src/virtio/ring/device-queue.js';
import { openDeviceQueue } from '../../../src/virtio/ring/open-device-queue.js';
import { PieceList } from '../../../src/virtio/ring/piece-list.js';
import {
  createVirtqueue,
  virtqueueAdd,
  virtqueueGetBuf,
  virtqueueLayout,
  type VirtqueueOptions,
} from '../../../src/virtio/ring/virtqueue.js';
import { SCATTERLIST, type UsedBuffer } from '../../../src/virtio/ring/vring-virtqueue.js';
import { DirectKernel } from './direct-kernel.js';

export const ENOSPC = -ERRNO.ENOSPC;
export const EIO = -ERRNO.EIO;

export type RigOptions = Omit<VirtqueueOptions, 'num' | 'index' | 'vdev'>;

export interface RingRig {
  readonly kernel: DirectKernel;
  readonly memory: Memory;
  readonly vq: number;
  device: DeviceQueue;
  readonly options: RigOptions;
  readonly sg: number;
  /** Buffer `n` begins at `buffers + 16·n`; it need not be that short. */
  readonly buffers: number;
  readonly readable: PieceList;
  readonly writable: PieceList;
}

export function ringRig(num: number, options: RigOptions = {}): RingRig {
  const kernel = new DirectKernel(2 << 20);
  const { memory } = kernel;
  const vq = createVirtqueue(kernel, { num, index: 0, vdev: 0, ...options });
  const device = openDeviceQueue(memory, virtqueueLayout(memory, vq), options);
  const sg = kernel.physical.alloc(SCATTERLIST.size * 64);
  const buffers = kernel.physical.allocPages(16);
  const pieces = { readable: new PieceList(), writable: new PieceList() };
  return { kernel, memory, vq, device, options, sg, buffers, ...pieces };
}

/** Adds buffer `n`: pieces of 100, 101, ... bytes; its context is 1000 + n. */
export function add(r: RingRig, out: number, input: number, n: number): number {
  const { ram } = r.memory;
  for (let i = 0; i < out + input; i++) {
    const piece = r.sg + i * SCATTERLIST.size;
    ram.setPointer(piece + SCATTERLIST.offset.address, r.buffers + 16 * n);
    ram.set32(piece + SCATTERLIST.offset.length, 100 + i);
  }
  return virtqueueAdd(r.kernel, r.vq, r.sg, out, input, r.buffers + 16 * n, 1000 + n);
}

/** Bytes the device may write in a buffer that `add` made. */
export function inputBytes(out: number, input: number): number {
  let bytes = 0;
  for (let i = out; i < out + input; i++) bytes += 100 + i;
  return bytes;
}

export interface Got {
  /** Of the buffer; undefined: there was none. */
  readonly n: number | undefined;
  readonly length: number;
  readonly ctx: number;
  readonly why: string | undefined;
}

export function get(r: RingRig): Got {
  const used: UsedBuffer = { data: 0, length: 0, ctx: 0 };
  const why = virtqueueGetBuf(r.kernel, r.vq, used);
  const n = used.data === 0 ? undefined : (used.data - r.buffers) / 16;
  return { n, length: used.length, ctx: used.ctx, why };
}

/** The device takes a chain: its head. */
export function take(r: RingRig): number {
  r.readable.count = 0;
  r.writable.count = 0;
  const head = r.device.take(r.readable, r.writable);
  if (head < 0) throw new Error(`take: ${r.device.broken ?? 'empty'}`);
  return head;
}

/** The device takes the next chain and returns it at once. */
export function complete(r: RingRig, written: number): void {
  r.device.push(take(r), written);
  r.device.flush();
}

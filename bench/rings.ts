/**
 * Virtqueue operations per second, split against packed in the same run.
 *
 * A round is 64 buffers: the driver adds them and asks whether to kick, the device takes, returns and
 * publishes them and asks whether to interrupt, the driver takes them back. An operation is a buffer once
 * around. Speeds are per second of processor time; `x` compares with the split ring.
 */
import { bootLab } from '../src/node/boot.js';
import type { Kernel } from '../src/kernel/kernel.js';
import { openDeviceQueue } from '../src/virtio/ring/open-device-queue.js';
import { PieceList } from '../src/virtio/ring/piece-list.js';
import {
  createVirtqueue,
  destroyVirtqueue,
  virtqueueAdd,
  virtqueueGetBuf,
  virtqueueKickPrepare,
  virtqueueLayout,
} from '../src/virtio/ring/virtqueue.js';
import { SCATTERLIST } from '../src/virtio/ring/vring-virtqueue.js';
import type { BenchRow } from './row.js';

const BATCH = 64;
const MICROSECONDS = 500_000;
/** Pieces of a buffer, one of them device-writable. */
const SHAPES = [1, 4];
const FEATURES = [
  { name: '', options: {} },
  { name: ' IN_ORDER', options: { inOrder: true } },
  { name: ' INDIRECT', options: { indirect: true } },
];

export async function benchRings(): Promise<BenchRow[]> {
  const kernel = await bootLab({ engine: 'embedded' });
  const rows: BenchRow[] = [];
  for (const pieces of SHAPES) {
    for (const { name, options } of FEATURES) {
      if (pieces === 1 && name === ' INDIRECT') continue;
      const split = measure(kernel, pieces, { ...options, packed: false });
      const packed = measure(kernel, pieces, { ...options, packed: true });
      const what = `${pieces} ${pieces === 1 ? 'piece' : 'pieces'}${name}`;
      rows.push({ name: `split, ${what}`, value: split, unit: 'operations/s' });
      rows.push({
        name: `packed, ${what}`,
        value: packed,
        unit: 'operations/s',
        ratio: packed / split,
      });
    }
  }
  kernel.close();
  return rows;
}

interface Features {
  readonly packed: boolean;
  readonly inOrder?: boolean;
  readonly indirect?: boolean;
}

function measure(kernel: Kernel, pieces: number, features: Features): number {
  const { memory, physical } = kernel;
  const options = { ...features, eventIdx: true };
  const vq = createVirtqueue(kernel, { num: 256, index: 0, vdev: 0, ...options });
  const device = openDeviceQueue(memory, virtqueueLayout(memory, vq), options);
  const buffer = physical.allocPages(1);
  const sg = physical.alloc(SCATTERLIST.size * pieces);
  for (let i = 0; i < pieces; i++) {
    memory.ram.setPointer(sg + i * SCATTERLIST.size + SCATTERLIST.offset.address, buffer);
    memory.ram.set32(sg + i * SCATTERLIST.size + SCATTERLIST.offset.length, 1024);
  }
  const readable = new PieceList();
  const writable = new PieceList();
  const used = { data: 0, length: 0, ctx: 0 };
  const round = (): void => {
    for (let i = 0; i < BATCH; i++) virtqueueAdd(kernel, vq, sg, pieces - 1, 1, buffer, 0);
    virtqueueKickPrepare(memory, vq);
    for (let i = 0; i < BATCH; i++) {
      readable.count = 0;
      writable.count = 0;
      device.push(device.take(readable, writable), 1024);
    }
    device.flush();
    device.shouldInterrupt();
    for (let i = 0; i < BATCH; i++) virtqueueGetBuf(kernel, vq, used);
  };
  for (let i = 0; i < 500; i++) round();
  const begin = process.cpuUsage();
  let done = 0;
  let time = 0;
  while (time < MICROSECONDS) {
    for (let i = 0; i < 50; i++) round();
    done += 50 * BATCH;
    const { user, system } = process.cpuUsage(begin);
    time = user + system;
  }
  destroyVirtqueue(kernel, vq);
  physical.free(sg);
  physical.freePages(buffer);
  return (done / time) * 1e6;
}

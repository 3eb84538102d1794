/**
 * Virtqueues under a device and a driver that write anything: random corruptions of ring memory between
 * random operations, in every layout and combination of features.
 *
 * | campaign | corrupts                                         | must hold                               |
 * | -------- | ------------------------------------------------ | --------------------------------------- |
 * | device   | used ring, descriptors, event areas, returned ids | nothing is thrown, no access outside of |
 * |          | and lengths; the driver works on                  | the queue's memory, every descriptor    |
 * |          |                                                   | free or outstanding, a reset recovers   |
 * | driver   | descriptors, available ring, indirect tables,     | the same of the device; every piece is  |
 * |          | event areas; the device works on                  | mapped; a refusal names queue and fault |
 * | net      | used rings, ids, lengths and flags of a           | nothing is thrown, the poll ends, after |
 * |          | virtio-net device under traffic                   | a reset frames arrive, nothing leaks    |
 *
 * Usage:
 *   runHostileRings(kernel, driver, { corruptions: 1000, seed: 1 });   // counts, or throws
 */
import type { Ram } from '../../src/cpu/ram.js';
import { Random } from '../../src/common/random.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { virtqueueOf } from '../../src/virtio/driver/queue-reset.js';
import { QUEUE_BROKEN, type DeviceQueue } from '../../src/virtio/ring/device-queue.js';
import { openDeviceQueue, type RingLayout } from '../../src/virtio/ring/open-device-queue.js';
import { OFFSET, availableFlags, usedFlags } from '../../src/virtio/ring/packed-ring.js';
import { PieceList } from '../../src/virtio/ring/piece-list.js';
import {
  createVirtqueue,
  destroyVirtqueue,
  virtqueueAdd,
  virtqueueDetachUnused,
  virtqueueDisableCb,
  virtqueueEnableCb,
  virtqueueEnableCbDelayed,
  virtqueueGetBuf,
  virtqueueIsBroken,
  virtqueueKickPrepare,
  virtqueueLastUsed,
  virtqueueLayout,
  virtqueueNumFree,
  virtqueueOutstanding,
  virtqueuePoll,
  virtqueueReinit,
} from '../../src/virtio/ring/virtqueue.js';
import {
  SCATTERLIST,
  VRING_DESC_STATE,
  stateOf,
  type UsedBuffer,
} from '../../src/virtio/ring/vring-virtqueue.js';
import type { VirtioNet, VirtioNetDriver } from '../../src/virtio/virtio-net.js';
import { Guard } from './guard.js';

export interface HostileCounts {
  corruptions: number;
  /** Queues of drivers marked broken, devices that need a reset. */
  driverBroke: number;
  deviceBroke: number;
  /** Buffers and frames that came through all the same. */
  buffers: number;
  resets: number;
}

export interface HostileOptions {
  /** Of each campaign a third. */
  readonly corruptions: number;
  readonly seed: number;
}

/** Corruptions between a queue's reset and the next. */
const ROUND = 24;
const BUFFER_BYTES = 64;

/** Runs all campaigns. Throws what a queue should not have thrown, or what does not hold, with the seed. */
export function runHostileRings(
  kernel: Kernel,
  driver: VirtioNetDriver,
  { corruptions, seed }: HostileOptions,
): HostileCounts {
  const counts = { corruptions: 0, driverBroke: 0, deviceBroke: 0, buffers: 0, resets: 0 };
  // the first call from outside makes a task, which stays
  driver.probe().close();
  for (let round = 0; counts.corruptions < corruptions; round++) {
    const random = new Random(seed * 1_000_003 + round);
    try {
      if (round % 3 === 0) hostileRing(kernel, random, counts, 'device');
      else if (round % 3 === 1) hostileRing(kernel, random, counts, 'driver');
      else hostileNet(kernel, driver, random, counts);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new Error(`seed ${seed}, round ${round}: ${why}`, { cause: error });
    }
  }
  return counts;
}

interface Queue {
  readonly guard: Guard;
  readonly vq: number;
  device: DeviceQueue;
  readonly sg: number;
  readonly buffers: number;
  readonly num: number;
  readonly options: {
    readonly packed: boolean;
    readonly eventIdx: boolean;
    readonly indirect: boolean;
    readonly inOrder: boolean;
  };
}

function features(random: Random): Queue['options'] {
  const flag = (): boolean => random.below(2) === 0;
  return { packed: flag(), eventIdx: flag(), indirect: flag(), inOrder: flag() };
}

/** One queue, driver and device in turns; the ring memory of `liar`'s side is overwritten. */
function hostileRing(
  kernel: Kernel,
  random: Random,
  counts: HostileCounts,
  liar: 'device' | 'driver',
): void {
  const guard = new Guard(kernel);
  const options = features(random);
  const num = [2, 8, 16][random.below(3)] as number;
  const vq = createVirtqueue(guard.kernel, { num, index: 0, vdev: 0, ...options });
  const layout = virtqueueLayout(kernel.memory, vq);
  const q: Queue = {
    guard,
    vq,
    device: openDeviceQueue(kernel.memory, layout, options),
    sg: guard.kernel.physical.alloc(SCATTERLIST.size * 8),
    buffers: guard.kernel.physical.allocPages(1),
    num,
    options,
  };
  const taken: number[] = [];
  for (let done = 0; done < ROUND; done++) {
    for (let i = random.below(6); i > 0; i--) step(q, random, taken, counts);
    if (random.below(2) === 0) corrupt(kernel, q, layout, random, liar);
    else aim(kernel, q, layout, random, liar);
    counts.corruptions++;
    for (let i = random.below(10); i > 0; i--) step(q, random, taken, counts);
    checkAccounts(q);
    const isBroken = virtqueueIsBroken(kernel.memory, vq);
    if (isBroken) counts.driverBroke++;
    if (q.device.broken !== undefined) counts.deviceBroke++;
    if (!isBroken && q.device.broken === undefined) continue;
    recover(q, counts);
    taken.length = 0;
  }
  recover(q, counts);
  const { physical } = guard.kernel;
  virtqueueDetachUnused(guard.kernel, vq);
  destroyVirtqueue(guard.kernel, vq);
  physical.free(q.sg);
  physical.freePages(q.buffers);
  if (guard.live !== 0) throw new Error(`${guard.live} blocks leaked`);
}

/** One operation of driver or device. */
function step(q: Queue, random: Random, taken: number[], counts: HostileCounts): void {
  const { guard } = q;
  if (random.below(2) === 0) guard.driver(() => driverStep(q, random, counts));
  else guard.device(() => deviceStep(q, random, taken));
}

function driverStep(q: Queue, random: Random, counts: HostileCounts): void {
  const { memory } = q.guard.kernel;
  const { vq } = q;
  switch (random.below(6)) {
    case 0:
    case 1:
      add(q, random);
      virtqueueKickPrepare(memory, vq);
      break;
    case 2:
    case 3:
      if (get(q) !== 0) counts.buffers++;
      virtqueuePoll(memory, vq);
      break;
    case 4:
      virtqueueDisableCb(memory, vq);
      break;
    default:
      if (random.below(2) === 0) virtqueueEnableCb(memory, vq);
      else virtqueueEnableCbDelayed(memory, vq);
  }
}

function deviceStep(q: Queue, random: Random, taken: number[]): void {
  switch (random.below(5)) {
    case 0:
    case 1: {
      const head = take(q);
      if (head >= 0) taken.push(head);
      break;
    }
    case 2:
    case 3: {
      const at = q.options.inOrder ? 0 : random.below(Math.max(taken.length, 1));
      const [head] = taken.splice(at, 1);
      if (head !== undefined) q.device.push(head, random.below(BUFFER_BYTES));
      break;
    }
    default:
      q.device.flush();
      q.device.shouldInterrupt();
  }
}

function add(q: Queue, random: Random): number {
  const { ram } = q.guard.kernel.memory;
  const out = random.below(3);
  const input = 1 + random.below(3);
  const cookie = q.buffers + BUFFER_BYTES * random.below(32);
  for (let i = 0; i < out + input; i++) {
    ram.setPointer(q.sg + i * SCATTERLIST.size + SCATTERLIST.offset.address, cookie);
    ram.set32(q.sg + i * SCATTERLIST.size + SCATTERLIST.offset.length, BUFFER_BYTES);
  }
  return virtqueueAdd(q.guard.kernel, q.vq, q.sg, out, input, cookie, 0);
}

/** What the device takes is mapped, whatever the ring says. */
function take(q: Queue): number {
  const { memory } = q.guard.kernel;
  const readable = new PieceList();
  const writable = new PieceList();
  const head = q.device.take(readable, writable);
  if (head === QUEUE_BROKEN && !/^queue 0: \S/.test(q.device.broken ?? ''))
    throw new Error('broken, no text');
  if (head < 0) return head;
  for (const pieces of [readable, writable]) {
    for (let i = 0; i < pieces.count; i++) {
      const at = pieces.address(i);
      const hi = memory.ram.addressHi(at);
      if (at <= 0 || memory.offsetRead(hi, memory.ram.addressLo(at), pieces.length(i)) !== at) {
        throw new Error(`a piece of ${pieces.length(i)} bytes at ${at} is not mapped`);
      }
    }
  }
  return head;
}

function get(q: Queue): number {
  const used: UsedBuffer = { data: 0, length: 0, ctx: 0 };
  const why = virtqueueGetBuf(q.guard.kernel, q.vq, used);
  if (why !== undefined && used.data !== 0) throw new Error(`a buffer from a broken queue: ${why}`);
  if (used.data !== 0 && used.length > 3 * BUFFER_BYTES) {
    throw new Error(`used length ${used.length}`);
  }
  return used.data;
}

/** Descriptors are free or belong to a buffer that is outstanding. */
function checkAccounts(q: Queue): void {
  const { memory } = q.guard.kernel;
  let held = 0;
  for (let i = 0; i < q.num; i++) {
    const state = stateOf(memory.ram, q.vq, i);
    if (memory.ram.pointer(state + VRING_DESC_STATE.offset.data) === 0) continue;
    held += memory.ram.u16(state + VRING_DESC_STATE.offset.num);
  }
  const free = virtqueueNumFree(memory, q.vq);
  if (free + held !== q.num) throw new Error(`${free} free and ${held} held of ${q.num}`);
}

/** A reset, and all buffers go through once more. */
function recover(q: Queue, counts: HostileCounts): void {
  const { kernel } = q.guard;
  q.device.stop();
  virtqueueDetachUnused(kernel, q.vq);
  virtqueueReinit(kernel.memory, q.vq);
  q.device = openDeviceQueue(kernel.memory, virtqueueLayout(kernel.memory, q.vq), q.options);
  counts.resets++;
  const random = new Random(1);
  for (let i = 0; i < 3 * q.num; i++) {
    if (add(q, random) < 0) {
      if (virtqueueOutstanding(kernel.memory, q.vq).length > 0 || q.num >= 5) {
        throw new Error('no room after a reset');
      }
      continue;
    }
    const head = take(q);
    if (head < 0) throw new Error(`after a reset: ${q.device.broken ?? 'nothing to take'}`);
    q.device.push(head, 1);
    q.device.flush();
    if (get(q) === 0) throw new Error('after a reset: nothing comes back');
  }
}

/** Overwrites a few bytes that the liar may write, or all of one element. */
function corrupt(
  kernel: Kernel,
  q: Queue,
  layout: RingLayout,
  random: Random,
  liar: 'device' | 'driver',
): void {
  const { ram } = kernel.memory;
  const [start, size] = target(kernel, layout, random, liar);
  switch (random.below(4)) {
    case 0:
      ram.set8(start + random.below(size), random.below(256));
      break;
    case 1:
      ram.set16(start + 2 * random.below(size >> 1), small(random, q.num));
      break;
    case 2:
      ram.set32(start + 4 * random.below(size >> 2), small(random, q.num));
      break;
    default: {
      const at = start + random.below(size);
      for (let i = 0; i < 16 && at + i < start + size; i++) ram.set8(at + i, random.below(256));
    }
  }
}

/** Overwrites a field that the other side looks at next. */
function aim(
  kernel: Kernel,
  q: Queue,
  layout: RingLayout,
  random: Random,
  liar: 'device' | 'driver',
): void {
  const { ram } = kernel.memory;
  const value = small(random, q.num);
  const position = liar === 'driver' ? q.device.position : virtqueueLastUsed(kernel.memory, q.vq);
  if (liar === 'driver' && random.below(3) === 0) {
    aimAtTable(ram, q, random);
    return;
  }
  if (layout.kind === 'packed') {
    const slot = ((position & OFFSET) + random.below(3)) % layout.num;
    const desc = ram.virtToPhys(layout.desc) + 16 * slot;
    const low = random.below(8);
    const flags = liar === 'driver' ? availableFlags(position) | low : usedFlags(position) | low;
    overwriteDescriptor(ram, desc, random, value, 12, 14, flags);
    return;
  }
  const slot = position & (layout.num - 1);
  if (liar === 'device') {
    const used = ram.virtToPhys(layout.used);
    const at = random.below(3);
    if (at === 0) ram.set16(used + 2, position + random.below(layout.num + 3));
    else ram.set32(used + 8 * slot + 4 * at, value);
    return;
  }
  const avail = ram.virtToPhys(layout.avail);
  const head = ram.u16(avail + 4 + 2 * slot) & (layout.num - 1);
  const at = random.below(4);
  if (at === 0) ram.set16(avail + 2, position + random.below(layout.num + 3));
  else if (at === 1) ram.set16(avail + 4 + 2 * slot, value);
  else {
    const desc = ram.virtToPhys(layout.desc) + 16 * head;
    overwriteDescriptor(ram, desc, random, value, 14, 12, random.below(8));
  }
}

/** One field of a descriptor: half of its address, its length, the id or next at `other`, or flags. */
function overwriteDescriptor(
  ram: Ram,
  desc: number,
  random: Random,
  value: number,
  other: number,
  flagsAt: number,
  flags: number,
): void {
  switch (random.below(5)) {
    case 0:
      ram.set32(desc + 4 * random.below(2), value);
      break;
    case 1:
      ram.set32(desc + 8, value);
      break;
    case 2:
      ram.set16(desc + other, value);
      break;
    default:
      ram.set16(desc + flagsAt, flags);
  }
}

/** An entry of an indirect table of a buffer that is outstanding, if there is one. */
function aimAtTable(ram: Ram, q: Queue, random: Random): void {
  for (let i = 0; i < q.num; i++) {
    const state = stateOf(ram, q.vq, i);
    if (ram.pointer(state + VRING_DESC_STATE.offset.data) === 0) continue;
    const table = ram.pointer(state + VRING_DESC_STATE.offset.indir_desc);
    if (table === 0) continue;
    // there are two entries at least
    const [other, flagsAt] = q.options.packed ? [12, 14] : [14, 12];
    const entry = table + 16 * random.below(2);
    overwriteDescriptor(
      ram,
      entry,
      random,
      small(random, q.num),
      other as number,
      flagsAt as number,
      random.below(8),
    );
    return;
  }
}

/** A number that may just fit, or any. */
function small(random: Random, num: number): number {
  return random.below(3) === 0 ? random.u32() | 0 : random.below(2 * num + 2);
}

/** Memory that one side may write: from where, how many bytes. */
function target(
  kernel: Kernel,
  layout: RingLayout,
  random: Random,
  liar: 'device' | 'driver',
): readonly [number, number] {
  const { ram } = kernel.memory;
  const desc = ram.virtToPhys(layout.desc);
  const descriptors = [desc, 16 * layout.num] as const;
  if (layout.kind === 'packed') {
    const event = ram.virtToPhys(liar === 'device' ? layout.device : layout.driver);
    return random.below(6) === 0 ? [event, 4] : descriptors;
  }
  const used = [ram.virtToPhys(layout.used), 6 + 8 * layout.num] as const;
  const avail = [ram.virtToPhys(layout.avail), 6 + 2 * layout.num] as const;
  // the driver does not read the table back, but a device may write there all the same
  if (liar === 'device') return random.below(6) === 0 ? descriptors : used;
  return random.below(2) === 0 ? descriptors : avail;
}

/**
 * A virtio-net device under traffic that then writes anything over its used rings (packed: over ids,
 * lengths and flags) while the driver polls. It takes no buffers meanwhile: a driver that believes a lie
 * has freed some of them, and only an IOMMU could keep a device from writing there.
 */
function hostileNet(
  kernel: Kernel,
  driver: VirtioNetDriver,
  random: Random,
  counts: HostileCounts,
): void {
  const { ram } = kernel.memory;
  const { packed, ...options } = features(random);
  const before = kernel.linear.liveBytes;
  const net = driver.probe({
    ...options,
    ring: packed ? 'packed' : 'split',
    rx: random.below(2) === 0 ? 'small' : 'mergeable',
    queueSize: 16,
    transmit: 'manual',
  });
  const vi = ram.virtToPhys(net.vi);
  const verdicts = [random.below(5), random.below(5), 3];
  let runs = 0;
  const runner = { hasFrags: true, run: () => verdicts[runs++ % verdicts.length] as number };
  const frame = (): Uint8Array => new Uint8Array(14 + random.below(1500)).fill(runs & 0xff);
  for (let episode = 0; episode < 4; episode++) {
    net.attachXdp(random.below(3) === 0 ? undefined : runner);
    for (let i = random.below(12); i > 0; i--) counts.buffers += traffic(net, random, frame);
    for (let done = 0; done < ROUND / 4; done++) {
      for (const queue of [0, 1]) {
        const layout = virtqueueLayout(kernel.memory, virtqueueOf(kernel, vi, queue));
        const [at, size] = completion(ram, layout, random);
        if (size === 2) ram.set16(at, small(random, layout.num));
        else ram.set32(at, small(random, layout.num));
        counts.corruptions++;
      }
      kernel.invoke('skb_recv_done', virtqueueOf(kernel, vi, 0));
      net.poll();
      net.drain();
    }
    if (net.broken) counts.driverBroke++;
    net.attachXdp(undefined);
    net.reset();
    counts.resets++;
    net.poll();
    net.drain();
    for (let i = 0; i < 20; i++) {
      const result = net.receive(frame());
      net.poll();
      if (result !== 'delivered') {
        throw new Error(`after a reset: ${result} ${net.device.error ?? ''}`);
      }
      if (net.drain() !== 1) throw new Error('after a reset: a frame is lost');
    }
  }
  net.transmitted();
  net.exceptions();
  net.close();
  if (kernel.linear.liveBytes !== before) {
    throw new Error(`${kernel.linear.liveBytes - before} bytes leaked`);
  }
}

/** A field by which a device returns buffers: where it lies, how many bytes it has. */
function completion(ram: Ram, layout: RingLayout, random: Random): readonly [number, number] {
  if (layout.kind === 'packed') {
    const desc = ram.virtToPhys(layout.desc) + 16 * random.below(layout.num);
    return (
      [
        [8, 4],
        [12, 2],
        [14, 2],
      ] as const
    )
      .map(([offset, size]) => [desc + offset, size] as const)
      .at(random.below(3)) as readonly [number, number];
  }
  const used = ram.virtToPhys(layout.used);
  if (random.below(3) === 0) return [used + 2, 2];
  return [used + 4 + 4 * random.below(2 * layout.num), 4];
}

/** Some frames in, some out. Returns those that reached the stack. */
function traffic(net: VirtioNet, random: Random, frame: () => Uint8Array): number {
  for (let i = random.below(8); i > 0; i--) net.receive(frame());
  if (random.below(2) === 0) net.device.runTransmit();
  if (random.below(3) > 0) net.poll();
  return net.drain();
}

/** What is particular to packed rings: their bytes, positions, and what each side refuses. */
import { describe, expect, test } from 'vitest';
import {
  advance,
  isAvailable,
  isUsed,
  needPackedEvent,
  packedRingLayout,
  packedRingSize,
  type PackedRingLayout,
} from '../../../src/virtio/ring/packed-ring.js';
import {
  virtqueueEnableCb,
  virtqueueKickPrepare,
  virtqueueLayout,
  virtqueuePoll,
} from '../../../src/virtio/ring/virtqueue.js';
import {
  add,
  complete,
  get,
  ringRig,
  take,
  type RigOptions,
  type RingRig,
} from '../helpers/ring-rig.js';

const WRAP = 0x8000;
const AVAIL = 0x80;
const USED = 0x8000;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

function packedRig(num: number, options: RigOptions = {}): RingRig {
  return ringRig(num, { packed: true, ...options });
}

function layoutOf(r: RingRig): PackedRingLayout {
  const layout = virtqueueLayout(r.memory, r.vq);
  if (layout.kind !== 'packed') throw new Error(layout.kind);
  return layout;
}

/** len, id and flags in a slot. */
function slot(r: RingRig, index: number): readonly number[] {
  const at = layoutOf(r).desc + BigInt(16 * index);
  const { memory } = r;
  return [memory.read32(at + 8n), memory.read16(at + 12n), memory.read16(at + 14n)];
}

test('layout of a ring of 100; any size up to 32768', () => {
  expect(packedRingLayout(100, 0x1000n)).toEqual({
    kind: 'packed',
    num: 100,
    desc: 0x1000n,
    driver: 0x1640n,
    device: 0x1644n,
  });
  expect(packedRingSize(100)).toBe(1608);
  for (const size of [0, 1.5, 32769]) {
    expect(() => packedRingLayout(size, 0n)).toThrow('not a number from 1 to 32768');
  }
});

test.each([
  [WRAP | 0, 1, 3, WRAP | 1],
  [WRAP | 2, 1, 3, 0],
  [2, 2, 3, WRAP | 1],
  [WRAP | 1, 3, 3, 1],
])('position %i and %i slots of a ring of %i', (position, slots, num, expected) => {
  expect(advance(position, slots, num)).toBe(expected);
});

test.each([
  // event, position, slots moved, ring size
  [WRAP | 0, WRAP | 1, 1, 8, true],
  [WRAP | 3, WRAP | 5, 1, 8, false],
  [WRAP | 4, WRAP | 5, 1, 8, true],
  [WRAP | 5, WRAP | 5, 1, 8, false],
  // over the end of the ring: the event lies before it, or behind
  [WRAP | 7, 1, 2, 8, true],
  [WRAP | 6, 1, 2, 8, false],
  [0, 1, 2, 8, true],
  [1, 1, 2, 8, false],
  [WRAP | 3, 1, 2, 8, false],
])('event %i, position %i after %i of %i: %s', (event, position, moved, num, expected) => {
  expect(needPackedEvent(event, position, moved, num)).toBe(expected);
});

test('available and used at each wrap counter', () => {
  const flags = [0, AVAIL, USED, AVAIL | USED];
  expect(flags.map((each) => isAvailable(each, WRAP))).toEqual([false, true, false, false]);
  expect(flags.map((each) => isAvailable(each, 0))).toEqual([false, false, true, false]);
  expect(flags.map((each) => isUsed(each, WRAP))).toEqual([false, false, false, true]);
  expect(flags.map((each) => isUsed(each, 0))).toEqual([true, false, false, false]);
});

test('what lies in memory: chains over the end of a ring of 5, and their return', () => {
  const r = packedRig(5);
  add(r, 1, 2, 1);
  expect([0, 1, 2].map((i) => slot(r, i))).toEqual([
    [100, 0, AVAIL | NEXT],
    [101, 0, AVAIL | NEXT | WRITE],
    [102, 0, AVAIL | WRITE],
  ]);
  complete(r, 9);
  // one used descriptor for the three
  expect(slot(r, 0)).toEqual([9, 0, AVAIL | USED | WRITE]);
  expect(slot(r, 1)[2]).toBe(AVAIL | NEXT | WRITE);
  expect(get(r)).toEqual({ n: 1, length: 9, ctx: 1001, why: undefined });

  add(r, 2, 1, 2);
  const id = slot(r, 3)[1];
  expect([3, 4, 0].map((i) => slot(r, i)[2])).toEqual([AVAIL | NEXT, AVAIL | NEXT, USED | WRITE]);
  complete(r, 0);
  // nothing written: no WRITE
  expect(slot(r, 3)).toEqual([0, id, AVAIL | USED]);
  expect(get(r).n).toBe(2);

  add(r, 0, 1, 3);
  expect(slot(r, 1)[2]).toBe(USED | WRITE);
  complete(r, 4);
  expect(slot(r, 1)[2]).toBe(WRITE);
  expect(get(r)).toMatchObject({ n: 3, length: 4 });
});

test('of what is published together the first becomes visible last', () => {
  const r = packedRig(8);
  for (let i = 1; i <= 3; i++) add(r, 0, 1, i);
  const heads = [take(r), take(r), take(r)];
  for (const head of heads) r.device.push(head, 1);
  expect([0, 1, 2].map((i) => slot(r, i)[2])).toEqual([
    AVAIL | WRITE,
    AVAIL | USED | WRITE,
    AVAIL | USED | WRITE,
  ]);
  expect(virtqueuePoll(r.memory, r.vq)).toBe(false);
  r.device.flush();
  expect(virtqueuePoll(r.memory, r.vq)).toBe(true);
});

test('event suppression areas', () => {
  const r = packedRig(4, { eventIdx: true });
  const { driver, device } = layoutOf(r);
  const area = (at: bigint): number[] => [r.memory.read16(at), r.memory.read16(at + 2n)];
  expect([area(driver), area(device)]).toEqual([
    [0, 0],
    [WRAP, 2],
  ]);
  for (let i = 1; i <= 3; i++) add(r, 0, 1, i);
  complete(r, 1);
  expect(area(device)).toEqual([WRAP | 1, 2]);
  get(r);
  r.device.setNotification(false);
  expect(area(device)[1]).toBe(1);
  expect(virtqueueKickPrepare(r.memory, r.vq)).toBe(false);
  virtqueueEnableCb(r.memory, r.vq);
  expect(area(driver)).toEqual([WRAP | 1, 0]);
});

/** Offers a chain whose descriptors are these, as a wrong driver would. */
function offer(
  r: RingRig,
  descriptors: readonly {
    readonly address?: bigint;
    readonly length?: number;
    readonly id?: number;
    readonly flags?: number;
  }[],
): void {
  for (const [i, descriptor] of descriptors.entries()) {
    const at = layoutOf(r).desc + BigInt(16 * i);
    r.memory.write64(at, descriptor.address ?? r.memory.ram.physToVirt(r.buffers));
    r.memory.write32(at + 8n, descriptor.length ?? 64);
    r.memory.write16(at + 12n, descriptor.id ?? 0);
    r.memory.write16(at + 14n, AVAIL | (descriptor.flags ?? 0));
  }
}

describe('a driver that lies', () => {
  test.each<[string, Parameters<typeof offer>[1], string]>([
    ['a buffer of 0 bytes', [{ length: 0 }], 'descriptor 0: zero sized buffers are not allowed'],
    [
      'an unmapped buffer',
      [{ address: 0x1000n }],
      'descriptor 0: 64 bytes at 0x0000000000001000 not mapped',
    ],
    [
      'readable after writable',
      [{ flags: WRITE | NEXT }, {}],
      'descriptor 1: readable after writable',
    ],
    ['an endless chain', Array.from({ length: 8 }, () => ({ flags: NEXT })), 'more than 8 desc'],
    ['a table of 0 bytes', [{ flags: INDIRECT, length: 0 }], 'indirect table of 0 bytes'],
    ['a table of 24 bytes', [{ flags: INDIRECT, length: 24 }], 'indirect table of 24 bytes'],
    [
      'a table that is not mapped',
      [{ flags: INDIRECT, length: 16, address: 0n }],
      'indirect table of 16 bytes at 0x0000000000000000 not mapped',
    ],
    ['a table and a next', [{ flags: INDIRECT | NEXT, length: 16 }, {}], 'indirect and has a next'],
    [
      'a table in a list',
      [{ flags: NEXT }, { flags: INDIRECT, length: 16 }],
      'descriptor 1 is indirect in a list of descriptors',
    ],
    [
      'a table of 1025 entries',
      [{ flags: INDIRECT, length: 16 * 1025 }],
      'more than 1024 segments',
    ],
  ])('%s stops the device', (_what, descriptors, why) => {
    const r = packedRig(8, { indirect: true });
    for (let i = 0; i < 1025; i++) {
      const at = r.memory.ram.physToVirt(r.buffers + 16 * i);
      r.memory.write64(at, r.memory.ram.physToVirt(r.buffers));
      r.memory.write32(at + 8n, 1);
    }
    offer(r, descriptors);
    expect(r.device.pop().kind).toBe('broken');
    expect(r.device.broken).toContain('queue 0: head 0: ');
    expect(r.device.broken).toContain(why);
    expect(r.device.pop().kind).toBe('broken');
  });

  test('an id that is in use stops the device', () => {
    const r = packedRig(8);
    offer(r, [{ id: 3 }, { id: 3 }]);
    take(r);
    expect(r.device.pop()).toEqual({
      kind: 'broken',
      why: 'queue 0: head 1: buffer id 3 is in use',
    });
  });

  test('more descriptors in use than there are', () => {
    const r = packedRig(2);
    offer(r, [{ id: 1 }, { id: 2 }]);
    take(r);
    take(r);
    r.memory.write16(layoutOf(r).desc + 12n, 3);
    r.memory.write16(layoutOf(r).desc + 14n, USED);
    expect(r.device.pop()).toEqual({
      kind: 'broken',
      why: 'queue 0: head 0: more than 2 descriptors in use',
    });
  });

  test('tables are refused when they were not negotiated', () => {
    const r = packedRig(8);
    offer(r, [{ flags: INDIRECT, length: 16 }]);
    expect(r.device.pop().kind).toBe('broken');
    expect(r.device.broken).toContain('descriptor 0 is indirect, which was not negotiated');
  });
});

test('a buffer id may be any number', () => {
  const r = packedRig(4);
  offer(r, [{ id: 65535 }, { id: 40000 }]);
  const heads = [take(r), take(r)];
  expect(heads).toEqual([65535, 40000]);
  r.device.push(40000, 5);
  r.device.flush();
  expect(slot(r, 0)).toEqual([5, 40000, AVAIL | USED | WRITE]);
});

test('in an indirect table only WRITE counts', () => {
  const r = packedRig(4, { indirect: true });
  const table = r.memory.ram.physToVirt(r.buffers);
  for (const [i, flags] of [INDIRECT | NEXT, USED | WRITE].entries()) {
    r.memory.write64(table + BigInt(16 * i), table + 512n);
    r.memory.write32(table + BigInt(16 * i + 8), 10 + i);
    r.memory.write16(table + BigInt(16 * i + 14), flags);
  }
  offer(r, [{ flags: INDIRECT | WRITE, length: 32, id: 2 }]);
  expect(r.device.pop()).toMatchObject({
    kind: 'chain',
    chain: { head: 2, readable: [{ length: 10 }], writable: [{ length: 11 }] },
  });
});

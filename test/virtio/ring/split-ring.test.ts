/** What is particular to split rings: their bytes, and what each side refuses. */
import { describe, expect, test } from 'vitest';
import { virtqueueLayout } from '../../../src/virtio/ring/virtqueue.js';
import {
  needEvent,
  splitRingLayout,
  splitRingSize,
  type SplitRingLayout,
} from '../../../src/virtio/ring/split-ring.js';
import { add, complete, get, ringRig, take, type RingRig } from '../helpers/ring-rig.js';

function layoutOf(r: RingRig): SplitRingLayout {
  const layout = virtqueueLayout(r.memory, r.vq);
  if (layout.kind !== 'split') throw new Error(layout.kind);
  return layout;
}

test('layout of a ring of 256', () => {
  const layout = splitRingLayout(256, 0x1000n);
  expect(layout.desc).toBe(0x1000n);
  expect(layout.avail).toBe(0x2000n);
  expect(layout.used).toBe(0x2000n + 520n);
  expect(splitRingSize(256)).toBe(4096 + 520 + 6 + 8 * 256);
  for (const size of [0, 3, 65536, 1.5])
    expect(() => splitRingLayout(size, 0n)).toThrow('power of two');
});

test.each([
  [0, 1, 0, true],
  [5, 5, 4, false],
  [4, 5, 4, true],
  [3, 5, 4, false],
  [65535, 0, 65535, true],
  [65535, 2, 65534, true],
  [0, 0, 65535, false],
  [0, 1, 65535, true],
])('needEvent(%i, %i, %i) is %s', (event, newIdx, oldIdx, expected) => {
  expect(needEvent(event, newIdx, oldIdx)).toBe(expected);
});

test('what lies in memory: a chain of three, and its return', () => {
  const r = ringRig(8);
  add(r, 2, 1, 7);
  const { desc, avail, used } = layoutOf(r);
  const descriptor = (i: number): readonly (number | bigint)[] => {
    const at = desc + BigInt(16 * i);
    const { memory } = r;
    return [
      memory.read64(at),
      memory.read32(at + 8n),
      memory.read16(at + 12n),
      memory.read16(at + 14n),
    ];
  };
  const buffer = r.memory.ram.physToVirt(r.buffers) + 112n;
  // addr, len, flags (NEXT 1, WRITE 2), next
  expect(descriptor(0)).toEqual([buffer, 100, 1, 1]);
  expect(descriptor(1)).toEqual([buffer, 101, 1, 2]);
  expect(descriptor(2)).toEqual([buffer, 102, 2, 3]);
  const words = (at: bigint, count: number): number[] =>
    Array.from({ length: count }, (_, i) => r.memory.read16(at + BigInt(2 * i)));
  // flags, idx, ring[0]
  expect(words(avail, 3)).toEqual([0, 1, 0]);
  complete(r, 33);
  // flags, idx, then id and length as u32
  expect(words(used, 6)).toEqual([0, 1, 0, 0, 33, 0]);
  expect(get(r)).toEqual({ n: 7, length: 33, ctx: 1007, why: undefined });
});

describe('a device that lies about the used index', () => {
  test('too far ahead', () => {
    const r = ringRig(8);
    add(r, 0, 1, 1);
    r.memory.write16(layoutOf(r).used + 2n, 9);
    expect(get(r)).toMatchObject({ n: undefined, why: 'used index is 9 ahead, queue size 8' });
  });

  test('with IN_ORDER: before the end of a batch', () => {
    const r = ringRig(8, { inOrder: true });
    add(r, 0, 1, 1);
    add(r, 0, 1, 2);
    const { used } = layoutOf(r);
    // the element says that both are used, the index that one is
    r.memory.write32(used + 4n, 1);
    r.memory.write16(used + 2n, 1);
    expect(get(r)).toMatchObject({ n: 1, length: 100 });
    expect(get(r)).toMatchObject({ n: undefined, why: 'used index 1 ends within a batch' });
  });
});

/** Writes a descriptor as a wrong driver would. */
function setDescriptor(
  r: RingRig,
  index: number,
  descriptor: { address?: bigint; length?: number; flags?: number; next?: number },
): void {
  const at = layoutOf(r).desc + BigInt(16 * index);
  r.memory.write64(at, descriptor.address ?? tableAt(r));
  r.memory.write32(at + 8n, descriptor.length ?? 64);
  r.memory.write16(at + 12n, descriptor.flags ?? 0);
  r.memory.write16(at + 14n, descriptor.next ?? 0);
}

function offer(r: RingRig, head: number, idx = 1): void {
  const { avail } = layoutOf(r);
  r.memory.write16(avail + 4n, head);
  r.memory.write16(avail + 2n, idx);
}

function tableAt(r: RingRig): bigint {
  return r.memory.ram.physToVirt(r.buffers);
}

describe('a driver that lies', () => {
  const NEXT = 1;
  const WRITE = 2;
  const INDIRECT = 4;
  test.each<[string, (r: RingRig) => void, string]>([
    ['head outside the table', (r) => offer(r, 8), 'head 8 in a queue of 8'],
    ['available index too far', (r) => offer(r, 0, 9), 'avail index 9 is 9 ahead of 0'],
    ['next outside the table', (r) => setDescriptor(r, 0, { flags: NEXT, next: 8 }), 'next 8'],
    ['a loop', (r) => setDescriptor(r, 0, { flags: NEXT, next: 0 }), 'loop in the chain'],
    ['a buffer of 0 bytes', (r) => setDescriptor(r, 0, { length: 0 }), 'zero sized'],
    ['an unmapped buffer', (r) => setDescriptor(r, 0, { address: 0x1000n }), 'not mapped'],
    [
      'an indirect table of 0 bytes',
      (r) => setDescriptor(r, 0, { flags: INDIRECT, length: 0 }),
      'indirect table of 0',
    ],
    [
      'an indirect table of 24 bytes',
      (r) => setDescriptor(r, 0, { flags: INDIRECT, length: 24 }),
      'indirect table of 24',
    ],
    [
      'indirect with next',
      (r) => setDescriptor(r, 0, { flags: INDIRECT | NEXT }),
      'indirect and has a next',
    ],
    [
      'readable after writable',
      (r) => {
        setDescriptor(r, 0, { flags: WRITE | NEXT, next: 1 });
        setDescriptor(r, 1, {});
      },
      'readable after writable',
    ],
    [
      'indirect inside indirect',
      (r) => {
        setDescriptor(r, 0, { flags: INDIRECT, length: 16 });
        r.memory.write16(tableAt(r) + 12n, INDIRECT);
      },
      'indirect descriptor in an indirect table',
    ],
  ])('%s stops the device', (_what, prepare, why) => {
    const r = ringRig(8, { indirect: true });
    setDescriptor(r, 0, {});
    offer(r, 0);
    prepare(r);
    const popped = r.device.pop();
    expect(popped.kind).toBe('broken');
    expect(r.device.broken).toContain(why);
    expect(r.device.pop().kind).toBe('broken');
  });

  test('the same chain again and again', () => {
    const r = ringRig(2);
    add(r, 0, 1, 1);
    take(r);
    offer(r, 0, 2);
    r.memory.write16(layoutOf(r).avail + 6n, 0);
    take(r);
    offer(r, 0, 3);
    expect(r.device.pop()).toEqual({
      kind: 'broken',
      why: 'queue 0: head 0: more than 2 chains in use',
    });
  });

  test('more than 1024 segments stop the device', () => {
    const r = ringRig(8, { indirect: true });
    setDescriptor(r, 0, { flags: INDIRECT, length: 16 * 1025 });
    for (let i = 0; i < 1025; i++) {
      const at = tableAt(r) + BigInt(16 * i);
      r.memory.write64(at, tableAt(r));
      r.memory.write32(at + 8n, 1);
      r.memory.write16(at + 12n, i < 1024 ? NEXT : 0);
      r.memory.write16(at + 14n, i + 1);
    }
    offer(r, 0);
    const why = 'queue 0: head 0: more than 1024 segments';
    expect(r.device.pop()).toEqual({ kind: 'broken', why });
  });

  test('an indirect table is read, also behind a plain descriptor', () => {
    const r = ringRig(8, { indirect: true });
    setDescriptor(r, 0, { length: 5, flags: NEXT, next: 1 });
    setDescriptor(r, 1, { flags: INDIRECT | WRITE, length: 32 });
    r.memory.write64(tableAt(r), tableAt(r) + 512n);
    r.memory.write32(tableAt(r) + 8n, 7);
    r.memory.write16(tableAt(r) + 12n, NEXT);
    r.memory.write16(tableAt(r) + 14n, 1);
    r.memory.write64(tableAt(r) + 16n, tableAt(r) + 1024n);
    r.memory.write32(tableAt(r) + 24n, 9);
    r.memory.write16(tableAt(r) + 28n, WRITE);
    offer(r, 0);
    expect(r.device.pop()).toMatchObject({
      kind: 'chain',
      chain: { readable: [{ length: 5 }, { length: 7 }], writable: [{ length: 9 }] },
    });
  });
});

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Memory } from '../../../src/cpu/memory.js';
import { SplitDeviceQueue } from '../../../src/virtio/ring/split-ring-device.js';
import {
  SCATTERLIST,
  createVirtqueue,
  virtqueueAdd,
  virtqueueDetachUnused,
  virtqueueDisableCb,
  virtqueueEnableCb,
  virtqueueGetBuf,
  virtqueueIsBroken,
  virtqueueKickPrepare,
  virtqueueLayout,
  virtqueueNumFree,
  virtqueuePoll,
  type UsedBuffer,
} from '../../../src/virtio/ring/split-ring-driver.js';
import { needEvent, splitRingLayout, splitRingSize } from '../../../src/virtio/ring/split-ring.js';
import { DirectKernel } from '../helpers/direct-kernel.js';

const ENOSPC = -28;
const EIO = -5;

interface Rig {
  readonly kernel: DirectKernel;
  readonly memory: Memory;
  readonly vq: number;
  readonly device: SplitDeviceQueue;
  readonly sg: bigint;
  readonly buffers: bigint;
}

function rig(num: number, options: { eventIdx?: boolean } = {}): Rig {
  const kernel = new DirectKernel(2 << 20);
  const { memory } = kernel;
  const eventIdx = options.eventIdx ?? false;
  const vq = createVirtqueue(kernel, { num, index: 0, vdev: 0, eventIdx });
  const layout = virtqueueLayout(memory, vq);
  const device = new SplitDeviceQueue(memory, layout, { eventIdx, indirect: true });
  return { kernel, memory, vq, device, sg: kernel.kmalloc(1024), buffers: kernel.allocPages(16) };
}

function add(r: Rig, out: number, input: number, data: bigint): number {
  for (let i = 0; i < out + input; i++) {
    const piece = r.sg + BigInt(i * SCATTERLIST.size);
    r.memory.write64(piece + BigInt(SCATTERLIST.offset.address), r.buffers + data * 16n);
    r.memory.write32(piece + BigInt(SCATTERLIST.offset.length), i + 1);
  }
  const { ram } = r.memory;
  const cookie = ram.virtToPhys(r.buffers + data * 16n);
  return virtqueueAdd(
    r.memory,
    r.vq,
    ram.virtToPhys(r.sg),
    out,
    input,
    cookie,
    Number(data) + 1000,
  );
}

interface Got {
  readonly data: bigint;
  readonly length: number;
  readonly ctx: bigint;
  readonly why: string | undefined;
}

/** What `add` was given; data is 0n when there was nothing. */
function get(r: Rig): Got {
  const used: UsedBuffer = { data: 0, length: 0, ctx: 0 };
  const why = virtqueueGetBuf(r.memory, r.vq, used);
  const data = used.data === 0 ? 0n : (r.memory.ram.physToVirt(used.data) - r.buffers) / 16n;
  return { data, length: used.length, ctx: BigInt(used.ctx), why };
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

test('chains keep their order, direction and cookies', () => {
  const r = rig(8);
  expect(add(r, 2, 1, 7n)).toBe(0);
  const popped = r.device.pop();
  if (popped.kind !== 'chain') throw new Error(popped.kind);
  expect(popped.chain.readable.map(({ length }) => length)).toEqual([1, 2]);
  expect(popped.chain.writable.map(({ length }) => length)).toEqual([3]);
  r.device.push(popped.chain.head, 3);
  expect(virtqueuePoll(r.memory, r.vq)).toBe(false);
  r.device.flush();
  expect(get(r)).toEqual({ data: 7n, length: 3, ctx: 1007n, why: undefined });
  expect(virtqueueNumFree(r.memory, r.vq)).toBe(8);
});

test('a full ring refuses with -ENOSPC, a broken one with -EIO', () => {
  const r = rig(4);
  for (let i = 1n; i <= 4n; i++) expect(add(r, 0, 1, i)).toBe(0);
  expect(add(r, 0, 1, 5n)).toBe(ENOSPC);
  expect(virtqueueDetachUnused(r.memory, r.vq)).toHaveLength(4);
  expect(add(r, 0, 1, 5n)).toBe(EIO);
});

/** One step of a random schedule: the driver adds or takes, the device pops or completes. */
type Step =
  | { readonly kind: 'add'; readonly out: number; readonly input: number }
  | { readonly kind: 'pop' }
  | { readonly kind: 'push'; readonly pick: number }
  | { readonly kind: 'get' };

const steps = fc.array(
  fc.oneof(
    fc.record({
      kind: fc.constant('add' as const),
      out: fc.integer({ min: 0, max: 2 }),
      input: fc.integer({ min: 1, max: 2 }),
    }),
    fc.record({ kind: fc.constant('pop' as const) }),
    fc.record({ kind: fc.constant('push' as const), pick: fc.nat(100) }),
    fc.record({ kind: fc.constant('get' as const) }),
  ),
  { maxLength: 300 },
);

/** Runs a schedule against plain arrays that say what must come out. */
function runSchedule(r: Rig, schedule: readonly Step[], num: number): void {
  const available: { data: bigint; descriptors: number }[] = [];
  const popped: { head: number; data: bigint; descriptors: number }[] = [];
  const used: { data: bigint; length: number; descriptors: number }[] = [];
  let free = num;
  let next = 1n;
  for (const step of schedule) {
    switch (step.kind) {
      case 'add': {
        const descriptors = step.out + step.input;
        const result = add(r, step.out, step.input, next);
        expect(result).toBe(descriptors > free ? ENOSPC : 0);
        if (result !== 0) break;
        free -= descriptors;
        available.push({ data: next++, descriptors });
        break;
      }
      case 'pop': {
        const result = r.device.pop();
        const expected = available.shift();
        expect(result.kind).toBe(expected ? 'chain' : 'empty');
        if (result.kind !== 'chain' || !expected) break;
        expect(result.chain.writable[0]?.address).toBe(r.buffers + expected.data * 16n);
        popped.push({ head: result.chain.head, ...expected });
        break;
      }
      case 'push': {
        const [chain] = popped.splice(step.pick % Math.max(popped.length, 1), 1);
        if (!chain) break;
        r.device.push(chain.head, step.pick);
        r.device.flush();
        used.push({ data: chain.data, length: step.pick, descriptors: chain.descriptors });
        break;
      }
      case 'get': {
        const expected = used.shift();
        const taken = get(r);
        expect(taken.data).toBe(expected?.data ?? 0n);
        if (!expected) break;
        expect(taken.length).toBe(expected.length);
        free += expected.descriptors;
        break;
      }
    }
    expect(virtqueueNumFree(r.memory, r.vq)).toBe(free);
  }
}

describe.each([true, false])('eventIdx %s', (eventIdx) => {
  test('random schedules, completions out of order', () => {
    const r = rig(16, { eventIdx });
    fc.assert(
      fc.property(steps, (schedule) => {
        const fresh = rig(16, { eventIdx });
        runSchedule(fresh, schedule, 16);
      }),
      { numRuns: 60, seed: 1 },
    );
    expect(virtqueueIsBroken(r.memory, r.vq)).toBe(false);
  });

  test('indexes wrap from 65535 to 0, one kick and one interrupt per buffer', () => {
    const r = rig(4, { eventIdx });
    let kicks = 0;
    let interrupts = 0;
    const rounds = 65536 + 40;
    for (let i = 1; i <= rounds; i++) {
      if (add(r, 0, 1, BigInt((i % 1000) + 1)) !== 0) throw new Error(`add ${i}`);
      if (virtqueueKickPrepare(r.memory, r.vq)) kicks++;
      const popped = r.device.pop();
      if (popped.kind !== 'chain') throw new Error(`pop ${i}: ${popped.kind}`);
      r.device.push(popped.chain.head, i & 0xff);
      r.device.flush();
      if (r.device.shouldInterrupt()) interrupts++;
      const taken = get(r);
      if (taken.data !== BigInt((i % 1000) + 1)) throw new Error(`get ${i}`);
    }
    expect({ kicks, interrupts }).toEqual({ kicks: rounds, interrupts: rounds });
    expect(r.memory.read16(virtqueueLayout(r.memory, r.vq).used + 2n)).toBe(40);
  });

  test('disabled callbacks suppress interrupts, a disabled device suppresses kicks', () => {
    const r = rig(8, { eventIdx });
    virtqueueDisableCb(r.memory, r.vq);
    for (let i = 1n; i <= 3n; i++) add(r, 0, 1, i);
    expect(virtqueueKickPrepare(r.memory, r.vq)).toBe(true);
    const complete = (): boolean => {
      const popped = r.device.pop();
      if (popped.kind === 'chain') r.device.push(popped.chain.head, 1);
      r.device.flush();
      return r.device.shouldInterrupt();
    };
    // used_event stays at 0 with EVENT_IDX: the first completion passes it, the next do not
    expect(complete()).toBe(eventIdx);
    expect(complete()).toBe(false);
    virtqueueEnableCb(r.memory, r.vq);
    get(r);
    get(r);
    expect(complete()).toBe(true);
    r.device.setNotification(false);
    add(r, 0, 1, 9n);
    expect(virtqueueKickPrepare(r.memory, r.vq)).toBe(eventIdx);
  });
});

describe('a device that lies', () => {
  test.each([
    ['an id out of range', 8, 'id 8 out of range'],
    ['an id that is no head', 1, 'id 1 is not a head!'],
    ['a free id', 5, 'id 5 is not a head!'],
  ])('%s breaks the queue', (_what, id, why) => {
    const r = rig(8);
    add(r, 1, 1, 3n); // descriptors 0 and 1
    r.device.push(id, 0);
    r.device.flush();
    expect(get(r)).toMatchObject({ data: 0n, why });
    expect(virtqueueIsBroken(r.memory, r.vq)).toBe(true);
    expect(add(r, 0, 1, 4n)).toBe(EIO);
  });

  test('the same id twice breaks the queue', () => {
    const r = rig(8);
    add(r, 0, 1, 3n);
    r.device.push(0, 1);
    r.device.push(0, 1);
    r.device.flush();
    expect(get(r).data).toBe(3n);
    expect(get(r)).toMatchObject({ data: 0n, why: 'id 0 is not a head!' });
  });

  test('overwritten descriptors and used rings never reach memory outside the queue', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 300, maxLength: 300 }), steps, (noise, schedule) => {
        const r = rig(16);
        const { desc, used } = virtqueueLayout(r.memory, r.vq);
        schedule.forEach((step, i) => {
          if (step.kind === 'add') add(r, step.out, step.input, BigInt(i + 1));
          r.memory.writeBytes(desc, noise.subarray(0, 256));
          r.memory.writeBytes(used + 2n, noise.subarray(i % 40, (i % 40) + 100));
          const taken = get(r);
          if (taken.data !== 0n) expect(taken.data).toBeLessThanOrEqual(BigInt(i + 1));
        });
        expect(virtqueueNumFree(r.memory, r.vq)).toBeLessThanOrEqual(16);
      }),
      { numRuns: 40, seed: 2 },
    );
  });
});

/** Writes a descriptor as a wrong driver would. */
function setDescriptor(
  r: Rig,
  index: number,
  descriptor: { address?: bigint; length?: number; flags?: number; next?: number },
): void {
  const at = virtqueueLayout(r.memory, r.vq).desc + BigInt(16 * index);
  r.memory.write64(at, descriptor.address ?? r.buffers);
  r.memory.write32(at + 8n, descriptor.length ?? 64);
  r.memory.write16(at + 12n, descriptor.flags ?? 0);
  r.memory.write16(at + 14n, descriptor.next ?? 0);
}

function offer(r: Rig, head: number, idx = 1): void {
  const { avail } = virtqueueLayout(r.memory, r.vq);
  r.memory.write16(avail + 4n, head);
  r.memory.write16(avail + 2n, idx);
}

describe('a driver that lies', () => {
  const NEXT = 1;
  const WRITE = 2;
  const INDIRECT = 4;
  test.each<[string, (r: Rig) => void, string]>([
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
        r.memory.write16(r.buffers + 12n, INDIRECT);
      },
      'indirect descriptor in an indirect table',
    ],
  ])('%s stops the device', (_what, prepare, why) => {
    const r = rig(8);
    setDescriptor(r, 0, {});
    offer(r, 0);
    prepare(r);
    const popped = r.device.pop();
    expect(popped.kind).toBe('broken');
    expect(r.device.broken).toContain(why);
    expect(r.device.pop().kind).toBe('broken');
  });

  test('more than 1024 segments stop the device', () => {
    const r = rig(8);
    setDescriptor(r, 0, { flags: INDIRECT, length: 16 * 1025 });
    for (let i = 0; i < 1025; i++) {
      const at = r.buffers + BigInt(16 * i);
      r.memory.write64(at, r.buffers);
      r.memory.write32(at + 8n, 1);
      r.memory.write16(at + 12n, i < 1024 ? NEXT : 0);
      r.memory.write16(at + 14n, i + 1);
    }
    offer(r, 0);
    const why = 'queue 0: head 0: more than 1024 segments';
    expect(r.device.pop()).toEqual({ kind: 'broken', why });
  });

  test('an indirect table is read, also behind a plain descriptor', () => {
    const r = rig(8);
    setDescriptor(r, 0, { length: 5, flags: NEXT, next: 1 });
    setDescriptor(r, 1, { flags: INDIRECT | WRITE, length: 32 });
    r.memory.write64(r.buffers, r.buffers + 512n);
    r.memory.write32(r.buffers + 8n, 7);
    r.memory.write16(r.buffers + 12n, NEXT);
    r.memory.write16(r.buffers + 14n, 1);
    r.memory.write64(r.buffers + 16n, r.buffers + 1024n);
    r.memory.write32(r.buffers + 24n, 9);
    r.memory.write16(r.buffers + 28n, WRITE);
    offer(r, 0);
    expect(r.device.pop()).toMatchObject({
      kind: 'chain',
      chain: { readable: [{ length: 5 }, { length: 7 }], writable: [{ length: 9 }] },
    });
  });
});

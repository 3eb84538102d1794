/** What both layouts of virtqueues do alike: driver against device, in every combination of features. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  destroyVirtqueue,
  virtqueueDetachUnused,
  virtqueueDetachUnusedBuf,
  virtqueueDisableCb,
  virtqueueEnableCb,
  virtqueueEnableCbDelayed,
  virtqueueIsBroken,
  virtqueueKickPrepare,
  virtqueueLayout,
  virtqueueNumFree,
  virtqueueOutstanding,
  virtqueuePoll,
  virtqueueReinit,
} from '../../../src/virtio/ring/virtqueue.js';
import { openDeviceQueue } from '../../../src/virtio/ring/open-device-queue.js';
import {
  EIO,
  ENOSPC,
  add,
  complete,
  get,
  inputBytes,
  ringRig,
  take,
  type RigOptions,
  type RingRig,
} from '../helpers/ring-rig.js';

const LAYOUTS = [
  ['split', { packed: false }],
  ['packed', { packed: true }],
] as const;

/** Every combination of the features of rings. */
const COMBINATIONS: readonly (readonly [string, RigOptions])[] = LAYOUTS.flatMap(([layout, ring]) =>
  [0, 1, 2, 3, 4, 5, 6, 7].map((bits) => {
    const eventIdx = (bits & 1) !== 0;
    const indirect = (bits & 2) !== 0;
    const inOrder = (bits & 4) !== 0;
    const names = [
      eventIdx ? 'EVENT_IDX' : '',
      indirect ? 'INDIRECT' : '',
      inOrder ? 'IN_ORDER' : '',
    ];
    const name = [layout, ...names].filter((part) => part !== '').join(' ');
    return [name, { ...ring, eventIdx, indirect, inOrder }] as const;
  }),
);

type Step =
  | { readonly kind: 'add'; readonly out: number; readonly input: number }
  | { readonly kind: 'kick' | 'pop' | 'unpop' | 'flush' | 'get' | 'disable' | 'enable' | 'delayed' }
  | { readonly kind: 'push'; readonly pick: number; readonly isFull: boolean };

const steps = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('add' as const),
        out: fc.integer({ min: 0, max: 3 }),
        input: fc.integer({ min: 1, max: 3 }),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('push' as const),
        pick: fc.nat(100),
        isFull: fc.boolean(),
      }),
    },
    ...(['pop', 'get'] as const).map((kind) => ({
      weight: 5,
      arbitrary: fc.record({ kind: fc.constant(kind) }),
    })),
    ...(['kick', 'unpop', 'flush', 'disable', 'enable', 'delayed'] as const).map((kind) => ({
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant(kind) }),
    })),
  ),
  { minLength: 100, maxLength: 400 },
);

interface Buffer {
  readonly n: number;
  readonly slots: number;
  readonly most: number;
}

/** `expect(...).toBe(...)` for where it is asked a million times. */
function same<T>(what: string, actual: T, expected: T): void {
  if (actual !== expected) throw new Error(`${what}: ${actual}, expected ${expected}`);
}

/** Runs a schedule against plain arrays that say what must come out, and in which order. */
function runSchedule(r: RingRig, schedule: readonly Step[], num: number): void {
  const available: Buffer[] = [];
  const taken: (Buffer & { readonly head: number })[] = [];
  const pushed: (Buffer & { readonly length: number })[] = [];
  const used: (Buffer & { readonly length: number })[] = [];
  let free = num;
  let next = 1;
  for (const step of schedule) {
    switch (step.kind) {
      case 'add': {
        const pieces = step.out + step.input;
        const isIndirect = r.options.indirect === true && pieces > 1 && free > 0;
        const slots = isIndirect ? 1 : pieces;
        const n = (next % 4000) + 1;
        const result = add(r, step.out, step.input, n);
        same('add', result, slots > free ? ENOSPC : 0);
        if (result !== 0) break;
        free -= slots;
        available.push({ n, slots, most: inputBytes(step.out, step.input) });
        next++;
        break;
      }
      case 'kick':
        virtqueueKickPrepare(r.memory, r.vq);
        break;
      case 'pop': {
        const result = r.device.pop();
        const expected = available.shift();
        same('pop', result.kind, expected ? 'chain' : 'empty');
        if (result.kind !== 'chain' || !expected) break;
        const bytes = result.chain.writable.reduce((sum, { length }) => sum + length, 0);
        same('bytes', bytes, expected.most);
        taken.push({ head: result.chain.head, ...expected });
        break;
      }
      case 'unpop': {
        const back = taken.pop();
        if (!back) break;
        // only what was taken last can go back: nothing was completed behind it
        if (r.options.inOrder !== true && pushed.length > 0) {
          taken.push(back);
          break;
        }
        r.device.unpop(1);
        available.unshift(back);
        break;
      }
      case 'push': {
        const at = r.options.inOrder === true ? 0 : step.pick % Math.max(taken.length, 1);
        const [chain] = taken.splice(at, 1);
        if (!chain) break;
        const length = step.isFull ? chain.most : step.pick;
        r.device.push(chain.head, length);
        pushed.push({ ...chain, length });
        break;
      }
      case 'flush':
        r.device.flush();
        used.push(...pushed.splice(0));
        r.device.shouldInterrupt();
        break;
      case 'get': {
        const expected = used.shift();
        if (r.options.inOrder !== true) {
          same('poll', virtqueuePoll(r.memory, r.vq), expected !== undefined);
        }
        const got = get(r);
        same('get', got.why ?? got.n, expected?.n);
        if (!expected) break;
        same('length', got.length, expected.length);
        if (r.options.indirect !== true) same('context', got.ctx, 1000 + expected.n);
        free += expected.slots;
        break;
      }
      case 'disable':
        virtqueueDisableCb(r.memory, r.vq);
        break;
      case 'enable':
        virtqueueEnableCb(r.memory, r.vq);
        break;
      case 'delayed':
        virtqueueEnableCbDelayed(r.memory, r.vq);
        break;
    }
    same('free', virtqueueNumFree(r.memory, r.vq), free);
    const held = available.length + taken.length + pushed.length + used.length;
    same('outstanding', virtqueueOutstanding(r.memory, r.vq).length, held);
  }
  same('broken', virtqueueIsBroken(r.memory, r.vq), false);
  virtqueueDetachUnused(r.kernel, r.vq);
  destroyVirtqueue(r.kernel, r.vq);
  // the array of pieces and the buffers
  expect(r.kernel.allocated).toEqual({ slab: 1, pages: 1 });
}

describe.each(COMBINATIONS)('%s', (_name, options) => {
  test('random schedules: nothing is lost or comes twice', () => {
    fc.assert(
      fc.property(steps, fc.constantFrom(8, 16), (schedule, num) => {
        runSchedule(ringRig(num, { ...options, context: false }), schedule, num);
      }),
      { numRuns: 12, seed: 1 },
    );
  });

  test('a full ring refuses with -ENOSPC, a broken one with -EIO', () => {
    const r = ringRig(4, options);
    for (let i = 1; i <= 4; i++) expect(add(r, 0, 1, i)).toBe(0);
    expect(add(r, 0, 1, 5)).toBe(ENOSPC);
    expect(virtqueueDetachUnused(r.kernel, r.vq)).toHaveLength(4);
    expect(add(r, 0, 1, 5)).toBe(EIO);
  });

  test('a reset queue works from the start', () => {
    const r = ringRig(8, options);
    for (let i = 1; i <= 11; i++) {
      add(r, 1, 1, i);
      complete(r, 5);
      get(r);
    }
    add(r, 1, 2, 12);
    take(r);
    add(r, 0, 1, 13);
    r.device.stop();
    expect(r.device.pop().kind).toBe('empty');
    expect(virtqueueDetachUnused(r.kernel, r.vq)).toHaveLength(2);
    virtqueueReinit(r.memory, r.vq);
    r.device = openDeviceQueue(r.memory, virtqueueLayout(r.memory, r.vq), options);
    for (let i = 1; i <= 20; i++) {
      expect(add(r, 1, 1, i)).toBe(0);
      expect(virtqueueKickPrepare(r.memory, r.vq)).toBe(true);
      complete(r, 7);
      expect(get(r)).toMatchObject({ n: i, length: 7 });
    }
  });
});

describe.each(LAYOUTS)('%s', (_name, ring) => {
  test.each([
    ['plain', {}],
    ['EVENT_IDX', { eventIdx: true }],
    ['EVENT_IDX IN_ORDER', { eventIdx: true, inOrder: true }],
  ])('one kick and one interrupt per buffer over the ends of indexes, %s', (_features, options) => {
    const r = ringRig(4, { ...ring, ...options });
    let kicks = 0;
    let interrupts = 0;
    const rounds = 65536 + 40;
    for (let i = 1; i <= rounds; i++) {
      if (add(r, 0, 1, (i % 1000) + 1) !== 0) throw new Error(`add ${i}`);
      if (virtqueueKickPrepare(r.memory, r.vq)) kicks++;
      complete(r, i % 101);
      if (r.device.shouldInterrupt()) interrupts++;
      const got = get(r);
      if (got.n !== (i % 1000) + 1 || got.length !== i % 101) throw new Error(`get ${i}`);
      virtqueueEnableCb(r.memory, r.vq);
    }
    expect({ kicks, interrupts }).toEqual({ kicks: rounds, interrupts: rounds });
  });

  test('indirect descriptors: from two pieces on, while a slot is free, without context', () => {
    const r = ringRig(4, { ...ring, indirect: true });
    const slots = (act: () => void): number => {
      const before = virtqueueNumFree(r.memory, r.vq);
      act();
      return before - virtqueueNumFree(r.memory, r.vq);
    };
    expect(slots(() => add(r, 0, 1, 1))).toBe(1);
    expect(slots(() => add(r, 3, 4, 2))).toBe(1);
    expect(slots(() => add(r, 8, 8, 3))).toBe(1);
    expect(slots(() => add(r, 0, 2, 4))).toBe(1);
    expect(add(r, 0, 2, 5)).toBe(ENOSPC);
    take(r);
    const popped = r.device.pop();
    expect(popped).toMatchObject({
      kind: 'chain',
      chain: {
        readable: [{ length: 100 }, { length: 101 }, { length: 102 }],
        writable: [{ length: 103 }, { length: 104 }, { length: 105 }, { length: 106 }],
      },
    });
    const withContext = ringRig(4, { ...ring, indirect: true, context: true });
    add(withContext, 0, 2, 1);
    expect(virtqueueNumFree(withContext.memory, withContext.vq)).toBe(2);
  });

  test('what IN_ORDER tells with one used element', () => {
    const r = ringRig(8, { ...ring, inOrder: true });
    const layout = virtqueueLayout(r.memory, r.vq);
    for (let i = 1; i <= 5; i++) add(r, 0, 1, i);
    const heads = [1, 2, 3, 4, 5].map(() => take(r));
    const usedAt = (slot: number): number =>
      layout.kind === 'split'
        ? r.memory.read32(layout.used + BigInt(8 + 8 * slot))
        : (r.memory.read16(layout.desc + BigInt(16 * slot + 14)) & 0x8000) === 0
          ? 0
          : r.memory.read32(layout.desc + BigInt(16 * slot + 8));
    // full, full, partly, full, partly: two batches, the second begins behind the partly used one
    for (const [i, written] of [100, 100, 60, 100, 7].entries()) {
      r.device.push(heads[i] as number, written);
    }
    r.device.flush();
    expect([0, 1, 2, 3, 4].map(usedAt)).toEqual([60, 0, 0, 7, 0]);
    expect([1, 2, 3, 4, 5].map(() => get(r).length)).toEqual([100, 100, 60, 100, 7]);
    expect(get(r).n).toBeUndefined();
    expect(() => {
      add(r, 0, 1, 6);
      add(r, 0, 1, 7);
      take(r);
      r.device.push(take(r), 1);
    }).toThrow('completed out of order');
  });

  test.each([true, false])('suppression of interrupts and kicks, EVENT_IDX %s', (eventIdx) => {
    const r = ringRig(8, { ...ring, eventIdx });
    for (let i = 1; i <= 8; i++) add(r, 0, 1, i);
    expect(virtqueueKickPrepare(r.memory, r.vq)).toBe(true);
    const interrupts = (): boolean => {
      complete(r, 1);
      return r.device.shouldInterrupt();
    };
    expect(interrupts()).toBe(true);
    expect(get(r).n).toBe(1);
    virtqueueDisableCb(r.memory, r.vq);
    // a split used_event of 0 is a hint that the second completion does not meet
    expect(interrupts()).toBe(false);
    expect(interrupts()).toBe(false);
    expect(r.device.shouldInterrupt()).toBe(false);
    get(r);
    get(r);
    virtqueueEnableCb(r.memory, r.vq);
    expect(interrupts()).toBe(true);
    get(r);
    // 4 outstanding: with EVENT_IDX the fourth completion is the one behind three quarters
    expect(virtqueueEnableCbDelayed(r.memory, r.vq)).toBe(true);
    expect([1, 2, 3, 4].map(interrupts)).toEqual(
      eventIdx ? [false, false, false, true] : [true, true, true, true],
    );
    expect(virtqueueEnableCbDelayed(r.memory, r.vq)).toBe(false);
    for (let i = 5; i <= 8; i++) expect(get(r).n).toBe(i);

    r.device.setNotification(false);
    add(r, 0, 1, 9);
    // with EVENT_IDX a split device has no way to say never: it leaves the event behind
    const isSplitEvent = eventIdx && !ring.packed;
    expect(virtqueueKickPrepare(r.memory, r.vq)).toBe(isSplitEvent);
    add(r, 0, 1, 10);
    expect(virtqueueKickPrepare(r.memory, r.vq)).toBe(false);
    r.device.setNotification(true);
    take(r);
    take(r);
    add(r, 0, 1, 11);
    expect(virtqueueKickPrepare(r.memory, r.vq)).toBe(true);
  });

  test('completed out of order', () => {
    const r = ringRig(8, ring);
    for (let i = 1; i <= 4; i++) add(r, 1, 1, i);
    const heads = [1, 2, 3, 4].map(() => take(r));
    for (const i of [3, 1, 4, 2]) {
      r.device.push(heads[i - 1] as number, i);
      r.device.flush();
      expect(get(r)).toMatchObject({ n: i, length: i });
      expect(add(r, 0, 2, 10 + i)).toBe(0);
    }
    expect([1, 2, 3, 4].map(() => (complete(r, 1), get(r).n))).toEqual([13, 11, 14, 12]);
  });

  test('unused buffers are detached one by one', () => {
    const r = ringRig(8, { ...ring, indirect: true });
    add(r, 1, 2, 1);
    add(r, 0, 1, 2);
    const result = { data: 0, length: 0, ctx: 0 };
    const detach = (): number => virtqueueDetachUnusedBuf(r.kernel, r.vq, result);
    expect([detach(), detach(), detach()].toSorted()).toEqual([0, r.buffers + 16, r.buffers + 32]);
    expect(virtqueueNumFree(r.memory, r.vq)).toBe(8);
  });
});

describe.each(LAYOUTS)('%s: a device that lies', (_name, ring) => {
  test.each<[string, RigOptions, (r: RingRig) => void, string]>([
    ['an id out of range', {}, (r) => r.device.push(8, 0), 'id 8 out of range'],
    ['an id that is not outstanding', {}, (r) => r.device.push(5, 0), 'id 5 is not a head!'],
    [
      'an id that is within a chain',
      {},
      (r) => r.device.push(take(r) + 1, 0),
      'id 1 is not a head!',
    ],
    [
      'a length beyond the buffer',
      {},
      (r) => r.device.push(take(r), 102),
      'used length 102 is larger than in buflen 101',
    ],
  ])('%s breaks the queue', (_what, options, lie, why) => {
    const r = ringRig(8, { ...ring, ...options });
    add(r, 1, 1, 3);
    lie(r);
    r.device.flush();
    expect(get(r)).toMatchObject({ n: undefined, why });
    expect(virtqueueIsBroken(r.memory, r.vq)).toBe(true);
    expect(get(r)).toMatchObject({ n: undefined, why: undefined });
    expect(add(r, 0, 1, 4)).toBe(EIO);
    expect(virtqueueDetachUnused(r.kernel, r.vq)).toHaveLength(1);
    virtqueueReinit(r.memory, r.vq);
    expect(add(r, 0, 1, 4)).toBe(0);
  });

  test('the same id twice breaks the queue', () => {
    const r = ringRig(8, ring);
    add(r, 0, 1, 3);
    add(r, 0, 1, 4);
    const head = take(r);
    take(r);
    r.device.push(head, 1);
    r.device.flush();
    expect(get(r).n).toBe(3);
    r.device.push(head, 1);
    r.device.flush();
    expect(get(r)).toMatchObject({ n: undefined, why: `id ${head} is not a head!` });
  });
});

import { describe, expect, test } from 'vitest';
import {
  contextHeadroom,
  contextTruesize,
  ewmaAdd,
  mergeableContext,
  mergeableLength,
  mergeableMinimum,
  mergeableRoom,
  smallBufferSize,
} from '../../../src/virtio/driver/geometry.js';
import { DRIVER_PROFILES } from '../../../src/virtio/driver/profiles.js';
import { createVirtioNet, type VirtioNet } from '../../../src/virtio/virtio-net.js';
import { DirectKernel } from '../helpers/direct-kernel.js';
import { postedBuffers } from '../../../src/lab/posted-buffers.js';
import {
  VERDICT,
  XDP,
  adjustHead,
  adjustTail,
  makeFrame,
  program,
  returns,
} from '../helpers/programs.js';

test('numbers of the specification', () => {
  expect(smallBufferSize(12, 0)).toBe(1920);
  expect(smallBufferSize(12, 256)).toBe(2176);
  expect(mergeableRoom(256)).toBe(576);
  expect(mergeableRoom(0)).toBe(0);
  expect(mergeableLength(12, 0, 1518, 576)).toBe(3520);
  expect(mergeableLength(12, 0, 1518, 0)).toBe(1536);
  expect(mergeableLength(12, 3000, 1518, 0)).toBe(3072);
  expect(mergeableLength(12, 60000, 1518, 0)).toBe(4096);
  expect(mergeableMinimum(12, 65535, 256)).toBe(1518);
  expect(mergeableMinimum(12, 65535, 16)).toBe(4086);
  expect(4096 - mergeableRoom(256) - 14).toBe(DRIVER_PROFILES['6.12'].xdpMaximumMtu);
});

test('context word', () => {
  const ctx = mergeableContext(4096, 256);
  expect(ctx).toBe((256 << 22) | 4096);
  expect([contextHeadroom(ctx), contextTruesize(ctx)]).toEqual([256, 4096]);
});

test('moving average has weight 64 and starts at the first value', () => {
  expect(ewmaAdd(0, 1000)).toBe(1000);
  expect(ewmaAdd(1000, 1064)).toBe(1001);
  expect(ewmaAdd(1000, 1063)).toBe(1000);
});

/** Lengths of the buffers posted in a ring, in order. */
function posted(kernel: DirectKernel, net: VirtioNet, count: number): number[] {
  return postedBuffers(kernel.memory, net, count).map(({ length }) => length);
}

test('mergeable buffers fill 32 KiB chunks; the last of a chunk gets the hole', () => {
  const kernel = new DirectKernel(4 << 20);
  const net = createVirtioNet(kernel, { rx: 'mergeable', queueSize: 64 });
  const lengths = posted(kernel, net, 42);
  const chunk = [...Array.from({ length: 20 }, () => 1536), 2048];
  expect(lengths).toEqual([...chunk, ...chunk]);
});

test('small buffers are posted with 1530 bytes', () => {
  const kernel = new DirectKernel(4 << 20);
  const net = createVirtioNet(kernel, { rx: 'small', queueSize: 64 });
  expect(new Set(posted(kernel, net, 64))).toEqual(new Set([1530]));
});

interface Seen {
  readonly headroom: number;
  readonly frameSize: number;
  readonly length: number;
  readonly hardStart: bigint;
}

/** What a program sees of a frame that arrives in a buffer posted with XDP headroom. */
function seen(rx: 'small' | 'mergeable', fresh: boolean): Seen {
  const kernel = new DirectKernel(4 << 20);
  const { memory } = kernel;
  const net = createVirtioNet(kernel, { rx, queueSize: 64 });
  let result: Seen | undefined;
  net.attachXdp(
    program((xdp) => {
      const data = memory.read64(xdp + XDP.data);
      const hardStart = memory.read64(xdp + XDP.dataHardStart);
      result = {
        headroom: Number(data - hardStart),
        frameSize: memory.read32(xdp + XDP.frameSize),
        length: Number(memory.read64(xdp + XDP.dataEnd) - data),
        hardStart,
      };
      return VERDICT.DROP;
    }),
  );
  for (let i = fresh ? 0 : 100; i < 100; i++) {
    net.receive(makeFrame(60));
    net.poll();
  }
  net.receive(makeFrame(54));
  net.poll();
  if (!result) throw new Error('the program did not run');
  return result;
}

describe('xdp_buff', () => {
  test.each([
    ['mergeable', true, { headroom: 268, frameSize: 4096, length: 54 }],
    ['mergeable', false, { headroom: 268, frameSize: 4096, length: 54 }],
    ['small', true, { headroom: 256, frameSize: 2176, length: 54 }],
    ['small', false, { headroom: 256, frameSize: 2176, length: 54 }],
  ] as const)('%s, buffer posted with headroom %s', (rx, fresh, expected) => {
    expect(seen(rx, fresh)).toMatchObject(expected);
  });

  test('a buffer without headroom is copied to the start of a page', () => {
    expect(seen('mergeable', false).hardStart & 0xfffn).toBe(0n);
    expect(seen('small', false).hardStart & 0xfffn).toBe(76n);
  });
});

/** Largest |delta| that a helper accepts on a 54-byte frame. */
function limit(
  rx: 'small' | 'mergeable',
  grow: (memory: DirectKernel['memory'], xdp: bigint, delta: number) => number,
  sign: 1 | -1,
): number {
  const kernel = new DirectKernel(4 << 20);
  const net = createVirtioNet(kernel, { rx, queueSize: 64 });
  let largest = 0;
  net.attachXdp(
    program((xdp) => {
      while (grow(kernel.memory, xdp, sign) === 0) largest++;
      return VERDICT.DROP;
    }),
  );
  net.receive(makeFrame(54));
  net.poll();
  return largest;
}

test.each([
  ['mergeable', 228, 3454],
  ['small', 216, 1546],
] as const)('%s: limits of adjust_head and adjust_tail', (rx, head, tail) => {
  expect(limit(rx, adjustHead, -1)).toBe(head);
  expect(limit(rx, adjustTail, 1)).toBe(tail);
});

test.each([
  [1470, 'passes'],
  [1471, 'kernel BUG at net/core/skbuff.c: skb_over_panic: len:1525 put:1525 tail:0x741 end:0x740'],
  [1546, 'kernel BUG at net/core/skbuff.c: skb_over_panic: len:1600 put:1600 tail:0x78c end:0x740'],
])('small: a 54-byte frame grown by %i and passed: %s', (delta, outcome) => {
  const kernel = new DirectKernel(4 << 20);
  const net = createVirtioNet(kernel, { rx: 'small', queueSize: 64 });
  net.attachXdp(
    program((xdp) => (adjustTail(kernel.memory, xdp, delta) === 0 ? VERDICT.PASS : VERDICT.DROP)),
  );
  net.receive(makeFrame(54));
  if (outcome !== 'passes') {
    expect(() => net.poll()).toThrow(outcome);
    return;
  }
  net.poll();
  expect(net.delivered().map(({ frame }) => frame.length)).toEqual([54 + delta]);
});

test('detaching leaves buffers with headroom, which the driver still understands', () => {
  for (const rx of ['small', 'mergeable'] as const) {
    const kernel = new DirectKernel(4 << 20);
    const net = createVirtioNet(kernel, { rx, queueSize: 64 });
    net.attachXdp(returns(VERDICT.DROP));
    for (let i = 0; i < 130; i++) {
      net.receive(makeFrame(60));
      net.poll();
    }
    net.attachXdp(undefined);
    net.receive(makeFrame(700, 3));
    net.poll();
    expect(net.delivered().map(({ frame }) => frame)).toEqual([makeFrame(700, 3)]);
  }
});

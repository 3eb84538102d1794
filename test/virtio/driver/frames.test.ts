/** Frame sizes, several buffers per frame, devices that lie, and that nothing gets lost. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodeNetHeader } from '../../../src/virtio/net-header.js';
import { createVirtioNet, type VirtioNet } from '../../../src/virtio/virtio-net.js';
import { xdpBuffHasFrags } from '../../../src/stack/xdp-frame.js';
import { DirectKernel } from '../helpers/direct-kernel.js';
import { postedBuffers } from '../../../src/lab/posted-buffers.js';
import { rewriteLastUsed, spoilNextBuffer } from '../helpers/rings.js';
import { VERDICT, XDP, makeFrame, program, returns } from '../helpers/programs.js';

const BYTES = 8 << 20;
const FRAGS = { hasFrags: true };

type Ring = 'split' | 'packed';
const RINGS = ['split', 'packed'] as const;

/** A mergeable device; with XDP buffers when `warm`. */
function mergeable(
  queueSize = 64,
  warm = false,
  ring: Ring = 'split',
): { kernel: DirectKernel; net: VirtioNet } {
  const kernel = new DirectKernel(BYTES);
  const net = createVirtioNet(kernel, { rx: 'mergeable', queueSize, ring });
  if (warm) {
    net.attachXdp(returns(VERDICT.DROP));
    for (let i = 0; i < 2 * queueSize + 8; i++) {
      net.receive(makeFrame(60));
      net.poll();
    }
  }
  return { kernel, net };
}

/** What is posted after a poll, once all frames are read, gives everything back. */
function expectNothingLost(kernel: DirectKernel, net: VirtioNet): void {
  net.close();
  expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
}

test.each(['small', 'mergeable'] as const)('%s: all frame sizes from 14 to 1514', (rx) => {
  const kernel = new DirectKernel(BYTES);
  const net = createVirtioNet(kernel, { rx, queueSize: 256 });
  for (const runner of [undefined, returns(VERDICT.PASS)]) {
    net.attachXdp(runner);
    for (let length = 14; length <= 1514; length++) {
      expect(net.receive(makeFrame(length, length))).toBe('delivered');
      if (length % 50 !== 0 && length !== 1514) continue;
      net.poll();
      for (const { frame } of net.delivered()) {
        const same = Buffer.compare(frame, makeFrame(frame.length, frame.length)) === 0;
        expect([frame.length, same]).toEqual([frame.length, true]);
      }
    }
  }
  expect(net.counters()).toMatchObject({ rx_packets: 3002, rx_xdp_packets: 1501, rx_drops: 0 });
  expectNothingLost(kernel, net);
});

test('small: 1518 bytes fit, 1519 do not', () => {
  const net = createVirtioNet(new DirectKernel(BYTES), { rx: 'small', queueSize: 64 });
  expect(net.receive(makeFrame(1518))).toBe('delivered');
  expect(net.receive(makeFrame(1519))).toBe('too-big');
  net.poll();
  expect(net.delivered().map(({ frame }) => frame.length)).toEqual([1518]);
  expect(net.device.counters).toMatchObject({ rxFrames: 1, rxDropped: 1 });
});

describe('several buffers without a program', () => {
  test.each([1525, 2642, 9000, 30000, 60000])('%i bytes', (length) => {
    const { kernel, net } = mergeable();
    expect(net.receive(makeFrame(length, 5))).toBe('delivered');
    net.poll();
    expect(net.delivered().map(({ frame }) => frame)).toEqual([makeFrame(length, 5)]);
    expectNothingLost(kernel, net);
  });

  test('more than 17 fragments continue in a frag list', () => {
    const { kernel, net } = mergeable();
    // odd shares: neighbours in a chunk do not adjoin, so nothing coalesces
    net.receive(makeFrame(300 * 41, 2), { bytesPerBuffer: [312, 300] });
    net.poll();
    const [skb] = net.delivered();
    expect(skb?.frame).toEqual(makeFrame(300 * 41, 2));
    expect(skb?.nrFrags).toBe(17);
    expectNothingLost(kernel, net);
  });

  test('a frame larger than all buffers waits outside', () => {
    const { kernel, net } = mergeable(16);
    expect(net.receive(makeFrame(65000))).toBe('delivered');
    expect(net.receive(makeFrame(65000))).toBe('no-buffers');
    expect(net.poll()).toBe(1);
    expect(net.receive(makeFrame(65000))).toBe('delivered');
    net.poll();
    expect(net.delivered()).toHaveLength(2);
    expectNothingLost(kernel, net);
  });
});

describe.each(RINGS)('several buffers and a program, %s rings', (ring) => {
  // header and frame up to 3520 bytes go into one page
  test.each([
    [2642, true],
    [3508, true],
    [3509, false],
    [6000, false],
  ])('without frags support, %i bytes: passes %s', (length, passes) => {
    for (const warm of [true, false]) {
      const { kernel, net } = mergeable(64, warm, ring);
      let linear = 0;
      net.attachXdp(
        program((xdp) => {
          const { memory } = kernel;
          linear = Number(memory.read64(xdp + XDP.dataEnd) - memory.read64(xdp + XDP.data));
          return VERDICT.PASS;
        }),
      );
      const drops = net.counters()['rx_xdp_drops'] ?? 0;
      net.receive(makeFrame(length), { bytesPerBuffer: [1514] });
      net.poll();
      expect(net.delivered().map(({ frame }) => frame)).toEqual(passes ? [makeFrame(length)] : []);
      expect(linear).toBe(passes ? length : 0);
      expect((net.counters()['rx_xdp_drops'] ?? 0) - drops).toBe(passes ? 0 : 1);
      expectNothingLost(kernel, net);
    }
  });

  test.each([
    ['PASS', VERDICT.PASS],
    ['DROP', VERDICT.DROP],
    ['TX', VERDICT.TX],
  ])('with frags support: %s', (_name, verdict) => {
    const { kernel, net } = mergeable(64, true, ring);
    let hadFrags = false;
    net.attachXdp(
      program((xdp) => {
        hadFrags = xdpBuffHasFrags(kernel.memory.ram, kernel.memory.ram.virtToPhys(xdp));
        return verdict;
      }, FRAGS),
    );
    net.receive(makeFrame(9000, 4));
    net.poll();
    expect(hadFrags).toBe(true);
    const frames = (list: readonly { readonly frame: Uint8Array }[]) =>
      list.map(({ frame }) => frame);
    expect(frames(net.delivered())).toEqual(verdict === VERDICT.PASS ? [makeFrame(9000, 4)] : []);
    expect(frames(net.transmitted())).toEqual(verdict === VERDICT.TX ? [makeFrame(9000, 4)] : []);
    expectNothingLost(kernel, net);
  });

  test.each([
    [18, 1],
    [19, 0],
  ])('%i buffers: %i delivered', (buffers, delivered) => {
    const { kernel, net } = mergeable(64, true, ring);
    net.attachXdp(returns(VERDICT.PASS, FRAGS));
    net.receive(makeFrame(100 * buffers - 12), { bytesPerBuffer: [100] });
    net.poll();
    expect(net.delivered()).toHaveLength(delivered);
    expectNothingLost(kernel, net);
  });

  test('frags support, buffers posted before: only the first is copied', () => {
    const { kernel, net } = mergeable(64, false, ring);
    net.attachXdp(returns(VERDICT.PASS, FRAGS));
    net.receive(makeFrame(2642));
    net.poll();
    expect(net.delivered()).toMatchObject([{ frame: makeFrame(2642), nrFrags: 1 }]);
    expectNothingLost(kernel, net);
  });
});

describe.each(RINGS)('a device that lies about a frame, %s rings', (ring) => {
  /** Delivers with a num_buffers that is not true, by changing it in the buffer. */
  function deliverWithCount(kernel: DirectKernel, net: VirtioNet, count: number): void {
    const [buffer] = postedBuffers(kernel.memory, net, 1);
    net.device.deliverRaw(Uint8Array.from([...encodeNetHeader({}), ...makeFrame(200)]));
    kernel.memory.write16((buffer?.address ?? 0n) + 10n, count);
  }

  test.each([
    [2, undefined, { rx_drops: 1, dev_rx_length_errors: 1 }],
    [0, undefined, { rx_drops: 1, dev_rx_length_errors: 1 }],
    [3, FRAGS, { rx_drops: 1, rx_xdp_drops: 1, dev_rx_length_errors: 2 }],
    [3, {}, { rx_drops: 1, rx_xdp_drops: 1, dev_rx_length_errors: 1 }],
    [65535, FRAGS, { rx_drops: 1, rx_xdp_drops: 1, dev_rx_length_errors: 1 }],
  ])('num_buffers %i, program %o', (buffers, options, expected) => {
    const { kernel, net } = mergeable(64, false, ring);
    if (options) net.attachXdp(returns(VERDICT.PASS, options));
    deliverWithCount(kernel, net, buffers);
    net.poll();
    expect(net.delivered()).toEqual([]);
    expect(net.counters()).toMatchObject(expected);
    net.attachXdp(undefined);
    net.receive(makeFrame(77));
    net.poll();
    expect(net.delivered()).toHaveLength(1);
    expectNothingLost(kernel, net);
  });

  test.each([undefined, FRAGS])('a used length beyond the buffer, program %o', (options) => {
    const { kernel, net } = mergeable(64, true, ring);
    net.attachXdp(options ? returns(VERDICT.PASS, options) : undefined);
    net.receive(makeFrame(200));
    rewriteLastUsed(kernel.memory, net, { length: 100_000 });
    net.poll();
    expect(net.delivered()).toEqual([]);
    expect(net.counters()).toMatchObject({ dev_rx_length_errors: 1 });
    expectNothingLost(kernel, net);
  });

  test('a wrong id breaks the queue; the device can still be removed', () => {
    const { kernel, net } = mergeable(64, false, ring);
    net.receive(makeFrame(200));
    rewriteLastUsed(kernel.memory, net, { id: 64 });
    net.poll();
    expect(net.broken).toBe(true);
    expect(kernel.log).toContain('virtio_net virtio0: input.0:id 64 out of range');
    expectNothingLost(kernel, net);
  });
});

test.each([
  ['split', 'queue 0: head 128 in a queue of 64'],
  ['packed', 'queue 0: head 0: descriptor 0: zero sized buffers are not allowed'],
] as const)('a driver that lies stops the device, %s rings', (ring, why) => {
  const { kernel, net } = mergeable(64, false, ring);
  spoilNextBuffer(kernel.memory, net);
  expect(net.receive(makeFrame(60))).toBe('needs-reset');
  expect(net.device.error).toBe(why);
  expect(net.device.status & 0x40).toBe(0x40);
  expect(net.receive(makeFrame(60))).toBe('needs-reset');
  net.reset();
  expect(net.receive(makeFrame(60))).toBe('delivered');
  net.poll();
  expect(net.delivered()).toHaveLength(1);
  expectNothingLost(kernel, net);
});

/** One thing that happens to a device under random traffic. */
const event = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('frame' as const),
      length: fc.integer({ min: 0, max: 4000 }),
      split: fc.integer({ min: 200, max: 4000 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('poll' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('transmit' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('attach' as const), frags: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('detach' as const) }) },
);

const TRAFFIC = [
  ['small', { ring: 'split' }],
  ['mergeable', { ring: 'split', inOrder: true, indirect: true }],
  ['small', { ring: 'packed', inOrder: true }],
  ['mergeable', { ring: 'packed' }],
  ['mergeable', { ring: 'packed', inOrder: true, indirect: true, eventIdx: false }],
] as const;

describe.each(TRAFFIC)('random traffic in %s mode, %o', (rx, options) => {
  test('every frame is delivered, sent, or counted as dropped; no buffer is lost', () => {
    fc.assert(
      fc.property(
        fc.array(event, { maxLength: 120 }),
        fc.array(fc.nat(6), { minLength: 1 }),
        (events, verdicts) => {
          const kernel = new DirectKernel(BYTES);
          const net = createVirtioNet(kernel, {
            rx,
            queueSize: 32,
            transmit: 'manual',
            ...options,
          });
          let runs = 0;
          const act = (): number => verdicts[runs++ % verdicts.length] ?? 0;
          let accepted = 0;
          let delivered = 0;
          let sent = 0;
          for (const happens of events) {
            switch (happens.kind) {
              case 'frame': {
                const frame = makeFrame(happens.length, accepted);
                const shares = rx === 'small' ? {} : { bytesPerBuffer: [happens.split] };
                if (net.receive(frame, shares) === 'delivered') accepted++;
                break;
              }
              case 'poll':
                net.poll();
                delivered += net.delivered().length;
                break;
              case 'transmit':
                net.device.runTransmit();
                break;
              case 'attach':
                net.attachXdp(program(act, { hasFrags: happens.frags }));
                break;
              case 'detach':
                net.attachXdp(undefined);
                break;
            }
          }
          net.poll();
          net.device.runTransmit();
          delivered += net.delivered().length;
          sent += net.transmitted().length;
          const counters = net.counters();
          const value = (name: string): number => counters[name] ?? 0;
          expect(value('rx_packets')).toBe(accepted);
          const lost = value('rx_drops') + value('tx_xdp_tx_drops') + value('dev_rx_length_errors');
          expect(delivered + sent + lost).toBe(accepted);
          expect(value('rx_xdp_packets')).toBe(runs);
          expect(value('tx_xdp_tx')).toBe(sent + value('tx_xdp_tx_drops'));
          // what is held: posted receive buffers and frames not reclaimed yet
          expect(net.held().rx).toBeGreaterThan(0);
          net.close();
          expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
        },
      ),
      { numRuns: 25, seed: 3 },
    );
  });
});

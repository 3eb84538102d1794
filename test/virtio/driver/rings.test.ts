/** The driver on rings of either layout: suppression, features, and resets that lose nothing. */
import { describe, expect, test } from 'vitest';
import {
  createVirtioNet,
  type VirtioNet,
  type VirtioNetOptions,
} from '../../../src/virtio/virtio-net.js';
import { DirectKernel } from '../helpers/direct-kernel.js';
import { VERDICT, makeFrame, returns } from '../helpers/programs.js';
import { rewriteLastUsed } from '../helpers/rings.js';

const RINGS = ['split', 'packed'] as const;
const FRAGS = { hasFrags: true };

function device(options: VirtioNetOptions): { kernel: DirectKernel; net: VirtioNet } {
  const kernel = new DirectKernel(8 << 20);
  return { kernel, net: createVirtioNet(kernel, { queueSize: 64, ...options }) };
}

function expectTraffic(net: VirtioNet, count = 70): void {
  for (let i = 0; i < count; i++) {
    expect(net.receive(makeFrame(100, i))).toBe('delivered');
    if (i % 8 === 7 || i === count - 1) net.poll();
  }
  expect(net.delivered()).toHaveLength(count);
}

describe.each(RINGS)('%s rings', (ring) => {
  test('64 frames before a poll are one interrupt and one kick', () => {
    const { net } = device({ ring });
    const before = net.device.counters.notifications;
    for (let i = 0; i < 64; i++) net.receive(makeFrame(60));
    expect(net.poll()).toBe(64);
    expect(net.device.counters.interrupts).toBe(1);
    expect(net.device.counters.notifications - before).toBe(1);
  });

  test.each([false, true])('a frame in pieces sent back, INDIRECT_DESC %s', (indirect) => {
    const { net } = device({ ring, indirect, transmit: 'manual' });
    net.attachXdp(returns(VERDICT.DROP, FRAGS));
    for (let i = 0; i < 140; i++) {
      net.receive(makeFrame(60));
      net.poll();
    }
    net.attachXdp(returns(VERDICT.TX, FRAGS));
    const sendUntilFull = (): number => {
      for (let sent = 0; ; sent++) {
        net.receive(makeFrame(9000, 4));
        net.poll();
        if (net.counters()['tx_xdp_tx_drops'] !== 0) return sent;
      }
    };
    // 9012 bytes take 3 buffers of 3520
    expect(sendUntilFull()).toBe(indirect ? 64 : 21);
    net.device.runTransmit();
    expect(net.transmitted()[0]?.frame).toEqual(makeFrame(9000, 4));
  });

  test.each([0, 1])('queue %i alone is reset', (queue) => {
    const { kernel, net } = device({ ring, transmit: 'manual' });
    net.attachXdp(returns(VERDICT.TX));
    for (let i = 0; i < 10; i++) net.receive(makeFrame(100, i));
    net.poll();
    expect(net.held().tx).toBe(10);
    net.receive(makeFrame(100));
    net.resetQueue(queue);
    expect(net.held().tx).toBe(queue === 1 ? 0 : 10);
    net.device.runTransmit();
    expect(net.transmitted()).toHaveLength(queue === 1 ? 0 : 10);
    net.attachXdp(undefined);
    net.poll();
    net.delivered();
    net.device.runTransmit();
    expectTraffic(net);
    net.close();
    expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
    expect(() => net.resetQueue(2)).toThrow('queue 2 of 2');
  });

  test.each([false, true])('a broken queue works after a reset, IN_ORDER %s', (inOrder) => {
    const { kernel, net } = device({ ring, inOrder });
    expectTraffic(net);
    net.receive(makeFrame(100));
    rewriteLastUsed(kernel.memory, net, { id: 64 });
    net.poll();
    expect(net.broken).toBe(true);
    expect(kernel.log).toContain('virtio_net virtio0: input.0:id 64 out of range');
    net.resetQueue(0);
    expect(net.broken).toBe(false);
    expectTraffic(net);
    net.reset();
    expectTraffic(net);
    net.close();
    expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
  });
});

test.each([1, 3, 17, 100])('a packed ring of %i', (queueSize) => {
  const { kernel, net } = device({ ring: 'packed', rx: 'small', queueSize });
  for (let i = 0; i < 3 * queueSize + 5; i++) {
    expect(net.receive(makeFrame(100, i))).toBe('delivered');
    net.poll();
  }
  expect(net.delivered()).toHaveLength(3 * queueSize + 5);
  net.close();
  expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
});

test('queue sizes that are none', () => {
  expect(() => device({ queueSize: 100 })).toThrow('power of two');
  expect(() => device({ ring: 'packed', queueSize: 0 })).toThrow('queue size 0');
});

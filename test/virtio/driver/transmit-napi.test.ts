/** When sent frames are taken back, and which counters say so. */
import { expect, test } from 'vitest';
import { createVirtioNet } from '../../../src/virtio/virtio-net.js';
import { DirectKernel } from '../helpers/direct-kernel.js';
import { VERDICT, makeFrame, returns } from '../helpers/programs.js';

const BYTES = 8 << 20;

test.each(['split', 'packed'] as const)('%s: the interrupt takes back what was sent', (ring) => {
  const net = createVirtioNet(new DirectKernel(BYTES), { ring });
  net.attachXdp(returns(VERDICT.TX));
  for (let sent = 1; sent <= 600; sent++) {
    net.receive(makeFrame(60));
    net.poll();
    // 12 bytes of header are part of the frame
    expect(net.counters()).toMatchObject({ tx_packets: sent, tx_bytes: 72 * sent });
    expect(net.held().tx).toBe(0);
  }
  net.close();
});

test('without napi_tx, and on a queue of XDP alone, it waits for who sends next', () => {
  const settings = [{ napiTx: false }, { queuePairs: 1, maxQueuePairs: 3, cpus: 2 }];
  for (const options of settings) {
    const net = createVirtioNet(new DirectKernel(BYTES), options);
    net.attachXdp(returns(VERDICT.TX));
    for (let sent = 1; sent <= 3; sent++) {
      net.receive(makeFrame(60));
      net.poll();
      expect([net.counters()['tx_packets'], net.held().tx]).toEqual([sent - 1, 1]);
    }
    net.close();
  }
});

test.each([
  // 64 - 18: from the frame on that leaves less than 2 + MAX_SKB_FRAGS descriptors
  ['6.12', { tx_stop: 3, tx_wake: 1 }],
  ['6.1', {}],
] as const)(
  'a queue that is nearly full is stopped, and woken by the next poll: %s',
  (version, expected) => {
    const net = createVirtioNet(new DirectKernel(BYTES), {
      version,
      queueSize: 64,
      transmit: 'manual',
    });
    net.attachXdp(returns(VERDICT.TX));
    for (let i = 0; i < 48; i++) {
      net.receive(makeFrame(60));
      net.poll();
    }
    net.device.runTransmit();
    net.poll();
    net.receive(makeFrame(60));
    net.poll();
    const counters = net.counters();
    const found = Object.entries(counters).filter(([name]) => /^tx_(stop|wake)$/.test(name));
    expect(Object.fromEntries(found)).toEqual(expected);
    expect([counters['tx_packets'], net.held().tx]).toEqual([48, 1]);
    net.close();
  },
);

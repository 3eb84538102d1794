/** Big mode: pages instead of buffers, programs that attach and never run. */
import { expect, test } from 'vitest';
import { createVirtioNet } from '../../../src/virtio/virtio-net.js';
import { DirectKernel } from '../helpers/direct-kernel.js';
import { VERDICT, makeFrame, returns } from '../helpers/programs.js';

function rig() {
  const kernel = new DirectKernel(16 << 20);
  const net = createVirtioNet(kernel, { rx: 'big', queueSize: 64 });
  return { kernel, net };
}

test('frames of all sizes arrive as they were sent, and no page is lost', () => {
  const { kernel, net } = rig();
  for (const length of [14, 60, 142, 143, 1514, 3758, 3759, 4078, 4079, 4096, 9000, 40000, 65549]) {
    const frame = makeFrame(length, length & 0xff);
    expect([length, net.receive(frame)]).toEqual([length, 'delivered']);
    net.poll();
    const [got] = net.delivered();
    expect([length, got?.frame]).toEqual([length, frame]);
  }
  net.close();
  expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
});

/** Head, fragments, headroom and truesize by the frame's length. */
test.each([
  [128, 0, 78, 1280],
  [129, 0, 46, 4352],
  // as much as leaves room for skb_shared_info in the page
  [3744, 0, 46, 4352],
  [3745, 1, 78, 5376],
  [4064, 1, 78, 5376],
  [4065, 2, 78, 9472],
])('a frame of %i bytes has %i fragments', (length, frags, headroom, truesize) => {
  const { net } = rig();
  net.receive(makeFrame(length));
  net.poll();
  const [got] = net.delivered();
  expect([got?.nrFrags, got?.headroom, got?.truesize]).toEqual([frags, headroom, truesize]);
});

test('a program attaches and never runs', () => {
  const { net } = rig();
  net.attachXdp(returns(VERDICT.DROP));
  net.receive(makeFrame(60));
  net.poll();
  expect(net.delivered()).toHaveLength(1);
  expect(net.counters()['rx_xdp_packets']).toBe(0);
});

test('a length beyond the buffer is an error, and the pages are used again', () => {
  const { kernel, net } = rig();
  const { ram } = kernel.memory;
  const before = net.held().chunks;
  net.receive(makeFrame(60));
  const ring = net.receiveRing(0);
  if (ring.kind === 'split') ram.set32(ram.virtToPhys(ring.used) + 8, 73709);
  net.poll();
  expect(net.counters()).toMatchObject({ dev_rx_length_errors: 1, rx_drops: 1 });
  expect(net.held().chunks).toBe(before);
});

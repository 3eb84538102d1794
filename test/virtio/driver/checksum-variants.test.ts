/** What attaching a program does to offloads under each checksum variant, and to packets that need them. */
import { expect, test } from 'vitest';
import { buildFrame } from '../../../src/lab/csum/frames.js';
import { VIRTNET_INFO } from '../../../src/virtio/driver/structs.js';
import { createVirtioNet, type VirtioNetOptions } from '../../../src/virtio/virtio-net.js';
import { DirectKernel } from '../helpers/direct-kernel.js';
import { VERDICT, adjustHead, program, returns } from '../helpers/programs.js';

const UNNECESSARY = 1;
const FEATURES = ['GUEST_CSUM', 'GUEST_TSO4', 'CTRL_VQ', 'CTRL_GUEST_OFFLOADS'] as const;
const GSO = { flags: 1, gso_type: 1, gso_size: 10, hdr_len: 54, csum_start: 34, csum_offset: 16 };
const SEGMENTS = buildFrame({ l4: 'tcp4', kind: 'P', destination: '10.0.0.2', payload: 40 }).frame;

function open(options: VirtioNetOptions = {}) {
  const kernel = new DirectKernel(4 << 20);
  return {
    kernel,
    net: createVirtioNet(kernel, { queueSize: 16, features: FEATURES, ...options }),
  };
}

test.each(['small', 'mergeable'] as const)(
  '%s: adjust_head over the header, then PASS: DATA_VALID is kept',
  (rx) => {
    const { kernel, net } = open({
      rx,
      features: ['GUEST_CSUM', 'CTRL_VQ', 'CTRL_GUEST_OFFLOADS'],
    });
    net.attachXdp(
      program((xdp) => (adjustHead(kernel.memory, xdp, -20) === 0 ? VERDICT.PASS : VERDICT.DROP)),
    );
    const { frame, header } = buildFrame({
      l4: 'udp4',
      kind: 'V',
      destination: '10.0.0.2',
      payload: 12,
    });
    net.receive(frame, { header });
    net.poll();
    const [skb] = net.delivered();
    expect(skb).toMatchObject({ ipSummed: UNNECESSARY });
    expect(skb?.frame).toHaveLength(frame.length + 20);
  },
);

test.each(['base', 'v4-literal', 'v4-fixed', 'upstream'] as const)(
  '%s: a packet to be segmented is dropped once a program is attached',
  (xdpChecksum) => {
    const { net } = open({ xdpChecksum });
    net.attachXdp(returns(VERDICT.PASS));
    net.receive(SEGMENTS, { header: GSO });
    net.poll();
    expect(net.delivered()).toEqual([]);
    expect(net.counters()).toMatchObject({ rx_xdp_packets: 0, rx_xdp_drops: 1, rx_drops: 1 });
  },
);

test.each([
  // defect 8: the hash is left out behind XDP; elsewhere the zeroed header has none
  ['base', 0],
  ['v4-literal', 0],
  ['v4-fixed', 0x1234_5678],
  ['upstream', 0],
] as const)('%s: hash of a packet that a program let pass: %i', (xdpChecksum, behind) => {
  const { kernel, net } = open({
    xdpChecksum,
    features: ['GUEST_CSUM', 'CTRL_VQ', 'CTRL_GUEST_OFFLOADS', 'RSS', 'HASH_REPORT'],
    steer: () => ({ queue: 0, hashValue: 0x1234_5678, hashReport: 3 }),
  });
  expect(net.setFeature('rx-hashing', true)).toBe(0);
  const frame = buildFrame({ l4: 'udp4', kind: 'U', destination: '10.0.0.2', payload: 12 });
  const receive = (): unknown => {
    net.receive(frame.frame);
    net.poll();
    return net.delivered();
  };
  expect(receive()).toMatchObject([{ skbHash: 0x1234_5678, l4Hash: true }]);
  net.attachXdp(
    program((xdp) => (adjustHead(kernel.memory, xdp, -20) === 0 ? VERDICT.PASS : VERDICT.DROP)),
  );
  expect(receive()).toMatchObject([{ skbHash: behind, l4Hash: behind !== 0 }]);
});

test.each([
  // defect 6: the patch asks whether XDP is enabled, not whether a program ran
  ['v4-literal', 0],
  ['v4-fixed', 10],
  ['upstream', 10],
] as const)('%s: XDP enabled, the program not there yet: gso_size %i', (xdpChecksum, gsoSize) => {
  const { kernel, net } = open({ xdpChecksum });
  const { ram } = kernel.memory;
  ram.set8(ram.virtToPhys(net.vi) + VIRTNET_INFO.offset.xdp_enabled, 1);
  net.receive(SEGMENTS, { header: GSO });
  net.poll();
  expect(net.delivered()).toMatchObject([{ gsoSize }]);
});

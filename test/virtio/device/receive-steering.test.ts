/** The device hashes and steers what it delivers: headers in the ring, hash in the skb, queue by the table. */
import { describe, expect, it } from 'vitest';
import { hexToBytes } from '../../../src/common/bytes.js';
import { MICROSOFT_KEY } from '../../../src/net/rss/toeplitz.js';
import { VIRTIO_NET_HASH_TUNNEL_TYPE as TUNNEL } from '../../../src/net/rss/types.js';
import type { VirtioNetFeature } from '../../../src/virtio/net-features.js';
import { createVirtioNet, type VirtioNet } from '../../../src/virtio/virtio-net.js';
import { DirectKernel } from '../helpers/direct-kernel.js';

const QUEUES = 8;
/** TCP 10.0.0.1:10000 -> 10.0.0.2:80: alone, and in GRE from 192.0.2.1 to 192.0.2.2. */
const INNER = '4500002800014000400626cd0a0000010a0000022710005000000001000000005002ffff747f0000';
const ETHERNET = '5254000000020200000000010800';
const TCP = hexToBytes(ETHERNET + INNER);
const GRE = hexToBytes(`${ETHERNET}4500004000014000402fb68ac0000201c000020200000800${INNER}`);
const ARP = hexToBytes(`5254000000020200000000010806${'00'.repeat(46)}`);
const HASH = { tcp: 0x68279a62, outer: 0x5ceea90c } as const;

function device(
  features: readonly VirtioNetFeature[],
  rx: 'small' | 'mergeable' = 'mergeable',
  rxHashing = features.includes('HASH_REPORT'),
): VirtioNet {
  const net = createVirtioNet(new DirectKernel(16 << 20), {
    version: '6.18',
    rssKey: MICROSOFT_KEY.slice(),
    features: ['CTRL_VQ', ...features],
    cpus: QUEUES,
    queuePairs: QUEUES,
    queueSize: 16,
    rx,
  });
  if (rxHashing) net.setFeature('rx-hashing', true);
  return net;
}

/** Hash, whether over ports, queue. */
function seen(net: VirtioNet, frame: Uint8Array): readonly unknown[] {
  expect(net.receive(frame)).toBe('delivered');
  net.poll();
  const [up] = net.delivered();
  expect(up?.frame).toEqual(frame);
  return [up?.skbHash, up?.l4Hash, up?.queue];
}

describe.each(['small', 'mergeable'] as const)('%s', (rx) => {
  it.each([
    [[], 12, [0, false, 0], [0, false, 0], [0, false, 0]],
    [['RSS'], 12, [0, false, 2], [0, false, 4], [0, false, 0]],
    [['HASH_REPORT'], 20, [HASH.tcp, true, 0], [HASH.outer, false, 0], [0, false, 0]],
    [['RSS', 'HASH_REPORT'], 20, [HASH.tcp, true, 2], [HASH.outer, false, 4], [0, false, 0]],
  ] as const)('%j: header of %i bytes', (features, bytes, tcp, gre, arp) => {
    const net = device(features, rx);
    expect(seen(net, TCP)).toEqual(tcp);
    expect(seen(net, GRE)).toEqual(gre);
    expect(seen(net, ARP)).toEqual(arp);
    net.device.deliverRaw(new Uint8Array(bytes + TCP.length));
    net.poll();
    expect(net.delivered()[0]?.frame.length).toBe(TCP.length);
  });
});

it.each([
  [
    ['RSS', 'HASH_TUNNEL'],
    [0, false, 2],
    [0, false, 4],
    [0, false, 4],
  ],
  // the driver tells its queue pairs last, and that ends HASH_CONFIG
  [
    ['HASH_REPORT', 'HASH_TUNNEL'],
    [HASH.tcp, true, 0],
    [HASH.outer, false, 0],
    [0, false, 0],
  ],
  [
    ['RSS', 'HASH_REPORT', 'HASH_TUNNEL'],
    [HASH.tcp, true, 2],
    [HASH.outer, false, 4],
    [HASH.outer, false, 4],
  ],
] as const)('%j: inner headers of the tunnels that are on', (features, inner, outer, reset) => {
  const net = device(features);
  expect(seen(net, GRE)).toEqual(outer);
  net.setHashTunnel(TUNNEL.GRE_2784);
  expect(seen(net, GRE)).toEqual(inner);
  net.setHashTunnel(TUNNEL.VXLAN);
  expect(seen(net, GRE)).toEqual(outer);
  net.setHashTunnel(TUNNEL.GRE_2784 | TUNNEL.VXLAN);
  expect(() => net.setHashTunnel(1 << 9)).toThrow('-EINVAL');
  expect(seen(net, GRE)).toEqual(inner);
  net.reset();
  expect(seen(net, GRE)).toEqual(reset);
});

it('without HASH_TUNNEL there is no such command', () => {
  expect(() => device(['RSS']).setHashTunnel(1)).toThrow('-EOPNOTSUPP');
});

it('a frame of no type that is on is unclassified', () => {
  const net = device(['RSS', 'HASH_REPORT']);
  net.setRss({ hashTypes: 0x8 });
  expect(seen(net, TCP)).toEqual([0, false, 0]);
});

it('a queue that is named takes the frame, and the hash is reported all the same', () => {
  const net = device(['RSS', 'HASH_REPORT']);
  net.receive(TCP, { queue: 5 });
  net.poll();
  expect(net.delivered()).toMatchObject([{ queue: 5, skbHash: HASH.tcp }]);
});

it('rx-hashing off: no hash in the skb, steering goes on', () => {
  const net = device(['RSS', 'HASH_REPORT'], 'mergeable', false);
  expect(net.feature('rx-hashing')).toEqual({ available: true, requested: false, active: false });
  expect(seen(net, TCP)).toEqual([0, false, 2]);
});

it('a queue that is being reset gets nothing', () => {
  const net = device(['RSS', 'RING_RESET']);
  net.device.resetQueue(4);
  expect(net.receive(TCP)).toBe('no-buffers');
  expect(seen(net, GRE)).toEqual([0, false, 4]);
  net.resetQueue(4);
  expect(seen(net, TCP)).toEqual([0, false, 2]);
});

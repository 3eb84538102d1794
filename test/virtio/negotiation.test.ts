/** Features between device and driver, status of the device, what commands the driver sends. */
import { describe, expect, test } from 'vitest';
import { VirtioNetDevice } from '../../src/virtio/device/net-device.js';
import { describeCommand } from '../../src/virtio/device/control/commands.js';
import {
  DEFAULT_NET_CONFIG,
  decodeNetConfig,
  encodeNetConfig,
} from '../../src/virtio/net-config.js';
import {
  VIRTIO_NET_FEATURES,
  featureMask,
  featureNames,
  netHeaderSize,
  parseFeature,
  violations,
  type VirtioNetFeature,
} from '../../src/virtio/net-features.js';
import { describeStatus, VIRTIO_CONFIG_S as S } from '../../src/virtio/transport.js';
import { createVirtioNet, type VirtioNetOptions } from '../../src/virtio/virtio-net.js';
import { DirectKernel } from './helpers/direct-kernel.js';
import { VERDICT, makeFrame, returns } from './helpers/programs.js';

const OFFLOADS: readonly VirtioNetFeature[] = [
  'CTRL_VQ',
  'CTRL_GUEST_OFFLOADS',
  'GUEST_CSUM',
  'GUEST_TSO4',
  'GUEST_TSO6',
];

function rig(options: VirtioNetOptions) {
  const kernel = new DirectKernel(8 << 20);
  const net = createVirtioNet(kernel, { queueSize: 32, ...options });
  const commands = (): string[] =>
    net
      .controlLog()
      .map(({ request, ack }) => `${describeCommand(request)}${ack === 0 ? '' : ' ERR'}`);
  return { kernel, net, commands };
}

describe('features', () => {
  test.each<[readonly VirtioNetFeature[], readonly string[]]>([
    [['GUEST_TSO4'], ['GUEST_TSO4 without GUEST_CSUM']],
    [['GUEST_CSUM', 'GUEST_ECN'], ['GUEST_ECN without GUEST_TSO4 or GUEST_TSO6']],
    [['HASH_TUNNEL'], ['HASH_TUNNEL without CTRL_VQ', 'HASH_TUNNEL without RSS or HASH_REPORT']],
    [['RSS_CONTEXT', 'CTRL_VQ'], ['RSS_CONTEXT without RSS']],
    [['CSUM', 'HOST_TSO6', 'HOST_ECN'], []],
  ])('%j lack %j', (names, lacks) => {
    expect(violations(featureMask(names))).toEqual(lacks);
  });

  test('names, bits past 63, headers', () => {
    expect(VIRTIO_NET_FEATURES.GUEST_UDP_TUNNEL_GSO).toBe(1n << 65n);
    expect(featureNames((1n << 63n) | (1n << 65n) | (1n << 90n))).toEqual([
      'SPEED_DUPLEX',
      'GUEST_UDP_TUNNEL_GSO',
      'bit 90',
    ]);
    expect(parseFeature('VIRTIO_NET_F_CSUM')).toBe('CSUM');
    expect(() => parseFeature('CSUMM')).toThrow('no virtio-net feature CSUMM');
    const size = (...names: VirtioNetFeature[]): number => netHeaderSize(featureMask(names));
    expect([size(), size('MRG_RXBUF'), size('VERSION_1')]).toEqual([10, 12, 12]);
    expect([size('HASH_REPORT'), size('HOST_UDP_TUNNEL_GSO')]).toEqual([20, 24]);
  });

  test('the configuration space is packed', () => {
    const bytes = encodeNetConfig({ ...DEFAULT_NET_CONFIG, maxVirtqueuePairs: 3, speed: 10000 });
    expect([bytes.length, bytes[8], bytes[12], bytes[13]]).toEqual([28, 3, 0x10, 0x27]);
    expect(decodeNetConfig(bytes)).toMatchObject({ maxVirtqueuePairs: 3, speed: 10000, mtu: 1500 });
  });

  test.each<[string, VirtioNetOptions, string]>([
    [
      'the driver refuses commands without a control queue',
      { features: ['CTRL_VLAN'] },
      '-EINVAL: virtio_net: device advertises feature VIRTIO_NET_F_CTRL_VLAN but not VIRTIO_NET_F_CTRL_VQ',
    ],
    [
      'the device refuses segmentation without checksums',
      { features: ['GUEST_TSO4'] },
      '-ENODEV: virtio_net: device refuses features: GUEST_TSO4',
    ],
  ])('%s', (_what, options, message) => {
    expect(() => rig(options)).toThrow(message);
  });

  test('what the driver does not know or may not use is left out', () => {
    const odd = rig({ features: ['STANDBY', 'MTU', 'RSC_EXT', 'GUEST_CSUM'], config: { mtu: 60 } });
    expect(featureNames(odd.net.features)).toEqual([
      'GUEST_CSUM',
      'MRG_RXBUF',
      'EVENT_IDX',
      'VERSION_1',
    ]);
    const uso = { features: [...OFFLOADS, 'GUEST_USO4'] as VirtioNetFeature[] };
    expect(featureNames(rig({ ...uso, version: '6.1' }).net.features)).not.toContain('GUEST_USO4');
    expect(featureNames(rig(uso).net.features)).toContain('GUEST_USO4');
  });
});

test('status of a device', () => {
  const device = new VirtioNetDevice(new DirectKernel(1 << 20).memory, {
    features: featureMask(['VERSION_1', 'GUEST_CSUM', 'GUEST_TSO4']),
    onInterrupt: () => undefined,
    onTransmit: () => undefined,
  });
  const write = (status: number): string => {
    device.writeStatus(status);
    return describeStatus(device.status);
  };
  expect(write(S.ACKNOWLEDGE | S.DRIVER)).toBe('ACKNOWLEDGE DRIVER');
  device.writeFeatures(featureMask(['VERSION_1', 'GUEST_TSO4']));
  expect(write(S.FEATURES_OK)).toBe('ACKNOWLEDGE DRIVER');
  expect(device.featureRefusal).toBe('GUEST_TSO4 without GUEST_CSUM');
  expect(write(S.DRIVER_OK)).toBe('ACKNOWLEDGE DRIVER');
  device.writeFeatures(featureMask(['VERSION_1', 'MQ']));
  expect(write(S.FEATURES_OK)).toBe('ACKNOWLEDGE DRIVER');
  expect(device.featureRefusal).toBe('MQ not offered');
  device.writeFeatures(featureMask(['VERSION_1', 'GUEST_CSUM']));
  expect(write(S.FEATURES_OK)).toBe('ACKNOWLEDGE DRIVER FEATURES_OK');
  device.writeFeatures(0n);
  expect(featureNames(device.features)).toEqual(['GUEST_CSUM', 'VERSION_1']);
  expect(write(S.DRIVER_OK)).toBe('ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK');
  expect(write(S.FAILED)).toContain('FAILED');
  expect(write(0)).toBe('reset');
});

describe('commands of the driver', () => {
  test('filters, addresses, VLANs, pairs, coalescing', () => {
    const { kernel, net, commands } = rig({
      cpus: 2,
      queuePairs: 2,
      maxQueuePairs: 4,
      features: ['CTRL_RX', 'CTRL_VLAN', 'CTRL_MAC_ADDR', 'GUEST_ANNOUNCE', 'NOTF_COAL'],
    });
    expect(commands()).toEqual([
      'MQ_VQ_PAIRS_SET 2',
      'RX_PROMISC 0',
      'RX_ALLMULTI 0',
      'MAC_TABLE_SET unicast=0 multicast=0',
    ]);
    const other = Uint8Array.of(0x52, 0x54, 0, 0, 0, 9);
    expect(net.receive(Uint8Array.of(...other, ...makeFrame(60).subarray(6)))).toBe('filtered');
    net.setRxMode({ unicast: [other] });
    net.setMac(Uint8Array.of(2, 0, 0, 0, 0, 7));
    net.setVlan(5, true);
    net.setVlan(5, false);
    net.setQueuePairs(3);
    net.device.requestAnnounce();
    const vi = kernel.memory.ram.virtToPhys(net.vi);
    kernel.invoke('virtnet_ack_link_announce', vi);
    kernel.invoke('virtnet_ack_link_announce', vi);
    kernel.invoke('virtnet_send_rx_notf_coal_cmds', vi, 10, 20);
    expect(commands()).toEqual([
      'RX_PROMISC 0',
      'RX_ALLMULTI 0',
      'MAC_TABLE_SET unicast=1 multicast=0',
      'MAC_ADDR_SET 02:00:00:00:00:07',
      'VLAN_ADD 5',
      'VLAN_DEL 5',
      'MQ_VQ_PAIRS_SET 3',
      'ANNOUNCE_ACK',
      'ANNOUNCE_ACK ERR',
      'NOTF_COAL_RX_SET max_packets=20 max_usecs=10',
    ]);
    expect(net.receive(Uint8Array.of(...other, ...makeFrame(60).subarray(6)))).toBe('delivered');
    expect(() => net.setMac(Uint8Array.of(1, 0, 0, 0, 0, 7))).toThrow('EADDRNOTAVAIL');
    expect(() => net.setQueuePairs(5)).toThrow('EINVAL');
    net.close();
    expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
  });

  const TWO_PAIRS = { cpus: 1, queuePairs: 1, maxQueuePairs: 2, features: OFFLOADS };
  const isPairs = (request: Uint8Array): boolean => request[0] === 4;

  test('a refused queue-pair command rolls back', () => {
    let refuse = false;
    const { net, commands, kernel } = rig({
      ...TWO_PAIRS,
      deviceRefuses: (request) => refuse && isPairs(request),
    });
    commands();
    refuse = true;
    expect(() => net.attachXdp(returns(VERDICT.DROP))).toThrow('EINVAL');
    expect(commands()).toEqual(['MQ_VQ_PAIRS_SET 2 ERR']);
    expect(kernel.log.at(-1)).toBe('virtio_net virtio0 eth0: Fail to set num of queue pairs to 2');
    net.receive(makeFrame(60));
    net.poll();
    expect(net.counters()['rx_xdp_packets']).toBe(0);
    refuse = false;
    net.attachXdp(returns(VERDICT.DROP));
    refuse = true;
    commands();
    expect(() => net.attachXdp(undefined)).toThrow('EINVAL');
    expect(commands()).toEqual([
      'GUEST_OFFLOADS_SET mask=0x182',
      'MQ_VQ_PAIRS_SET 1 ERR',
      'GUEST_OFFLOADS_SET mask=0x0',
    ]);
    net.receive(makeFrame(60));
    net.poll();
    expect(net.counters()['rx_xdp_drops']).toBe(1);
  });

  test.each([
    ['base', ['GUEST_OFFLOADS_SET mask=0x0'], ['GUEST_OFFLOADS_SET mask=0x182']],
    ['upstream', ['GUEST_OFFLOADS_SET mask=0x0'], ['GUEST_OFFLOADS_SET mask=0x182']],
    ['v4-literal', ['GUEST_OFFLOADS_SET mask=0x0'], ['GUEST_OFFLOADS_SET mask=0x180']],
    ['v4-fixed', ['GUEST_OFFLOADS_SET mask=0x2'], ['GUEST_OFFLOADS_SET mask=0x182']],
  ] as const)('offloads of %s', (xdpChecksum, attach, detach) => {
    const { net, commands } = rig({ features: OFFLOADS, xdpChecksum });
    net.attachXdp(returns(VERDICT.PASS));
    expect(commands()).toEqual(attach);
    net.attachXdp(undefined);
    expect(commands()).toEqual(detach);
  });

  test.each([
    ['upstream', 'EOPNOTSUPP'],
    ['v4-literal', 'nothing'],
    ['v4-fixed', 'nothing'],
  ] as const)('GUEST_CSUM alone, without CTRL_GUEST_OFFLOADS, %s: %s', (xdpChecksum, errno) => {
    const { net } = rig({ features: ['GUEST_CSUM'], xdpChecksum });
    const attach = (): string => {
      net.attachXdp(returns(VERDICT.PASS));
      return 'nothing';
    };
    if (errno === 'nothing') expect(attach()).toBe(errno);
    else expect(attach).toThrow(errno);
  });

  test('offload masks past 53 bits are exact', () => {
    const features: VirtioNetFeature[] = [...OFFLOADS, 'GUEST_USO4', 'GUEST_USO6'];
    const { net, commands } = rig({ features });
    net.attachXdp(returns(VERDICT.PASS));
    net.attachXdp(undefined);
    expect(commands().at(-1)).toBe('GUEST_OFFLOADS_SET mask=0xc0000000000182');
  });

  test.each([
    ['6.12', [0, ...Array.from({ length: 39 }, (_, i) => i + 1)]],
    ['6.18', Array.from({ length: 40 }, (_, i) => i + 1)],
  ] as const)('the RSS key of %s', (version, seen) => {
    const features: VirtioNetFeature[] = ['RSS'];
    const { net } = rig({ version, features, cpus: 2, queuePairs: 2, maxQueuePairs: 2 });
    net.setRss({ key: Uint8Array.from({ length: 40 }, (_, i) => i + 1) });
    expect([...net.device.control.rss.config.key]).toEqual(seen);
    expect(net.device.control.rss).toMatchObject({ mode: 'rss', queuePairs: 2 });
  });
});

test('a broken device works again after a reset', () => {
  const { net, kernel, commands } = rig({ cpus: 1, maxQueuePairs: 2, features: OFFLOADS });
  const { ram } = kernel.memory;
  const ring = net.receiveRing(0);
  if (ring.kind === 'split') ram.set16(ram.virtToPhys(ring.avail) + 2, 0x7000);
  expect(net.receive(makeFrame(60))).toBe('needs-reset');
  expect(describeStatus(net.device.status)).toContain('NEEDS_RESET');
  commands();
  net.reset();
  expect(describeStatus(net.device.status)).toBe('ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK');
  expect(commands()).toEqual(['MQ_VQ_PAIRS_SET 1']);
  expect(net.receive(makeFrame(60))).toBe('delivered');
  net.poll();
  expect(net.delivered()).toHaveLength(1);
  net.close();
  expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
});

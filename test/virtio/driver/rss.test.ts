/** The driver's RSS settings and commands by version, as the device sees them. */
import { describe, expect, it } from 'vitest';
import { bytesToHex } from '../../../src/common/bytes.js';
import { createVirtioNet, type VirtioNetOptions } from '../../../src/virtio/virtio-net.js';
import { DirectKernel } from '../helpers/direct-kernel.js';
import { SCATTERLIST } from '../../../src/virtio/ring/vring-virtqueue.js';
import { describeCommand } from '../../../src/virtio/device/control/commands.js';

const KEY = Uint8Array.from({ length: 40 }, (_, i) => 0x80 + i);
const SHIFTED = Uint8Array.of(0, ...KEY.slice(0, 39));
const TABLE = Array.from({ length: 128 }, (_, i) => (i >> 3) % 3);

function probe(options: VirtioNetOptions = {}) {
  const kernel = new DirectKernel(8 << 20);
  const net = createVirtioNet(kernel, {
    features: ['CTRL_VQ', 'RSS', 'HASH_REPORT'],
    cpus: 4,
    queuePairs: 4,
    queueSize: 16,
    ...options,
  });
  const commands = (): string[] =>
    net.controlLog().map(({ request, ack }) => `${describeCommand(request)} ${ack}`);
  return { kernel, net, commands };
}

/** Of a scatterlist, up to its end. */
function pieceLengths({ memory }: DirectKernel, list: bigint): number[] {
  const { offset, size } = SCATTERLIST;
  const lengths: number[] = [];
  for (let at = list; memory.read64(at + BigInt(offset.address)) !== 0n; at += BigInt(size)) {
    lengths.push(memory.read32(at + BigInt(offset.length)));
  }
  return lengths;
}

describe.each([
  ['6.1', [8, 256, 3, 40], KEY],
  ['6.12', [264, 43], SHIFTED],
  ['6.18', [264, 43], KEY],
] as const)('%s', (version, pieces, key) => {
  it('RSS_CONFIG: table, key and pairs reach the device', () => {
    const { net, kernel } = probe({ version });
    let lengths: readonly number[] = [];
    kernel.onCall = (name, args) => {
      if (name === 'virtnet_send_command') lengths = pieceLengths(kernel, args[3] ?? 0n);
    };
    net.setRss({ key: KEY, table: TABLE });
    expect(lengths).toEqual(pieces);
    expect(net.controlLog().at(-1)?.request.length).toBe(2 + 8 + 256 + 3 + 40);
    const { mode, config, queuePairs } = net.device.control.rss;
    expect([mode, queuePairs, config.hashTypes, config.unclassifiedQueue]).toEqual([
      'rss',
      4,
      63,
      0,
    ]);
    expect(config.key).toEqual(key);
    expect([...config.table]).toEqual(TABLE);
    expect(net.rss()).toEqual({ key: KEY, table: TABLE, hashTypes: 63 });
  });

  it('HASH_CONFIG without RSS: the same layout, reserved fields 0', () => {
    const { net } = probe({ version, features: ['CTRL_VQ', 'HASH_REPORT'] });
    net.setRss({ key: KEY });
    const request = net.controlLog().at(-1)?.request ?? new Uint8Array(0);
    expect(bytesToHex(request.slice(0, 14))).toBe('04023f0000000000000000000000');
    expect(net.device.control.rss).toMatchObject({ mode: 'hash', config: { hashTypes: 63, key } });
    expect(() => net.setRss({ table: [0] })).toThrow('-EOPNOTSUPP');
  });
});

it('what probe tells the device', () => {
  const seen = (version: '6.1' | '6.12') => probe({ version }).net.device.control.rss;
  // 6.1 sends its settings with the first ethtool -X
  expect(seen('6.1')).toMatchObject({ mode: 'automatic', queuePairs: 4 });
  expect(seen('6.12')).toMatchObject({ mode: 'rss', queuePairs: 4, config: { hashTypes: 63 } });
  expect(seen('6.12').config.table.slice(0, 6)).toEqual(Uint16Array.of(0, 1, 2, 3, 0, 1));
});

it('what ethtool refuses', () => {
  const { net } = probe();
  expect(() => net.setRss({ table: [0, 1] })).toThrow('-EINVAL');
  expect(() => net.setRss({ table: TABLE.map(() => 4) })).toThrow('-EINVAL');
  expect(() => net.setRss({ key: KEY.slice(1) })).toThrow('-EINVAL');
  // IP_EX is of the device, not of the driver
  expect(() => net.setRss({ hashTypes: 0x40 })).toThrow('-EINVAL');
  const { net: plain } = probe({ features: ['CTRL_VQ'] });
  expect(() => plain.setRss({ hashTypes: 1 })).toThrow('-EOPNOTSUPP');
  expect(plain.rss()).toBeUndefined();
  expect(plain.setFeature('rx-hashing', true)).toBe(-95);
});

it('hash types of the user go out with rx-hashing', () => {
  const { net } = probe();
  const types = (): number => net.device.control.rss.config.hashTypes;
  net.setRss({ hashTypes: 0x9 });
  expect(types()).toBe(63);
  expect(net.setFeature('rx-hashing', true)).toBe(0);
  expect(types()).toBe(9);
  net.setRss({ hashTypes: 0x3 });
  expect(types()).toBe(3);
  net.setFeature('rx-hashing', false);
  expect(types()).toBe(0);
});

it('a native attach ends steering by the table, if the user has set it', () => {
  const runner = { run: () => 2 };
  const { net, commands } = probe({ maxQueuePairs: 8 });
  commands();
  net.attachXdp(runner);
  expect(net.device.control.rss).toMatchObject({ mode: 'rss', queuePairs: 8 });
  net.attachXdp(undefined);
  net.setRss({ table: TABLE });
  commands();
  net.attachXdp(runner);
  expect(commands()).toEqual(['MQ_VQ_PAIRS_SET 8 0']);
  expect(net.device.control.rss).toMatchObject({ mode: 'automatic', queuePairs: 8 });
  net.attachXdp(undefined);
  // and max_tx_vq of the next one is that of now
  net.setRss({ table: TABLE });
  expect(net.device.control.rss).toMatchObject({ mode: 'rss', queuePairs: 4 });
});

it('a reset device hashes nothing until it is told again', () => {
  const { net } = probe({ version: '6.1' });
  net.setRss({ key: KEY });
  expect(net.device.control.rss.mode).toBe('rss');
  net.reset();
  expect(net.device.control.rss).toMatchObject({ mode: 'automatic', config: { hashTypes: 0 } });
});

it('a device with a longer key is refused', () => {
  const features = ['CTRL_VQ', 'RSS'] as const;
  expect(() => probe({ features, config: { rssMaxKeySize: 41 } })).toThrow(
    '-EINVAL: virtio_net: rss_max_key_size=41 exceeds the limit 40',
  );
  expect(() => probe({ features: ['CTRL_VQ'], config: { rssMaxKeySize: 41 } })).not.toThrow();
});

it('a device that refuses the command: no RSS', () => {
  const deviceRefuses = (request: Uint8Array): boolean => request[0] === 4 && request[1] === 1;
  const { net } = probe({ deviceRefuses });
  expect(net.rss()).toBeUndefined();
  expect(net.feature('rx-hashing').available).toBe(false);
  expect(net.device.control.rss).toMatchObject({ mode: 'automatic', queuePairs: 4 });
});

/** The driver's RSS commands by version, and what an skb gets of a report. */
import { describe, expect, it } from 'vitest';
import { bytesToHex } from '../../../src/common/bytes.js';
import { concatBytes } from '../../../src/net/packet.js';
import { isRefusal, parseHashConfig, parseRssConfig } from '../../../src/net/rss/config.js';
import { ReceiveHasher } from '../../../src/net/rss/receive-hash.js';
import {
  buildRssCommand,
  defaultRssSettings,
  skbHashType,
  type RssDriverVersion,
} from '../../../src/virtio/driver/rss.js';

const DEVICE = {
  maxQueuePairs: 4,
  maxKeySize: 40,
  maxTableLength: 128,
  supportedHashTypes: 0x1ff,
  supportedTunnelTypes: 0,
  negotiated: { mq: true, rss: true, hashReport: true, hashTunnel: false },
};
const KEY = Uint8Array.from({ length: 40 }, (_, i) => 0x80 + i);
const SETTINGS = defaultRssSettings(DEVICE, 4, KEY);
const SHIFTED = Uint8Array.of(0, ...KEY.slice(0, 39));

const VERSIONS: readonly (readonly [RssDriverVersion, number[], Uint8Array])[] = [
  ['6.1', [8, 256, 3, 40], KEY],
  ['6.12.107', [264, 43], SHIFTED],
  ['6.18', [264, 43], KEY],
];

describe.each(VERSIONS)('%s', (version, sizes, key) => {
  it('RSS_CONFIG', () => {
    const { command, buffers } = buildRssCommand(version, SETTINGS);
    expect(command).toBe(1);
    expect(buffers.map(({ length }) => length)).toEqual(sizes);
    expect(parseRssConfig(concatBytes(...buffers), DEVICE)).toEqual({ ...SETTINGS, key });
  });

  it('HASH_CONFIG without RSS', () => {
    const { command, buffers } = buildRssCommand(version, SETTINGS, false);
    const bytes = concatBytes(...buffers);
    expect([command, bytes.length]).toEqual([2, 53]);
    expect(bytesToHex(bytes.slice(4, 12))).toBe('0000000000000000');
    expect(parseHashConfig(bytes, DEVICE)).toEqual({ hashTypes: 0x3f, key });
  });
});

it('a key one byte late gives another hash of every frame', () => {
  const [late, right] = (['6.12.107', '6.18'] as const).map((version) => {
    const sent = concatBytes(...buildRssCommand(version, SETTINGS).buffers);
    const config = parseRssConfig(sent, DEVICE);
    if (isRefusal(config)) throw new Error(config.why);
    return new ReceiveHasher({ key: config.key, hashTypes: config.hashTypes });
  });
  const frame = new Uint8Array(60);
  frame.set([0x08, 0x00, 0x45], 12);
  frame.set([6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 23);
  expect(late?.compute(frame).report).toBe(2);
  // the window of each bit begins eight bits earlier
  expect((late?.compute(frame).hash ?? 0) & 0xffffff).toBe((right?.compute(frame).hash ?? 0) >>> 8);
});

it('default settings, and a device whose key is too long', () => {
  expect(SETTINGS).toMatchObject({ hashTypes: 0x3f, unclassifiedQueue: 0, maxTxVq: 4 });
  expect(SETTINGS.table.slice(0, 6)).toEqual(Uint16Array.of(0, 1, 2, 3, 0, 1));
  expect(() => defaultRssSettings({ ...DEVICE, maxKeySize: 41 }, 4, KEY)).toThrow(
    '-EINVAL: rss_max_key_size=41 exceeds the limit 40',
  );
});

it('reports as kinds of skb hash', () => {
  const levels = Array.from({ length: 11 }, (_, report) => skbHashType(report).slice(14));
  expect(levels.join(' ')).toBe('NONE L3 L4 L4 L3 L4 L4 L3 L4 L4 NONE');
});

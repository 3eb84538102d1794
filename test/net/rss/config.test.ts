/** Control commands of hashing and steering: layouts, every refusal, what a refusal leaves. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bytesToHex, hexToBytes } from '../../../src/common/bytes.js';
import {
  applyRssCommand,
  buildHashConfig,
  buildHashTunnelSet,
  buildRssConfig,
  buildVqPairsSet,
  driverProblem,
  isRssClass,
  parseHashConfig,
  parseRssConfig,
  resetRssState,
  type RssConfig,
  type RssDevice,
} from '../../../src/net/rss/config.js';

const DEVICE: RssDevice = {
  maxQueuePairs: 8,
  maxKeySize: 40,
  maxTableLength: 128,
  supportedHashTypes: 0x1ff,
  supportedTunnelTypes: 0x1ff,
  negotiated: { mq: true, rss: true, hashReport: true, hashTunnel: true },
};

const KEY = Uint8Array.from({ length: 40 }, (_, i) => i + 1);
const CONFIG: RssConfig = {
  hashTypes: 0x3f,
  unclassifiedQueue: 5,
  table: Uint16Array.from({ length: 128 }, (_, i) => i % 8),
  maxTxVq: 8,
  key: KEY,
};

/** RSS_CONFIG of a small table, with single bytes replaced. */
function rssBytes(changes: Readonly<Record<number, number>> = {}, length = 53): Uint8Array {
  const bytes = buildRssConfig({ ...CONFIG, table: Uint16Array.of(3) });
  for (const [at, value] of Object.entries(changes)) bytes[Number(at)] = value;
  return bytes.slice(0, length);
}

describe('layouts', () => {
  it('have the sizes and offsets of the standard', () => {
    expect(buildRssConfig(CONFIG)).toHaveLength(307);
    const small = buildRssConfig({ ...CONFIG, table: Uint16Array.of(0x203) });
    expect(bytesToHex(small)).toBe(`3f000000000005000302080028${bytesToHex(KEY)}`);
    const hash = buildHashConfig({ hashTypes: 0x1ff, key: KEY });
    expect(bytesToHex(hash)).toBe(`ff010000000000000000000028${bytesToHex(KEY)}`);
    expect([small.length, hash.length]).toEqual([53, 53]);
    expect(bytesToHex(buildVqPairsSet(0x8000))).toBe('0080');
    expect(bytesToHex(buildHashTunnelSet(0x10))).toBe('10000000');
  });

  it('come back from their bytes', () => {
    const arbitrary = fc.record({
      hashTypes: fc.nat(0x1ff),
      unclassifiedQueue: fc.nat(7),
      table: fc
        .nat(7)
        .chain((bits) =>
          fc
            .array(fc.nat(0xffff), { minLength: 1 << bits, maxLength: 1 << bits })
            .map((entries) => Uint16Array.from(entries)),
        ),
      maxTxVq: fc.integer({ min: 1, max: 8 }),
      key: fc.uint8Array({ minLength: 1, maxLength: 40 }),
    });
    fc.assert(
      fc.property(arbitrary, (config) => {
        expect(parseRssConfig(buildRssConfig(config), DEVICE)).toEqual(config);
        const { hashTypes, key } = config;
        expect(parseHashConfig(buildHashConfig({ hashTypes, key }), DEVICE)).toEqual({
          hashTypes,
          key,
        });
      }),
    );
  });
});

const MQ = 4;
const [PAIRS, RSS, HASH] = [0, 1, 2];
const TUNNEL = 7;

type Without = Partial<RssDevice['negotiated']>;

type Case = readonly [
  name: string,
  commandClass: number,
  command: number,
  bytes: Uint8Array,
  why: string,
  without?: Without,
];

const REFUSALS: readonly Case[] = [
  ['RSS not negotiated', MQ, RSS, rssBytes(), 'RSS_CONFIG without RSS', { rss: false }],
  [
    'HASH_REPORT not negotiated',
    MQ,
    HASH,
    buildHashConfig(CONFIG),
    'HASH_CONFIG without HASH_REPORT',
    { hashReport: false },
  ],
  ['MQ not negotiated', MQ, PAIRS, buildVqPairsSet(2), 'VQ_PAIRS_SET without MQ', { mq: false }],
  [
    'HASH_TUNNEL not negotiated',
    TUNNEL,
    0,
    buildHashTunnelSet(0),
    'class 7 without HASH_TUNNEL',
    { hashTunnel: false },
  ],
  ['shorter than 8', MQ, RSS, rssBytes({}, 7), 'RSS_CONFIG cut: 8 bytes needed, 7 sent'],
  ['empty', MQ, RSS, new Uint8Array(0), 'RSS_CONFIG cut: 8 bytes needed, 0 sent'],
  [
    'table length no power of two',
    MQ,
    RSS,
    rssBytes({ 4: 2 }),
    'table of 3 entries, no power of two',
  ],
  ['table too long', MQ, RSS, rssBytes({ 4: 255 }), 'table of 256 entries, more than 128'],
  ['mask 0xffff', MQ, RSS, rssBytes({ 4: 255, 5: 255 }), 'table of 65536 entries, more than 128'],
  ['unclassified queue', MQ, RSS, rssBytes({ 6: 8 }), 'unclassified queue 8 of 8'],
  ['table short', MQ, RSS, rssBytes({}, 9), 'table cut: 10 bytes needed, 9 sent'],
  [
    'trailer short',
    MQ,
    RSS,
    rssBytes({}, 12),
    'max_tx_vq and key length cut: 13 bytes needed, 12 sent',
  ],
  ['max_tx_vq 0', MQ, RSS, rssBytes({ 10: 0 }), 'max_tx_vq 0, not 1 to 8'],
  ['max_tx_vq beyond', MQ, RSS, rssBytes({ 10: 9 }), 'max_tx_vq 9, not 1 to 8'],
  ['key too long', MQ, RSS, rssBytes({ 12: 41 }), 'key of 41 bytes, more than 40'],
  ['no key with types', MQ, RSS, rssBytes({ 12: 0 }), 'hash types 0x3f without a key'],
  ['key short', MQ, RSS, rssBytes({}, 52), 'key cut: 53 bytes needed, 52 sent'],
  ['HASH_CONFIG short', MQ, HASH, rssBytes({}, 12), 'HASH_CONFIG cut: 13 bytes needed, 12 sent'],
  ['HASH_CONFIG key too long', MQ, HASH, rssBytes({ 12: 41 }), 'key of 41 bytes, more than 40'],
  ['HASH_CONFIG no key', MQ, HASH, rssBytes({ 12: 0 }), 'hash types 0x3f without a key'],
  ['no pairs', MQ, PAIRS, buildVqPairsSet(0), '0 queue pairs, not 1 to 8'],
  ['too many pairs', MQ, PAIRS, buildVqPairsSet(9), '9 queue pairs, not 1 to 8'],
  ['pairs of one byte', MQ, PAIRS, Uint8Array.of(1), 'VQ_PAIRS_SET of 1 bytes, not 2'],
  ['unknown MQ command', MQ, 3, rssBytes(), 'command 3 of class MQ is unknown'],
  [
    'unknown tunnel command',
    TUNNEL,
    1,
    buildHashTunnelSet(0),
    'command 1 of class HASH_TUNNEL is unknown',
  ],
  [
    'tunnel types short',
    TUNNEL,
    0,
    Uint8Array.of(1, 0, 0),
    'enabled_tunnel_types cut: 4 bytes needed, 3 sent',
  ],
  [
    'tunnel type unknown',
    TUNNEL,
    0,
    buildHashTunnelSet(0x8000_0201),
    'tunnel types not supported: bit 9, bit 31',
  ],
];

describe('a refused command', () => {
  const before = {
    mode: 'rss',
    config: CONFIG,
    queuePairs: 8,
    tunnelTypes: 0x10,
  } as const;

  it.each(REFUSALS.map((each) => [each[0], each] as const))('%s', (_, each) => {
    const [, commandClass, command, bytes, why, without] = each;
    const device = { ...DEVICE, negotiated: { ...DEVICE.negotiated, ...without } };
    const kept = applyRssCommand(before, commandClass, command, bytes, device);
    expect(kept).toEqual({ ack: 'ERR', why, state: before });
    const qemu = { ...device, qemuDisableOnError: true };
    const { state } = applyRssCommand(before, commandClass, command, bytes, qemu);
    // class 7 is not QEMU's: its refusals leave steering alone
    expect(state.mode).toBe(commandClass === MQ ? 'automatic' : 'rss');
    expect(state.tunnelTypes).toBe(0x10);
  });
});

describe('accepted commands', () => {
  const accept = (commands: readonly (readonly [number, number, Uint8Array])[]) => {
    let state = resetRssState();
    for (const [commandClass, command, bytes] of commands) {
      const result = applyRssCommand(state, commandClass, command, bytes, DEVICE);
      expect(result.ack).toBe('OK');
      ({ state } = result);
    }
    return state;
  };

  it('the last of the three decides the mode', () => {
    const rss = [MQ, RSS, rssBytes()] as const;
    const hash = [MQ, HASH, buildHashConfig({ hashTypes: 7, key: KEY })] as const;
    const pairs = [MQ, PAIRS, buildVqPairsSet(3)] as const;
    expect(accept([hash, pairs, rss])).toMatchObject({ mode: 'rss', queuePairs: 8 });
    expect(accept([rss, pairs, hash])).toMatchObject({ mode: 'hash', queuePairs: 3 });
    expect(accept([rss, hash, pairs])).toMatchObject({ mode: 'automatic', queuePairs: 3 });
    expect(accept([pairs, hash]).config).toMatchObject({ hashTypes: 7, key: KEY });
  });

  it('no types and no key turn hashing off', () => {
    const off = { ...CONFIG, hashTypes: 0, key: new Uint8Array(0), maxTxVq: 4 };
    expect(accept([[MQ, RSS, buildRssConfig(off)]])).toMatchObject({
      mode: 'automatic',
      queuePairs: 4,
    });
    expect(accept([[MQ, HASH, buildHashConfig(off)]]).mode).toBe('automatic');
  });

  it('entries of the table are not checked', () => {
    const bytes = buildRssConfig({ ...CONFIG, table: Uint16Array.of(0xffff) });
    expect(accept([[MQ, RSS, bytes]]).config.table).toEqual(Uint16Array.of(0xffff));
  });

  it('tunnel types are set, cleared by 0, and by a reset', () => {
    const vxlan = [TUNNEL, 0, hexToBytes('10000000')] as const;
    expect(accept([vxlan]).tunnelTypes).toBe(0x10);
    expect(accept([vxlan, [TUNNEL, 0, buildHashTunnelSet(0)]]).tunnelTypes).toBe(0);
    expect(resetRssState().tunnelTypes).toBe(0);
  });
});

it('a driver keeps rules that devices do not check', () => {
  const table = (...entries: number[]) => ({ ...CONFIG, table: Uint16Array.from(entries) });
  const few = { ...DEVICE, supportedHashTypes: 0x3f };
  const problems = [
    driverProblem(CONFIG, DEVICE),
    driverProblem(table(), DEVICE),
    driverProblem(table(1, 2, 3), DEVICE),
    driverProblem({ ...CONFIG, table: new Uint16Array(256) }, DEVICE),
    driverProblem(table(1, 8), DEVICE),
    driverProblem({ ...CONFIG, hashTypes: 0x240 }, few),
    driverProblem({ ...CONFIG, key: new Uint8Array(41) }, DEVICE),
  ];
  expect(problems).toEqual([
    undefined,
    'table of 0 entries, no power of two',
    'table of 3 entries, no power of two',
    'table of 256 entries, more than 128',
    'table entry 1 names queue 8 of 8',
    'hash types not supported: IP_EX, bit 9',
    'key of 41 bytes, more than 40',
  ]);
});

it('names its classes', () => {
  expect([0, 4, 5, 7, 9].filter(isRssClass)).toEqual([4, 7]);
});

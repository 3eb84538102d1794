/** Which queue a frame goes to: table, unclassified, automatic, queues under reset. */
import { describe, expect, it } from 'vitest';
import { applyRssCommand, buildRssConfig, resetRssState } from '../../../src/net/rss/config.js';
import { ReceiveHasher } from '../../../src/net/rss/receive-hash.js';
import { defaultTable, DROPPED, Steering, tableQueue } from '../../../src/net/rss/steering.js';
import { MICROSOFT_KEY } from '../../../src/net/rss/toeplitz.js';
import { ALL_TUNNEL_TYPES } from '../../../src/net/rss/types.js';
import { GOLDEN_FRAMES } from './golden-frames.js';

const DEVICE = {
  maxQueuePairs: 8,
  maxKeySize: 40,
  maxTableLength: 128,
  supportedHashTypes: 0x1ff,
  supportedTunnelTypes: 0x1ff,
  negotiated: { mq: true, rss: true, hashReport: true, hashTunnel: true },
};

function configured(table: Uint16Array, maxTxVq = 8) {
  const config = { hashTypes: 0x3f, unclassifiedQueue: 5, table, maxTxVq, key: MICROSOFT_KEY };
  const bytes = buildRssConfig({ ...config, key: Uint8Array.from(MICROSOFT_KEY) });
  const result = applyRssCommand(resetRssState(), 4, 1, bytes, DEVICE);
  expect(result.ack).toBe('OK');
  return new Steering(result.state);
}

const hashed = (hash: number, report = 2) => ({
  hash,
  report,
  types: 0,
  inner: false,
  tunnelReport: 0,
});

describe('the table', () => {
  it('takes the low bits of the hash', () => {
    const steering = configured(Uint16Array.of(7, 1, 0, 3));
    const queues = [0, 1, 2, 3, 0x8000_0004, 0xffff_ffff].map((hash) =>
      steering.queueOf(hashed(hash)),
    );
    expect(queues).toEqual([7, 1, 0, 3, 7, 3]);
    expect(configured(Uint16Array.of(6)).queueOf(hashed(0xffff_ffff))).toBe(6);
  });

  it('without a hash: the unclassified queue', () => {
    expect(configured(Uint16Array.of(1)).queueOf(hashed(0, 0))).toBe(5);
    // a hash of 0 is a hash
    expect(configured(Uint16Array.of(1)).queueOf(hashed(0))).toBe(1);
  });

  it('entries and unclassified queue count modulo the pairs in use', () => {
    const steering = configured(Uint16Array.of(0xffff, 6), 4);
    expect([0, 1].map((hash) => steering.queueOf(hashed(hash)))).toEqual([3, 2]);
    expect(steering.queueOf(hashed(0, 0))).toBe(1);
  });

  it('a queue under reset drops', () => {
    const steering = configured(Uint16Array.of(1, 2));
    steering.setResetting(1, true);
    expect([0, 1].map((hash) => steering.queueOf(hashed(hash)))).toEqual([DROPPED, 2]);
    steering.setResetting(1, false);
    expect(steering.queueOf(hashed(0))).toBe(1);
  });

  it('golden frames: entry and queue, outer and inner', () => {
    const config = { table: defaultTable(128, 8), unclassifiedQueue: 0 };
    const queue = (tunnelTypes: number, index: number) => {
      const hasher = new ReceiveHasher({
        key: MICROSOFT_KEY,
        hashTypes: 0x3f,
        form: 'final',
        tunnelTypes,
      });
      return tableQueue(config, hasher.compute(GOLDEN_FRAMES[index]?.bytes ?? new Uint8Array(0)));
    };
    const names = ['GRE', 'GRE-in-UDP', 'VXLAN', 'GENEVE'];
    const at = names.map((name) => GOLDEN_FRAMES.findIndex((each) => each.name === name));
    expect(at.map((index) => queue(0, index))).toEqual([4, 2, 6, 2]);
    expect(GOLDEN_FRAMES.map((_, index) => queue(ALL_TUNNEL_TYPES, index))).toEqual(
      GOLDEN_FRAMES.map(() => 2),
    );
  });
});

describe('automatic steering', () => {
  it('queue 0, then where the driver sent the flow', () => {
    const steering = new Steering({ ...resetRssState(), queuePairs: 4 });
    expect(steering.queueOf(hashed(77))).toBe(0);
    steering.noteTransmit(77, 3);
    expect(steering.queueOf(hashed(77))).toBe(3);
    steering.noteTransmit(77, 1);
    expect([77, 78].map((hash) => steering.queueOf(hashed(hash)))).toEqual([1, 0]);
  });

  it('picks another queue for one under reset', () => {
    const steering = new Steering({ ...resetRssState(), queuePairs: 2 });
    steering.noteTransmit(9, 1);
    steering.setResetting(1, true);
    expect(steering.queueOf(hashed(9))).toBe(0);
    steering.setResetting(0, true);
    expect(steering.queueOf(hashed(9))).toBe(DROPPED);
  });

  it('remembers 4096 flows', () => {
    const steering = new Steering({ ...resetRssState(), queuePairs: 4 });
    for (let hash = 0; hash <= 4096; hash++) steering.noteTransmit(hash, 2);
    expect([0, 1, 4096].map((hash) => steering.queueOf(hashed(hash)))).toEqual([0, 2, 2]);
  });

  it('mode hash reports, and steers automatically', () => {
    const state = { ...resetRssState(), mode: 'hash', queuePairs: 4 } as const;
    expect(new Steering(state).queueOf(hashed(3))).toBe(0);
  });
});

/** Dependencies and effects of RSS, HASH_REPORT and HASH_TUNNEL. */
import { expect, it } from 'vitest';
import { bytesToHex } from '../../../src/common/bytes.js';
import {
  featureProblem,
  interplay,
  INTERPLAY,
  writeRssConfigSpace,
} from '../../../src/net/rss/features.js';

const bits = (...numbers: number[]) => numbers.reduce((all, bit) => all | (1n << BigInt(bit)), 0n);
const [CTRL_VQ, MQ, FINAL, V7, REPORT, RSS] = [17, 22, 51, 52, 57, 60] as const;

it.each([
  ['final', bits(), undefined],
  ['final', bits(CTRL_VQ, MQ, RSS, REPORT, FINAL), undefined],
  ['final', bits(CTRL_VQ, FINAL, REPORT), undefined],
  ['final', bits(CTRL_VQ, FINAL), 'HASH_TUNNEL requires RSS or HASH_REPORT'],
  ['final', bits(FINAL), 'HASH_TUNNEL requires CTRL_VQ'],
  ['final', bits(V7), undefined],
  ['final', bits(RSS), 'RSS requires CTRL_VQ'],
  ['final', bits(REPORT), 'HASH_REPORT requires CTRL_VQ'],
  ['final', bits(MQ), 'MQ requires CTRL_VQ'],
  ['v7', bits(CTRL_VQ, V7), undefined],
  ['v7', bits(V7), 'HASH_TUNNEL requires CTRL_VQ'],
  ['v7', bits(FINAL), undefined],
] as const)('%s %s', (form, offered, problem) => {
  expect(featureProblem(offered, form)).toBe(problem);
});

it('the final form has an effect for every combination but HASH_TUNNEL alone', () => {
  expect(INTERPLAY).toHaveLength(7);
  const of = (rss: boolean, hashReport: boolean, hashTunnel: boolean) =>
    interplay({ rss, hashReport, hashTunnel });
  expect(of(false, false, true)).toBeUndefined();
  expect(of(true, false, false)).toMatchObject({
    steering: 'outer',
    report: 'none',
    headerSize: 12,
  });
  expect(of(false, true, true)).toMatchObject({
    steering: 'none',
    report: 'inner',
    headerSize: 20,
  });
  expect(of(true, true, true)?.commands).toEqual(['RSS_CONFIG', 'HASH_TUNNEL_SET']);
});

it('config space, with HASH_TUNNEL four bytes longer', () => {
  const device = {
    maxQueuePairs: 8,
    maxKeySize: 40,
    maxTableLength: 128,
    supportedHashTypes: 0x1ff,
    supportedTunnelTypes: 0x155,
    negotiated: { mq: true, rss: true, hashReport: true, hashTunnel: true },
  };
  const space = (size: number) => {
    const bytes = new Uint8Array(size);
    writeRssConfigSpace(bytes, device);
    return bytesToHex(bytes.slice(17));
  };
  expect(space(24)).toBe('288000ff010000');
  expect(space(28)).toBe('288000ff01000055010000');
});

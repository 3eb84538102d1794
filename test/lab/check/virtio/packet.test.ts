/** Packets that real guests received, through driver and stack: those in the tree, and a part of the rest. */
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { beforeAll, expect, test, type TestContext } from 'vitest';
import { PacketLab } from '../../../../src/lab/check/virtio/packet.js';
import type { PacketRecord } from '../../../../src/lab/check/virtio/packet-record.js';
import type { VirtioNetOptions } from '../../../../src/virtio/virtio-net.js';
import { bootLab } from '../../../../src/node/boot.js';
import { PACKAGE_ROOT } from '../../../../src/node/files.js';
import { SHARED } from '../../../helpers/shared.js';

const SAMPLE = resolve(PACKAGE_ROOT, 'test/vectors/virtio/packets.jsonl');
const WHOLE = resolve(SHARED, 'vectors/virtio/results.jsonl');
/** Every so many of the whole set; `trampolab check` runs them all. */
const STRIDE = process.env['ALL_PACKETS'] === '1' ? 1 : 9;

let lab: PacketLab;

beforeAll(async () => {
  lab = new PacketLab(await bootLab());
});

function packets(path: string): PacketRecord[] {
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as PacketRecord)
    .filter(({ type }) => type === 'packet');
}

function compare(
  records: readonly PacketRecord[],
  device: VirtioNetOptions = {},
): { equal: number; skipped: string[] } {
  const skipped: string[] = [];
  const different: string[] = [];
  let equal = 0;
  for (const record of records) {
    const result = lab.check(record, device);
    if (result.kind === 'equal') equal++;
    else if (result.kind === 'skipped') skipped.push(result.why);
    else different.push(`${record.id}: ${result.differences.join('; ')}`);
  }
  expect(different).toEqual([]);
  return { equal, skipped };
}

test('the sample in the tree', () => {
  const records = packets(SAMPLE);
  expect(compare(records)).toEqual({ equal: records.length, skipped: [] });
});

// the guests had split rings; what the driver makes of a packet does not depend on it
test.each([
  [0, { ring: 'packed', eventIdx: true }],
  [1, { ring: 'packed', inOrder: true, indirect: true }],
] as const)('every other one, from %i on, on other rings, %o', (first, rings) => {
  const records = packets(SAMPLE).filter((_, i) => i % 2 === first);
  expect(compare(records, rings)).toEqual({ equal: records.length, skipped: [] });
});

test('a part of all measured packets', (context: TestContext) => {
  if (!existsSync(WHOLE)) {
    console.log('notice: ../shared/vectors/virtio is absent, only the sample is compared');
    context.skip();
  }
  const records = packets(WHOLE).filter((_, i) => i % STRIDE === 0);
  expect(compare(records)).toEqual({ equal: records.length, skipped: [] });
});

test('a record that says something else is told where', () => {
  const [record] = packets(SAMPLE).filter(({ target, at_stack }) => target === 'local' && at_stack);
  if (!record) throw new Error('no such record');
  const counters = { ...record.counters, IpInReceives: 7 };
  const result = lab.check({ ...record, counters, drop_reasons: ['NO_SOCKET udp_rcv'] });
  expect(result).toMatchObject({
    kind: 'different',
    differences: [
      expect.stringMatching(/^IpInReceives: 1, measured 7$/),
      expect.stringContaining('measured NO_SOCKET udp_rcv'),
    ],
  });
});

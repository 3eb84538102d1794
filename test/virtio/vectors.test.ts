/** The receive path against what real guests of 6.12 and 6.18 did. */
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { replay, type PacketRecord } from './helpers/replay.js';

const ROOT = resolve(import.meta.dirname, '../..');
const SAMPLE = resolve(ROOT, 'test/vectors/virtio/receive-6.12.jsonl');
const SHARED = resolve(
  process.env['TRAMPOLAB_SHARED'] ?? resolve(ROOT, '../shared'),
  'vectors/virtio/results.jsonl',
);

function packets(path: string): readonly PacketRecord[] {
  const lines = readFileSync(path, 'utf8').split('\n');
  const all = lines.filter((line) => line !== '').map((line) => JSON.parse(line) as PacketRecord);
  return all.filter(({ type }) => type === 'packet');
}

interface Tally {
  equal: number;
  readonly skipped: Record<string, number>;
  readonly different: string[];
}

function replayAll(path: string): Tally {
  const tally: Tally = { equal: 0, skipped: {}, different: [] };
  for (const record of packets(path)) {
    const result = replay(record);
    if (result.kind === 'equal') tally.equal++;
    else if (result.kind === 'skipped') {
      tally.skipped[result.why] = (tally.skipped[result.why] ?? 0) + 1;
    } else {
      const { kernel_version, rx_mode, program, note } = record;
      const label = `${record.id} ${kernel_version} ${rx_mode} ${program} ${note}`;
      tally.different.push(`${label}: ${result.differences.join('; ')}`);
    }
  }
  return tally;
}

test('the sample of measured packets', () => {
  const tally = replayAll(SAMPLE);
  expect(tally.different).toEqual([]);
  expect(tally.skipped).toEqual({});
  expect(tally.equal).toBe(packets(SAMPLE).length);
});

test('all measured packets of 6.12 and 6.18', (context) => {
  if (!existsSync(SHARED)) {
    context.skip(
      'notice: ../shared/vectors/virtio/results.jsonl is absent, the sample alone is used',
    );
  }
  const tally = replayAll(SHARED);
  console.log(`${tally.equal} equal, skipped: ${JSON.stringify(tally.skipped)}`);
  expect(tally.different).toEqual([]);
  expect(tally.equal).toBeGreaterThanOrEqual(400);
});

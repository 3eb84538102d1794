/**
 * The receive path without a stack against a sample of what real guests received; the whole set goes
 * through driver and stack in `test/lab/packet.test.ts`.
 */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { expect, test } from 'vitest';
import { replay, type PacketRecord } from './helpers/replay.js';

const SAMPLE = resolve(PACKAGE_ROOT, 'test/vectors/virtio/receive-6.12.jsonl');

test('the sample of measured packets', () => {
  const lines = readFileSync(SAMPLE, 'utf8').split('\n');
  const records = lines
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as PacketRecord);
  const results = records.map((record) => ({ id: record.id, ...replay(record) }));
  expect(results.filter(({ kind }) => kind !== 'equal')).toEqual([]);
  expect(results.length).toBeGreaterThan(0);
});

/** Receive-side scaling through device and driver against what guests of 6.1, 6.12 and 6.18 received. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parseRecords, VectorRecord } from '../../../../src/lab/check/record.js';
import { RssLab, isRssRecord } from '../../../../src/lab/check/virtio/rss.js';
import { PACKAGE_ROOT } from '../../../../src/node/files.js';
import { sharedFile } from '../../../helpers/shared.js';
import { DirectKernel } from '../../../virtio/helpers/direct-kernel.js';

const lab = new RssLab(new DirectKernel());
const SAMPLE = join(PACKAGE_ROOT, 'test/vectors/virtio/rss.jsonl');

function rssRecords(path: string): readonly VectorRecord[] {
  return parseRecords(path, readFileSync(path, 'utf8')).filter(isRssRecord);
}

function tally(records: readonly VectorRecord[]) {
  const skipped: Record<string, number> = {};
  const different: string[] = [];
  let equal = 0;
  for (const record of records) {
    const result = lab.check(record);
    if (result.kind === 'equal') equal++;
    else if (result.kind === 'skipped') skipped[result.why] = (skipped[result.why] ?? 0) + 1;
    else different.push(`${record.origin}: ${result.differences.join('; ')}`);
  }
  return { equal, skipped, different };
}

it('the sample', () => {
  const records = rssRecords(SAMPLE);
  expect(tally(records)).toEqual({
    equal: records.length,
    skipped: {},
    different: [],
  });
  expect(new Set(records.map((record) => record.text('kernel_version'))).size).toBe(3);
});

it('all records', (context) => {
  const path = sharedFile('vectors', 'virtio', 'results.jsonl');
  if (path === undefined) {
    context.skip();
    return;
  }
  const { equal, skipped, different } = tally(rssRecords(path));
  expect(different).toEqual([]);
  expect(skipped).toEqual({});
  expect(equal).toBeGreaterThan(470);
});

it('tells what differs, and what it cannot compare', () => {
  const [first] = rssRecords(SAMPLE).filter((record) => record.text('type') === 'rss');
  const change = (fields: Record<string, unknown>) =>
    lab.check(new VectorRecord('here', { ...first?.fields, ...fields }));
  expect(change({ skb_hash: '0x00000001', queue_mapping: '9' })).toMatchObject({
    kind: 'different',
    differences: ['skb_hash 0x00000001, computed 0x68279a62', 'queue_mapping 9, computed 3'],
  });
  // the frame with a VLAN tag
  expect(change({ skb_hash: undefined })).toMatchObject({
    differences: ['arrived false, computed true'],
  });
  // one bit of the key
  expect(change({ key: `6c${String(first?.fields['key']).slice(2)}` }).kind).toBe('different');
  // the drivers of other kernels send other keys
  expect(change({ kernel_version: '6.12.107' }).kind).toBe('different');
  expect(change({ kernel_version: '5.10.1' })).toEqual({
    kind: 'skipped',
    why: 'the driver of 5.10.1 is not modelled',
  });
  expect(change({ table: 'i' }).kind).toBe('skipped');
  expect(change({ type: 'rss-default', indir_size: 64, key_size: 40, table: [] })).toMatchObject({
    kind: 'different',
  });
});

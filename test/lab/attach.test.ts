/** Attach cases, limits, offload states and panics of real guests, through the model. */
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { AttachLab, type RecordResult } from '../../src/lab/check/virtio/attach.js';
import type {
  AttachRecord,
  CrashRecord,
  LimitRecord,
  OffloadStateRecord,
} from '../../src/lab/check/virtio/attach-record.js';
import { bootLab } from '../../src/node/boot.js';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { SHARED } from '../helpers/shared.js';

type Record = AttachRecord | LimitRecord | OffloadStateRecord | CrashRecord;

const WHOLE = resolve(SHARED, 'vectors/virtio/results.jsonl');
const SAMPLE = resolve(PACKAGE_ROOT, 'test/vectors/virtio/attach.jsonl');
const TYPES = ['attach', 'limit', 'offload-state', 'crash'];

function records(path: string): readonly Record[] {
  const lines = readFileSync(path, 'utf8').split('\n');
  const all = lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Record);
  return all.filter(({ type }) => TYPES.includes(type));
}

let lab: AttachLab;
beforeAll(async () => {
  lab = new AttachLab(await bootLab());
});

function check(record: Record): RecordResult {
  switch (record.type) {
    case 'attach':
      return lab.attach(record);
    case 'limit':
      return lab.limit(record);
    case 'offload-state':
      return lab.offloadState(record);
    case 'crash':
      return lab.crash(record);
  }
}

function label(record: Record): string {
  const what = 'id' in record ? record.id : `${record.kernel_version} ${record.rx_mode}`;
  return `${record.type} ${what}`;
}

function notEqual(path: string): readonly unknown[] {
  return records(path)
    .map((record) => ({ label: label(record), ...check(record) }))
    .filter(({ kind }) => kind !== 'equal');
}

test('a sample of each kind', () => {
  expect(records(SAMPLE).length).toBeGreaterThan(50);
  expect(notEqual(SAMPLE)).toEqual([]);
});

test('all that were measured', (context) => {
  if (!existsSync(WHOLE)) {
    console.log('notice: ../shared/vectors/virtio is absent, only the sample is compared');
    context.skip();
  }
  expect(records(WHOLE).length).toBe(217);
  expect(notEqual(WHOLE)).toEqual([]);
});

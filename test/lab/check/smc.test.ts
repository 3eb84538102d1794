import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parseRecords } from '../../../src/lab/check/record.js';
import { smcChecker } from '../../../src/lab/check/smc.js';
import type { CheckOptions } from '../../../src/lab/check/kind.js';
import { labBooter } from '../../../src/node/boot.js';
import { PACKAGE_ROOT } from '../../../src/node/files.js';
import { InterpreterRunner } from '../../../src/lab/check/runner.js';

const SAMPLE = join(PACKAGE_ROOT, 'test/vectors/smc/sample.jsonl');
const OPTIONS: CheckOptions = {
  runner: new InterpreterRunner(),
  decompressor: { deflate: (bytes) => bytes, brotli: (bytes) => bytes },
};

it('does what real kernels did, as far as they had no RDMA in it', async () => {
  const boot = await labBooter();
  const checker = smcChecker(async () => boot());
  const records = parseRecords('sample.jsonl', readFileSync(SAMPLE, 'utf8'));
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const different: string[] = [];
  for (const record of records) {
    const result = await checker.kind.check(record, OPTIONS, records);
    counts[result.status]++;
    if (result.status === 'failed') different.push(`${result.name}: ${result.difference}`);
  }
  checker.close();
  expect(different).toEqual([]);
  expect(counts).toEqual({ passed: 389, failed: 0, skipped: 11 });
});

it('tells what is different', async () => {
  const boot = await labBooter();
  const checker = smcChecker(async () => boot());
  const [record] = parseRecords(
    'x',
    '{"run":"stock-6.12","x":"sock_min","rcvbuf":1,"sndbuf":4608}',
  );
  if (!record) throw new Error('no record');
  const result = await checker.kind.check(record, OPTIONS, [record]);
  checker.close();
  expect(result).toMatchObject({ status: 'failed', difference: 'rcvbuf 2304, kernel 1' });
});

it.each<[string, RegExp, string]>([
  ['a cursor', /"tx_cons":\[0,2304\]/, '"tx_cons":[0,2303]'],
  ['when there was room', /"bytes_until_pollout":2305/, '"bytes_until_pollout":2304'],
  ['a proposal', /"data":"e2d4c3d901009c22/, '"data":"e2d4c3d901009c26'],
  ['a state', /"state":24/, '"state":23'],
  ['a user EID', /"453320/, '"453420'],
])('notices that %s is not what it was', async (_what, pattern, other) => {
  const text = readFileSync(SAMPLE, 'utf8');
  const line = text.split('\n').findIndex((each) => pattern.test(each));
  const [run] = /"run":"[^"]*"/.exec(text.split('\n')[line] ?? '') ?? [''];
  const lines = text
    .split('\n')
    .map((each, i) => (i === line ? each.replace(pattern, other) : each));
  const near = lines.slice(Math.max(0, line - 30), line + 1).filter((each) => each.includes(run));
  const checker = smcChecker(async () => (await labBooter())());
  const records = parseRecords('x', near.join('\n'));
  const last = records.at(-1);
  const result = last && (await checker.kind.check(last, OPTIONS, records));
  checker.close();
  expect(result?.status).toBe('failed');
});

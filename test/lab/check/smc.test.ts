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
  expect(counts).toEqual({ passed: 313, failed: 0, skipped: 13 });
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

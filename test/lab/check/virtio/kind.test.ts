/** The dispatch over records of virtio guests: all kinds by their fields, and records that are none. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { checkFile } from '../../../../src/lab/check/check-file.js';
import type { CaseResult } from '../../../../src/lab/check/kind.js';
import { InterpreterRunner } from '../../../../src/lab/check/runner.js';
import { VirtioKind } from '../../../../src/lab/check/virtio/kind.js';
import { bootLab } from '../../../../src/node/boot.js';
import { PACKAGE_ROOT } from '../../../../src/node/files.js';

let kind: VirtioKind;

beforeAll(() => {
  kind = new VirtioKind(() => bootLab(), 'interpreter');
});

afterAll(() => kind.close());

function unused(): never {
  throw new Error('nothing is compressed');
}

async function check(text: string): Promise<CaseResult[]> {
  const decompressor = { deflate: unused, brotli: unused };
  const options = { runner: new InterpreterRunner(), decompressor };
  const results: CaseResult[] = [];
  for await (const result of checkFile('x.jsonl', text, options, [kind])) results.push(result);
  return results;
}

function sample(name: string, type: string): string {
  const path = resolve(PACKAGE_ROOT, 'test/vectors/virtio', name);
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines.find((line) => line.includes(`"type":"${type}"`)) ?? '';
}

test.each([
  ['packets.jsonl', 'packet'],
  ['attach.jsonl', 'attach'],
  ['attach.jsonl', 'limit'],
  ['attach.jsonl', 'offload-state'],
  ['attach.jsonl', 'crash'],
  ['rss.jsonl', 'rss'],
  ['rss.jsonl', 'rss-default'],
])('%s: %s', async (file, type) => {
  const [result] = await check(sample(file, type));
  expect(result?.status).toBe('passed');
  expect(result?.name).toContain(type);
});

test.each([
  ['packets.jsonl', 'packet', { kernel_version: '6.6.30' }, 'the driver of 6.6.30 is not modelled'],
  ['packets.jsonl', 'packet', { xdp: 'drv', program: 'sing' }, 'no program sing is known'],
  ['attach.jsonl', 'attach', { case: 'sing', mtu: undefined }, 'no attach case sing is known'],
  ['attach.jsonl', 'crash', { program: 'sing' }, 'no program sing is known'],
])('%s, %s: %o is skipped', async (file, type, change, why) => {
  const record = JSON.parse(sample(file, type)) as Record<string, unknown>;
  const [result] = await check(JSON.stringify({ ...record, ...change }));
  expect(result).toMatchObject({ status: 'skipped', reason: why });
});

test('a wrong measurement is a failure that names both', async () => {
  const record = JSON.parse(sample('packets.jsonl', 'packet')) as Record<string, unknown>;
  const [result] = await check(JSON.stringify({ ...record, drop_reasons: ['TCP_CSUM x'] }));
  expect(result).toMatchObject({ status: 'failed' });
  expect(JSON.stringify(result)).toContain('TCP_CSUM x');
});

test.each([
  [{ type: 'packet', kernel_version: '6.1.1' }, 'x.jsonl:1: field rx_mode is not of kind string'],
  [
    { type: 'limit', kernel_version: '6.1.1', rx_mode: 'small', what: 'x', frame_len: '5' },
    'x.jsonl:1: field frame_len is not of kind number',
  ],
  [{ type: 'packets', kernel_version: '6.1.1' }, 'x.jsonl:1: no known kind of vector'],
])('%o', async (record, message) => {
  await expect(check(JSON.stringify(record))).rejects.toThrow(message);
});

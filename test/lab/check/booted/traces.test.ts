/**
 * Executed instructions of booted kernels, where they are beside the project: all is compared, and what is changed in a file is
 * told. `test/vectors.list` has all of them.
 */
import { readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { describeCase } from '../../../../src/lab/check/check-file.js';
import { isTraceFile, readTraceFile } from '../../../../src/lab/check/booted/trace-file.js';
import { sharedFile } from '../../../helpers/shared.js';
import { BootedFiles } from './samples.js';

const files = new BootedFiles();
afterAll(() => files.close());

const GRAPH = sharedFile('vectors', 'kernel', '6.12-max', 'trace.14_fentry_and_graph.call.txt');
const FPROBE = sharedFile(
  'vectors',
  'kernel',
  '7.2-max',
  'trace.19_kprobe_fprobe.call_fprobe_fentry.txt',
);

async function check(path: string, change: (text: string) => string): Promise<string> {
  const results = await files.checkTrace(path, change(readFileSync(path, 'utf8')));
  return results.map(describeCase).join('\n');
}

describe.skipIf(!GRAPH || !FPROBE)('a trace', () => {
  const graph = GRAPH ?? '';

  it('of fentry and the graph tracer, and of fprobe and fentry', async () => {
    expect(await check(graph, (text) => text)).toBe('PASS 14_fentry_and_graph.call');
    expect(await check(FPROBE ?? '', (text) => text)).toBe(
      'PASS 19_kprobe_fprobe.call_fprobe_fentry',
    );
  });

  it.each([
    ['a word', / a9097bfd | a9077bfd ftrace_caller/, ' a9067bfd ftrace_caller', /ours is a9077bfd/],
    ['a value', /(?<row>test1\+0x8 .* x0=0x)2/, '$<row>3', /x0 is 0x3, ours 0x2/],
    [
      'a row',
      /.* return_to_handler\+0x4 .*\n/,
      '',
      /return_to_handler\+0x8 .*: ours is at return_to_handler\+0x4/,
    ],
    ['a target', / 97d17f81 /, ' 97d17f82 ', /bpf_fentry_test1\+0x4 .*: ours is /],
    [
      'the way of sp',
      /(?<row>ftrace_caller\+0x18 .* sp=0x\w+)60/,
      '$<row>70',
      /sp has moved by -128, ours by -144/,
    ],
  ])('of which %s is changed', async (_, from, to, message) => {
    const told = await check(graph, (text) => text.replace(from, to));
    expect(told).toMatch(/^FAIL /);
    expect(told).toMatch(message);
  });
});

it('has columns', () => {
  const text = [
    '# 6.12 cpu 04_fentry_min.call: 1 instructions from f+0x0 back to g+0x4; by symbol: {}',
    '# columns: pc word symbol disassembly registers-changed',
    'ffff800080bccaf0 aa1e03e9 f+0x0    mov x9, x30      x9=0xffff800080bceb98 sp=0x10',
    '',
  ].join('\n');
  expect(isTraceFile(text)).toBe(true);
  const { release, scenario, label, rows } = readTraceFile('t', text);
  expect([release, scenario, label]).toEqual(['6.12', '04_fentry_min', 'call']);
  expect(rows[0]?.text).toBe('mov x9, x30');
  expect([...(rows[0]?.changes ?? [])]).toEqual([
    ['x9', 0xffff800080bceb98n],
    ['sp', 0x10n],
  ]);
  expect(() => readTraceFile('t', text.replace('aa1e03e9', 'zz'))).toThrow('t:3');
});

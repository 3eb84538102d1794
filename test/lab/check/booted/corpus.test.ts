import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { describeCase } from '../../../../src/lab/check/check-file.js';
import { BootedFiles, readJson, SAMPLES } from './samples.js';

interface File {
  kernel: string;
  programs: { name: string; [field: string]: unknown }[];
  failed: { name: string; err: number }[];
}

const files = new BootedFiles();
afterAll(() => files.close());

const sample = (folder: string): string => join(SAMPLES, folder, 'jit-corpus.json');

/** Reasons, each once. */
const REASONS = [
  'jiffies are read from memory there; no tick counts them here',
  'map look-ups are inlined there, calls here',
  'may_goto is limited by time there, by a count here',
  'reads a socket buffer, which there is none of here',
];

describe('small programs of a booted kernel', () => {
  it.each([
    ['6.1-max', 'jit'],
    ['6.12-max', 'jit'],
    ['7.2-max', 'jit'],
    ['6.12-max', 'interpreter'],
    ['6.12-max', 'wasm'],
  ] as const)('%s, run as %s', async (folder, engine) => {
    const results = await files.check(sample(folder), engine);
    expect(results.filter(({ status }) => status === 'failed').map(describeCase)).toEqual([]);
    const reasons = results.flatMap((each) => (each.status === 'skipped' ? [each.reason] : []));
    expect(REASONS).toEqual(expect.arrayContaining([...new Set(reasons)]));
    expect(results.filter(({ status }) => status === 'passed').length).toBeGreaterThan(130);
  });

  /** A field of a program changed, and what is said. */
  const CHANGES: readonly (readonly [string, string, (old: string) => unknown, RegExp])[] = [
    [
      'fibonacci_20',
      'jited',
      (hex) => hex.replace('070080d2', '270080d2'),
      /image: word 7 is d2800027 \(mov x7, #1\), ours d2800007/,
    ],
    ['ret0', 'jited', (hex) => hex.replace('3f2303d5', '1f2003d5'), /image: word 2 is d503201f/],
    [
      'fibonacci_20',
      'xlated',
      (hex) => hex.replace('b702000014', 'b702000015'),
      /xlated: insn 2 is 'r2 = 21', ours 'r2 = 20'/,
    ],
    ['fibonacci_20', 'retval', () => 6764, /run: retval is 6764, ours 6765/],
    ['atomic_add_w', 'data_out', (hex) => hex.replace('fdde', 'fddf'), /run: data_out is/],
    ['b2b_nested', 'xlated', (hex) => hex.replace('64000000', '65000000'), /xlated: function 2/],
    ['stack_far', 'jited', (hex) => hex.replaceAll('ff0308d1', 'ffc307d1'), /stack of function 0/],
  ];

  it.each(CHANGES)('%s with another %s fails', async (name, field, change, message) => {
    const json = readJson(sample('6.12-max')) as File;
    const program = json.programs.find((each) => each.name === name);
    if (!program) throw new Error(`no ${name}`);
    const old = program[field];
    program[field] = change(typeof old === 'string' ? old : '');
    expect(program[field]).not.toBe(old);
    const needed = ['call_ktime', name];
    json.programs = json.programs.filter((each) => needed.includes(each.name));
    const results = await files.check(sample('6.12-max'), 'interpreter', json);
    expect(results.map(describeCase).join('\n')).toMatch(message);
  });

  it('a program that the kernel refused must be refused with its errno', async () => {
    const json = readJson(sample('6.1-max')) as File;
    json.programs = json.programs.filter(({ name }) => name === 'call_ktime');
    for (const each of json.failed) each.err = -13;
    const results = await files.check(sample('6.1-max'), 'interpreter', json);
    const lines = results.map(describeCase).filter((line) => line.includes('refused'));
    expect(lines).toContain('FAIL movsx64_8: refused: expected -EACCES, got -EINVAL');
    expect(lines).toContain('FAIL gotol: refused: expected -EACCES, got -ENOTSUPP');
    expect(lines.length).toBe(29);
  });

  it('a kernel without a profile is named', async () => {
    const json = readJson(sample('6.1-max')) as File;
    json.kernel = '5.15';
    await expect(files.check(sample('6.1-max'), 'jit', json)).rejects.toThrow(
      "kernel '5.15': no profile for 5.15 (there are: 6.1, 6.12, 6.18, 7.2, 7.3)",
    );
  });
});

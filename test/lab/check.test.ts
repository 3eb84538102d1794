import { readFileSync } from 'node:fs';
import { brotliDecompressSync, deflateSync, inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { checkFile, describeCase, summarize } from '../../src/lab/check/check-file.js';
import type { CaseResult, CheckOptions, VectorKind } from '../../src/lab/check/kind.js';
import { InterpreterRunner } from '../../src/lab/check/runner.js';
import { sharedFile } from '../helpers/shared.js';

const options: CheckOptions = {
  runner: new InterpreterRunner(),
  decompressor: {
    deflate: (bytes) => inflateSync(bytes),
    brotli: (bytes) => brotliDecompressSync(bytes),
  },
};

async function check(
  name: string,
  text: string,
  kinds?: readonly VectorKind[],
): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  for await (const result of checkFile(name, text, options, kinds)) results.push(result);
  return results;
}

const RETURN_7 = 'b7000000070000009500000000000000';
const conformance = (fields: object): string =>
  JSON.stringify({
    name: 'x',
    cpu: 'v1',
    groups: ['base64'],
    insns_hex: RETURN_7,
    mem_hex: null,
    expected_r0: '7',
    ...fields,
  });
const ubpf = (fields: object): string =>
  conformance({ error_stage: null, asm_only: false, expected_error: null, ...fields });
const testBpf = (fields: object): string =>
  JSON.stringify({
    name: 't',
    is_classic: false,
    flags: [],
    subtests: [{ data_size: 0, expected: '7' }],
    insns_hex: RETURN_7,
    ...fields,
  });

/** A record, and the line about it. */
const CASES: readonly (readonly [string, string])[] = [
  [conformance({}), 'PASS x'],
  [conformance({ expected_r0: '8' }), 'FAIL x: expected r0 0x8, got 0x7'],
  [
    conformance({
      mem_hex: '0102',
      insns_hex: '69100000000000000f200000000000009500000000000000',
      expected_r0: '203',
    }),
    'PASS x',
  ],
  [
    conformance({ insns_hex: '79100000000000009500000000000000' }),
    'FAIL x: expected r0 0x7, stopped: x insn 0: read of 8 bytes at 0x0000000000000000: no memory there',
  ],
  [
    conformance({ insns_hex: 'b700000007000000' }),
    'FAIL x: expected r0 0x7, refused: insn 0: missing exit, program falls off its end',
  ],
  [
    conformance({ insns_hex: '85000000060000009500000000000000' }),
    'FAIL x: expected r0 0x7, refused: insn 0: call of unknown helper 6',
  ],
  [ubpf({}), 'PASS x'],
  [ubpf({ asm_only: true }), 'SKIP x: encoder test without an expected result'],
  [ubpf({ error_stage: 'run', insns_hex: '720a0000000000009500000000000000' }), 'PASS x'],
  [ubpf({ error_stage: 'load', insns_hex: '0500ffff000000009500000000000000' }), 'PASS x'],
  [ubpf({ error_stage: 'load' }), 'FAIL x: expected an error at load, got 0x7'],
  [
    ubpf({ error_stage: 'run', insns_hex: 'ff00' }),
    'FAIL x: expected an error at run, refused: program x: 2 bytes are no multiple of 8',
  ],
  [testBpf({}), 'PASS t'],
  [
    testBpf({
      insns_hex: undefined,
      insns_deflate_b64: deflateSync(Buffer.from(RETURN_7, 'hex')).toString('base64'),
    }),
    'PASS t',
  ],
  [
    testBpf({
      subtests: [
        { data_size: 0, expected: '7' },
        { data_size: 1, expected: 'ff' },
      ],
    }),
    'FAIL t: expected w0 0xff, got 0x7',
  ],
  [
    testBpf({
      flags: ['large_mem'],
      subtests: [{ data_size: 8, expected: '0' }],
      insns_hex: '79100000000000009500000000000000',
    }),
    'PASS t',
  ],
];

describe('check', () => {
  it.each(CASES)('case %#', async (record, line) => {
    const results = await check('file.jsonl', record);
    expect(results.map(describeCase)).toEqual([line]);
  });

  it('runs the helpers of each kind', async () => {
    const unwind = 'b7010000000000008500000005000000b7000000020000009500000000000000';
    const gather =
      'b701000001000000b702000002000000b703000003000000b704000004000000b7050000050000008500000000000000' +
      '9500000000000000';
    const squareRoot = 'b70100001004000085000000030000009500000000000000';
    const records = [
      conformance({ insns_hex: unwind, expected_r0: '0' }),
      ubpf({ insns_hex: gather, expected_r0: '102030405' }),
      ubpf({ insns_hex: squareRoot, expected_r0: '20' }),
    ];
    const results = await check('file.jsonl', records.join('\n'));
    expect(results.map(describeCase)).toEqual(['PASS x', 'PASS x', 'PASS x']);
  });

  it('reads JSON lists and single objects too', async () => {
    const list = `[${conformance({})},\n ${conformance({ name: 'y' })}]`;
    expect(summarize(await check('list.json', list))).toBe('2 passed, 0 failed');
    const one = JSON.stringify(JSON.parse(conformance({})), undefined, 1);
    expect(summarize(await check('one.json', one))).toBe('1 passed, 0 failed');
  });

  it('lets others add kinds', async () => {
    const kind: VectorKind = {
      name: 'mine',
      matches: (record) => record.has('mine'),
      check: async (record) => ({ name: record.name, status: 'skipped', reason: 'no engine' }),
    };
    expect(summarize(await check('f', '{"mine":1}', [kind]))).toBe('0 passed, 0 failed, 1 skipped');
  });

  it.each([
    ['', 'f: empty file'],
    ['\n{"a":1}', 'f:2: no known kind of vector (fields a)'],
    [`${conformance({})}\n{"a":`, 'f:2: not JSON: '],
    ['7', 'f:1: not a record'],
    ['{"is_classic":true}', 'f:1: no known kind of vector (fields is_classic)'],
    ['{"set":"base","hex":"00"}', 'f:1: a packet: is a side file of other vectors'],
    [testBpf({ subtests: 3 }), 'f:1: field subtests is not a list'],
    [conformance({ expected_r0: 'zz' }), 'f:1: field expected_r0 is not a hex number'],
    [conformance({ insns_hex: undefined }), 'f:1: no instructions (insns_hex)'],
  ])('refuses %j', async (text, message) => {
    await expect(check('f', text)).rejects.toThrow(message);
  });

  it('runs the small benchmark programs of this project', async () => {
    const text = readFileSync(
      new URL('../vectors/bpf/bench-programs.jsonl', import.meta.url),
      'utf8',
    );
    const small = text.split('\n').filter((line) => /-small"|-linux-xdp"/.test(line));
    expect(summarize(await check('bench', small.join('\n')))).toBe('9 passed, 0 failed, 7 skipped');
  });
});

/** Files of other projects' tests, and what must come out. */
const CORPORA: readonly (readonly [string, string])[] = [
  ['conformance', '313 passed, 0 failed'],
  ['ubpf', '68 passed, 0 failed, 7 skipped'],
  ['ubpf-giant', '0 passed, 0 failed, 1 skipped'],
  ['test_bpf', '473 passed, 0 failed'],
];

describe.each(CORPORA)('test corpus %s', (name, summary) => {
  const file = sharedFile('vectors', 'bpf', `${name}.jsonl`);
  it.skipIf(file === undefined)(`gives ${summary}`, async () => {
    const results = await check(`${name}.jsonl`, readFileSync(file ?? '', 'utf8'));
    const bad = results.filter(({ status }) => status === 'failed').map(describeCase);
    expect(bad).toEqual([]);
    expect(summarize(results)).toBe(summary);
  });
});

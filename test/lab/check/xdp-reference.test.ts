import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync, inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { checkFile, describeCase, summarize } from '../../../src/lab/check/check-file.js';
import type { CaseResult, CheckOptions } from '../../../src/lab/check/kind.js';
import { interpreterObjects, wasmObjects } from '../../../src/lab/check/object-engine.js';
import { InterpreterRunner } from '../../../src/lab/check/runner.js';
import { jitObjects } from '../../../src/lab/check/jit-objects.js';
import { labBooter } from '../../../src/node/boot.js';
import { factories } from '../../helpers/cpus.js';
import { sharedFile } from '../../helpers/shared.js';

const sample = fileURLToPath(new URL('../../vectors/xdp', import.meta.url));

function optionsFor(folder: string, objectEngine = interpreterObjects): CheckOptions {
  return {
    runner: new InterpreterRunner(),
    decompressor: {
      deflate: (bytes) => inflateSync(bytes),
      brotli: (bytes) => brotliDecompressSync(bytes),
    },
    objectEngine,
    readSibling: (name) => readFileSync(join(folder, name)),
  };
}

async function check(
  folder: string,
  name: string,
  text?: string,
  engine = interpreterObjects,
): Promise<CaseResult[]> {
  const content = text ?? readFileSync(join(folder, name), 'utf8');
  const results: CaseResult[] = [];
  for await (const result of checkFile(name, content, optionsFor(folder, engine)))
    results.push(result);
  return results;
}

describe('XDP programs do what a real kernel did', () => {
  it.each([interpreterObjects, wasmObjects])('in the sample, $name', async (engine) => {
    const results = await check(sample, 'reference.jsonl', undefined, engine);
    expect(results.filter(({ status }) => status !== 'passed').map(describeCase)).toEqual([]);
    expect(results.length).toBeGreaterThan(10);
  });

  it.each([
    ['embedded', /./],
    ['unicorn', /tail_|frags_|nested_|spin_/],
  ] as const)('as JIT images on %s', async (name, which) => {
    const factory = factories.find((each) => each.name === name);
    if (!factory) return console.log(`notice: ${name} is not here`);
    const boot = await labBooter(name);
    const engine = jitObjects(name, (options) => boot({ ...options, version: '7.3' }));
    const lines = readFileSync(join(sample, 'reference.jsonl'), 'utf8').split('\n');
    const text = lines.filter((line) => which.test(line.slice(0, 60))).join('\n');
    const results = await check(sample, 'x', text, engine);
    expect(results.filter(({ status }) => status !== 'passed').map(describeCase)).toEqual([]);
    expect(results.length).toBeGreaterThan(1);
  });

  it.each([
    ['verdict', /"retval": ?2/, '"retval": 1', /packet \S+: verdict 2, kernel 1$/],
    ['map', /"value_hex": ?"[0-9a-f]+"(?=[^[]*$)/, '"value_hex":"77"', /map \S+: entry \d+ /],
    ['packet', /"out_hex": ?"/, '"out_hex":"00', /packet \S+: packet /],
  ])('and a changed %s is told', async (_, pattern, replacement, expected) => {
    const lines = readFileSync(join(sample, 'reference.jsonl'), 'utf8').split('\n');
    const line = lines.find(
      (each) => pattern.test(each) && each.includes('flow_count') === (_ === 'map'),
    );
    const results = await check(sample, 'x', (line ?? '').replace(pattern, replacement));
    expect(results.map(({ status }) => status)).toEqual(['failed']);
    expect(results.map(describeCase)[0]).toMatch(expected);
  });

  it('and packets are a side file', async () => {
    await expect(check(sample, 'packets.jsonl')).rejects.toThrow(
      'packets.jsonl:1: a packet: is a side file of other vectors',
    );
  });
});

describe('test_bpf', () => {
  const classic = sharedFile('vectors', 'bpf', 'test_bpf-classic.jsonl');

  it.runIf(classic)('classic programs return what they shall', async () => {
    const results = await check(sample, 'c', readFileSync(classic ?? '', 'utf8'));
    expect(results.filter(({ status }) => status === 'failed').map(describeCase)).toEqual([]);
    expect(results.filter(({ status }) => status === 'passed').length).toBeGreaterThanOrEqual(77);
  });

  const tailCalls = sharedFile('vectors', 'bpf', 'test_bpf-tailcalls.jsonl');

  it.runIf(tailCalls)('tail calls end after 33', async () => {
    const results = await check(sample, 't', readFileSync(tailCalls ?? '', 'utf8'));
    expect(summarize(results)).toBe('10 passed, 0 failed');
  });
});

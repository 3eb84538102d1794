import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseRecords, type VectorRecord } from '../../../src/lab/check/record.js';
import type { CheckOptions } from '../../../src/lab/check/kind.js';
import { jitKind } from '../../../src/lab/check/jit-vectors.js';
import { SAMPLE } from '../../jit/shared.js';

/** Nothing is run and nothing is compressed: touching either is an error. */
const OPTIONS = {} as CheckOptions;

function records(file: string): VectorRecord[] {
  return parseRecords(file, readFileSync(join(SAMPLE, file), 'utf8'));
}

describe('check of JIT output', () => {
  it.each(['prog-real-6.12.jsonl', 'tramp-7.3.jsonl', 'poke-6.1.jsonl', 'insngen-6.12.jsonl'])(
    '%s passes',
    async (file) => {
      for (const record of records(file)) {
        expect(jitKind.matches(record)).toBe(true);
        expect((await jitKind.check(record, OPTIONS, [])).status).toBe('passed');
      }
    },
  );

  it('fails with the first difference, or with the refusal', async () => {
    const [record] = records('insngen-6.12.jsonl');
    if (record === undefined) throw new Error('no record');
    const check = async (fields: Record<string, unknown>): Promise<unknown> => {
      const [changed] = parseRecords('x', JSON.stringify({ ...record.fields, ...fields }));
      return changed && jitKind.check(changed, OPTIONS, []);
    };
    expect(await check({ word: '14000002' })).toMatchObject({
      status: 'failed',
      difference: expect.stringContaining('word 0 is 14000002'),
    });
    const config = { pac: 0, bti: 0 };
    const cpu = { lse: 1, vhe: 0, sb: 0 };
    const funcs = [{ insns: '8d00000000000000', stack_depth: 0, image_base: '0x1000' }];
    expect(await check({ cat: 'op', config, cpu, funcs })).toMatchObject({
      status: 'failed',
      difference: expect.stringContaining('opcode 0x8d not supported'),
    });
  });

  it('leaves other records to other kinds', () => {
    const [other] = parseRecords('x', '{"name":"add","insns":""}');
    expect(other && jitKind.matches(other)).toBe(false);
  });
});

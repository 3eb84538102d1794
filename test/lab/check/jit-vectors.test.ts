import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { embeddedFactory, type CpuFactory } from '../../../src/cpu/engines.js';
import { Fields } from '../../../src/jit/vectors/fields.js';
import { compileProgramRecord, execExpectation } from '../../../src/jit/vectors/program.js';
import { describeCase } from '../../../src/lab/check/check-file.js';
import { ExecMachines } from '../../../src/lab/check/exec-machines.js';
import { parseRecords, VectorRecord } from '../../../src/lab/check/record.js';
import { InterpreterRunner } from '../../../src/lab/check/runner.js';
import { factories } from '../../helpers/cpus.js';
import type { CheckOptions } from '../../../src/lab/check/kind.js';
import { jitKind } from '../../../src/lab/check/jit-vectors.js';
import { SAMPLE } from '../../jit/shared.js';

/** Nothing is run and nothing is compressed: touching either is an error. */
const OPTIONS = {} as CheckOptions;

function records(file: string): VectorRecord[] {
  return parseRecords(file, readFileSync(join(SAMPLE, file), 'utf8'));
}

describe('programs of JIT records run', () => {
  const withExec = (kernel: string): VectorRecord[] =>
    records(`prog-random-${kernel}.jsonl`).filter((record) => record.has('exec'));
  const statuses = async (
    list: readonly VectorRecord[],
    options: Partial<CheckOptions>,
  ): Promise<string[]> => {
    const results = await Promise.all(
      list.map((record) => jitKind.check(record, { ...OPTIONS, ...options }, [])),
    );
    return results.map((result) => describeCase(result));
  };
  const spoilt = (record: VectorRecord): VectorRecord => {
    const exec = { ...(record.fields['exec'] as object), r0: '00000000deadbeef' };
    return new VectorRecord('x', { ...record.fields, exec });
  };

  describe.each(['6.1', '6.12', '7.3'])('%s', (kernel) => {
    it.each([
      ['one engine', [embeddedFactory]],
      ['engines in lockstep', factories],
    ] as const)('as images on %s', async (_name, engines) => {
      const list = withExec(kernel);
      const imageMachines = new ExecMachines(engines);
      const passes = await statuses(list, { imageMachines });
      expect(passes).toEqual(list.map(({ name }) => `PASS ${name}`));
      const [record] = list.map(spoilt);
      expect(await statuses(record ? [record] : [], { imageMachines })).toEqual([
        expect.stringMatching(/^FAIL .*: run on embedded: r0 0xdeadbeef, ours 0x/),
      ]);
      imageMachines.close();
    });

    it('as BPF instructions', async () => {
      const list = withExec(kernel);
      const runner = new InterpreterRunner();
      expect(await statuses(list, { runner })).toEqual(list.map(({ name }) => `PASS ${name}`));
      expect((await statuses(list.slice(0, 1).map(spoilt), { runner })).join()).toMatch(
        /^FAIL .*: run on interpreter: r0 0xdeadbeef, ours got 0x/,
      );
    });
  });

  it('engines that disagree are told with the instruction', () => {
    const [record] = withExec('6.12');
    if (!record) throw new Error('no record');
    const fields = new Fields('x', record.fields);
    const [image] = compileProgramRecord(fields).functions;
    const exec = execExpectation(fields);
    if (!image || !exec) throw new Error('no image');
    const wrong: CpuFactory = {
      name: 'unicorn',
      create: (memory) => {
        const cpu = embeddedFactory.create(memory);
        const loadRegisters = cpu.loadRegisters.bind(cpu);
        cpu.loadRegisters = (registers) => loadRegisters({ ...registers, nzcv: 1 });
        return cpu;
      },
    };
    const machines = new ExecMachines([embeddedFactory, wrong]);
    expect(machines.difference(image, exec)).toMatch(/embedded and unicorn differ after 0 /);
    machines.close();
  });
});

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

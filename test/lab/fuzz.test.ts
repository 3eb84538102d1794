/** The generator gives valid programs, the engines agree on them, a wrong engine is found and cut down. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { helperBodies } from '../../src/bpf/helpers/table.js';
import { readSlots } from '../../src/bpf/instruction.js';
import { OPCODES } from '../../src/bpf/opcodes.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import { validate } from '../../src/bpf/validate.js';
import {
  interpreterEngine,
  jitEngine,
  wasmEngine,
  type FuzzEngine,
} from '../../src/lab/fuzz/engine.js';
import { caseOf, fuzz, minimise, treeAt } from '../../src/lab/fuzz/fuzz.js';
import { describeDifference } from '../../src/lab/fuzz/report.js';
import { checkSavedCase, isSavedCase, saveCase } from '../../src/lab/fuzz/saved.js';
import { countNodes } from '../../src/lab/fuzz/tree.js';
import { parseRecords } from '../../src/lab/check/record.js';
import { bootLab } from '../../src/node/boot.js';
import { factories } from '../helpers/cpus.js';
import { runForTest } from '../helpers/cli.js';

const plainHost = (): PlainHost => new PlainHost({ helpers: helperBodies() });

describe('generated programs', () => {
  it('are valid and the same for the same seed', () => {
    for (let index = 0; index < 300; index++) {
      const { insns } = caseOf(treeAt(3, index, { maps: false }));
      expect(validate(rawProgram('case', insns).functions)).toEqual([]);
      expect(caseOf(treeAt(3, index, { maps: false })).insns).toEqual(insns);
    }
  });

  it('use every arithmetic, jump, load, store and atomic opcode', () => {
    const seen = new Set<number>();
    for (let index = 0; index < 600; index++) {
      for (const { code } of readSlots(caseOf(treeAt(5, index)).insns)) seen.add(code);
    }
    const wanted = ['alu', 'neg', 'end', 'jump', 'load', 'store'];
    const missing = OPCODES.flatMap((opcode, code) =>
      opcode && wanted.includes(opcode.kind) && !seen.has(code)
        ? [[code.toString(16), opcode]]
        : [],
    ).filter(([, opcode]) => !(opcode as { probe?: boolean }).probe);
    expect(missing).toEqual([]);
  });

  it('return, each in its own way', () => {
    const engine = interpreterEngine(plainHost());
    const ends = new Set<string>();
    for (let index = 0; index < 200; index++) ends.add(engine.run(caseOf(treeAt(9, index))).end);
    expect([...ends].filter((end) => !end.startsWith('return'))).toEqual([]);
    expect(ends.size).toBeGreaterThan(150);
  });
});

describe('the engines agree', () => {
  const engines: FuzzEngine[] = [];
  beforeAll(async () => {
    engines.push(interpreterEngine(plainHost()), wasmEngine(plainHost()));
    for (const { name } of factories) engines.push(jitEngine(await bootLab({ engine: name })));
  });
  afterAll(() => {
    for (const engine of engines) engine.close();
  });

  it('on 400 random programs', () => {
    expect(fuzz(engines, { seed: 11, count: 400 })).toBeUndefined();
  });

  it('on large ones', () => {
    expect(fuzz(engines, { seed: 12, count: 20, size: 200 })).toBeUndefined();
  });
});

describe('a wrong engine', () => {
  /** Loses the carry out of the low half in one operation: xor of two registers gives or. */
  function wrongEngine(): FuzzEngine {
    const engine = interpreterEngine(plainHost());
    const XOR64_REG = 0xaf;
    const OR64_REG = 0x4f;
    return {
      ...engine,
      name: 'wrong',
      run: (fuzzCase) => {
        const insns = fuzzCase.insns.slice();
        for (let at = 0; at < insns.length; at += 8) {
          if (insns[at] === XOR64_REG) insns[at] = OR64_REG;
          if (insns[at] === 0x18) at += 8;
        }
        return engine.run({ ...fuzzCase, insns });
      },
    };
  }

  it('is found, and the program is cut down to the one instruction', () => {
    const engines = [interpreterEngine(plainHost()), wrongEngine()];
    const difference = fuzz(engines, { seed: 1, count: 1000 });
    if (!difference) throw new Error('not found');
    const smallest = minimise(difference);
    expect(countNodes(smallest.tree)).toBeLessThanOrEqual(2);
    expect(readSlots(smallest.fuzzCase.insns).filter(({ code }) => code === 0xaf)).toHaveLength(1);
    const lines = describeDifference(smallest);
    expect(lines[0]).toBe(`program ${difference.index}: interpreter and wrong differ`);
    expect(lines.join('\n')).toMatch(/\(af\) r\d \^= r\d/);
  });

  it('gives a record that can be checked again', () => {
    const [right, wrong] = [interpreterEngine(plainHost()), wrongEngine()] as const;
    const difference = fuzz([right, wrong], { seed: 1, count: 1000 });
    if (!difference) throw new Error('not found');
    const text = saveCase('found', difference.fuzzCase, difference.outcomes[0]);
    const [record] = parseRecords('saved.jsonl', text);
    if (!record) throw new Error('no record');
    expect(isSavedCase(record)).toBe(true);
    expect(checkSavedCase(record, right)).toMatchObject({ status: 'passed' });
    expect(checkSavedCase(record, wrong)).toMatchObject({ status: 'failed' });
  });
});

describe('trampolab fuzz', () => {
  it.each<[string[], number, RegExp]>([
    [['--count', '5'], 0, /^5 programs from seed 1: interpreter, wasm, embedded agree$/],
    [['--count', '10', '--shard', '2/4', '--engine', 'interpreter,wasm'], 0, /^3 programs/],
    [['--shard', '5/4'], 2, /--shard takes I\/N/],
    [['--engine', 'interpreter'], 2, /two engines or more/],
    [['--engine', 'interpreter,warp'], 2, /no engine 'warp'/],
  ])('%j', async (words, code, text) => {
    const result = await runForTest(['fuzz', ...words]);
    expect(result.code).toBe(code);
    expect([...result.lines, ...result.notices].join('\n').replace(/^Error: /, '')).toMatch(text);
  });
});

/** The generator gives valid programs, the engines agree on them, a wrong engine is found and cut down. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeSlots, makeSlot, readSlots } from '../../../src/bpf/instruction.js';
import { ATOMIC, OPCODES } from '../../../src/bpf/opcodes.js';
import { validate } from '../../../src/bpf/validate.js';
import { functionsOf, type FuzzCase } from '../../../src/lab/fuzz/case.js';
import { caseOf } from '../../../src/lab/fuzz/emit-tree.js';
import {
  interpreterEngine,
  sampled,
  wasmEngine,
  type FuzzEngine,
} from '../../../src/lab/fuzz/engine.js';
import { fuzz, treeAt } from '../../../src/lab/fuzz/fuzz.js';
import { ALL_FEATURES } from '../../../src/lab/fuzz/generate.js';
import { jitEngine } from '../../../src/lab/fuzz/jit-engine.js';
import { KernelWorkbench } from '../../../src/lab/fuzz/kernel-workbench.js';
import { minimise } from '../../../src/lab/fuzz/minimise.js';
import { describeDifference } from '../../../src/lab/fuzz/report.js';
import { checkSavedCase, isSavedCase, saveCase } from '../../../src/lab/fuzz/saved.js';
import { countNodes } from '../../../src/lab/fuzz/tree.js';
import { parseRecords } from '../../../src/lab/check/record.js';
import { bootLab } from '../../../src/node/boot.js';
import { factories } from '../../helpers/cpus.js';
import { runForTest } from '../../helpers/cli.js';

const V3 = { v4: false, acquireRelease: false, sharedTailCallCount: false };

describe('generated programs', () => {
  it('are valid and the same for the same seed', () => {
    for (let index = 0; index < 300; index++) {
      const { programs } = caseOf(treeAt(3, index));
      for (const program of programs) expect(validate(functionsOf(program))).toEqual([]);
      expect(caseOf(treeAt(3, index)).programs).toEqual(programs);
    }
  });

  it('use every arithmetic, jump, load, store and atomic operation', () => {
    const seen = new Set<number>();
    const atomics = new Set<number>();
    for (let index = 0; index < 2000; index++) {
      for (const program of caseOf(treeAt(5, index)).programs) {
        for (const { insns } of program) {
          for (const { code, imm } of readSlots(insns)) {
            seen.add(code);
            if (OPCODES[code]?.kind === 'atomic') atomics.add(imm);
          }
        }
      }
    }
    const wanted = ['alu', 'neg', 'end', 'jump', 'goto', 'load', 'store', 'tail_call', 'call'];
    const missing = OPCODES.flatMap((opcode, code) =>
      opcode && wanted.includes(opcode.kind) && !seen.has(code)
        ? [[code.toString(16), opcode]]
        : [],
    ).filter(([, opcode]) => {
      const { kind, probe, source } = opcode as { kind: string; probe?: boolean; source?: string };
      return !probe && !(kind === 'call' && source === 'register');
    });
    expect(missing).toEqual([]);
    expect([...atomics].sort()).toEqual(ATOMIC.map(({ imm }) => imm).sort());
  });

  it('have frames of many shapes and nest eight deep', () => {
    const depths = new Set<number>();
    let most = 0;
    for (let index = 0; index < 500; index++) {
      for (const program of caseOf(treeAt(6, index)).programs) {
        most = Math.max(most, program.length);
        for (const { stackDepth } of program) depths.add(stackDepth);
      }
    }
    expect(most).toBe(8);
    expect(Math.max(...depths)).toBe(512);
    expect(depths.size).toBeGreaterThan(40);
  });

  it('are of ISA v3 where that is asked for', () => {
    for (let index = 0; index < 500; index++) {
      for (const program of caseOf(treeAt(7, index, { features: V3 })).programs) {
        for (const { insns } of program) {
          for (const { code, off } of readSlots(insns)) {
            const opcode = OPCODES[code];
            expect(code).not.toBe(0x06);
            if (opcode?.kind === 'alu') expect(off).toBe(0);
            if (opcode?.kind === 'load') expect(opcode.signed).toBe(false);
            if (opcode?.kind === 'end') expect(opcode.to).not.toBe('swap');
          }
        }
      }
    }
  });

  it('return, each in its own way', () => {
    const cases = Array.from({ length: 200 }, (_, index) => caseOf(treeAt(9, index)));
    const ends = interpreterEngine()
      .run(cases)
      .map(({ end }) => end);
    expect(ends.filter((end) => !end.startsWith('return'))).toEqual([]);
    expect(new Set(ends).size).toBeGreaterThan(120);
  });
});

describe('the engines agree', () => {
  const engines: FuzzEngine[] = [];
  beforeAll(async () => {
    for (const { name } of factories) {
      const workbench = new KernelWorkbench(await bootLab({ engine: name }));
      if (engines.length === 0) engines.push(interpreterEngine(workbench), wasmEngine(workbench));
      const engine = jitEngine(workbench, { bti: true });
      engines.push(name === 'unicorn' ? sampled(engine, 5) : engine);
    }
  });
  afterAll(() => {
    for (const engine of engines) engine.close();
  });

  it('on 1000 random programs', () => {
    expect(fuzz(engines, { seed: 11, count: 1000 })).toBeUndefined();
  });

  it('on large ones', () => {
    expect(fuzz(engines, { seed: 12, count: 20, size: 150 })).toBeUndefined();
  });

  it('on branches over hundreds of kilobytes of code', () => {
    // 12,000 remainders of four words each between a jump and where it leads, forwards and back
    const filler = Array.from({ length: 12_000 }, () => makeSlot(0x97, { dst: 2, imm: 0x12345 }));
    const main = [
      makeSlot(0xb7, { dst: 0, imm: 0 }),
      makeSlot(0xb7, { dst: 2, imm: 77 }),
      makeSlot(0x15, { dst: 0, imm: 1, off: filler.length }),
      ...filler,
      makeSlot(0x07, { dst: 0, imm: 1 }),
      makeSlot(0xb5, { dst: 0, imm: 1, off: -(filler.length + 3) }),
      makeSlot(0x95),
    ];
    const far: FuzzCase = {
      programs: [[{ insns: encodeSlots(main), stackDepth: 0 }]],
      memory: new Uint8Array(8),
      maps: [],
    };
    const ends = engines.map((engine) => engine.run([far])[0]?.end);
    expect(new Set(ends)).toEqual(new Set(['return 0x0000000000000002']));
  });
});

describe('variants of the JIT', () => {
  it.each([
    ['6.1', { lse: false }, 0],
    ['7.3', { lse: false, bti: true, pac: false }, 0],
    ['6.12', {}, 256 << 20],
    ['6.12', { edge: true }, 0],
  ] as const)('%s %j with %i bytes in front', async (version, variant, vmallocUsed) => {
    const workbench = new KernelWorkbench(await bootLab({ version, vmallocUsed }));
    const engines = [interpreterEngine(workbench), jitEngine(workbench, variant)];
    expect(fuzz(engines, { seed: 13, count: 300 })).toBeUndefined();
    for (const engine of engines) engine.close();
  });
});

describe('a wrong engine', () => {
  const XOR64_REG = 0xaf;
  const OR64_REG = 0x4f;

  /** Xor of two registers gives or. */
  function wrongEngine(): FuzzEngine {
    const engine = interpreterEngine();
    const change = (insns: Uint8Array): Uint8Array => {
      const slots = readSlots(insns);
      return encodeSlots(
        slots.map((slot) => (slot.code === XOR64_REG ? { ...slot, code: OR64_REG } : slot)),
      );
    };
    const changed = ({ programs, ...rest }: FuzzCase): FuzzCase => ({
      ...rest,
      programs: programs.map((program) =>
        program.map((fn) => ({ ...fn, insns: change(fn.insns) })),
      ),
    });
    return {
      ...engine,
      name: 'wrong',
      run: (cases) => engine.run(cases.map(changed)),
      trace: (fuzzCase) => engine.trace?.(changed(fuzzCase)) ?? { steps: [], code: [], end: '' },
    };
  }

  it('is found, and the program is cut down to the one instruction', () => {
    const difference = fuzz([interpreterEngine(), wrongEngine()], { seed: 1, count: 1000 });
    if (!difference) throw new Error('not found');
    const smallest = minimise(difference);
    expect(countNodes(smallest.tree)).toBe(1);
    const [program] = smallest.fuzzCase.programs;
    const slots = readSlots(program?.[0]?.insns ?? new Uint8Array());
    expect(slots.filter(({ code }) => code === XOR64_REG)).toHaveLength(1);
    expect(slots.length).toBeLessThanOrEqual(5);
    const lines = describeDifference(smallest);
    expect(lines[0]).toBe(`program ${difference.index}: interpreter and wrong differ`);
    // the first line that is marked shows the instruction
    expect(lines.find((line) => line.startsWith('>'))).toMatch(/\(af\) r\d \^= r\d/);
  });

  it('gives a record that can be checked again', () => {
    const [right, wrong] = [interpreterEngine(), wrongEngine()] as const;
    const difference = fuzz([right, wrong], { seed: 1, count: 1000 });
    if (!difference) throw new Error('not found');
    const text = saveCase('found', difference.fuzzCase, difference.outcomes[0]);
    const [record] = parseRecords('saved.jsonl', text);
    if (!record) throw new Error('no record');
    expect(isSavedCase(record)).toBe(true);
    expect(checkSavedCase(record, right)).toMatchObject({ status: 'passed' });
    expect(checkSavedCase(record, wrong)).toMatchObject({ status: 'failed' });
  });

  it('is asked for every N-th program only when it is sampled', () => {
    const counted: number[] = [];
    const engine: FuzzEngine = {
      ...interpreterEngine(),
      features: ALL_FEATURES,
      run: (cases) => {
        counted.push(cases.length);
        return interpreterEngine().run(cases);
      },
    };
    const engines = [interpreterEngine(), sampled(engine, 20)];
    expect(fuzz(engines, { seed: 1, count: 1000, batch: 500 })).toBeUndefined();
    const total = counted.reduce((sum, count) => sum + count, 0);
    expect(total).toBeGreaterThan(25);
    expect(total).toBeLessThan(100);
    // shards have their share too
    const shard = { index: 1, of: 2 };
    expect(fuzz(engines, { seed: 1, count: 1000, batch: 500, shard })).toBeUndefined();
    expect(counted.at(-1)).toBeGreaterThan(10);
  });
});

describe('trampolab fuzz', () => {
  it.each<[string[], number, RegExp]>([
    [['--count', '5'], 0, /^5 programs from seed 1: interpreter, wasm, embedded agree$/],
    [['--count', '10', '--shard', '2/4', '--engine', 'interpreter,wasm'], 0, /^3 programs/],
    [
      ['--count', '9', '--engine', 'interpreter,embedded:7.3:nolse/3'],
      0,
      /interpreter, embedded:7.3:nolse\/3 agree$/,
    ],
    [
      ['--trampolines', '--count', '3', '--engine', 'embedded:7.3'],
      0,
      /^3 trampolines from seed 1/,
    ],
    [['--trampolines', '--engine', 'wasm'], 2, /'wasm' is no kernel/],
    [['--shard', '5/4'], 2, /--shard takes I\/N/],
    [['--engine', 'interpreter'], 2, /two engines or more/],
    [['--engine', 'interpreter,warp'], 2, /no engine 'warp'/],
    [['--engine', 'interpreter:far,wasm'], 2, /'interpreter' takes no 'far'/],
    [['--engine', 'interpreter,wasm/0'], 2, /\/N takes a whole number/],
    [['--engine', 'interpreter,wasm', '--count', '30'], 0, /^30 programs from seed 1/],
  ])('%j', async (words, code, text) => {
    const result = await runForTest(['fuzz', ...words]);
    expect(result.code).toBe(code);
    expect([...result.lines, ...result.notices].join('\n').replace(/^Error: /, '')).toMatch(text);
  });
});

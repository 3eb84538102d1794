/** Lockstep finds the first difference, whichever it is. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encode } from '../../src/a64/codec.js';
import type { Cpu } from '../../src/cpu/cpu.js';
import { embeddedFactory } from '../../src/cpu/engines.js';
import {
  compareMemory,
  compareRuns,
  lockstep,
  printDifference,
  type LockstepOptions,
  type LockstepResult,
} from '../../src/cpu/lockstep.js';
import { Memory } from '../../src/cpu/memory.js';

const TEXT = 0xffff_8000_0800_0000n;
const DATA = 0xffff_8000_0900_0000n;

const add = (rd: number, rn: number, imm12: number): number =>
  encode('ADD_immediate', { sf: 1, sh: 0, imm12, Rn: rn, Rd: rd });
const store = (rt: number, rn: number, imm12 = 0): number =>
  encode('STR_unsigned', { sf: 1, imm12, Rn: rn, Rt: rt });
const subs = encode('SUBS_immediate', { sf: 1, sh: 0, imm12: 1, Rn: 0, Rd: 0 });
const loop = encode('B_cond', { imm19: -2, cond: 1 });

describe('lockstep', () => {
  let cpus: [Cpu, Cpu];

  beforeEach(() => {
    cpus = [0, 1].map(() => {
      const memory = new Memory(1 << 20);
      memory.map({ name: 'text', address: TEXT, size: 4096, permissions: 'rx' });
      memory.map({ name: 'data', address: DATA, size: 4096, permissions: 'rw' });
      return embeddedFactory.create(memory);
    }) as [Cpu, Cpu];
  });

  afterEach(() => cpus.forEach((cpu) => cpu.close()));

  /** Both get `words`, the second with some replaced: an engine that is wrong there. */
  function prepare(words: readonly number[], wrong: Readonly<Record<number, number>> = {}): void {
    cpus.forEach((cpu, side) => {
      const own = words.map((word, index) => (side === 1 ? (wrong[index] ?? word) : word));
      cpu.memory.pokeBytes(TEXT, new Uint8Array(Uint32Array.from(own).buffer));
      cpu.sync(TEXT, TEXT + 4096n);
      cpu.pc = TEXT;
      cpu.setX(0, 3n);
      cpu.setX(1, DATA);
    });
  }

  function compare(options: LockstepOptions = {}): LockstepResult {
    const sides = cpus.map((cpu, index) => ({ name: `side ${index}`, cpu }));
    const [a, b] = sides;
    if (!a || !b) throw new Error('two sides');
    return lockstep(a, b, options);
  }

  it('agrees to the stop address, the budget and the stop', () => {
    prepare([add(2, 2, 1), subs, loop, encode('BRK', { imm16: 9 })]);
    const at = TEXT + 12n;
    expect(compare({ until: at })).toEqual({ kind: 'agree', stop: { kind: 'until' }, executed: 9 });
    prepare([add(2, 2, 1), subs, loop, encode('BRK', { imm16: 9 })]);
    expect(compare({ budget: 4 })).toEqual({
      kind: 'agree',
      stop: { kind: 'budget' },
      executed: 4,
    });
    expect(compare()).toMatchObject({ kind: 'agree', stop: { kind: 'trap' }, executed: 5 });
  });

  it('finds a register, with the instructions before', () => {
    prepare([add(2, 2, 1), add(3, 2, 5), add(4, 3, 1)], { 1: add(3, 2, 6) });
    const result = compare({ until: TEXT + 12n });
    expect(result).toMatchObject({
      kind: 'differ',
      after: 1,
      pc: TEXT + 4n,
      differences: [{ kind: 'register', register: 3, values: [6n, 7n] }],
    });
    if (result.kind !== 'differ') return;
    expect(result.tails.map((tail) => tail.length)).toEqual([2, 2]);
    expect(printDifference(result).split('\n')).toEqual([
      'side 0 and side 1 differ after 1 equal instructions, at 0xffff800008000004: 91001443 add x3, x2, #5',
      expect.stringMatching(/^ +side 0 +\| side 1$/),
      expect.stringMatching(/ffff800008000000 91000442 add x2, x2, #1 +x2=1 +\| x2=1$/),
      expect.stringMatching(/ffff800008000004 91001443 add x3, x2, #5 +x3=6 +\| x3=7$/),
      '  with x2=1 x3=0 nzcv=0',
      expect.stringMatching(/^ {2}differs: x3 +0x0000000000000006 +\| 0x0000000000000007$/),
    ]);
  });

  it.each<[string, Record<number, number>, object]>([
    ['flags', { 0: add(0, 0, 0xfff) }, { kind: 'register', register: 0 }],
    ['pc', { 1: encode('B', { imm26: 2 }) }, { kind: 'pc', values: [TEXT + 8n, TEXT + 12n] }],
    ['memory', { 2: store(0, 1, 1) }, { kind: 'memory', address: DATA, values: [2, 0] }],
    ['a stop', { 3: encode('BRK', { imm16: 1 }) }, { kind: 'stop' }],
    [
      'an immediate of a trap',
      { 4: encode('BRK', { imm16: 1 }) },
      {
        kind: 'stop',
        values: [2, 1].map((immediate) => ({ kind: 'trap', instruction: 'brk', immediate })),
      },
    ],
  ])('finds %s', (_, wrong, expected) => {
    const words = [subs, encode('B', { imm26: 1 }), store(0, 1), subs];
    prepare([...words, encode('BRK', { imm16: 2 })], wrong);
    expect(compare()).toMatchObject({
      kind: 'differ',
      after: Number(Object.keys(wrong)[0]),
      differences: expect.arrayContaining([expect.objectContaining(expected)]),
    });
  });

  it('finds a stray write at once with all memory, else at the end', () => {
    const words = [store(0, 1), add(2, 2, 1), add(2, 2, 1)];
    const wrong = { 1: store(2, 1, 5) };
    cpus.forEach((cpu) => cpu.setX(2, 0x77n));
    prepare(words, wrong);
    cpus[1].setX(2, 0x77n);
    expect(compare({ until: TEXT + 12n, memory: 'all' })).toMatchObject({
      kind: 'differ',
      after: 1,
    });
  });

  it('notices unequal starts', () => {
    prepare([subs]);
    cpus[1].memory.write8(DATA + 99n, 1);
    expect(compare()).toMatchObject({
      kind: 'differ',
      after: 0,
      differences: [{ kind: 'memory', address: DATA + 99n, values: [0, 1] }],
    });
    cpus[1].memory.write8(DATA + 99n, 0);
    cpus[1].setSystem('sp_el0', 1n);
    expect(compare()).toMatchObject({ differences: [{ kind: 'system', register: 'sp_el0' }] });
  });

  it('compares whole runs and goes back for the instruction', () => {
    const words = [add(2, 2, 1), store(2, 1), subs, loop];
    const [a, b] = cpus.map((cpu, index) => ({ name: `side ${index}`, cpu }));
    if (!a || !b) throw new Error('two sides');
    let rewinds = 0;
    const rewind = (): void => {
      rewinds += 1;
      prepare(words, { 1: store(2, 1, 1) });
      for (const cpu of cpus) cpu.memory.writeBytes(DATA, new Uint8Array(16));
      cpus.forEach((cpu) => cpu.setX(2, 0n));
    };
    rewind();
    const result = compareRuns(a, b, rewind, { budget: 30 });
    expect(result).toMatchObject({ kind: 'differ', after: 1, pc: TEXT + 4n });
    expect(rewinds).toBe(2);
    prepare(words);
    for (const cpu of cpus) cpu.memory.writeBytes(DATA, new Uint8Array(16));
    cpus.forEach((cpu) => cpu.setX(2, 0n));
    expect(compareRuns(a, b, rewind, { budget: 9 })).toEqual({
      kind: 'agree',
      stop: { kind: 'budget' },
      executed: 9,
    });
    expect(rewinds).toBe(2);
  });

  it('refuses memories of different layout', () => {
    const other = new Memory(65536);
    expect(() => compareMemory(cpus[0].memory, other)).toThrow(
      'laid out differently at region data',
    );
  });
});

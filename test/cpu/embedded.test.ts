import { describe, expect, test } from 'vitest';
import { encode } from '../../src/a64/codec.js';
import { branchWord } from '../../src/a64/immediates.js';
import { systemRegisterFields } from '../../src/a64/system-registers.js';
import { NZCV, SP } from '../../src/cpu/cpu.js';
import { EmbeddedCpu } from '../../src/cpu/embedded/cpu.js';
import {
  add,
  DATA,
  machine,
  mov,
  NOP,
  OTHER,
  poke,
  RET,
  STACK_TOP,
  TEXT,
} from './embedded-machine.js';

const load = encode('LDR_unsigned', { sf: 1, imm12: 0, Rn: 1, Rt: 0 });
const store = encode('STR_unsigned', { sf: 1, imm12: 0, Rn: 1, Rt: 0 });
const storePair = encode('STP_offset', { sf: 1, imm7: 0, Rt2: 3, Rn: 1, Rt: 2 });
const loadPair = encode('LDP_post', { sf: 1, imm7: 2, Rt2: 3, Rn: 1, Rt: 2 });
const loadExclusive = encode('LDXR', { size: 3, Rn: 1, Rt: 0 });
const storeExclusive = encode('STXR', { size: 3, Rs: 3, Rn: 1, Rt: 2 });
const storePost = encode('STR_post', { sf: 1, imm9: 8, Rn: 1, Rt: 0 });

describe('stops', () => {
  test('until, before the instruction and also at the start', () => {
    const { cpu } = machine([mov(0, 1), mov(0, 2), mov(0, 3)]);
    expect(cpu.run({ until: TEXT })).toEqual({ kind: 'until' });
    expect(cpu.run({ until: TEXT + 8n })).toEqual({ kind: 'until' });
    expect([cpu.pc, cpu.getX(0), cpu.executed]).toEqual([TEXT + 8n, 2n, 2]);
  });

  test('until may be where nothing is mapped', () => {
    const { cpu } = machine([RET]);
    cpu.setX(30, 0x1000n);
    expect(cpu.run({ until: 0x1000n })).toEqual({ kind: 'until' });
  });

  test('budget', () => {
    const { cpu } = machine([add(0, 0, 1), encode('B', { imm26: -1 })]);
    expect(cpu.run({ budget: 1001 })).toEqual({ kind: 'budget' });
    expect([cpu.getX(0), cpu.executed, cpu.pc]).toEqual([501n, 1001, TEXT + 4n]);
  });

  test('breakpoints stop run but not step, and in every region', () => {
    const { cpu, memory } = machine([branchWord(TEXT, TEXT + 16n, true)]);
    poke(memory, TEXT + 16n, [mov(9, 0), encode('BR', { Rn: 10 })]);
    poke(memory, OTHER, [NOP, RET]);
    cpu.setX(10, OTHER);
    cpu.addBreakpoint(TEXT + 16n);
    cpu.addBreakpoint(OTHER + 4n);
    expect(cpu.run()).toEqual({ kind: 'breakpoint', address: TEXT + 16n });
    expect(cpu.run()).toEqual({ kind: 'breakpoint', address: TEXT + 16n });
    expect(cpu.step()).toEqual({ kind: 'budget' });
    expect(cpu.run()).toEqual({ kind: 'breakpoint', address: OTHER + 4n });
    cpu.removeBreakpoint(OTHER + 4n);
    expect(cpu.run({ until: TEXT + 4n })).toEqual({ kind: 'until' });
  });

  test.each([
    ['brk', 'BRK'],
    ['svc', 'SVC'],
    ['hvc', 'HVC'],
    ['smc', 'SMC'],
    ['hlt', 'HLT'],
  ])('%s stops with pc at it', (instruction, name) => {
    const { cpu } = machine([NOP, encode(name, { imm16: 0x100 })]);
    expect(cpu.run()).toEqual({ kind: 'trap', instruction, immediate: 0x100 });
    expect([cpu.pc, cpu.executed]).toEqual([TEXT + 4n, 1]);
  });

  test.each([
    ['udf', encode('UDF', { imm16: 1 })],
    ['floating point', 0x1e622820],
    ['an unknown system register', encode('MRS', { ...systemRegisterFields('ttbr0_el1'), Rt: 0 })],
    [
      'a write of a read-only one',
      encode('MSR_register', { ...systemRegisterFields('ctr_el0'), Rt: 0 }),
    ],
  ])('undefined: %s', (_, word) => {
    const { cpu } = machine([word]);
    expect(cpu.run()).toEqual({ kind: 'undefined', word });
    expect([cpu.pc, cpu.executed]).toEqual([TEXT, 0]);
  });
});

describe('faults', () => {
  test.each([
    ['load from nowhere', load, 0x10n, 'read', 0x10n, 8, 'unmapped'],
    ['load across the end', load, DATA + 4089n, 'read', DATA + 4089n, 8, 'unmapped'],
    [
      'store to read-only memory',
      store,
      DATA - 0x10000n,
      'write',
      DATA - 0x10000n,
      8,
      'permission',
    ],
    ['store to text', store, TEXT, 'write', TEXT, 8, 'permission'],
    ['second half of a pair', loadPair, DATA + 4088n, 'read', DATA + 4096n, 8, 'unmapped'],
    ['unaligned exclusive', loadExclusive, DATA + 4n, 'read', DATA + 4n, 8, 'alignment'],
    ['store exclusive', storeExclusive, DATA + 1n, 'write', DATA + 1n, 8, 'alignment'],
    ['indexed store', storePost, 0n, 'write', 0n, 8, 'unmapped'],
  ] as const)('%s', (_, word, address, access, at, size, reason) => {
    const { cpu } = machine([NOP, word]);
    cpu.setX(1, address);
    const before = cpu.saveRegisters();
    const stop = cpu.run();
    expect(stop).toEqual({ kind: 'fault', fault: { access, address: at, size, reason } });
    expect(cpu.saveRegisters()).toEqual({ ...before, pc: TEXT + 4n });
    expect(cpu.executed).toBe(1);
  });

  test('a pair that crosses the end leaves its first half written', () => {
    const { cpu, memory } = machine([storePair]);
    cpu.setX(1, DATA + 4088n);
    cpu.setX(2, 7n);
    const fault = { access: 'write', address: DATA + 4096n, size: 8, reason: 'unmapped' };
    expect(cpu.run()).toEqual({ kind: 'fault', fault });
    expect(memory.read64(DATA + 4088n)).toBe(7n);
  });

  test.each([
    ['unmapped', 0x40n, 'unmapped'],
    ['not executable', DATA, 'permission'],
    ['unaligned', TEXT + 2n, 'alignment'],
  ] as const)('fetch: %s', (_, address, reason) => {
    const { cpu } = machine([encode('BLR', { Rn: 9 })]);
    cpu.setX(9, address);
    const fault = { access: 'fetch', address, size: 4, reason };
    expect(cpu.run()).toEqual({ kind: 'fault', fault });
    expect([cpu.pc, cpu.getX(30), cpu.executed]).toEqual([address, TEXT + 4n, 1]);
  });

  test('running off the end of text is a fetch fault there', () => {
    const { cpu, memory } = machine();
    poke(memory, TEXT + 8188n, [NOP]);
    cpu.pc = TEXT + 8188n;
    expect(cpu.run()).toMatchObject({ kind: 'fault', fault: { access: 'fetch' } });
    expect(cpu.pc).toBe(TEXT + 8192n);
  });
});

describe('exclusives', () => {
  const words = [loadExclusive, add(2, 0, 1), storeExclusive];

  test('succeed when nothing happened in between', () => {
    const { cpu, memory } = machine(words);
    cpu.setX(1, DATA);
    cpu.setX(3, 9n);
    cpu.run({ until: TEXT + 12n });
    expect([cpu.getX(3), memory.read64(DATA)]).toEqual([0n, 1n]);
  });

  test('fail when another CPU changed the value, not when it put it back', () => {
    for (const [value, status] of [
      [5n, 1n],
      [0n, 0n],
    ] as const) {
      const { cpu, memory } = machine(words);
      cpu.setX(1, DATA);
      cpu.run({ until: TEXT + 8n });
      memory.write64(DATA, 5n);
      memory.write64(DATA, value);
      cpu.run({ until: TEXT + 12n });
      expect(cpu.getX(3)).toBe(status);
    }
  });

  test('fail after CLREX and without a load exclusive', () => {
    const { cpu } = machine([loadExclusive, encode('CLREX', { CRm: 15 }), storeExclusive]);
    cpu.setX(1, DATA);
    cpu.run({ until: TEXT + 12n });
    expect(cpu.getX(3)).toBe(1n);
  });
});

describe('what a CPU fetches', () => {
  test('stays until sync', () => {
    const { cpu, memory } = machine([mov(0, 1), RET]);
    const call = (): bigint => {
      cpu.pc = TEXT;
      cpu.setX(30, 0x1000n);
      cpu.run({ until: 0x1000n });
      return cpu.getX(0);
    };
    expect(call()).toBe(1n);
    poke(memory, TEXT, [mov(0, 2)]);
    expect(call()).toBe(1n);
    cpu.sync(TEXT + 4n, TEXT + 8n);
    expect(call()).toBe(1n);
    cpu.sync(TEXT, TEXT + 4n);
    expect(call()).toBe(2n);
  });

  test('is a view of each CPU; both share memory', () => {
    const { cpu, memory } = machine([add(0, 0, 1), store]);
    const other = new EmbeddedCpu(memory);
    for (const one of [cpu, other]) one.setX(1, DATA);
    cpu.run({ until: TEXT + 8n });
    poke(memory, TEXT, [add(0, 0, 16)]);
    other.pc = TEXT;
    cpu.pc = TEXT;
    other.run({ until: TEXT + 8n });
    expect(memory.read64(DATA)).toBe(16n);
    cpu.run({ until: TEXT + 8n });
    expect(memory.read64(DATA)).toBe(2n);
    other.close();
  });

  test('goes with its region', () => {
    const { cpu, memory } = machine([NOP, NOP]);
    cpu.run({ until: TEXT + 4n });
    const region = memory.regionAt(TEXT);
    if (region) memory.unmap(region);
    expect(cpu.run()).toMatchObject({
      kind: 'fault',
      fault: { access: 'fetch', address: TEXT + 4n },
    });
  });
});

describe('trace', () => {
  test('lists what changed, in register order', () => {
    const push = encode('STP_pre', { sf: 1, imm7: -2, Rt2: 30, Rn: 31, Rt: 29 });
    const pop = encode('LDP_post', { sf: 1, imm7: 2, Rt2: 0, Rn: 31, Rt: 5 });
    const compare = encode('SUBS_immediate', { sf: 1, sh: 0, imm12: 0, Rn: 0, Rd: 3 });
    const link = encode('BL', { imm26: 1 });
    const words = [mov(0, 7), mov(0, 7), push, pop, compare, link, NOP];
    const { cpu } = machine(words);
    cpu.setX(29, 29n);
    cpu.setX(30, 30n);
    cpu.startTrace();
    cpu.run({ until: TEXT + 28n });
    const entry = (index: number, ...changes: readonly [number, bigint][]): unknown => ({
      pc: TEXT + BigInt(4 * index),
      word: words[index],
      changes: changes.map(([register, value]) => ({ register, value })),
    });
    expect(cpu.stopTrace()).toEqual([
      entry(0, [0, 7n]),
      entry(1),
      entry(2, [SP, STACK_TOP - 16n]),
      entry(3, [0, 30n], [5, 29n], [SP, STACK_TOP]),
      entry(4, [3, 30n], [NZCV, 2n]),
      entry(5, [30, TEXT + 24n]),
      entry(6),
    ]);
    expect(cpu.stopTrace()).toEqual([]);
  });

  test('shows the words that were fetched, not what memory holds later', () => {
    const { cpu, memory } = machine([mov(0, 1)]);
    cpu.startTrace();
    cpu.step();
    poke(memory, TEXT, [mov(0, 2)]);
    cpu.sync(TEXT, TEXT + 4n);
    cpu.pc = TEXT;
    cpu.setX(9, 1n);
    cpu.step();
    const trace = cpu.stopTrace();
    expect(trace.map(({ word }) => word)).toEqual([mov(0, 1), mov(0, 2)]);
    expect(trace[1]?.changes).toEqual([{ register: 0, value: 2n }]);
  });

  test('keeps long runs whole and in order, without the faulting instruction', () => {
    const { cpu } = machine([add(0, 0, 1), encode('B', { imm26: -1 })]);
    cpu.startTrace();
    cpu.run({ budget: 200_001 });
    cpu.pc = 0n;
    cpu.run();
    const trace = cpu.stopTrace();
    expect(trace.length).toBe(200_001);
    const wrong = trace.findIndex(({ pc, changes }, index) => {
      if (index % 2 === 1) return pc !== TEXT + 4n || changes.length !== 0;
      return pc !== TEXT || changes[0]?.value !== BigInt(index / 2 + 1);
    });
    expect(wrong).toBe(-1);
  });
});

describe('state', () => {
  test('registers and memory come back', () => {
    const { cpu, memory } = machine([add(0, 0, 1), store, encode('B', { imm26: -2 })]);
    cpu.setX(1, DATA);
    cpu.setSystem('tpidr_el1', 42n);
    cpu.run({ budget: 30 });
    const registers = cpu.saveRegisters();
    const snapshot = memory.snapshot();
    const run = (): unknown => {
      cpu.run({ budget: 100 });
      return [cpu.saveRegisters(), memory.read64(DATA)];
    };
    const once = run();
    cpu.setSystem('tpidr_el1', 0n);
    memory.restore(snapshot);
    cpu.loadRegisters(registers);
    expect(run()).toEqual(once);
  });

  test('values are 64 bits; register numbers are checked', () => {
    const { cpu } = machine();
    cpu.setX(30, -1n);
    expect(cpu.getX(30)).toBe(0xffffffffffffffffn);
    expect(() => cpu.getX(31)).toThrow(RangeError);
    expect(() => cpu.setX(-1, 0n)).toThrow('no register X-1');
  });

  test('CNTVCT_EL0 counts instructions, whether stepped or run', () => {
    const read = encode('MRS', { ...systemRegisterFields('cntvct_el0'), Rt: 10 });
    const { cpu } = machine([NOP, NOP, read, NOP, read]);
    cpu.run({ until: TEXT + 12n });
    expect(cpu.getX(10)).toBe(2n);
    cpu.step();
    cpu.step();
    expect(cpu.getX(10)).toBe(4n);
  });

  test('stored system registers', () => {
    const read = encode('MRS', { ...systemRegisterFields('sp_el0'), Rt: 10 });
    const { cpu } = machine([read]);
    cpu.setSystem('sp_el0', DATA);
    cpu.step();
    expect(cpu.getX(10)).toBe(DATA);
  });
});

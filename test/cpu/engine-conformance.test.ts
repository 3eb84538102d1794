/** One table of behaviours that every engine must show: see src/cpu/cpu.ts. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encode } from '../../src/a64/codec.js';
import { systemRegisterFields } from '../../src/a64/system-registers.js';
import { NZCV, SP, type Cpu, type Stop } from '../../src/cpu/cpu.js';
import { Memory } from '../../src/cpu/memory.js';
import { factories } from '../helpers/cpus.js';

const TEXT = 0xffff_8000_0800_0000n;
const DATA = 0xffff_0000_1234_0000n;
const DATA_SIZE = 8192;
const DATA_END = DATA + BigInt(DATA_SIZE);
const LOW = 0x10000n;

const NOP = 0xd503201f;
const RET = 0xd65f03c0;
const BRK = 0xd4200000;
/** FP16 vector instructions at which libunicorn 2.0 aborts the process. */
const ABORTING = [0x0e400400, 0x0e780800];

const addImmediate = (rd: number, rn: number, imm12: number): number =>
  encode('ADD_immediate', { sf: 1, sh: 0, imm12, Rn: rn, Rd: rd });
const branch = (bytes: number): number => encode('B', { imm26: bytes / 4 });
const load = (rt: number, rn: number): number =>
  encode('LDR_unsigned', { sf: 1, imm12: 0, Rn: rn, Rt: rt });
const store = (rt: number, rn: number): number =>
  encode('STR_unsigned', { sf: 1, imm12: 0, Rn: rn, Rt: rt });
const sysreg = (name: 'MRS' | 'MSR_register', register: string, rt: number): number =>
  encode(name, { ...systemRegisterFields(register), Rt: rt });
const br = (rn: number): number => encode('BR', { Rn: rn });

describe.each(factories)('engine $name', (factory) => {
  let memory: Memory;
  let cpu: Cpu;

  beforeEach(() => {
    memory = new Memory(1 << 20);
    memory.map({ name: 'text', address: TEXT, size: 16384, permissions: 'rx' });
    memory.map({ name: 'data', address: DATA, size: DATA_SIZE, permissions: 'rw' });
    memory.map({ name: 'low', address: LOW, size: 4096, permissions: 'rw' });
    cpu = factory.create(memory);
  });

  afterEach(() => cpu.close());

  /** Puts words into text and lets the CPU see them. */
  function code(words: readonly number[], at = TEXT): void {
    const bytes = new Uint8Array(4 * words.length);
    const view = new DataView(bytes.buffer);
    words.forEach((word, index) => view.setUint32(4 * index, word, true));
    memory.pokeBytes(at, bytes);
    cpu.sync(at, at + BigInt(bytes.length));
  }

  /** Runs `words` from the start of text until the address behind them. */
  function execute(words: readonly number[]): Stop {
    code([...words, NOP]);
    cpu.pc = TEXT;
    return cpu.run({ until: TEXT + BigInt(4 * words.length), budget: 1000 });
  }

  describe('registers', () => {
    it('keep 64 bits', () => {
      for (let i = 0; i <= 30; i++) cpu.setX(i, ~0n - BigInt(i));
      cpu.sp = 0xfedc_ba98_7654_3210n;
      cpu.pc = 0xffff_ffff_ffff_fff0n;
      cpu.nzcv = 0b1011;
      cpu.setSystem('tpidr_el1', 1n << 63n);
      const saved = cpu.saveRegisters();
      for (let i = 0; i <= 30; i++) expect(cpu.getX(i)).toBe(BigInt.asUintN(64, ~0n - BigInt(i)));
      expect(saved.sp).toBe(0xfedc_ba98_7654_3210n);
      expect(saved.nzcv).toBe(0b1011);
      for (let i = 0; i <= 30; i++) cpu.setX(i, 0n);
      cpu.sp = 0n;
      cpu.pc = 0n;
      cpu.nzcv = 0;
      cpu.setSystem('tpidr_el1', 0n);
      cpu.loadRegisters(saved);
      expect(cpu.saveRegisters()).toEqual(saved);
    });

    it.each(['sp_el0', 'tpidr_el0', 'tpidr_el1', 'tpidr_el2'] as const)('%s by MRS', (name) => {
      cpu.setSystem(name, 0x8123_4567_89ab_cdefn);
      expect(execute([sysreg('MRS', name, 7), addImmediate(8, 7, 1)])).toEqual({ kind: 'until' });
      expect(cpu.getX(7)).toBe(0x8123_4567_89ab_cdefn);
      expect(cpu.getX(8)).toBe(0x8123_4567_89ab_cdf0n);
      expect(cpu.executed).toBe(2);
    });

    it.each(['sp_el0', 'tpidr_el0', 'tpidr_el1', 'tpidr_el2'] as const)('%s by MSR', (name) => {
      cpu.setX(3, 0x8123_4567_89ab_cdefn);
      execute([sysreg('MSR_register', name, 3)]);
      expect(cpu.getSystem(name)).toBe(0x8123_4567_89ab_cdefn);
      execute([sysreg('MSR_register', name, 31)]);
      expect(cpu.getSystem(name)).toBe(0n);
    });

    it.each([
      ['currentel', 4n],
      ['ctr_el0', 0x84448004n],
      ['dczid_el0', 0x10n],
    ] as const)('%s is the same everywhere', (name, value) => {
      execute([NOP, sysreg('MRS', name, 1), NOP]);
      expect([cpu.getX(1), cpu.executed]).toEqual([value, 3]);
    });

    it('CNTVCT_EL0 counts instructions', () => {
      execute([NOP, NOP, sysreg('MRS', 'cntvct_el0', 1), NOP, sysreg('MRS', 'cntvct_el0', 2)]);
      expect([cpu.getX(1), cpu.getX(2)]).toEqual([2n, 4n]);
    });

    it('DAIF by MRS, MSR and MSR immediate', () => {
      const immediate = (op2: number): number =>
        encode('MSR_immediate', { op1: 3, CRm: 0b0010, op2 });
      execute([
        sysreg('MRS', 'daif', 1),
        immediate(6),
        sysreg('MRS', 'daif', 2),
        immediate(7),
        sysreg('MRS', 'daif', 3),
      ]);
      expect([cpu.getX(1), cpu.getX(2), cpu.getX(3)]).toEqual([0n, 0x80n, 0n]);
    });

    it('NZCV by MRS and MSR', () => {
      cpu.nzcv = 0b1010;
      execute([sysreg('MRS', 'nzcv', 1)]);
      expect(cpu.getX(1)).toBe(0xa000_0000n);
      cpu.setX(1, 0x5000_0000n);
      execute([sysreg('MSR_register', 'nzcv', 1)]);
      expect(cpu.nzcv).toBe(0b0101);
    });
  });

  describe('run', () => {
    it('stops before the stop address', () => {
      code([addImmediate(0, 0, 1), addImmediate(0, 0, 1), addImmediate(0, 0, 1)]);
      cpu.pc = TEXT;
      expect(cpu.run({ until: TEXT + 8n })).toEqual({ kind: 'until' });
      expect([cpu.pc, cpu.getX(0), cpu.executed]).toEqual([TEXT + 8n, 2n, 2]);
      expect(cpu.run({ until: TEXT + 8n })).toEqual({ kind: 'until' });
      expect(cpu.executed).toBe(2);
    });

    it('stops inside a block that has run before', () => {
      code([1, 2, 3, 4, 5, 6].map((n) => addImmediate(n, n, 1)));
      for (const stop of [24n, 8n, 16n, 4n, 12n, 8n]) {
        cpu.pc = TEXT;
        const before = cpu.executed;
        expect(cpu.run({ until: TEXT + stop, budget: 100 })).toEqual({ kind: 'until' });
        expect(cpu.pc).toBe(TEXT + stop);
        expect(cpu.executed - before).toBe(Number(stop / 4n));
      }
    });

    it('stops at a stop address where nothing is', () => {
      const nowhere = 0xdead_0000n;
      code([addImmediate(0, 0, 1), RET]);
      cpu.setX(30, nowhere);
      cpu.pc = TEXT;
      expect(cpu.run({ until: nowhere })).toEqual({ kind: 'until' });
      expect([cpu.pc, cpu.executed]).toEqual([nowhere, 2]);
    });

    it.each([0, 1, 2, 3, 7, 1000, 1001])('executes exactly %i instructions', (budget) => {
      code([addImmediate(0, 0, 1), addImmediate(1, 1, 1), branch(-8)]);
      cpu.pc = TEXT;
      expect(cpu.run({ budget })).toEqual({ kind: 'budget' });
      expect(cpu.executed).toBe(budget);
      expect(cpu.getX(0)).toBe(BigInt(Math.ceil(budget / 3)));
      expect(cpu.pc).toBe(TEXT + BigInt(4 * (budget % 3)));
    });

    it('prefers the stop address to the end of the budget', () => {
      code([NOP, NOP, NOP]);
      cpu.pc = TEXT;
      expect(cpu.run({ until: TEXT + 8n, budget: 2 })).toEqual({ kind: 'until' });
    });

    it('goes on after WFI, WFE and barriers', () => {
      const words = ['WFI', 'WFE', 'SB'].map((name) => encode(name, {}));
      expect(execute([...words, addImmediate(0, 0, 1)])).toEqual({ kind: 'until' });
      expect([cpu.getX(0), cpu.executed]).toEqual([1n, 4]);
    });

    it('steps', () => {
      code([addImmediate(0, 0, 1), addImmediate(0, 0, 1), BRK]);
      cpu.pc = TEXT;
      expect(cpu.step()).toEqual({ kind: 'budget' });
      expect([cpu.pc, cpu.getX(0)]).toEqual([TEXT + 4n, 1n]);
      expect(cpu.step()).toEqual({ kind: 'budget' });
      expect(cpu.step()).toEqual({ kind: 'trap', instruction: 'brk', immediate: 0 });
      expect([cpu.pc, cpu.executed]).toEqual([TEXT + 8n, 2]);
    });
  });

  describe('breakpoints', () => {
    beforeEach(() => {
      code([addImmediate(0, 0, 1), addImmediate(1, 1, 1), addImmediate(2, 2, 1), branch(-12)]);
      cpu.pc = TEXT;
      cpu.run({ budget: 40 });
    });

    it('stop before the instruction, also in code that has run', () => {
      cpu.addBreakpoint(TEXT + 8n);
      expect(cpu.run({ budget: 100 })).toEqual({ kind: 'breakpoint', address: TEXT + 8n });
      expect([cpu.getX(0), cpu.getX(1), cpu.getX(2)]).toEqual([11n, 11n, 10n]);
      expect(cpu.executed).toBe(42);
    });

    it('do not stop a step', () => {
      cpu.addBreakpoint(TEXT + 4n);
      cpu.addBreakpoint(TEXT + 8n);
      expect(cpu.run()).toEqual({ kind: 'breakpoint', address: TEXT + 4n });
      expect(cpu.step()).toEqual({ kind: 'budget' });
      expect(cpu.pc).toBe(TEXT + 8n);
      expect(cpu.step()).toEqual({ kind: 'budget' });
      expect(cpu.getX(2)).toBe(11n);
      expect(cpu.run()).toEqual({ kind: 'breakpoint', address: TEXT + 4n });
    });

    it('are gone when removed', () => {
      cpu.addBreakpoint(TEXT + 8n);
      cpu.run();
      cpu.removeBreakpoint(TEXT + 8n);
      expect(cpu.run({ budget: 17 })).toEqual({ kind: 'budget' });
    });

    it('stand beside a stop address', () => {
      cpu.addBreakpoint(TEXT + 8n);
      expect(cpu.run({ until: TEXT + 4n })).toEqual({ kind: 'until' });
      expect(cpu.run({ until: TEXT })).toEqual({ kind: 'breakpoint', address: TEXT + 8n });
      cpu.step();
      expect(cpu.run({ until: TEXT })).toEqual({ kind: 'until' });
    });
  });

  describe('traps', () => {
    it.each([
      ['brk', 'BRK'],
      ['svc', 'SVC'],
      ['hvc', 'HVC'],
      ['smc', 'SMC'],
      ['hlt', 'HLT'],
    ] as const)('%s stops at the instruction', (instruction, name) => {
      const stop = execute([NOP, encode(name, { imm16: 0xabcd })]);
      expect(stop).toEqual({ kind: 'trap', instruction, immediate: 0xabcd });
      expect([cpu.pc, cpu.executed]).toEqual([TEXT + 4n, 1]);
    });

    it('a body in TypeScript: act at BRK, return, go on', () => {
      const body = TEXT + 0x100n;
      code([encode('BRK', { imm16: 7 }), RET], body);
      code([encode('BL', { imm26: 0x40 }), addImmediate(1, 0, 1), NOP]);
      cpu.setX(0, 20n);
      cpu.pc = TEXT;
      const end = TEXT + 8n;
      expect(cpu.run({ until: end })).toEqual({ kind: 'trap', instruction: 'brk', immediate: 7 });
      expect(cpu.pc).toBe(body);
      cpu.setX(0, cpu.getX(0) * 2n);
      cpu.pc += 4n;
      expect(cpu.run({ until: end })).toEqual({ kind: 'until' });
      expect([cpu.getX(1), cpu.executed]).toEqual([41n, 3]);
    });
  });

  describe('words that are no instruction', () => {
    const words: readonly (readonly [string, number])[] = [
      ['udf', 0x00000007],
      ['fmov d0, x1', 0x9e670020],
      ['ldr q0, [x1]', 0x3dc00020],
      ['eret', 0xd69f03e0],
      ['mrs x0, apiakeylo_el1', 0xd5382100],
      ['msr apiakeylo_el1, x0', 0xd5182100],
      ['retaa', 0xd65f0bff],
      ['the high half of a kernel pointer', 0xffff8000],
      ['its low half', 0x80081234],
      ['ldp x0, x0, [x1]', 0xa9400020],
      ...ABORTING.map((word) => ['an FP16 vector', word] as const),
    ];

    it.each(words)('%s', (_, word) => {
      expect(execute([NOP, word, NOP])).toEqual({ kind: 'undefined', word });
      expect([cpu.pc, cpu.executed]).toEqual([TEXT + 4n, 1]);
      cpu.pc = TEXT + 4n;
      expect(cpu.step()).toEqual({ kind: 'undefined', word });
      expect(cpu.executed).toBe(1);
    });

    it.each(words)('a step or a budget that ends before it: %s', (_, word) => {
      code([addImmediate(0, 0, 1), word, addImmediate(0, 0, 1)]);
      cpu.pc = TEXT;
      expect(cpu.step()).toEqual({ kind: 'budget' });
      expect(cpu.pc).toBe(TEXT + 4n);
      cpu.pc = TEXT;
      expect(cpu.run({ budget: 1 })).toEqual({ kind: 'budget' });
      expect([cpu.pc, cpu.getX(0)]).toEqual([TEXT + 4n, 2n]);
    });

    it('reached by a branch, patched in and out', () => {
      const target = TEXT + 0x1000n;
      cpu.setX(0, target);
      for (const word of [...ABORTING, 0x9e670020]) {
        code([addImmediate(1, 1, 1), RET], target);
        code([br(0)]);
        cpu.pc = TEXT;
        cpu.setX(30, TEXT + 0x40n);
        expect(cpu.run({ until: TEXT + 0x40n })).toEqual({ kind: 'until' });
        code([word], target + 4n);
        cpu.pc = TEXT;
        expect(cpu.run({ until: TEXT + 0x40n })).toEqual({ kind: 'undefined', word });
        expect(cpu.pc).toBe(target + 4n);
      }
    });

    it('in text that is written by the program itself', () => {
      const own = TEXT + 0x10000n;
      memory.map({ name: 'own', address: own, size: 4096, permissions: 'rwx' });
      cpu.setX(1, own);
      cpu.setX(2, BigInt(ABORTING[0] ?? 0));
      const storeWord = encode('STR_unsigned', { sf: 0, imm12: 0, Rn: 1, Rt: 2 });
      const stop = execute([storeWord, br(1)]);
      expect(stop).toEqual({ kind: 'undefined', word: ABORTING[0] });
      expect([cpu.pc, cpu.executed]).toEqual([own, 2]);
      memory.write32(own, NOP);
      memory.write32(own + 4n, BRK);
      cpu.sync(own, own + 8n);
      expect(cpu.run()).toMatchObject({ kind: 'trap', instruction: 'brk' });
      expect([cpu.pc, cpu.executed]).toEqual([own + 4n, 3]);
    });
  });

  describe('patching', () => {
    it('is seen after sync, as often as it happens', () => {
      const site = TEXT + 4n;
      code([NOP, NOP, addImmediate(0, 0, 1), RET]);
      code([addImmediate(1, 1, 1), RET], TEXT + 0x800n);
      cpu.setX(30, TEXT + 0x400n);
      const bl = encode('BL', { imm26: (0x800 - 4) / 4 });
      let calls = 0n;
      for (let i = 0; i < 50; i++) {
        const patched = i % 2 === 1;
        code([patched ? bl : NOP], site);
        if (patched) calls += 1n;
        cpu.pc = TEXT;
        cpu.setX(30, TEXT + 0x400n);
        const stop = patched
          ? cpu.run({ until: TEXT + 8n, budget: 10 })
          : cpu.run({ until: TEXT + 0x400n, budget: 10 });
        expect(stop).toEqual({ kind: 'until' });
        expect(cpu.getX(1)).toBe(calls);
      }
      expect(cpu.getX(0)).toBe(25n);
    });

    it('two CPUs see one memory, each its own text', () => {
      const other = factory.create(memory);
      try {
        code([addImmediate(0, 0, 1), store(0, 2), RET]);
        other.sync(TEXT, TEXT + 12n);
        for (const each of [cpu, other]) {
          each.pc = TEXT;
          each.setX(2, DATA);
          each.setX(30, TEXT + 0x400n);
        }
        cpu.run({ until: TEXT + 0x400n });
        expect(memory.read64(DATA)).toBe(1n);
        other.setX(0, 41n);
        other.run({ until: TEXT + 0x400n });
        expect(memory.read64(DATA)).toBe(42n);
        expect([cpu.getX(0), other.getX(0)]).toEqual([1n, 42n]);
        memory.pokeBytes(TEXT, new Uint8Array([0x1f, 0x20, 0x03, 0xd5]));
        cpu.sync(TEXT, TEXT + 4n);
        other.sync(TEXT, TEXT + 4n);
        for (const each of [cpu, other]) {
          each.pc = TEXT;
          each.run({ until: TEXT + 0x400n });
        }
        expect([cpu.getX(0), other.getX(0)]).toEqual([1n, 42n]);
      } finally {
        other.close();
      }
    });

    it('regions that come, go and change', () => {
      const region = memory.map({ name: 'x', address: LOW * 4n, size: 4096, permissions: 'rw' });
      memory.write32(region.address, RET);
      code([br(1)]);
      cpu.setX(1, region.address);
      cpu.setX(30, TEXT + 0x400n);
      const go = (): Stop => {
        cpu.pc = TEXT;
        return cpu.run({ until: TEXT + 0x400n, budget: 10 });
      };
      expect(go()).toMatchObject({ kind: 'fault', fault: { reason: 'permission' } });
      const text = memory.protect(region, 'rx');
      cpu.sync(region.address, region.address + 4n);
      expect(go()).toEqual({ kind: 'until' });
      memory.unmap(text);
      expect(go()).toMatchObject({ kind: 'fault', fault: { reason: 'unmapped' } });
      memory.map({ name: 'y', address: region.address, size: 4096, permissions: 'rx' });
      cpu.sync(region.address, region.address + 4n);
      expect(go()).toEqual({ kind: 'undefined', word: 0 });
    });
  });

  describe('faults', () => {
    const pair = (name: string, rn: number): number =>
      encode(name, { sf: 1, imm7: 0, Rt2: 4, Rn: rn, Rt: 3 });
    const cases: readonly (readonly [
      string,
      number,
      bigint,
      Partial<{ access: string; address: bigint; size: number; reason: string }>,
    ])[] = [
      ['a read at 0', load(0, 1), 0n, { access: 'read', address: 0n, size: 8 }],
      ['a write at 0', store(0, 1), 0n, { access: 'write', address: 0n, size: 8 }],
      ['a read behind the end', load(0, 1), DATA_END, { access: 'read', address: DATA_END }],
      ['a read across the end', load(0, 1), DATA_END - 4n, { address: DATA_END - 4n, size: 8 }],
      ['a write across the end', store(0, 1), DATA_END - 1n, { address: DATA_END - 1n, size: 8 }],
      ['a read across the start', load(0, 1), DATA - 4n, { address: DATA - 4n, size: 8 }],
      [
        'a halfword across the end',
        encode('LDRH_unsigned', { imm12: 0, Rn: 1, Rt: 0 }),
        DATA_END - 1n,
        { access: 'read', address: DATA_END - 1n, size: 2 },
      ],
      [
        'the second half of a pair',
        pair('LDP_offset', 1),
        DATA_END - 8n,
        { access: 'read', address: DATA_END, size: 8 },
      ],
      [
        'the second half of a stored pair',
        pair('STP_offset', 1),
        DATA_END - 8n,
        { access: 'write', address: DATA_END, size: 8 },
      ],
      [
        'a pre-indexed pair',
        encode('STP_pre', { sf: 1, imm7: -2, Rt2: 4, Rn: 1, Rt: 3 }),
        DATA,
        { access: 'write', address: DATA - 16n, size: 8 },
      ],
      [
        'a write to text',
        store(0, 1),
        TEXT + 64n,
        { access: 'write', address: TEXT + 64n, size: 8, reason: 'permission' },
      ],
      [
        'an atomic on text',
        encode('LDADD', { size: 3, A: 0, R: 0, Rs: 2, Rn: 1, Rt: 3 }),
        TEXT + 64n,
        { access: 'write', address: TEXT + 64n, size: 8, reason: 'permission' },
      ],
      [
        'an atomic at 0',
        encode('LDADD', { size: 2, A: 0, R: 0, Rs: 2, Rn: 1, Rt: 3 }),
        0n,
        { access: 'read', address: 0n, size: 4 },
      ],
      [
        'an exclusive load at 0',
        encode('LDXR', { size: 3, Rn: 1, Rt: 0 }),
        0n,
        { access: 'read', address: 0n, size: 8 },
      ],
      [
        'an exclusive load off its alignment',
        encode('LDXR', { size: 3, Rn: 1, Rt: 0 }),
        DATA + 4n,
        { access: 'read', address: DATA + 4n, size: 8, reason: 'alignment' },
      ],
    ];

    it.each(cases)('%s', (_, word, address, expected) => {
      cpu.setX(1, address);
      cpu.setX(0, 5n);
      const stop = execute([NOP, word, NOP]);
      expect(stop).toMatchObject({ kind: 'fault', fault: { reason: 'unmapped', ...expected } });
      expect([cpu.pc, cpu.executed]).toEqual([TEXT + 4n, 1]);
      expect([cpu.getX(1), cpu.getX(0)]).toEqual([address, 5n]);
    });

    it.each([
      ['nothing', 0x5000n, 'unmapped'],
      ['data', DATA, 'permission'],
      ['an odd address', TEXT + 0x102n, 'alignment'],
    ] as const)('a branch to %s', (_, target, reason) => {
      cpu.setX(9, target);
      const stop = execute([encode('BLR', { Rn: 9 })]);
      expect(stop).toEqual({
        kind: 'fault',
        fault: { access: 'fetch', address: target, size: 4, reason },
      });
      expect([cpu.pc, cpu.getX(30), cpu.executed]).toEqual([target, TEXT + 4n, 1]);
    });

    it('can be mended and gone on from', () => {
      cpu.setX(1, 0x8000n);
      execute([NOP, load(0, 1), addImmediate(0, 0, 1)]);
      const region = memory.map({ name: 'late', address: 0x8000n, size: 8, permissions: 'rw' });
      memory.write64(region.address, 9n);
      expect(cpu.run({ until: TEXT + 12n })).toEqual({ kind: 'until' });
      expect([cpu.getX(0), cpu.executed]).toEqual([10n, 3]);
    });

    it('leave accesses at both ends of a region alone', () => {
      memory.write64(DATA, 1n);
      memory.write64(DATA_END - 8n, 2n);
      cpu.setX(1, DATA);
      cpu.setX(2, DATA_END - 8n);
      expect(execute([load(3, 1), load(4, 2), store(3, 2), store(4, 1)])).toEqual({
        kind: 'until',
      });
      expect([memory.read64(DATA), memory.read64(DATA_END - 8n)]).toEqual([2n, 1n]);
    });
  });

  describe('traces', () => {
    it('name every executed instruction and what it changed', () => {
      cpu.setX(1, DATA);
      cpu.sp = DATA + 64n;
      const words = [
        addImmediate(0, 0, 5),
        encode('SUBS_immediate', { sf: 1, sh: 0, imm12: 5, Rn: 0, Rd: 31 }),
        encode('STP_pre', { sf: 1, imm7: -2, Rt2: 1, Rn: 31, Rt: 0 }),
        NOP,
        addImmediate(0, 0, 0),
        encode('B_cond', { imm19: 2, cond: 0 }),
        NOP,
      ];
      code([...words, NOP]);
      cpu.pc = TEXT;
      cpu.run({ until: TEXT + 28n });
      cpu.pc = TEXT;
      cpu.setX(0, 0n);
      cpu.sp = DATA + 64n;
      cpu.nzcv = 0;
      cpu.startTrace();
      expect(cpu.run({ until: TEXT + 28n })).toEqual({ kind: 'until' });
      expect(cpu.stopTrace()).toEqual([
        { pc: TEXT, word: words[0], changes: [{ register: 0, value: 5n }] },
        { pc: TEXT + 4n, word: words[1], changes: [{ register: NZCV, value: 6n }] },
        { pc: TEXT + 8n, word: words[2], changes: [{ register: SP, value: DATA + 48n }] },
        { pc: TEXT + 12n, word: NOP, changes: [] },
        { pc: TEXT + 16n, word: words[4], changes: [] },
        { pc: TEXT + 20n, word: words[5], changes: [] },
      ]);
    });

    it('hold no instruction that did not execute, and go on over stops', () => {
      const words = [addImmediate(0, 0, 1), load(2, 1), BRK, sysreg('MRS', 'tpidr_el2', 4), 7];
      code(words);
      cpu.setSystem('tpidr_el2', 77n);
      cpu.pc = TEXT;
      cpu.startTrace();
      expect(cpu.run()).toMatchObject({ kind: 'fault' });
      cpu.setX(1, DATA);
      expect(cpu.run()).toMatchObject({ kind: 'trap' });
      cpu.pc += 4n;
      expect(cpu.step()).toEqual({ kind: 'budget' });
      expect(cpu.run()).toMatchObject({ kind: 'undefined' });
      expect(cpu.stopTrace()).toEqual([
        { pc: TEXT, word: words[0], changes: [{ register: 0, value: 1n }] },
        { pc: TEXT + 4n, word: words[1], changes: [] },
        { pc: TEXT + 12n, word: words[3], changes: [{ register: 4, value: 77n }] },
      ]);
      expect(cpu.executed).toBe(3);
    });

    it('end, and start anew', () => {
      code([addImmediate(0, 0, 1), branch(-4)]);
      cpu.pc = TEXT;
      for (const budget of [10, 1, 300]) {
        cpu.startTrace();
        cpu.run({ budget });
        expect(cpu.stopTrace().length).toBe(budget);
        cpu.run({ budget: 10 });
      }
      expect(cpu.stopTrace()).toEqual([]);
    });

    it('hold every register and both its halves', () => {
      const words = Array.from({ length: 31 }, (_, rd) =>
        encode('MOVK', { sf: 1, hw: rd % 4, imm16: rd + 1, Rd: rd }),
      );
      code([...words, NOP]);
      cpu.pc = TEXT;
      cpu.startTrace();
      cpu.run({ until: TEXT + 124n });
      const trace = cpu.stopTrace();
      trace.forEach((entry, rd) => {
        const value = BigInt(rd + 1) << BigInt(16 * (rd % 4));
        expect(entry.changes).toEqual([{ register: rd, value }]);
      });
      expect(trace.length).toBe(31);
    });
  });
});

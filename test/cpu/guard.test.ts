/** Which words reach libunicorn. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Random } from '../../src/common/random.js';
import { randomWordOf } from '../../src/a64/generate.js';
import { INSTRUCTIONS } from '../../src/a64/table.js';
import { Memory } from '../../src/cpu/memory.js';
import { TextGuard, isExecutable, needsExit } from '../../src/cpu/unicorn/guard.js';
import type { Cpu } from '../../src/cpu/cpu.js';
import { unicorn } from '../helpers/cpus.js';

const TEXT = 0xffff_8000_0800_0000n;

const poke = (memory: Memory, address: bigint, ...words: number[]): void =>
  memory.pokeBytes(address, new Uint8Array(Uint32Array.from(words).buffer));

describe('needsExit', () => {
  it.each([
    [0xd503201f, 'nop', false],
    [0xd65f03c0, 'ret', false],
    [0x00000000, 'udf #0', false],
    [0xffff8000, 'high half of a kernel pointer', false],
    [0x80081234, 'low half of a kernel pointer', false],
    [0xd5384101, 'mrs x1, sp_el0', false],
    [0xd5382100, 'mrs x0, apiakeylo_el1', true],
    [0xd5180040, 'msr of an unknown register', true],
    [0x0e400400, 'FP16 vector', true],
    [0x9e670020, 'fmov d0, x1', true],
    [0xd69f03e0, 'eret', true],
    [0xd50041bf, 'msr spsel, #1', true],
    [0xd50320ff, 'xpaclri', true],
  ])('%i: %s', (word, _, expected) => {
    expect(needsExit(word)).toBe(expected);
  });

  it('lets all ordinary instructions through', () => {
    const random = new Random(5);
    const special = ['MRS', 'MSR_register', 'MSR_immediate', 'XPACLRI'];
    for (const row of INSTRUCTIONS) {
      if (special.includes(row.name)) continue;
      for (let i = 0; i < 20; i++) expect(needsExit(randomWordOf(random, row))).toBe(false);
    }
  });
});

describe('TextGuard', () => {
  const memory = new Memory(1 << 20);
  const guard = new TextGuard(memory);
  const renewed: bigint[] = [];
  const refresh = (): bigint[] | undefined => {
    renewed.length = 0;
    const exits = guard.refresh((address) => renewed.push(address));
    return exits && [...exits];
  };
  const FMOV = 0x9e670020;
  const NOP = 0xd503201f;

  it('follows what memory tells', () => {
    memory.listen(guard);
    expect(refresh()).toBeUndefined();
    const text = memory.map({ name: 'text', address: TEXT, size: 8192, permissions: 'rx' });
    memory.map({ name: 'data', address: 0x1000n, size: 64, permissions: 'rw' });
    memory.write32(0x1000n, FMOV);
    expect(refresh()).toBeUndefined();
    poke(memory, TEXT + 4n, FMOV, NOP, FMOV);
    expect(refresh()).toEqual([TEXT + 4n, TEXT + 12n]);
    expect(guard.has(TEXT + 4n)).toBe(true);
    expect(guard.has(TEXT + 8n)).toBe(false);
    expect(refresh()).toBeUndefined();
    poke(memory, TEXT + 4n, NOP);
    expect(refresh()).toEqual([TEXT + 12n]);
    expect(renewed).toEqual([TEXT + 4n]);
    // one byte is enough to make and unmake an instruction
    memory.pokeBytes(TEXT + 15n, Uint8Array.of(0xd5));
    expect(guard.has(TEXT + 12n)).toBe(true);
    refresh();
    expect(guard.has(TEXT + 12n)).toBe(needsExit(0xd5670020));
    poke(memory, TEXT + 12n, FMOV);
    refresh();
    const data = memory.protect(text, 'rw');
    expect(refresh()).toEqual([]);
    memory.protect(data, 'rx');
    expect(refresh()).toEqual([TEXT + 12n]);
    memory.bytes.fill(0, data.offset, data.offset + 64);
    expect(refresh()).toBeUndefined();
    guard.suspect(TEXT + 8n, TEXT + 16n);
    expect(refresh()).toEqual([]);
  });

  it('sees text that comes back', () => {
    poke(memory, TEXT + 16n, FMOV);
    refresh();
    const moment = memory.snapshot();
    poke(memory, TEXT + 16n, NOP, FMOV);
    expect(refresh()).toEqual([TEXT + 20n]);
    memory.restore(moment);
    expect(refresh()).toEqual([TEXT + 16n]);
  });
});

describe.skipIf(!unicorn)('words without an exit', () => {
  let memory: Memory;
  let cpu: Cpu;

  beforeAll(() => {
    if (!unicorn) throw new Error('libunicorn is gone');
    memory = new Memory(1 << 20);
    memory.map({ name: 'text', address: TEXT, size: 4096, permissions: 'rx' });
    cpu = unicorn.create(memory);
  });

  afterAll(() => cpu.close());

  it.each([
    ['bits 28:25 = 0000', 0b0000 << 25, 0b1111 << 25],
    ['bits 28:25 = 0001', 0b0001 << 25, 0b1111 << 25],
    ['bits 28:25 = 0011', 0b0011 << 25, 0b1111 << 25],
    ['bits 31:24 = 11111111', 0xff << 24, 0xff << 24],
  ])('%s: libunicorn refuses them all', (_, match, mask) => {
    const random = new Random(match);
    for (let i = 0; i < 3000; i++) {
      const word = ((random.u32() & ~mask) | match) >>> 0;
      expect(needsExit(word)).toBe(false);
      poke(memory, TEXT, word);
      cpu.sync(TEXT, TEXT + 4n);
      cpu.pc = TEXT;
      expect(cpu.step()).toEqual({ kind: 'undefined', word });
    }
  });

  it('random words: none is executed that this lab does not know', () => {
    const random = new Random(11);
    let unknown = 0;
    for (let i = 0; i < 20_000; i++) {
      const word = random.u32();
      if (isExecutable(word)) continue;
      unknown += 1;
      poke(memory, TEXT, word);
      cpu.sync(TEXT, TEXT + 4n);
      cpu.pc = TEXT;
      const stop = cpu.step();
      if (stop.kind !== 'undefined') expect([word.toString(16), stop]).toEqual([]);
    }
    expect(unknown).toBeGreaterThan(10_000);
  });
});

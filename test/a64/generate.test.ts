import { describe, expect, test } from 'vitest';
import { Random } from '../../src/common/random.js';
import { decode } from '../../src/a64/codec.js';
import { instructionClass, randomWord, randomWordOf, rowsOf } from '../../src/a64/generate.js';
import { print } from '../../src/a64/print.js';
import { systemRegisterFields, systemRegisterName } from '../../src/a64/system-registers.js';

describe('random words', () => {
  test('leave out the classes they are told to', () => {
    const random = new Random(3);
    const options = { branches: false, system: false, traps: false, hints: false };
    for (let i = 0; i < 2000; i++) {
      const row = decode(randomWord(random, options))?.row;
      expect(row && ['data', 'memory'].includes(instructionClass(row))).toBe(true);
    }
    expect(rowsOf().length).toBeGreaterThan(rowsOf(options).length);
  });

  test('draw registers from a list', () => {
    const random = new Random(4);
    const [row] = rowsOf().filter(({ name }) => name === 'LDP_post');
    if (!row) throw new Error('no LDP_post');
    for (let i = 0; i < 200; i++) {
      const fields = decode(randomWordOf(random, row, [1, 2, 31]))?.fields ?? {};
      for (const name of ['Rt', 'Rt2', 'Rn']) expect([1, 2, 31]).toContain(fields[name]);
    }
    expect(() => randomWordOf(random, row, [1])).toThrow('no valid word of LDP_post');
  });

  test('are the same for the same seed', () => {
    const words = (): number[] => {
      const random = new Random(5);
      return Array.from({ length: 50 }, () => randomWord(random));
    };
    expect(words()).toEqual(words());
  });
});

describe('names', () => {
  test('branch targets get their symbol', () => {
    const symbolize = (address: bigint): string | undefined =>
      address === 0x1008n ? 'memcpy+0x0' : undefined;
    expect(print(0x94000002, 0x1000n, symbolize)).toBe('bl #0x1008 <memcpy+0x0>');
    expect(print(0x94000003, 0x1000n, symbolize)).toBe('bl #0x100c');
  });

  test('system registers go both ways; others have a generic form', () => {
    const fields = systemRegisterFields('tpidr_el1');
    expect(systemRegisterName(fields)).toBe('tpidr_el1');
    expect(systemRegisterName({ o0: 1, op1: 7, CRn: 15, CRm: 2, op2: 3 })).toBe('s3_7_c15_c2_3');
    expect(() => systemRegisterFields('ttbr9_el1')).toThrow('no system register ttbr9_el1');
  });
});

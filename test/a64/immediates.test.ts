import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  AARCH64_BREAK_FAULT,
  branchWord,
  decodeLogical,
  encodeLogical,
  reachable,
} from '../../src/a64/immediates.js';
import { print } from '../../src/a64/print.js';

describe('logical immediates', () => {
  test.each([
    [0xfffffffffffffff8n, 64, { N: 1, immr: 61, imms: 60 }],
    [0xffn, 32, { N: 0, immr: 0, imms: 7 }],
    [0x5555555555555555n, 64, { N: 0, immr: 0, imms: 0b111100 }],
    [0x80000001n, 32, { N: 0, immr: 1, imms: 1 }],
    [0n, 64, undefined],
    [0xffffffffn, 32, undefined],
    [0xffffffffffffffffn, 64, undefined],
    [0x1234n, 64, undefined],
  ] as const)('%s in %i bits', (value, width, expected) => {
    expect(encodeLogical(value, width)).toEqual(expected);
  });

  test('there are 5334 masks of 64 bits and 1302 of 32', () => {
    for (const [width, count] of [
      [64, 5334],
      [32, 1302],
    ] as const) {
      const masks = new Set<bigint>();
      for (let bits = 0; bits < 8192; bits++) {
        const mask = decodeLogical(bits >> 12, (bits >> 6) & 63, bits & 63, width);
        if (mask !== undefined) masks.add(mask);
      }
      expect(masks.size).toBe(count);
      for (const mask of masks) {
        const fields = encodeLogical(mask, width);
        expect(fields && decodeLogical(fields.N, fields.immr, fields.imms, width)).toBe(mask);
      }
    }
  });

  test('what is no mask is refused', () => {
    const property = fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (value) => {
      const fields = encodeLogical(value, 64);
      if (fields) expect(decodeLogical(fields.N, fields.immr, fields.imms, 64)).toBe(value);
    });
    fc.assert(property, { seed: 1, numRuns: 2000 });
  });
});

describe('branch range', () => {
  const pc = 0xffff800080000000n;
  test.each([
    [0n, true],
    [0x7fffffcn, true],
    [0x8000000n, false],
    [-0x8000000n, true],
    [-0x8000004n, false],
    [2n, false],
  ])('distance %s', (distance, expected) => {
    expect(reachable(pc, pc + distance)).toBe(expected);
    const word = branchWord(pc, pc + distance, true);
    if (expected) expect(print(word, pc)).toBe(`bl #0x${(pc + distance).toString(16)}`);
    else expect(word).toBe(AARCH64_BREAK_FAULT);
  });

  test('wraps around the address space', () => {
    expect(reachable(0xfffffffffffffffcn, 0n)).toBe(true);
    expect(branchWord(0xfffffffffffffffcn, 0n, false)).toBe(0x14000001);
  });
});

import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeLogical } from '../../src/a64/immediates.js';
import { print } from '../../src/a64/print.js';
import { u64 } from '../../src/common/bytes.js';
import { moveAddress, moveInt32, moveInt64 } from '../../src/jit/constants.js';
import * as emit from '../../src/jit/emit.js';

const { SP, ZR } = emit;

describe('instructions print as their arguments say', () => {
  it.each<[number, string]>([
    [emit.addImmediate(1, SP, SP, 16), 'add sp, sp, #0x10'],
    [emit.addImmediate(1, 29, SP, 0), 'mov x29, sp'],
    [emit.subImmediate(0, 1, 2, 0x3000), 'sub w1, w2, #3, lsl #12'],
    [emit.subsImmediate(0, ZR, 3, 33), 'cmp w3, #0x21'],
    [emit.addsImmediate(1, ZR, 3, 33), 'cmn x3, #0x21'],
    [emit.msub(1, 0, 10, 11, 0), 'msub x0, x10, x11, x0'],
    [emit.mul(0, 0, 1, 2), 'mul w0, w1, w2'],
    [emit.mvn(1, 11, 3), 'mvn x11, x3'],
    [emit.lslImmediate(1, 0, 1, 0), 'lsr x0, x1, #0'],
    [emit.lslImmediate(1, 0, 1, 8), 'lsl x0, x1, #8'],
    [emit.lslImmediate(0, 0, 1, 31), 'lsl w0, w1, #0x1f'],
    [emit.asrImmediate(0, 0, 1, 5), 'asr w0, w1, #5'],
    [emit.rev16(1, 0, 0), 'rev16 x0, x0'],
    [emit.rev32(0, 0), 'rev w0, w0'],
    [emit.stpPreIndex(29, 30, SP, -16), 'stp x29, x30, [sp, #-0x10]!'],
    [emit.ldpPostIndex(29, 30, SP, 16), 'ldp x29, x30, [sp], #0x10'],
    [emit.loadImmediate(2, false, 7, 10, 16), 'ldr w7, [x10, #0x10]'],
    [emit.loadImmediate(1, true, 7, 10, 2), 'ldrsh x7, [x10, #2]'],
    [emit.loadRegister(2, true, 7, 10, 11), 'ldrsw x7, [x10, x11, sxtx]'],
    [emit.storeRegister(0, 7, 10, 11), 'strb w7, [x10, x11]'],
    [emit.casal(3, 7, 1, 0), 'casal x7, x1, [x0]'],
    [emit.lseStore('clr', 2, 11, 0), 'stclr w11, [x0]'],
    [emit.lseFetch('add', 3, 1, 2, 0), 'ldaddal x1, x2, [x0]'],
    [emit.stlxr(3, 12, 11, 0), 'stlxr w12, x11, [x0]'],
    [emit.mrs('tpidr_el2', 10), 'mrs x10, tpidr_el2'],
    [emit.mrs('sp_el0', 7), 'mrs x7, sp_el0'],
    [emit.bti('jc'), 'bti jc'],
    [emit.dmbIsh(), 'dmb ish'],
    [emit.cbnz(0, 12, -3), 'cbnz w12, #0xff4'],
    [emit.bCond('hi', 2), 'b.hi #0x1008'],
    [emit.adr(30, 8), 'adr x30, #0x1008'],
    [emit.ret(30), 'ret'],
  ])('%#', (word, text) => {
    const normal = (value: string): string => value.replaceAll(/#0x0*/g, '#0x');
    expect(normal(print(word, 0x1000n))).toBe(normal(text));
  });
});

describe('what cannot be encoded is refused', () => {
  it.each([
    () => emit.addImmediate(1, 0, 0, 0x1001),
    () => emit.addImmediate(1, 0, 0, -1),
    () => emit.loadImmediate(3, false, 0, 0, 4),
    () => emit.storeImmediate(0, 0, 0, 4096),
    () => emit.stpPreIndex(0, 1, SP, -520),
    () => emit.cbz(1, 0, 1 << 18),
    () => emit.b(-(1 << 25) - 1),
    () => emit.movz(0, 0, 1, 32),
  ])('%#', (make) => expect(make).toThrow(RangeError));
});

it('bitmask immediates are those of the general encoder', () => {
  const value = fc.oneof(
    fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    fc
      .tuple(fc.constantFrom(2, 4, 8, 16, 32), fc.nat(31), fc.integer({ min: 1, max: 31 }))
      .map(([element, rotation, ones]) => repeated(element, rotation, ones)),
  );
  fc.assert(
    fc.property(value, fc.constantFrom(0, 1), (imm, sf) => {
      expect(emit.bitmaskImmediate(sf, imm)).toEqual(encodeLogical(BigInt(imm), sf ? 64 : 32));
    }),
    { numRuns: 5000 },
  );
});

/** An Int32 that repeats `ones` ones, rotated, every `element` bits. */
function repeated(element: number, rotation: number, ones: number): number {
  let value = 0;
  for (let bit = 0; bit < 32; bit++) {
    if ((bit + rotation) % element < ones % element) value |= 1 << bit;
  }
  return value;
}

/** The value that MOVZ, MOVN and MOVK words leave in their register. */
function evaluate(words: readonly number[]): bigint {
  let value = 0n;
  for (const word of words) {
    const shift = BigInt(((word >>> 21) & 3) * 16);
    const imm = BigInt((word >>> 5) & 0xffff) << shift;
    const operation = (word >>> 29) & 3;
    if (operation === 3) value = (value & ~(0xffffn << shift)) | imm;
    else value = operation === 2 ? imm : ~imm;
    value = BigInt.asUintN(word >>> 31 ? 64 : 32, value);
  }
  return value;
}

describe('constants', () => {
  const block = fc.constantFrom(0n, 0xffffn, 0x1234n, 1n, 0x8000n);
  const wide = fc
    .tuple(block, block, block, block)
    .map(([a, b, c, d]) => (a << 48n) | (b << 32n) | (c << 16n) | d);

  it('moveInt64 leaves the value, in no more words than blocks that are not the filling', () => {
    fc.assert(
      fc.property(fc.oneof(wide, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })), (value) => {
        const words = moveInt64(3, value);
        expect(evaluate(words)).toBe(value);
        const blocks = [0n, 16n, 32n, 48n].map((shift) => (value >> shift) & 0xffffn);
        const zeros = blocks.filter((each) => each === 0n).length;
        const ones = blocks.filter((each) => each === 0xffffn).length;
        // the W form starts with the low block even if that is zero, or fills with ones by bit 31
        const least = value >= 1n << 16n && value < 1n << 32n ? 2 : 1;
        expect(words.length).toBeLessThanOrEqual(Math.max(least, 4 - Math.max(zeros, ones)));
      }),
    );
  });

  it('moveInt32 leaves the sign-extended value', () => {
    fc.assert(
      fc.property(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), (value) => {
        expect(evaluate(moveInt32(1, 3, value))).toBe(u64(BigInt(value)));
        expect(evaluate(moveInt32(0, 3, value))).toBe(BigInt(value >>> 0));
      }),
    );
  });

  it('moveAddress takes three words for a kernel address', () => {
    expect(evaluate(moveAddress(10, 0xffff80008123_4567n))).toBe(0xffff80008123_4567n);
    expect(moveAddress(10, 0n)).toHaveLength(3);
  });
});

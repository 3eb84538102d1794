import fc from 'fast-check';
import { expect, it } from 'vitest';
import { KernelError } from '../../src/common/errors.js';
import { RangeAllocator } from '../../src/kernel/range-allocator.js';

it('gives the lowest hole that fits', () => {
  const space = new RangeAllocator('test', 0x1000n, 0x9000n);
  space.reserve(0x2000n, 0x3000n);
  expect(space.take(0x1000n, 0x1000n)).toBe(0x1000n);
  expect(space.take(0x2000n, 0x1000n)).toBe(0x3000n);
  expect(space.take(0x1000n, 0x1000n)).toBe(0x5000n);
  space.release(0x3000n);
  expect(space.take(0x1000n, 0x1000n)).toBe(0x3000n);
  expect(space.take(0x1000n, 0x1000n)).toBe(0x4000n);
});

it('keeps to a window, and off a boundary', () => {
  const space = new RangeAllocator('test', 0x1000n, 0x9000n);
  const window = { start: 0x20000n, end: 0x30000n };
  expect(space.take(0x1000n, 0x1000n, { window })).toBe(0x20000n);
  expect(space.take(0x1000n, 0x1000n)).toBe(0x1000n);
  expect(space.find(0x3000n, 0x1000n, { window, boundary: 0x4000n })).toBe(0x21000n);
  expect(space.find(0x4000n, 0x1000n, { window, boundary: 0x4000n })).toBe(0x24000n);
  expect(space.find(0x10000n, 0x1000n, { window })).toBeUndefined();
});

it('fills gaps from the lowest on, and gives parts back', () => {
  const space = new RangeAllocator('test', 0x1000n, 0x9000n);
  space.reserve(0x3000n, 0x4000n);
  const window = { start: 0x1000n, end: 0x6000n };
  expect(space.fill(0x3000n, window)).toBe(0x3000n);
  expect(space.find(0x1000n, 0x1000n)).toBe(0x5000n);
  expect(space.fill(0x8000n, window)).toBe(0x1000n);
  expect(space.find(0x1000n, 0x1000n)).toBe(0x6000n);
  space.cut(0x1800n, 0x2800n);
  expect(space.take(0x1000n, 0x800n)).toBe(0x1800n);
  expect(() => space.cut(0x2800n, 0x4000n)).toThrow('test: 0x2800 is not taken');
});

it('says -ENOMEM when nothing fits', () => {
  const space = new RangeAllocator('test', 0n, 0x1000n);
  expect(() => space.take(0x1001n, 1n)).toThrow(KernelError);
  expect(() => space.take(0x1001n, 1n)).toThrow('-ENOMEM: no 4097 bytes left in test');
});

it('never overlaps and always finds what a scan finds', () => {
  const operation = fc.record({ size: fc.integer({ min: 1, max: 9 }), free: fc.boolean() });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
      const space = new RangeAllocator('test', 0n, 64n);
      const used = Array.from({ length: 64 }, () => 0);
      const live = new Map<bigint, number>();
      for (const { size, free } of operations) {
        const victim = [...live.keys()][size % Math.max(live.size, 1)];
        if (free && victim !== undefined) {
          space.release(victim);
          used.fill(0, Number(victim), Number(victim) + (live.get(victim) ?? 0));
          live.delete(victim);
          continue;
        }
        const wanted = used.findIndex((_, at) =>
          at + size <= 64 ? used.slice(at, at + size).every((byte) => byte === 0) : false,
        );
        if (wanted < 0) {
          expect(() => space.take(BigInt(size), 1n)).toThrow('-ENOMEM');
          continue;
        }
        expect(space.take(BigInt(size), 1n)).toBe(BigInt(wanted));
        used.fill(1, wanted, wanted + size);
        live.set(BigInt(wanted), size);
      }
    }),
  );
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { layoutOf } from '../../../src/kernel/layout/layout.js';

const { kimage: KIMAGE_VADDR } = layoutOf().map;
const VMALLOC_END = layoutOf().vmallocEnd;

const TiB = 1n << 40n;

describe('layout of 6.12', () => {
  it('puts the image at KIMAGE_VADDR without KASLR', () => {
    const layout = layoutOf();
    expect(layout.text).toBe(0xffff800080000000n);
    expect(layout.stext).toBe(0xffff800080010000n);
    expect(layout.vmallocStart).toBe(layout.text);
  });

  it('moves the image by 31.5 to 94.5 TiB under KASLR, in steps of 2 MiB', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (kaslrSeed) => {
        const offset = layoutOf({ kaslrSeed }).text - KIMAGE_VADDR;
        expect(offset % (2n << 20n)).toBe(0n);
        expect(offset).toBeGreaterThan(31n * TiB);
        expect(offset).toBeLessThan(95n * TiB);
        expect(KIMAGE_VADDR + offset).toBeLessThan(VMALLOC_END);
      }),
    );
  });
});

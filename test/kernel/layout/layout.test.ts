/** Address maps, KASLR and module windows of each version, against the figures of the kernel's own macros. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addressMap } from '../../../src/kernel/layout/address-map.js';
import { layoutOf, type LayoutOptions } from '../../../src/kernel/layout/layout.js';
import {
  LAYOUT_PROFILES,
  LAYOUT_VERSIONS,
  type LayoutVersion,
} from '../../../src/kernel/layout/profile.js';

const MiB = 1n << 20n;
const GiB = 1n << 30n;
const TiB = 1n << 40n;

const seeds = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const versions = fc.constantFrom(...LAYOUT_VERSIONS);

describe('address map', () => {
  it.each<[LayoutVersion, 39 | 48, Record<string, bigint>]>([
    [
      '5.15',
      48,
      {
        linear: 0xffff000000000000n,
        bpf: 0xffff800000000000n,
        modules: 0xffff800008000000n,
        kimage: 0xffff800010000000n,
        vmallocEnd: 0xfffffbfff0000000n,
        vmemmap: 0xfffffc0000000000n,
      },
    ],
    [
      '6.1',
      48,
      {
        linear: 0xffff000000000000n,
        modules: 0xffff800000000000n,
        kimage: 0xffff800008000000n,
        vmallocEnd: 0xfffffbfff0000000n,
        vmemmap: 0xfffffc0000000000n,
      },
    ],
    [
      '6.5',
      48,
      {
        linear: 0xffff000000000000n,
        modules: 0xffff800000000000n,
        kimage: 0xffff800080000000n,
        vmallocEnd: 0xfffffbfff0000000n,
        vmemmap: 0xfffffc0000000000n,
      },
    ],
    [
      '6.12',
      48,
      {
        linear: 0xffff000000000000n,
        modules: 0xffff800000000000n,
        kimage: 0xffff800080000000n,
        vmallocEnd: 0xfffffdffbf800000n,
        vmemmap: 0xfffffdffc0000000n,
      },
    ],
    [
      '6.1',
      39,
      {
        linear: 0xffffff8000000000n,
        modules: 0xffffffc000000000n,
        kimage: 0xffffffc008000000n,
        vmallocEnd: 0xfffffffdf0000000n,
        vmemmap: 0xfffffffe00000000n,
      },
    ],
    [
      '6.12',
      39,
      {
        linear: 0xffffff8000000000n,
        modules: 0xffffffc000000000n,
        kimage: 0xffffffc080000000n,
        vmallocEnd: 0xfffffffebf800000n,
        vmemmap: 0xfffffffec0000000n,
      },
    ],
  ])('of %s, %i-bit VA', (version, vaBits, expected) => {
    const map = addressMap(LAYOUT_PROFILES[version], vaBits);
    const { linear, bpfRegion, modules, kimage, vmalloc, vmemmap } = map;
    expect({
      linear: linear.start,
      ...(bpfRegion && { bpf: bpfRegion.start }),
      modules: modules.start,
      kimage,
      vmallocEnd: vmalloc.end,
      vmemmap: vmemmap.start,
    }).toEqual(expected);
    expect(vmalloc.start).toBe(kimage);
  });

  it.each<[LayoutVersion, number]>([
    ['6.1', 123.9996],
    ['6.12', 125.9971],
  ])('vmalloc space of %s is %f TiB', (version, size) => {
    const { vmalloc } = addressMap(LAYOUT_PROFILES[version]);
    expect(Number(vmalloc.end - vmalloc.start) / 2 ** 40).toBeCloseTo(size, 4);
  });
});

it.each<[LayoutVersion, bigint, bigint | undefined]>([
  ['6.1', 0xffff800008010000n, undefined],
  ['6.12', 0xffff800080010000n, 0xffff800080e00000n],
  ['7.3', 0xffff800080010000n, undefined],
])('%s has its text where the booted kernel with nokaslr has it', (version, stext, etext) => {
  const layout = layoutOf({ version });
  expect(layout.stext).toBe(stext);
  if (etext !== undefined) expect(layout.etext).toBe(etext);
});

describe('KASLR', () => {
  it.each<[string, LayoutOptions, number, number]>([
    ['6.1', { version: '6.1' }, 32, 96],
    ['6.12', { version: '6.12' }, 31.4993, 94.4978],
    ['6.1, 39-bit VA', { version: '6.1', vaBits: 39 }, 64 / 1024, 192 / 1024],
  ])('moves %s by %f to %f TiB, in steps of 2 MiB', (_name, options, min, max) => {
    const kimage = layoutOf(options).text;
    const offsetOf = (kaslrSeed: bigint): bigint =>
      layoutOf({ ...options, kaslrSeed }).text - kimage;
    const inTiB = (offset: bigint): number => Number(offset) / 2 ** 40;
    const [lowest, highest] = [offsetOf(0n), offsetOf((1n << 64n) - 1n)];
    expect(inTiB(lowest)).toBeCloseTo(min, 4);
    expect(inTiB(highest)).toBeCloseTo(max, 4);
    fc.assert(
      fc.property(seeds, (seed) => {
        const offset = offsetOf(seed);
        expect(offset % (2n * MiB)).toBe(0n);
        expect(offset).toBeGreaterThanOrEqual(lowest);
        expect(offset).toBeLessThanOrEqual(highest);
      }),
    );
  });

  it('uses low bits of the seed up to 6.8, high bits since', () => {
    const high = 0x8000000000000000n;
    expect(
      layoutOf({ version: '6.1', kaslrSeed: high }).text - layoutOf({ version: '6.1' }).text,
    ).toBe(32n * TiB);
    const { vmallocStart, vmallocEnd, text } = layoutOf({ kaslrSeed: high });
    expect(text - (vmallocStart + (vmallocEnd - vmallocStart) / 2n)).toBeLessThanOrEqual(0n);
    expect(text - (vmallocStart + (vmallocEnd - vmallocStart) / 2n)).toBeGreaterThan(-2n * MiB);
  });

  it('keeps the offset that physical memory has in 2 MiB', () => {
    const layout = layoutOf({ kaslrSeed: 99n, physicalBase: 0x4012_3000n });
    expect(layout.text % (2n * MiB)).toBe(0x12_3000n);
  });
});

describe('windows for modules', () => {
  it('6.1 without KASLR: 128 MiB that end at _etext, then 2 GiB', () => {
    const { etext, moduleWindows } = layoutOf({ version: '6.1' });
    expect(moduleWindows).toEqual([
      { start: etext - 128n * MiB, end: etext },
      { start: etext - 128n * MiB, end: etext + 1920n * MiB },
    ]);
  });

  it('6.12 without KASLR: 128 MiB and 2 GiB that end at _end', () => {
    const { end, moduleWindows } = layoutOf();
    expect(moduleWindows).toEqual([
      { start: end - 128n * MiB, end },
      { start: end - 2n * GiB, end },
    ]);
  });

  it('with KASLR the first has all kernel text in it, at a page, and the second has the first', () => {
    fc.assert(
      fc.property(seeds, versions, (kaslrSeed, version) => {
        const { stext, etext, text, end, moduleWindows, profile } = layoutOf({
          version,
          kaslrSeed,
        });
        const [first, second] = moduleWindows;
        const boxes = profile.modulePlacement === 'boxes';
        expect(first?.start).toBeLessThanOrEqual(boxes ? text : stext);
        expect(first?.end).toBeGreaterThanOrEqual(boxes ? end : etext - 4096n);
        expect((first?.end ?? 0n) - (first?.start ?? 0n)).toBe(128n * MiB);
        expect((first?.start ?? 1n) % 4096n).toBe(0n);
        expect(second?.start).toBeLessThanOrEqual(first?.start ?? 0n);
        expect(second?.end).toBeGreaterThanOrEqual(first?.end ?? 0n);
        expect((second?.end ?? 0n) - (second?.start ?? 0n)).toBe(2n * GiB);
      }),
    );
  });

  it('FULL of 6.5 and later has one of 2 GiB around the image; before, 128 MiB anywhere in that', () => {
    fc.assert(
      fc.property(seeds, (kaslrSeed) => {
        const late = layoutOf({ kaslrSeed, fullModuleRegion: true });
        expect(late.moduleWindows).toHaveLength(1);
        const [box] = late.moduleWindows;
        expect(box?.start).toBeLessThanOrEqual(late.text);
        expect(box?.end).toBeGreaterThanOrEqual(late.end);
        const early = layoutOf({ version: '6.1', kaslrSeed, fullModuleRegion: true });
        const [first] = early.moduleWindows;
        expect(first?.start).toBeGreaterThanOrEqual(early.end - 2n * GiB);
        expect(first?.start).toBeLessThanOrEqual(early.stext);
      }),
    );
  });

  it('is the same for the same seed and another for another', () => {
    const windows = (kaslrSeed: bigint): unknown => layoutOf({ kaslrSeed }).moduleWindows;
    expect(windows(5n)).toEqual(windows(5n));
    expect(windows(5n)).not.toEqual(windows(6n));
  });
});

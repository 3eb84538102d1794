/** What attaching does, by version and distance; where things land; how often it works. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { kernelSpace, takeBpfPages, takeModule } from '../../../src/kernel/layout/address-space.js';
import { layoutOf } from '../../../src/kernel/layout/layout.js';
import {
  attachOutcome,
  describeOutcome,
  programOutcome,
} from '../../../src/kernel/layout/outcome.js';
import { LAYOUT_PROFILES, type LayoutVersion } from '../../../src/kernel/layout/profile.js';
import { surveyLayout, surveySeeds } from '../../../src/kernel/layout/survey.js';

const MiB = 1n << 20n;
const ENTRY = 0xffff800080400000n;
const IP = ENTRY + 4n;
const ENTRIES = { ftrace_caller: 0xffff800080010040n, ftrace_regs_caller: 0xffff800080010400n };

const attach = (version: LayoutVersion, image: bigint, ip = IP): string =>
  describeOutcome(attachOutcome(LAYOUT_PROFILES[version], { entry: ENTRY, ip }, image, ENTRIES));

describe('attaching to a kernel function', () => {
  it.each<[LayoutVersion, string, string]>([
    ['5.15', '-ENOTSUPP', '-ENOTSUPP'],
    ['v5', 'bl image', '-ENOTSUPP'],
    ['6.1', '-ENOTSUPP', '-ENOTSUPP'],
    ['sep-2022', 'bl image', 'bl literal_call'],
    ['6.2', '-ENOTSUPP', '-ENOTSUPP'],
    ['6.4', 'bl image', 'bl ftrace_caller'],
    ['6.5', 'bl image', 'bl ftrace_caller'],
    ['6.9', 'bl image', 'bl ftrace_caller'],
    ['6.12', 'bl image', 'bl ftrace_caller'],
    ['6.18', 'bl image', 'bl ftrace_caller'],
    ['7.3', 'bl image', 'bl ftrace_caller'],
  ])('%s: near %s, far %s', (version, near, far) => {
    expect([attach(version, ENTRY + MiB), attach(version, ENTRY + 1024n * MiB)]).toEqual([
      near,
      far,
    ]);
  });

  // v5 measures from the entry, ftrace of 5.19 from the BL, with the ends of the range the wrong way round
  it.each<[string, bigint, string, string]>([
    [
      '-128 MiB - 4 from ip: -128 MiB from entry',
      -128n * MiB - 4n,
      '-EINVAL, ftrace disabled',
      'bl ftrace_caller',
    ],
    ['-128 MiB - 8 from ip', -128n * MiB - 8n, '-ENOTSUPP', 'bl ftrace_caller'],
    ['-128 MiB from ip', -128n * MiB, '-EINVAL, ftrace disabled', 'bl image'],
    ['-128 MiB + 4 from ip', -128n * MiB + 4n, 'bl image', 'bl image'],
    ['+128 MiB - 8 from ip: the last from entry', 128n * MiB - 8n, 'bl image', 'bl image'],
    ['+128 MiB - 4 from ip', 128n * MiB - 4n, '-ENOTSUPP', 'bl image'],
    ['+128 MiB from ip', 128n * MiB, '-ENOTSUPP', 'bl ftrace_caller'],
  ])('%s', (_name, distance, v5, linux612) => {
    expect(attach('v5', IP + distance)).toBe(v5);
    expect(attach('6.12', IP + distance)).toBe(linux612);
  });

  it('with BTI the site is a word further, and so is the edge', () => {
    const bti = ENTRY + 8n;
    expect(attach('6.12', bti - 128n * MiB, bti)).toBe('bl image');
    expect(attach('6.12', bti - 128n * MiB)).toBe('bl image');
    expect(attach('6.12', bti + 128n * MiB - 4n, bti)).toBe('bl image');
    expect(attach('6.12', bti + 128n * MiB - 4n)).toBe('bl ftrace_caller');
  });

  it('6.12 never refuses, whatever the distance', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(1n << 46n), max: 1n << 46n }), (words) => {
        expect(attach('6.12', IP + 4n * words)).toMatch(/^bl (image|ftrace_caller)$/);
      }),
    );
  });

  it('what v5 refuses is -524, and it is its generator that does', () => {
    const image = ENTRY + 1024n * MiB;
    expect(attachOutcome(LAYOUT_PROFILES.v5, { entry: ENTRY }, image, ENTRIES)).toEqual({
      kind: 'refused',
      errno: 'ENOTSUPP',
      why: 'arch_prepare_bpf_trampoline: long jump from the function to the image',
    });
  });
});

it.each<[LayoutVersion, string, string]>([
  ['5.15', '-ENOTSUPP', '-ENOTSUPP'],
  ['6.1', 'bl image', 'bl plt'],
  ['6.12', 'bl image', 'bl plt'],
])('attaching to a BPF program in %s: near %s, far %s', (version, near, far) => {
  const at = (image: bigint): string =>
    describeOutcome(programOutcome(LAYOUT_PROFILES[version], IP, image));
  expect([at(IP + MiB), at(IP + 1024n * MiB)]).toEqual([near, far]);
});

describe('where things land', () => {
  it('first fit: holes in what is used are taken before what lies behind', () => {
    const layout = layoutOf({ version: '6.1' });
    const used = 300 << 20;
    const holes = [
      { at: 10 << 20, size: 4096 },
      { at: 50 << 20, size: 8192 },
    ];
    const space = kernelSpace(layout, { used, holes });
    // a page of guard belongs to each area
    expect(takeBpfPages(layout, space, 4096)).toBe(layout.end + 50n * MiB);
    expect(takeBpfPages(layout, space, 4096)).toBe(layout.end + 300n * MiB);
  });

  it('5.15 has a region of its own, packs are 2 MiB each', () => {
    const old = layoutOf({ version: '5.15', kaslrSeed: 1n });
    expect(takeBpfPages(old, kernelSpace(old), 4096)).toBe(0xffff800000000000n);
    const layout = layoutOf();
    const space = kernelSpace(layout);
    expect(takeBpfPages(layout, space, 64)).toBe(layout.end);
    expect(takeBpfPages(layout, space, 64)).toBe(layout.end + 2n * MiB);
  });

  it('modules fill the first window, then the second, then there is -ENOMEM', () => {
    const layout = layoutOf();
    const [first, second] = layout.moduleWindows;
    const space = kernelSpace(layout);
    expect(takeModule(layout, space, 97 << 20)).toBe(first?.start);
    expect(takeModule(layout, space, 4 << 20)).toBe(second?.start);
    expect(() => takeModule(layout, space, 1917 << 20)).toThrow(
      /^-ENOMEM: no \d+ bytes left where modules may be$/,
    );
  });
});

describe('how often it works', () => {
  it('v5 with KASLR never, 6.12 always, over 500 seeds each', () => {
    const seeds = 500;
    const v5 = surveySeeds({ version: 'v5' }, { seeds, used: 4 * 2 ** 30 });
    expect([...v5.kernel]).toEqual([['-ENOTSUPP', seeds]]);
    expect([...v5.module]).toEqual([['-ENOTSUPP', seeds]]);
    expect(v5.nearest).toBeGreaterThan(31n << 40n);
    const v612 = surveySeeds({ version: '6.12' }, { seeds, used: 4 * 2 ** 30 });
    expect([...v612.kernel]).toEqual([['bl ftrace_caller', seeds]]);
    expect([...v612.module]).toEqual([['bl ftrace_caller', seeds]]);
    expect(v612.moduleNeedsNoPlt).toBe(seeds);
  });

  it('v5 without KASLR until image and vmalloc use together are 128 MiB beyond the function', () => {
    const page = 4096;
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: (200 << 20) / page }),
        fc.integer({ min: 16, max: (14 << 20) / 64 }),
        (pages, at) => {
          const used = pages * page;
          const functionOffset = 64 * at;
          const layout = layoutOf({ version: 'v5' });
          const { kernel, image } = surveyLayout(layout, { used, functionOffset });
          expect(image).toBe(layout.end + BigInt(used));
          const fits = 30n * MiB + BigInt(used - functionOffset) < 128n * MiB;
          expect(describeOutcome(kernel.outcome)).toBe(fits ? 'bl image' : '-ENOTSUPP');
        },
      ),
    );
  });

  it('the module of a FULL region needs no PLT in (128 MiB - S) / (2 GiB - S) of all cases', () => {
    const seeds = 4000;
    const size = 32n * MiB;
    const full = surveySeeds(
      { fullModuleRegion: true, imageSize: size },
      { seeds, modules: [4096] },
    );
    const expected = Number(128n * MiB - size) / Number(2048n * MiB - size);
    expect(expected).toBeCloseTo(0.048, 3);
    // four standard deviations of a binomial distribution
    const slack = 4 * Math.sqrt((expected * (1 - expected)) / seeds);
    expect(Math.abs(full.moduleNeedsNoPlt / seeds - expected)).toBeLessThan(slack);
    const byPlt = full.module.get('bl module PLT -> ftrace_caller') ?? 0;
    expect(byPlt + (full.module.get('bl ftrace_caller') ?? 0)).toBe(seeds);
    expect(byPlt / seeds).toBeGreaterThan(0.9);
  });

  it('a 39-bit kernel is no nearer: 64 GiB at least', () => {
    const odds = surveySeeds({ version: 'v5', vaBits: 39 }, { seeds: 200 });
    expect([...odds.kernel.keys()]).toEqual(['-ENOTSUPP']);
    expect(odds.nearest).toBeGreaterThan(63n << 30n);
  });
});

/**
 * One kernel's distances, and many kernels': where modules and a BPF image land, what attaching to a kernel
 * function and to one of each module then does, and how often over N KASLR seeds.
 *
 * What is allocated is modules in the order in which they are given, then BPF images, in a kernel whose use of
 * vmalloc space is given. The function of the kernel lies at an offset in the image, that of a module at its
 * start.
 *
 * Usage:
 *   const here = surveyLayout(layoutOf({ kaslrSeed: 7n }), { used: 64 << 20 });
 *   const odds = surveySeeds({ version: 'v5' }, { seeds: 1000 });
 *   odds.kernel.get('-ENOTSUPP'); // 1000
 */
import { alignUp } from '../../common/bytes.js';
import { Random } from '../../common/random.js';
import type { FtracePlts, ReachModule } from '../ftrace/reach.js';
import type { Window } from './address-map.js';
import { kernelSpace, takeBpfPages, takeModule, type VmallocUse } from './address-space.js';
import { layoutOf, type Layout, type LayoutOptions } from './layout.js';
import { attachOutcome, describeOutcome, programOutcome, type AttachOutcome } from './outcome.js';

const PAGE_SIZE = 4096;
const PLT_ENTRY_SIZE = 12n;

export interface SurveyOptions extends VmallocUse {
  /** Offset of the kernel function in the image. Default 4 MiB. */
  readonly functionOffset?: number;
  /** Bytes of text of each module, in the order of loading. Default one of 64 KiB. */
  readonly modules?: readonly number[];
}

/** A function and an image, and what comes of it. */
export interface Surveyed {
  readonly entry: bigint;
  /** image - rec->ip. */
  readonly distance: bigint;
  readonly outcome: AttachOutcome;
}

export interface SurveyedModule extends Surveyed {
  /** Bytes of its text. */
  readonly size: number;
  /** ftrace_caller - rec->ip of its function. */
  readonly callerDistance: bigint;
  /** All of the kernel image, up to 6.4 all of its text, is in BL range of all of it: as the windows promise. */
  readonly needsNoPlt: boolean;
}

export interface LayoutSurvey {
  readonly layout: Layout;
  /** The BPF image. */
  readonly image: bigint;
  readonly kernel: Surveyed;
  readonly modules: readonly SurveyedModule[];
  /** A BPF program: the next image. */
  readonly program: Surveyed;
}

/** Distances from _stext in booted Debian kernels: 6.12.107, and 6.1.176 for the second. */
const CALLER_OFFSET = 0x1c8f8n;
const REGS_CALLER_OFFSET = 0x1ca78n;
const BL_RANGE = 128n << 20n;

/** Throws KernelError -ENOMEM when something has no place. */
export function surveyLayout(layout: Layout, options: SurveyOptions = {}): LayoutSurvey {
  const { profile } = layout;
  const space = kernelSpace(layout, options);
  const placed = (options.modules ?? [64 << 10]).map((size) => {
    return { size: alignUp(size, PAGE_SIZE), start: takeModule(layout, space, size) };
  });
  const image = takeBpfPages(layout, space, PAGE_SIZE);
  // another image: its neighbour in the pack, or pages of its own
  const program = profile.bpf === 'packs' ? image + 64n : takeBpfPages(layout, space, PAGE_SIZE);
  const caller = layout.stext + CALLER_OFFSET;
  const entries: FtracePlts = {
    ftrace_caller: caller,
    ftrace_regs_caller: layout.stext + REGS_CALLER_OFFSET,
  };
  const survey = (entry: bigint, module?: ReachModule): Surveyed => ({
    entry,
    distance: image - (entry + 4n),
    outcome: attachOutcome(profile, { entry, module }, image, entries),
  });
  return {
    layout,
    image,
    kernel: survey(layout.text + BigInt(options.functionOffset ?? 4 << 20)),
    modules: placed.map(({ start, size }) => {
      const end = start + BigInt(size);
      const { start: kernelStart, end: kernelEnd } = branchTargets(layout);
      const lowest = kernelStart < start ? kernelStart : start;
      const highest = kernelEnd > end ? kernelEnd : end;
      return {
        ...survey(start, surveyedModule(start, end)),
        size,
        callerDistance: caller - (start + 4n),
        needsNoPlt: highest - lowest <= BL_RANGE,
      };
    }),
    program: {
      entry: program,
      distance: image - (program + 4n),
      outcome: programOutcome(profile, program + 4n, image),
    },
  };
}

/** What the module windows of a version are laid around. */
function branchTargets({ profile, text, stext, etext, end }: Layout): Window {
  switch (profile.modulePlacement) {
    case 'around text':
      return { start: stext, end: etext };
    case 'boxes':
      return { start: text, end };
  }
}

/** Entries for ftrace at its end. */
function surveyedModule(start: bigint, end: bigint): ReachModule {
  const plts: FtracePlts = {
    ftrace_caller: end - 2n * PLT_ENTRY_SIZE,
    ftrace_regs_caller: end - PLT_ENTRY_SIZE,
  };
  return {
    name: `module at 0x${start.toString(16)}`,
    plts,
    initPlts: undefined,
    inInit: () => false,
  };
}

export interface SeedsOptions extends SurveyOptions {
  /** How many layouts. Default 1000. */
  readonly seeds?: number;
  /** What the KASLR seeds are drawn with. Default 1. */
  readonly firstSeed?: number;
}

export interface SeedsSurvey {
  readonly seeds: number;
  /** How often each outcome, by its description. */
  readonly kernel: ReadonlyMap<string, number>;
  /** Of the module that was loaded last. */
  readonly module: ReadonlyMap<string, number>;
  /** In how many that module needs no PLT. */
  readonly moduleNeedsNoPlt: number;
  /** Least and greatest |image - rec->ip| of the kernel function. */
  readonly nearest: bigint;
  readonly farthest: bigint;
}

/** The same kernel with `seeds` KASLR seeds. */
export function surveySeeds(
  kernel: Omit<LayoutOptions, 'kaslrSeed'>,
  options: SeedsOptions = {},
): SeedsSurvey {
  const seeds = options.seeds ?? 1000;
  const random = new Random(options.firstSeed ?? 1);
  const counts = { kernel: new Map<string, number>(), module: new Map<string, number>() };
  const count = (of: keyof typeof counts, { outcome }: Surveyed): void => {
    const text = describeOutcome(outcome);
    counts[of].set(text, (counts[of].get(text) ?? 0) + 1);
  };
  let [moduleNeedsNoPlt, nearest, farthest] = [0, 1n << 64n, 0n];
  for (let i = 0; i < seeds; i++) {
    const survey = surveyLayout(layoutOf({ ...kernel, kaslrSeed: random.u64() }), options);
    count('kernel', survey.kernel);
    const module = survey.modules.at(-1);
    if (module) count('module', module);
    if (module?.needsNoPlt) moduleNeedsNoPlt++;
    const { distance } = survey.kernel;
    const magnitude = distance < 0n ? -distance : distance;
    if (magnitude < nearest) nearest = magnitude;
    if (magnitude > farthest) farthest = magnitude;
  }
  return { seeds, ...counts, moduleNeedsNoPlt, nearest, farthest };
}

/**
 * One kernel's distances, and many kernels': where a BPF image and a module land, what attaching to a kernel
 * function and to one of the module then does, and how often over N KASLR seeds.
 *
 * What is allocated is one BPF image and one module, in a kernel whose use of vmalloc space is given. The
 * function of the kernel lies at an offset in the image, that of the module at its start.
 *
 * Usage:
 *   const here = surveyLayout(layoutOf({ kaslrSeed: 7n }), { used: 64 << 20 });
 *   const odds = surveySeeds({ version: 'v5' }, { seeds: 1000 });
 *   odds.kernel.get('-ENOTSUPP'); // 1000
 */
import { alignUp } from '../../common/bytes.js';
import { Random } from '../../common/random.js';
import type { FtracePlts, ReachModule } from '../ftrace/reach.js';
import { kernelSpace, takeBpfPages, takeModule, type VmallocUse } from './address-space.js';
import { layoutOf, type Layout, type LayoutOptions } from './layout.js';
import { attachOutcome, describeOutcome, programOutcome, type AttachOutcome } from './outcome.js';

const PAGE_SIZE = 4096;
const PLT_ENTRY_SIZE = 12n;

export interface SurveyOptions extends VmallocUse {
  /** Offset of the kernel function in the image. Default 4 MiB. */
  readonly functionOffset?: number;
  /** Bytes of the module's text. Default 64 KiB. */
  readonly moduleSize?: number;
}

/** A function and an image, and what comes of it. */
export interface Surveyed {
  readonly entry: bigint;
  /** image - rec->ip. */
  readonly distance: bigint;
  readonly outcome: AttachOutcome;
}

export interface LayoutSurvey {
  readonly layout: Layout;
  /** The BPF image. */
  readonly image: bigint;
  /** Start of the module's text. */
  readonly module: bigint;
  /** ftrace_caller - rec->ip of the module's function. */
  readonly callerDistance: bigint;
  /** All of the kernel image is in BL range of all of the module: it needs no PLT. */
  readonly moduleNeedsNoPlt: boolean;
  readonly toKernel: Surveyed;
  readonly toModule: Surveyed;
  /** To a BPF program: the next image. */
  readonly toProgram: Surveyed;
}

/** Throws KernelError -ENOMEM when something has no place. */
export function surveyLayout(layout: Layout, options: SurveyOptions = {}): LayoutSurvey {
  const { profile } = layout;
  const space = kernelSpace(layout, options);
  const moduleSize = BigInt(alignUp(options.moduleSize ?? 64 << 10, PAGE_SIZE));
  const module = takeModule(layout, space, Number(moduleSize));
  const image = takeBpfPages(layout, space, PAGE_SIZE);
  // another image: its neighbour in the pack, or pages of its own
  const program = profile.bpf === 'packs' ? image + 64n : takeBpfPages(layout, space, PAGE_SIZE);
  const entries: FtracePlts = {
    ftrace_caller: layout.stext + 64n,
    ftrace_regs_caller: layout.stext + 0x400n,
  };
  const survey = (entry: bigint, owner?: ReachModule): Surveyed => ({
    entry,
    distance: image - (entry + 4n),
    outcome: attachOutcome(profile, { entry, module: owner }, image, entries),
  });
  const owner = surveyedModule(module, module + moduleSize);
  const lowest = layout.text < module ? layout.text : module;
  const moduleEnd = module + moduleSize;
  const highest = layout.end > moduleEnd ? layout.end : moduleEnd;
  return {
    layout,
    image,
    module,
    callerDistance: layout.stext + 64n - (module + 4n),
    moduleNeedsNoPlt: highest - lowest <= 128n << 20n,
    toKernel: survey(layout.text + BigInt(options.functionOffset ?? 4 << 20)),
    toModule: survey(module, owner),
    toProgram: {
      entry: program,
      distance: image - (program + 4n),
      outcome: programOutcome(profile, program + 4n, image),
    },
  };
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
  readonly module: ReadonlyMap<string, number>;
  /** In how many the module needs no PLT. */
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
    count('kernel', survey.toKernel);
    count('module', survey.toModule);
    if (survey.moduleNeedsNoPlt) moduleNeedsNoPlt++;
    const { distance } = survey.toKernel;
    const magnitude = distance < 0n ? -distance : distance;
    if (magnitude < nearest) nearest = magnitude;
    if (magnitude > farthest) farthest = magnitude;
  }
  return { seeds, ...counts, moduleNeedsNoPlt, nearest, farthest };
}

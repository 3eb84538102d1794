/**
 * Whether attaching succeeds, over layouts: KASLR on and off, vmalloc space in use, functions of the kernel and
 * of a module.
 *
 * What the layouts are and what attaching does in them is `kernel/layout`; a strategy says which kernel it
 * is, and whether it needs BL range to the image at all. How much of vmalloc space others use when the
 * image is allocated is drawn evenly from 0 to 256 MiB: a few tens of MiB after boot of a small machine, more
 * with every stack, map and module.
 */
import { Random } from '../../common/random.js';
import { reachable } from '../../a64/immediates.js';
import { layoutOf, type LayoutOptions } from '../../kernel/layout/layout.js';
import { describeOutcome } from '../../kernel/layout/outcome.js';
import {
  surveyLayout,
  type LayoutSurvey,
  type Surveyed,
  type SurveyedModule,
} from '../../kernel/layout/survey.js';
import type { Strategy } from './strategy.js';

export interface Conditions {
  readonly name: string;
  readonly options: Omit<LayoutOptions, 'kaslrSeed' | 'version'>;
  readonly kaslr: boolean;
}

export const CONDITIONS: readonly Conditions[] = [
  { name: 'no KASLR', options: {}, kaslr: false },
  { name: 'KASLR', options: {}, kaslr: true },
  {
    name: 'KASLR, full module region',
    options: { fullModuleRegion: true },
    kaslr: true,
  },
];

export const TARGETS = ['kernel function', 'module function', 'BPF program'] as const;
export type Target = (typeof TARGETS)[number];

export interface Odds {
  readonly strategy: Strategy;
  readonly conditions: Conditions;
  readonly target: Target;
  readonly layouts: number;
  readonly attached: number;
  /** How often each outcome. */
  readonly outcomes: ReadonlyMap<string, number>;
  /** Bytes of vmalloc space in use: the most with which attaching succeeded, the least with which it failed. */
  readonly mostUsed: number | undefined;
  readonly leastUsedFailing: number | undefined;
}

const MOST_USED = 256 << 20;
const PAGE = 4096;

/** @param layouts how many layouts for each of the conditions */
export function attachOdds(strategies: readonly Strategy[], layouts: number, seed = 1): Odds[] {
  return strategies.flatMap((strategy) =>
    targetsOf(strategy).flatMap((target) =>
      CONDITIONS.map((conditions) => oddsOf(strategy, target, conditions, layouts, seed)),
    ),
  );
}

function targetsOf({ reaching }: Strategy): readonly Target[] {
  switch (reaching) {
    case undefined:
      return [];
    case 'program':
      return ['BPF program'];
    default:
      return ['kernel function', 'module function'];
  }
}

function oddsOf(
  strategy: Strategy,
  target: Target,
  conditions: Conditions,
  layouts: number,
  seed: number,
): Odds {
  const random = new Random(seed);
  const outcomes = new Map<string, number>();
  let attached = 0;
  let mostUsed: number | undefined;
  let leastUsedFailing: number | undefined;
  for (let i = 0; i < layouts; i++) {
    const kaslrSeed = random.u64();
    const used = random.below(MOST_USED / PAGE) * PAGE;
    const layout = layoutOf({
      ...conditions.options,
      version: strategy.layout ?? '6.12',
      ...(conditions.kaslr ? { kaslrSeed } : {}),
    });
    const { text, works } = outcomeOf(strategy, target, surveyLayout(layout, { used }));
    outcomes.set(text, (outcomes.get(text) ?? 0) + 1);
    if (works) {
      attached++;
      mostUsed = Math.max(mostUsed ?? 0, used);
    } else {
      leastUsedFailing = Math.min(leastUsedFailing ?? MOST_USED, used);
    }
  }
  return { strategy, conditions, target, layouts, attached, outcomes, mostUsed, leastUsedFailing };
}

interface Found {
  readonly text: string;
  readonly works: boolean;
}

function outcomeOf({ reaching }: Strategy, target: Target, survey: LayoutSurvey): Found {
  if (reaching === 'ftrace_caller') return throughCaller(target, survey);
  const { entry, distance, outcome } = surveyedOf(target, survey);
  if (reaching === 'near plan' || reaching === 'near or far plan') {
    if (reachable(entry + 4n, entry + 4n + distance)) return { text: 'near plan', works: true };
    if (reaching === 'near or far plan') return { text: 'far plan', works: true };
    return { text: '-ENOTSUPP', works: false };
  }
  if (reaching === 'own trampoline') {
    // the copy is where an image would be, and calls a callback of the kernel
    const ip = entry + 4n;
    const copy = ip + distance;
    if (reachable(ip, copy) && reachable(copy, survey.layout.stext)) {
      return { text: 'bl own trampoline', works: true };
    }
    return throughCaller(target, survey);
  }
  const failed = ['refused', 'ftrace bug', 'brk'].includes(outcome.kind);
  return { text: describeOutcome(outcome), works: !failed };
}

function surveyedOf(target: Target, survey: LayoutSurvey): Surveyed {
  switch (target) {
    case 'kernel function':
      return survey.kernel;
    case 'module function':
      return onlyModule(survey);
    case 'BPF program':
      return survey.program;
  }
}

function onlyModule({ modules }: LayoutSurvey): SurveyedModule {
  const [module] = modules;
  if (!module) throw new RangeError('no module was placed');
  return module;
}

function throughCaller(target: Target, survey: LayoutSurvey): Found {
  const { entry, callerDistance } = onlyModule(survey);
  const ip = entry + 4n;
  const near = target === 'kernel function' || reachable(ip, ip + callerDistance);
  return { text: near ? 'bl ftrace_caller' : 'bl module PLT -> ftrace_caller', works: true };
}

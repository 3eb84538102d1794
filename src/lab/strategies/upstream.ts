/**
 * What the authors of the merged series and of the proposals measured, in nanoseconds, and the same
 * situations here, in instructions.
 *
 * Figures: cover letter of "arm64/ftrace: add DYNAMIC_FTRACE_WITH_CALL_OPS" (Mark Rutland, January 2023; Apple M1,
 * 100,000 calls of a function by the ftrace-ops sample) and replies to "Add ftrace direct call for arm64" v2 (Xu
 * Kuohai, Florent Revest, October 2022; Raspberry Pi 4, trig-fentry of tools/testing/selftests/bpf/benchs).
 *
 * Comparable are shapes, not units: what depends on what, and ratios. Instructions here are those of A64 text:
 * entry code, the lab's own list function, trampolines; not of compiled C (callbacks, enter and exit functions).
 */
import type { StrategyLab } from './compare.js';
import type { PartMeasure } from './measure.js';
import { ALONE } from './situation.js';
import type { Strategy, StrategyKernel } from './strategy.js';

/** A row of the series' own table: ops on the function and elsewhere, nanoseconds of all calls. */
export interface CallOpsFigure {
  readonly relevant: number;
  readonly irrelevant: number;
  readonly before: number;
  readonly after: number;
}

const CALLS = 100_000;

const figure = (
  relevant: number,
  irrelevant: number,
  before: number,
  after: number,
): CallOpsFigure => ({ relevant, irrelevant, before, after });

export const CALL_OPS_FIGURES: readonly CallOpsFigure[] = [
  figure(0, 0, 94_583, 94_541),
  figure(0, 1, 93_709, 93_666),
  figure(0, 2, 93_666, 93_709),
  figure(0, 10, 93_709, 93_667),
  figure(0, 100, 93_792, 93_792),
  figure(1, 0, 1_431_875, 280_959),
  figure(1, 1, 6_467_833, 281_000),
  figure(1, 2, 7_509_708, 281_042),
  figure(1, 10, 23_786_792, 280_958),
  figure(1, 100, 106_432_500, 281_250),
  figure(2, 0, 6_456_334, 6_502_708),
  figure(10, 0, 22_717_000, 18_681_209),
  figure(100, 0, 103_293_667, 103_550_458),
];

/** Before and after are releases: the series went into 6.3. */
const KERNELS = { before: '6.2', after: '6.3' } as const satisfies Record<
  string,
  StrategyKernel['ftrace']
>;

function opsOnly(ftrace: (typeof KERNELS)[keyof typeof KERNELS]): Strategy {
  return {
    name: `ftrace of ${ftrace}`,
    title: 'ordinary ops',
    place: 'ftrace op',
    source: 'the kernel',
    kernel: { ftrace },
    texts: [],
    least: {},
  };
}

export interface CallOpsRow {
  readonly figure: CallOpsFigure;
  /** Nanoseconds of a call more than with no ops at all. */
  readonly nanoseconds: { readonly before: number; readonly after: number };
  /** Instructions of a call more than with no ops at all. */
  readonly instructions: { readonly before: number; readonly after: number };
}

/** The grid of the series, in both units. */
export function callOpsRows(lab: StrategyLab): CallOpsRow[] {
  const [none] = CALL_OPS_FIGURES as [CallOpsFigure];
  const strategies = { before: opsOnly(KERNELS.before), after: opsOnly(KERNELS.after) };
  const instructionsOf = (when: keyof typeof KERNELS, { relevant, irrelevant }: CallOpsFigure) => {
    const situation = { ...ALONE, programs: 0, others: relevant, irrelevant };
    const outcome = lab.outcome(strategies[when], situation);
    if (outcome.kind !== 'attached') throw new Error(outcome.message);
    return outcome.way.instructions;
  };
  return CALL_OPS_FIGURES.map((each) => {
    const row = (when: keyof typeof KERNELS): { ns: number; instructions: number } => ({
      ns: (each[when] - none[when]) / CALLS,
      instructions: instructionsOf(when, each) - instructionsOf(when, none),
    });
    const [before, after] = [row('before'), row('after')];
    return {
      figure: each,
      nanoseconds: { before: before.ns, after: after.ns },
      instructions: { before: before.instructions, after: after.instructions },
    };
  });
}

/** Nanoseconds, or instructions, of one more ops: from 1 to 100 elsewhere before, from 2 to 100 on the function after. */
export interface PerOps {
  readonly elsewhereBefore: number;
  readonly onFunctionAfter: number;
}

export function perOps(rows: readonly CallOpsRow[], unit: 'nanoseconds' | 'instructions'): PerOps {
  const at = (relevant: number, irrelevant: number): CallOpsRow[typeof unit] => {
    const found = rows.find(
      (row) => row.figure.relevant === relevant && row.figure.irrelevant === irrelevant,
    );
    if (!found) throw new RangeError(`no figure for ${relevant} and ${irrelevant} ops`);
    return found[unit];
  };
  return {
    elsewhereBefore: (at(1, 100).before - at(1, 1).before) / 99,
    onFunctionAfter: (at(100, 0).after - at(2, 0).after) / 98,
  };
}

/** trig-fentry, millions per second. */
export interface TrigFigure {
  readonly machine: string;
  readonly base: number;
  readonly direct: number;
  readonly indirect: number;
}

export const TRIG_FIGURES: readonly TrigFigure[] = [
  { machine: 'Xu Kuohai, Raspberry Pi 4', base: 1.79, direct: 1.362, indirect: 1.021 },
  { machine: 'Florent Revest, Raspberry Pi 4', base: 0.701, direct: 0.533, indirect: 0.404 },
];

/** What fentry adds to a call, and how much more the indirect way adds. */
export interface TrigRow {
  readonly what: string;
  readonly unit: 'ns' | 'instructions';
  readonly direct: number;
  readonly indirect: number;
}

/**
 * Instructions of __bpf_prog_enter_recur, __bpf_prog_exit_recur and what they call, around one program: C code of
 * a booted 6.12.107, single-stepped (scenario "fentry_min").
 */
export const RECORDED_ENTER_EXIT = 108;

/** @param direct and `indirect`: what the two kernels of the thread are here */
export function trigRows(lab: StrategyLab, direct: Strategy, indirect: Strategy): TrigRow[] {
  const added = (strategy: Strategy, enterExit: number): number => {
    const outcome = lab.outcome(strategy, ALONE);
    if (outcome.kind !== 'attached') throw new Error(outcome.message);
    const { parts, way } = outcome;
    const count = (measure: PartMeasure | undefined): number => measure?.instructions ?? 0;
    return way.instructions - count(parts.get('site')) + count(parts.get('programs')) + enterExit;
  };
  const figures = TRIG_FIGURES.map(({ machine, base, direct: d, indirect: i }): TrigRow => ({
    what: machine,
    unit: 'ns',
    direct: 1000 / d - 1000 / base,
    indirect: 1000 / i - 1000 / base,
  }));
  const here = (what: string, enterExit: number): TrigRow => ({
    what,
    unit: 'instructions',
    direct: added(direct, enterExit),
    indirect: added(indirect, enterExit),
  });
  return [
    ...figures,
    here('here, text only', 0),
    here('here, with recorded enter and exit', RECORDED_ENTER_EXIT),
  ];
}

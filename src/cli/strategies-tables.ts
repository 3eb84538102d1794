/** The tables and the JSON of `trampolab strategies`. */
import {
  CONDITIONS,
  PARTNERS,
  PARTS,
  WAY,
  shortSituation,
  describeSituation,
  perOps,
  type CallOpsRow,
  type Comparison,
  type Odds,
  type Outcome,
  type Part,
  type PartMeasure,
  type Partnership,
  type SiteState,
  type Situation,
  type TrigRow,
} from '../index.js';
import { table } from './command.js';

const COUNT_HEADINGS = ['loads', 'stores', 'branches', 'indirect', 'ret miss', 'stack', 'saves'];

/** As under `COUNT_HEADINGS`. */
function countCells(measure: PartMeasure, returnMisses = measure.returnMisses): string[] {
  const { loads, stores, branches, indirect, stack, saved } = measure;
  const counts = [loads, stores, branches, indirect, returnMisses, stack];
  return [...counts.map(String), saved.length === 0 ? '-' : String(Math.max(...saved))];
}

function instructionsOf(outcome: Outcome, part: Part): number {
  return outcome.kind === 'attached' ? (outcome.parts.get(part)?.instructions ?? 0) : 0;
}

/** What stands in place of numbers. */
function failureCell(outcome: Exclude<Outcome, { readonly kind: 'attached' }>): string {
  return outcome.kind === 'refused' ? `-${outcome.errno}` : 'wrong';
}

const LEGEND = [
  'way: instructions from the first of the function to the programs and back, without the programs, what counts them',
  'in and out (__bpf_prog_enter, exit), and callbacks of others; site, glue, list, callback, image are its parts.',
  'glue: ftrace entry code, PLTs, literal calls. list: the list function, as text of the lab. callback: that of the',
  'ops that belongs to the programs. image: the trampoline, as 6.12 makes it. indirect: BR, BLR. ret miss: RETs of',
  'the call that a return predictor gets wrong. stack: bytes below the caller. saves: how often an argument is',
  'stored. text/fn: bytes at every traceable function. text/att: bytes made when attaching.',
];

export function summaryLines(compared: readonly Comparison[]): string[] {
  const parts = WAY.map((part) => (part === 'trampoline' ? 'image' : part));
  const heading = ['strategy', 'in', 'way', ...parts, ...COUNT_HEADINGS, 'text/fn', 'text/att'];
  const rows = compared.map(({ strategy, situation, outcome }) => {
    const start = [strategy.name, shortSituation(situation)];
    if (outcome.kind !== 'attached') return [...start, failureCell(outcome)];
    return [
      ...start,
      String(outcome.way.instructions),
      ...WAY.map((part) => String(instructionsOf(outcome, part))),
      ...countCells(outcome.way, outcome.returnMisses),
      String(outcome.text.site),
      String(outcome.text.made),
    ];
  });
  return [...table([heading, ...rows]), '', ...LEGEND];
}

/** Rows of one strategy each, all in the same situations. */
export function gridLines(
  rows: readonly (readonly Comparison[])[],
  columns: readonly Situation[],
): string[] {
  const heading = ['strategy', ...columns.map(shortSituation)];
  const cells = rows.map((row) => [
    row[0]?.strategy.name ?? '',
    ...row.map(({ outcome }) =>
      outcome.kind === 'attached' ? String(outcome.way.instructions) : failureCell(outcome),
    ),
  ]);
  return table([heading, ...cells]);
}

export function detailLines({ strategy, situation, outcome }: Comparison): string[] {
  const lines = [
    `${strategy.name}: ${strategy.title}`,
    `place: ${strategy.place}`,
    `source: ${strategy.source}`,
    `situation: ${describeSituation(situation)}`,
    '',
  ];
  if (outcome.kind !== 'attached') return [...lines, `${outcome.kind}: ${outcome.message}`];
  const { parts, way, programStack, text } = outcome;
  const row = (name: string, measure: PartMeasure, returnMisses?: number): string[] => [
    name,
    String(measure.instructions),
    ...countCells(measure, returnMisses),
    measure.restored.length === 0 ? '-' : String(Math.max(...measure.restored)),
    String(measure.text),
  ];
  const heading = ['part', 'instructions', ...COUNT_HEADINGS, 'restores', 'text'];
  const rows = PARTS.flatMap((part) => {
    const measure = parts.get(part);
    return measure ? [row(part, measure)] : [];
  });
  lines.push(...table([heading, ...rows, row('the way', way, outcome.returnMisses)]), '');
  lines.push(`stack between the caller and the first program: ${programStack} bytes`);
  lines.push(
    `text at every traceable function: ${text.site} bytes, made by attaching: ${text.made}`,
  );
  return lines;
}

export function toJson({ strategy, situation, outcome }: Comparison): object {
  const head = { strategy: strategy.name, place: strategy.place, situation };
  if (outcome.kind === 'refused') {
    return { ...head, refused: { errno: outcome.errno, message: outcome.message } };
  }
  if (outcome.kind === 'wrong') return { ...head, wrong: outcome.message };
  const { parts, way, programStack, returnMisses, text } = outcome;
  return {
    ...head,
    way,
    parts: Object.fromEntries(parts),
    program_stack: programStack,
    return_misses: returnMisses,
    text: { function: text.site, attachment: text.made },
  };
}

/** `-EBUSY` of `-EBUSY: why`. */
function errnoOf(message: string): string {
  return message.split(':')[0] ?? message;
}

export function siteLines(states: readonly SiteState[]): string[] {
  const heading = [
    'on the function, in this order',
    'image',
    'site calls',
    'literal',
    'path of a call',
  ];
  const rows = states.map(({ far, on, calls, literal, path, refused }) => [
    `${on.join(', ')}${refused === undefined ? '' : `: ${errnoOf(refused)}`}`,
    far ? 'far' : 'near',
    calls,
    literal,
    path.join(' > '),
  ]);
  const refusals = states.flatMap(({ refused }) => refused ?? []);
  return [...table([heading, ...rows]), '', ...new Set(refusals)];
}

export function partnerLines(partnerships: readonly Partnership[]): string[] {
  const names = [...new Set(partnerships.map(({ strategy }) => strategy.name))];
  const cell = (name: string, partner: string): string => {
    const [first, second] = (['program', 'partner'] as const).map((order) => {
      const refused = partnerships.find(
        (each) => each.strategy.name === name && each.partner === partner && each.first === order,
      )?.refused;
      return refused === undefined ? 'yes' : errnoOf(refused);
    });
    return first === second ? (first ?? '') : `${first} / ${second}`;
  };
  return table([
    ['strategy', ...PARTNERS],
    ...names.map((name) => [name, ...PARTNERS.map((partner) => cell(name, partner))]),
  ]);
}

const MIB = 1 << 20;

function percent(part: number, whole: number): string {
  return `${((100 * part) / whole).toFixed(part % whole === 0 ? 0 : 1)}%`;
}

export function oddsLines(odds: readonly Odds[]): string[] {
  const heading = ['strategy', 'attached to', ...CONDITIONS.map(({ name }) => name)];
  const rows = new Map<string, string[]>();
  const notes: string[] = [];
  for (const { strategy, target, conditions, attached, layouts, outcomes, ...used } of odds) {
    const key = `${strategy.name} ${target}`;
    const row = rows.get(key) ?? [strategy.name, target];
    rows.set(key, row);
    const list = [...outcomes].map(([text, count]) =>
      outcomes.size === 1 ? text : `${text} ${percent(count, layouts)}`,
    );
    row.push(`${percent(attached, layouts)} (${list.join(', ')})`);
    const { mostUsed, leastUsedFailing } = used;
    if (leastUsedFailing === undefined) continue;
    const where = `${strategy.name}, ${target}, ${conditions.name}`;
    if (mostUsed === undefined) notes.push(`${where}: fails in every layout`);
    else {
      const [most, least] = [mostUsed, leastUsedFailing].map((bytes) => (bytes / MIB).toFixed(1));
      notes.push(
        `${where}: works with up to ${most} MiB of vmalloc space in use, fails from ${least} MiB on`,
      );
    }
  }
  return [...table([heading, ...rows.values()]), '', ...notes];
}

export function oddsJson({ strategy, target, conditions, outcomes, ...rest }: Odds): object {
  const { layouts, attached, mostUsed, leastUsedFailing } = rest;
  return {
    strategy: strategy.name,
    target,
    conditions: conditions.name,
    layouts,
    attached,
    outcomes: Object.fromEntries(outcomes),
    most_vmalloc_used: mostUsed,
    least_vmalloc_used_failing: leastUsedFailing,
  };
}

export function upstreamLines(rows: readonly CallOpsRow[], trig: readonly TrigRow[]): string[] {
  const lines = [
    'Ops on a function and elsewhere: what a call takes more than with none. "arm64/ftrace: add',
    'DYNAMIC_FTRACE_WITH_CALL_OPS" (M1, ns) and here (6.2 and 6.3, instructions; callbacks of the sample are empty and',
    'not counted here, the list function is text of the lab):',
    '',
  ];
  const cells = rows.map(({ figure, nanoseconds, instructions }) => [
    String(figure.relevant),
    String(figure.irrelevant),
    nanoseconds.before.toFixed(2),
    String(instructions.before),
    nanoseconds.after.toFixed(2),
    String(instructions.after),
  ]);
  const heading = [
    'on it',
    'elsewhere',
    'before, ns',
    'before, insns',
    'after, ns',
    'after, insns',
  ];
  lines.push(...table([heading, ...cells]), '');
  const [ns, insns] = [perOps(rows, 'nanoseconds'), perOps(rows, 'instructions')];
  lines.push(
    `one more ops elsewhere, before: ${ns.elsewhereBefore.toFixed(1)} ns, ${insns.elsewhereBefore.toFixed(1)} instructions`,
    `one more ops on it, after: ${ns.onFunctionAfter.toFixed(1)} ns, ${insns.onFunctionAfter.toFixed(1)} instructions`,
    'Comparable: after the series ops elsewhere cost nothing and one ops on the function the same whatever is',
    'elsewhere; before, both cost by the ops, from the first. Not comparable: ns per instruction.',
    '',
    'What fentry adds to a call, directly (literal-call) and by an ops that calls programs (ops-loop). "Add ftrace direct',
    'call for arm64" v2, replies (ns), and here (instructions; site excluded, program included):',
    '',
  );
  const trigCells = trig.map(({ what, unit, direct, indirect }) => [
    what,
    unit,
    direct.toFixed(unit === 'ns' ? 1 : 0),
    indirect.toFixed(unit === 'ns' ? 1 : 0),
    `${(indirect / direct).toFixed(2)}x`,
  ]);
  lines.push(
    ...table([['', 'unit', 'direct', 'indirect', 'ratio'], ...trigCells]),
    '',
    'Comparable: that the indirect way costs more. The proof of concept there went through the C code of fprobe,',
    'which is not here: its ratio is larger than that of entry code and callback alone.',
  );
  return lines;
}

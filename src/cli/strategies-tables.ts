/** The tables and the JSON of `trampolab strategies`. */
import {
  PARTS,
  WAY,
  shortSituation,
  describeSituation,
  type Comparison,
  type Outcome,
  type Part,
  type PartMeasure,
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

function refusalCell(outcome: Outcome): string {
  return outcome.kind === 'refused' ? `-${outcome.errno}` : '';
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
    if (outcome.kind === 'refused') return [...start, refusalCell(outcome)];
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
export function gridLines(rows: readonly (readonly Comparison[])[]): string[] {
  const [first = []] = rows;
  const heading = ['strategy', ...first.map(({ situation }) => shortSituation(situation))];
  const cells = rows.map((row) => [
    row[0]?.strategy.name ?? '',
    ...row.map(({ outcome }) =>
      outcome.kind === 'attached' ? String(outcome.way.instructions) : refusalCell(outcome),
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
  if (outcome.kind === 'refused') return [...lines, `refused: ${outcome.message}`];
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

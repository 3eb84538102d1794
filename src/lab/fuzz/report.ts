/**
 * Shows a difference: the program, what both engines executed side by side with the first instruction on which
 * they part marked `>`, how both ended.
 */
import { disassemble } from '../../bpf/disassemble.js';
import { bytesToHex } from '../../common/bytes.js';
import { mapLines, type FuzzCase, type FuzzOutcome } from './case.js';
import type { FuzzEngine } from './engine.js';
import type { FuzzDifference } from './fuzz.js';
import type { Trace, TraceStep } from './trace.js';

/** Widest left column. */
const MOST_WIDTH = 64;
/** Steps shown before and after the one on which the traces part. */
const CONTEXT_STEPS = 12;

type Row = readonly [mark: string, left: string, right: string];

/** Rows of two columns, the second beginning behind the widest left text. */
function sideBySide(rows: readonly Row[]): string[] {
  const width = Math.min(MOST_WIDTH, Math.max(...rows.map(([, left]) => left.length)));
  return rows.map(([mark, left, right]) => `${mark} ${left.padEnd(width)} | ${right}`.trimEnd());
}

/** `main`, `sub 1`; of the target of a tail call: `tail 1`, `tail 1 sub 2`. */
function functionName(program: number, fn: number): string {
  const names = [...(program > 0 ? [`tail ${program}`] : []), ...(fn > 0 ? [`sub ${fn}`] : [])];
  return names.join(' ') || 'main';
}

/** Instructions of a case, function after function. */
export function listCase({ programs }: FuzzCase): string[] {
  return programs.flatMap((functions, program) =>
    functions.flatMap(({ insns, stackDepth }, fn) => [
      `${functionName(program, fn)}, ${stackDepth} bytes of stack:`,
      ...disassemble(insns, { call: ({ src, off }) => (src === 1 ? `sub ${off}` : undefined) }).map(
        ({ index, text }) => `${String(index).padStart(4)}: ${text}`,
      ),
    ]),
  );
}

function outcomeLines(outcome: FuzzOutcome): string[] {
  const memory = bytesToHex(outcome.memory).match(/.{1,32}/g) ?? [];
  return [
    outcome.end,
    ...memory.map((line, i) => `mem+${String(16 * i).padEnd(2)} ${line}`),
    ...mapLines(outcome),
  ];
}

/** Both ends; lines that are equal are shown once, those of memory and maps only where they differ. */
function outcomeRows([a, b]: readonly [FuzzOutcome, FuzzOutcome]): Row[] {
  const left = outcomeLines(a);
  const right = outcomeLines(b);
  const length = Math.max(left.length, right.length);
  return Array.from({ length }, (_, i): Row => {
    const [one = '', other = ''] = [left[i], right[i]];
    return [one === other ? ' ' : '>', one, other];
  }).filter(([mark], i) => mark === '>' || i === 0);
}

function sameStep(a: TraceStep | undefined, b: TraceStep | undefined): boolean {
  return (
    a?.program === b?.program && a?.fn === b?.fn && a?.slot === b?.slot && a?.effect === b?.effect
  );
}

/** Index of the first step on which they part, or the number of steps. */
export function firstDifference(a: readonly TraceStep[], b: readonly TraceStep[]): number {
  let index = 0;
  const most = Math.max(a.length, b.length);
  while (index < most && sameStep(a[index], b[index])) index++;
  return index;
}

function traceRows(fuzzCase: FuzzCase, left: Trace, right: Trace): Row[] {
  const texts = fuzzCase.programs.map((functions) =>
    functions.map(
      ({ insns }) => new Map(disassemble(insns).map(({ index, text }) => [index, text])),
    ),
  );
  // an engine that tells no steps cannot part from the other
  const isKnown = right.steps.length > 0;
  const parts = isKnown ? firstDifference(left.steps, right.steps) : 0;
  const rows: Row[] = right.code.slice(0, 2 * CONTEXT_STEPS).map((text): Row => [' ', '', text]);
  const last = Math.min(Math.max(left.steps.length, right.steps.length), parts + CONTEXT_STEPS);
  for (let i = Math.max(0, parts - CONTEXT_STEPS); i < last; i++) {
    const [a, b] = [left.steps[i], right.steps[i]];
    const describe = (step: TraceStep | undefined): string => {
      if (!step) return '';
      const { program, fn, slot } = step;
      const where = program + fn > 0 ? `${functionName(program, fn)} ` : '';
      return `${where}${String(slot).padStart(3)}: ${texts[program]?.[fn]?.get(slot) ?? ''}`;
    };
    const together = a?.program === b?.program && a?.fn === b?.fn && a?.slot === b?.slot;
    const [first = '', ...more] = b?.code ?? [];
    const mark = isKnown && i === parts ? '>' : ' ';
    const code = together ? first : `${describe(b)}  ${first}`.trim();
    rows.push([mark, describe(a), code]);
    for (const text of more) rows.push([' ', '', text]);
    if (a?.effect || b?.effect) {
      rows.push([mark, a?.effect ? `       ${a.effect}` : '', b?.effect ? `    ${b.effect}` : '']);
    }
  }
  return rows;
}

function traceOf(engine: FuzzEngine, fuzzCase: FuzzCase): Trace {
  return engine.trace?.(fuzzCase) ?? { steps: [], code: [], end: '' };
}

export function describeDifference(difference: FuzzDifference): string[] {
  const { fuzzCase, engines, outcomes, index } = difference;
  const [first, second] = engines;
  const traces = [traceOf(first, fuzzCase), traceOf(second, fuzzCase)] as const;
  const heading: Row = [' ', first.name, second.name];
  return [
    `program ${index}: ${first.name} and ${second.name} differ`,
    ...listCase(fuzzCase),
    '',
    ...sideBySide([heading, ...traceRows(fuzzCase, ...traces), ...outcomeRows(outcomes)]),
  ];
}

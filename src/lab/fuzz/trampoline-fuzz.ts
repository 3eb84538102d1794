/**
 * Runs random trampoline cases in kernels and compares with what should happen; makes a case that differs
 * small; saves it as a record that `trampolab check` runs again.
 */
import { Random } from '../../common/random.js';
import { InputError } from '../../common/errors.js';
import { failed, passed, type CaseResult } from '../check/kind.js';
import type { VectorRecord } from '../check/record.js';
import {
  generateTrampoline,
  type FuzzLink,
  type FuzzLinkKind,
  type TrampolineCase,
} from './trampoline-case.js';
import type { TrampolineRunner } from './trampoline-runner.js';
import { expectedEvents, type Events } from './trampoline-semantics.js';

export interface TrampolineFuzzOptions {
  readonly seed: number;
  readonly count: number;
  /** Takes cases `index` of every `of`. Default all. */
  readonly shard?: { readonly index: number; readonly of: number };
  /** Told after each case. */
  readonly progress?: (done: number) => void;
}

export interface TrampolineDifference {
  readonly index: number;
  readonly fuzzCase: TrampolineCase;
  readonly runner: TrampolineRunner;
  readonly expected: Events;
  readonly got: Events;
}

export function runTrampoline(
  runner: TrampolineRunner,
  fuzzCase: TrampolineCase,
  index: number,
): TrampolineDifference | undefined {
  const expected = expectedEvents(fuzzCase, runner.version);
  const got = runner.run(fuzzCase);
  if (expected.join('\n') === got.join('\n')) return undefined;
  return { index, fuzzCase, runner, expected, got };
}

/** The first case on which a kernel does something else than it should. */
export function fuzzTrampolines(
  runner: TrampolineRunner,
  options: TrampolineFuzzOptions,
): TrampolineDifference | undefined {
  const { index: first, of } = options.shard ?? { index: 0, of: 1 };
  for (let index = first; index < options.count; index += of) {
    const random = new Random(Math.imul(options.seed, 0x85ebca6b) ^ index);
    const difference = runTrampoline(runner, generateTrampoline(random, runner.version), index);
    if (difference) return difference;
    options.progress?.(index + 1);
  }
  return undefined;
}

export function minimiseTrampoline(difference: TrampolineDifference): TrampolineDifference {
  let best = difference;
  for (;;) {
    const smaller = firstThatDiffers(best);
    if (!smaller) return best;
    best = smaller;
  }
}

function firstThatDiffers({
  runner,
  fuzzCase,
  index,
}: TrampolineDifference): TrampolineDifference | undefined {
  for (const smaller of smallerCases(fuzzCase)) {
    const difference = runTrampoline(runner, smaller, index);
    if (difference) return difference;
  }
  return undefined;
}

function without<T>(items: readonly T[], index: number): T[] {
  return items.filter((_, i) => i !== index);
}

function* smallerCases(fuzzCase: TrampolineCase): Generator<TrampolineCase> {
  const { links, arguments: args, values } = fuzzCase;
  for (const index of links.keys()) {
    if (links.length > 1) yield { ...fuzzCase, links: without(links, index) };
  }
  for (const index of args.keys()) yield { ...fuzzCase, arguments: without(args, index) };
  for (const [index, { size, struct }] of args.entries()) {
    if (!struct && size === 8) continue;
    const plain = { size: 8, struct: false };
    yield { ...fuzzCase, arguments: args.map((each, i) => (i === index ? plain : each)) };
  }
  for (const [index, link] of links.entries()) {
    for (const plain of plainerLinks(link)) {
      yield { ...fuzzCase, links: links.map((each, i) => (i === index ? plain : each)) };
    }
  }
  for (const [index, value] of values.entries()) {
    const small = BigInt(index + 1);
    if (value === small) continue;
    yield { ...fuzzCase, values: values.map((each, i) => (i === index ? small : each)) };
  }
  if (fuzzCase.result !== 99n) yield { ...fuzzCase, result: 99n };
}

function* plainerLinks(link: FuzzLink): Generator<FuzzLink> {
  if (link.sleepable) yield { ...link, sleepable: false };
  if (link.ip) yield { ...link, ip: false };
  if (link.cookie !== 0n) yield { ...link, cookie: 0n };
  if (link.result !== 0n) yield { ...link, result: 0n };
}

export function describeTrampoline({
  index,
  fuzzCase,
  expected,
  got,
  runner,
}: TrampolineDifference): string[] {
  const args = fuzzCase.arguments.map(({ size, struct }) =>
    struct ? `struct ${size}` : `${size}`,
  );
  const lines = Array.from({ length: Math.max(expected.length, got.length) }, (_, i) => {
    const [wanted = '', seen = ''] = [expected[i], got[i]];
    return wanted === seen ? [`  ${seen}`] : [`- ${wanted}`, `+ ${seen}`];
  });
  return [
    `trampoline ${index} of ${runner.version}: a ${fuzzCase.target} with arguments of (${args.join(', ')}) bytes`,
    ...fuzzCase.links.map(({ kind, sleepable, ip, cookie, result }, number) =>
      [
        `link ${number}: ${kind}`,
        ...(sleepable ? ['sleepable'] : []),
        ...(ip ? ['asks for the address'] : []),
        `cookie ${cookie}`,
        `returns ${result}`,
      ].join(', '),
    ),
    'should be -, was +:',
    ...lines.flat(),
  ];
}

const TEXT_FIELDS = (value: bigint): string => `0x${value.toString(16)}`;

export function saveTrampoline(name: string, difference: TrampolineDifference): string {
  const { fuzzCase, runner } = difference;
  return JSON.stringify({
    fuzz_trampoline: 1,
    name,
    kernel: runner.version,
    target: fuzzCase.target,
    arguments: fuzzCase.arguments,
    values: fuzzCase.values.map(TEXT_FIELDS),
    result: TEXT_FIELDS(fuzzCase.result),
    links: fuzzCase.links.map((link) => ({
      ...link,
      cookie: TEXT_FIELDS(link.cookie),
      result: TEXT_FIELDS(link.result),
    })),
  });
}

export function isSavedTrampoline(record: VectorRecord): boolean {
  return record.fields['fuzz_trampoline'] === 1;
}

const KINDS: readonly FuzzLinkKind[] = ['fentry', 'fmod_ret', 'fexit', 'fsession'];

function savedLink(record: VectorRecord): FuzzLink {
  const kind = KINDS.find((each) => each === record.text('kind'));
  if (!kind) throw new InputError(`${record.origin}: kind ${record.text('kind')}`);
  return {
    kind,
    sleepable: record.fields['sleepable'] === true,
    ip: record.fields['ip'] === true,
    cookie: BigInt(record.text('cookie')),
    result: BigInt(record.text('result')),
  };
}

/** @param runnerFor a kernel of the version that the record names */
export async function checkSavedTrampoline(
  record: VectorRecord,
  runnerFor: (version: TrampolineRunner['version']) => Promise<TrampolineRunner>,
): Promise<CaseResult> {
  const version = (['6.1', '6.12', '7.3'] as const).find((each) => each === record.text('kernel'));
  if (!version) throw new InputError(`${record.origin}: kernel ${record.text('kernel')}`);
  const fuzzCase: TrampolineCase = {
    target: record.text('target') === 'program' ? 'program' : 'function',
    arguments: record.records('arguments').map((each) => ({
      size: each.number('size'),
      struct: each.fields['struct'] === true,
    })),
    values: record.texts('values').map(BigInt),
    result: BigInt(record.text('result')),
    links: record.records('links').map(savedLink),
  };
  const difference = runTrampoline(await runnerFor(version), fuzzCase, 0);
  if (!difference) return passed(record);
  const { expected, got } = difference;
  const at = expected.findIndex((line, i) => line !== got[i]);
  return failed(record, `expected '${expected[at] ?? 'no more'}', got '${got[at] ?? 'no more'}'`);
}

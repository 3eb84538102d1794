/**
 * `trampolab check …/costs.json`: how many instructions booted kernels executed by symbol in each traced call, against the
 * lab's count in the same call.
 *
 * `{ KERNEL: { "04_fentry_min.call": { total, by_symbol }, ... }, ... }`; the scenario of a call is in
 * KERNEL/scen.*.json. Compared are the parts that no compiler made: site and function, each symbol of ftrace's
 * entry code, trampolines together with programs (the file's symbols are the nearest ones, so an
 * image may count for its neighbour). Skipped: kernels and calls without their scenario.
 */
import { KernelError } from '../../../common/errors.js';
import { compareValues, type Comparison } from '../../../jit/vectors/compare.js';
import { failed, passed, skipped, type CaseResult } from '../kind.js';
import { VectorRecord } from '../record.js';
import { SP, type TraceEntry } from '../../../cpu/cpu.js';
import { tracedRun } from '../../traced-call.js';
import { testRunTracing } from '../../tracing-test-run.js';
import type { BootedOptions } from './options.js';
import { ourEntry, recreate, traceCalled, type Scene } from './recreate.js';
import { isFar, settingOf } from './scenario-setting.js';
import { readScenario, type Scenario, type ScenarioTrace } from './scenario-file.js';
import { TracePlaces } from './trace-places.js';
import { argumentsOf, callTraced, isEntryCode, isTracedFunction } from './traced-calls.js';

/** Whether parsed JSON is such a file. */
export function isCosts(json: unknown): boolean {
  return (
    isObject(json) &&
    Object.values(json).length > 0 &&
    Object.values(json).every(
      (kernel) =>
        isObject(kernel) &&
        Object.values(kernel).every((call) => isObject(call) && 'by_symbol' in call),
    )
  );
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export async function* checkCosts(
  name: string,
  json: unknown,
  options: BootedOptions,
): AsyncGenerator<CaseResult> {
  const file = new VectorRecord(name, json as Readonly<Record<string, unknown>>);
  for (const [folder, calls] of Object.entries(file.fields)) {
    const inFolder: BootedOptions = {
      ...options,
      readSibling: (sibling) => options.readSibling(`${folder}/${sibling}`),
    };
    for (const [call, cost] of Object.entries(calls as Record<string, object>)) {
      const record = new VectorRecord(name, { name: `${folder} ${call}` });
      const counts = new VectorRecord(
        record.name,
        cost as Readonly<Record<string, unknown>>,
      ).entries('by_symbol');
      yield await checkCall(record, call, counts, inFolder);
    }
  }
}

async function checkCall(
  record: VectorRecord,
  call: string,
  counts: readonly (readonly [string, unknown])[],
  options: BootedOptions,
): Promise<CaseResult> {
  const [scenarioName = '', label = ''] = call.split('.');
  const sibling = `scen.${scenarioName}.json`;
  const json = options.readSibling(sibling);
  if (!json) return skipped(record, `${sibling} of that kernel is not there`);
  try {
    const scenario = readScenario(sibling, json);
    const trace = traceCalled(scenario, label);
    const scene = await recreate(
      scenario,
      trace,
      settingOf(scenario, options),
      isFar(scenario),
      options,
    );
    const difference = compareValues(compared(counts, execute(scene, scenario, trace)));
    scene.close();
    return difference === undefined ? passed(record) : failed(record, difference);
  } catch (error) {
    if (error instanceof KernelError) return failed(record, error.message);
    throw error;
  }
}

/** Executed instructions by symbol, one entry each. */
function execute(
  scene: Scene,
  scenario: Scenario,
  trace: ScenarioTrace,
): (readonly [string, number])[] {
  const { kernel, state, player } = scene;
  let entries: readonly TraceEntry[];
  if (trace.entry === 'bpf_prog_test_run_tracing') {
    ({ entries } = tracedRun(kernel, () => testRunTracing(kernel, 'fentry')));
  } else {
    const places = new TracePlaces(kernel, scenario, state, player, [], []);
    const begin = { sp: trace.registers[SP] ?? 0n, lr: 0n };
    places.begin(begin, { sp: 0n, lr: 0n });
    const target = ourEntry(scene, `${trace.entry.replace('prog:', 'prog ')}+0x0`) ?? 0n;
    const args = argumentsOf(places, trace.registers);
    ({ entries } = callTraced(kernel, target, args, trace.stack));
  }
  return entries.map(({ pc }) => [kernel.symbols.lookup(pc)?.name ?? '?', 1]);
}

const IMAGES = /^(bpf_trampoline_|bpf_prog_(?!test_run)|prog:)/;

/** The part that a symbol's instructions count for; undefined for what is left out. */
function partOf(symbol: string): string | undefined {
  if (IMAGES.test(symbol)) return 'trampolines and programs';
  return isTracedFunction(symbol) || isEntryCode(symbol) ? symbol : undefined;
}

function sums(counts: Iterable<readonly [string, unknown]>): Map<string, number> {
  const result = new Map<string, number>();
  for (const [symbol, count] of counts) {
    const part = partOf(symbol);
    if (part !== undefined) result.set(part, (result.get(part) ?? 0) + Number(count));
  }
  return result;
}

function compared(
  theirs: readonly (readonly [string, unknown])[],
  ours: readonly (readonly [string, number])[],
): Comparison[] {
  const [theirParts, ourParts] = [sums(theirs), sums(ours)];
  const parts = new Set([...theirParts.keys(), ...ourParts.keys()]);
  return [...parts].map((part) => [
    `instructions of ${part}`,
    theirParts.get(part) ?? 0,
    ourParts.get(part) ?? 0,
  ]);
}

/**
 * `trampolab check …/trace.*.txt`: the instructions that a booted kernel executed in a call, against those that the lab
 * executes in the same call in the same state of the same scenario (scen.*.json beside the file).
 *
 * One result per file. A file may hold several calls one after the other, of functions that a compiled
 * function calls; each is made when the rows come to it.
 */
import { KernelError, InputError } from '../../../common/errors.js';
import { SP } from '../../../cpu/cpu.js';
import { failed, passed, type CaseResult } from '../kind.js';
import { VectorRecord } from '../record.js';
import { KernelOops } from '../../../kernel/executor.js';
import { TraceComparison, withoutPac, type RegisterValues } from './compare-trace.js';
import type { BootedOptions } from './options.js';
import { ourEntry, recreate, traceCalled, type Scene } from './recreate.js';
import { isFar, settingOf } from './scenario-setting.js';
import { readScenario, type Scenario, type ScenarioTrace } from './scenario-file.js';
import { readTraceFile, type TraceRow } from './trace-file.js';
import { TracePlaces } from './trace-places.js';
import { argumentsOf, callTraced, isKept } from './traced-calls.js';

/** Throws InputError for a malformed file, or when its scenario is not beside it. */
export async function* checkTrace(
  name: string,
  text: string,
  options: BootedOptions,
): AsyncGenerator<CaseResult> {
  const file = readTraceFile(name, text);
  const record = new VectorRecord(name, { name: `${file.scenario}.${file.label}` });
  const sibling = `scen.${file.scenario}.json`;
  const json = options.readSibling(sibling);
  if (!json) throw new InputError(`${name}: ${sibling} is not beside it`);
  const scenario = readScenario(sibling, json);
  const trace = traceCalled(scenario, file.label);
  const setting = settingOf(scenario, options, file.release);
  try {
    const scene = await recreate(scenario, trace, setting, isFar(scenario), options);
    try {
      const difference = compareCalls(scene, scenario, trace, file.rows, options);
      yield difference === undefined ? passed(record) : failed(record, difference);
    } finally {
      scene.close();
    }
  } catch (error) {
    if (!(error instanceof KernelError) && !(error instanceof KernelOops)) throw error;
    yield failed(record, error.message);
  }
}

function compareCalls(
  scene: Scene,
  scenario: Scenario,
  trace: ScenarioTrace,
  rows: readonly TraceRow[],
  options: BootedOptions,
): string | undefined {
  const { kernel, state, player } = scene;
  const symbols = symbolsOf(options);
  const places = new TracePlaces(kernel, scenario, state, player, rows, symbols);
  const theirs: RegisterValues = [...trace.registers];
  let next = 0;
  /** Goes on to the next row that is compared; true when others were in between. */
  const skip = (): boolean => {
    const first = next;
    for (; next < rows.length; next++) {
      const row = rows[next] as TraceRow;
      if (isKept(places.theirName(row.pc))) break;
      for (const [register, value] of row.changes) theirs[numberOf(register)] = value;
    }
    return next > first;
  };

  for (let calls = 0; ; calls++) {
    skip();
    const first = rows[next];
    if (!first) return calls > 0 ? undefined : 'no row that is compared';
    const place = places.theirName(first.pc);
    const target = ourEntry(scene, place);
    if (target === undefined) return `line ${first.line}: ${place} goes on, ours has returned`;
    const start = { sp: theirs[SP] ?? 0n, lr: withoutPac(theirs[30] ?? 0n) };
    places.begin(start, { sp: 0n, lr: 0n });
    const { entries, registers } = callTraced(
      kernel,
      target,
      argumentsOf(places, theirs),
      calls === 0 ? trace.stack : [],
    );
    places.begin(start, { sp: registers[SP] ?? 0n, lr: registers[30] ?? 0n });
    const comparison = new TraceComparison(places, theirs, registers);
    let compiled = false;
    for (const entry of entries) {
      if (!isKept(places.ourName(entry.pc))) {
        compiled = true;
        comparison.ours(entry);
        continue;
      }
      compiled = skip() || compiled;
      const row = rows[next++];
      if (!row) return `ours goes on at ${places.ourName(entry.pc)}, theirs has returned`;
      if (compiled) comparison.functionCalled();
      compiled = false;
      const difference = comparison.compare(row, entry);
      if (difference !== undefined) return difference;
    }
  }
}

function numberOf(register: string): number {
  return register === 'sp' ? SP : Number(register.slice(1));
}

/** Addresses of the booted kernel's symbols as far as facts.json has them. */
function symbolsOf({ readSibling }: BootedOptions): (readonly [string, bigint])[] {
  const facts = readSibling('facts.json');
  if (!facts) return [];
  const record = new VectorRecord('facts.json', facts);
  return record.entries('symbols').map(([name, address]) => [name, BigInt(String(address))]);
}

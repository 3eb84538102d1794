/**
 * The fuzzer: programs per second of CPU time, for sets of engines, and what each engine costs.
 *
 * Programs of the default size, in the default batches. The first programs are not counted: by then the
 * JavaScript engine has optimised the code. CPU time of the process, its compiler's threads
 * included, so that a loaded machine gives about the same; Unicorn gets every 20th program.
 */
import process from 'node:process';
import { makeEngines, parseEngines } from '../src/cli/fuzz-engines.js';
import { Random } from '../src/common/random.js';
import type { FuzzCase } from '../src/lab/fuzz/case.js';
import { caseOf } from '../src/lab/fuzz/emit-tree.js';
import type { FuzzEngine } from '../src/lab/fuzz/engine.js';
import { commonFeatures, treeMaker } from '../src/lab/fuzz/generate.js';
import { loadUnicorn } from '../src/cpu/unicorn/library.js';
import type { BenchRow } from './row.js';

const BATCH = 256;
const WARM = 40;
const MEASURED = 40;

const ALL = 'interpreter,wasm,embedded';
const SETS = ['interpreter,wasm', 'interpreter,embedded', ALL];

/** Microseconds of CPU time of `work`. */
function cost<T>(work: () => T): { readonly value: T; readonly time: number } {
  const start = process.cpuUsage();
  const value = work();
  const { user, system } = process.cpuUsage(start);
  return { value, time: user + system };
}

interface Costs {
  /** Microseconds per program: making it, then each engine. */
  readonly making: number;
  readonly engines: ReadonlyMap<string, number>;
  readonly slots: number;
}

function measure(engines: readonly FuzzEngine[]): Costs {
  const makeTree = treeMaker({ features: commonFeatures(engines.map((each) => each.features)) });
  let making = 0;
  let slots = 0;
  const totals = new Map<string, number>();
  for (let batch = 0; batch < WARM + MEASURED; batch++) {
    const isCounted = batch >= WARM;
    const made = cost(() =>
      Array.from({ length: BATCH }, (_, i): FuzzCase => {
        return caseOf(makeTree(new Random(BATCH * batch + i)));
      }),
    );
    if (isCounted) {
      making += made.time;
      for (const { programs } of made.value) {
        for (const { insns } of programs.flat()) slots += insns.length / 8;
      }
    }
    for (const [index, engine] of engines.entries()) {
      const every = engine.every ?? 1;
      const cases = made.value.filter((_, i) => (BATCH * batch + i) % every === 0);
      const { time } = cost(() => engine.run(cases));
      const key = `${index}:${engine.name}`;
      if (isCounted) totals.set(key, (totals.get(key) ?? 0) + time);
    }
  }
  const programs = BATCH * MEASURED;
  const per = new Map([...totals].map(([key, time]) => [key, time / programs]));
  return { making: making / programs, engines: per, slots: slots / programs };
}

export async function benchFuzz(): Promise<BenchRow[]> {
  const { library } = await loadUnicorn();
  const sets = library ? [...SETS, `${ALL},unicorn/20`] : SETS;
  const rows: BenchRow[] = [];
  for (const names of sets) {
    const engines = await makeEngines(parseEngines(names));
    const { making, engines: per, slots } = measure(engines);
    const total = making + [...per.values()].reduce((sum, time) => sum + time, 0);
    rows.push({ name: `fuzz ${names}`, value: 1e6 / total, unit: 'programs/s' });
    for (const engine of engines) engine.close();
    if (names !== ALL) continue;
    rows.push(
      { name: 'fuzz slots per program', value: slots, unit: 'slots' },
      { name: 'fuzz making a program', value: making, unit: 'us' },
      ...[...per].map(([key, time]) => {
        return { name: `fuzz ${key.split(':')[1]}`, value: time, unit: 'us' };
      }),
    );
  }
  return rows;
}

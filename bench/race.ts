/**
 * The explorer: states and transitions per second of CPU time, without booting and recording.
 *
 * The scenarios with most states, for three CPUs, stopped at a limit: what is measured is the graph search, since
 * instructions of executing CPUs run once per view and are few.
 */
import process from 'node:process';
import { exploration, prepareRace, type RaceBoot } from '../src/lab/race/scenario.js';
import { SCENARIOS } from '../src/lab/race/scenarios/index.js';
import { labBooter } from '../src/node/boot.js';
import type { BenchRow } from './row.js';

const LIMIT = 100_000;
const NAMES = ['modify_direct', 'image_exchange', 'fexit_sleep'];

export async function benchRace(): Promise<BenchRow[]> {
  const booter = await labBooter();
  const boot: RaceBoot = async (options) => booter(options);
  const rows: BenchRow[] = [];
  for (const scenario of SCENARIOS.filter(({ name }) => NAMES.includes(name))) {
    const race = await prepareRace(scenario, boot);
    const start = process.cpuUsage();
    const { figures } = exploration(race, { executors: 2, limit: LIMIT }).exhaust();
    const { user, system } = process.cpuUsage(start);
    race.kernel.close();
    const seconds = (user + system) / 1e6;
    const name = `race ${scenario.name}`;
    rows.push(
      {
        name: `${name}, ${figures.states} states`,
        value: figures.states / seconds,
        unit: 'states/s',
      },
      { name: `${name}, transitions`, value: figures.transitions / seconds, unit: 'transitions/s' },
    );
  }
  return rows;
}

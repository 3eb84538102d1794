/**
 * Sixty thousand patch sites: what one ops on all of them costs, and what a record takes.
 *
 * CPU time, because other work on the machine does not count; figures for one ops that comes and goes are
 * those of the best of a few rounds.
 */
import { bootLab } from '../src/node/index.js';
import type { Kernel } from '../src/kernel/kernel.js';
import type { WordFunction } from '../src/kernel/text.js';
import type { BenchRow } from './row.js';

const SITES = 60_000;
const TEXT_BYTES = 4 << 20;
const ROUNDS = 5;
/** `ret`. */
const RET = 0xd65f03c0;

function* functions(): Generator<WordFunction> {
  for (let i = 0; i < SITES; i++) yield { name: `fn_${i}`, words: [RET] };
}

function cpuMilliseconds(action: () => void): number {
  const before = process.cpuUsage();
  action();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Best of a few rounds of enabling and of disabling one ops on all sites. */
function enableAndDisable(kernel: Kernel): { enable: number; disable: number } {
  const { ftrace } = kernel;
  const ops = ftrace.createOps(
    'all',
    kernel.kmalloc(ftrace.profile.ops.size),
    kernel.symbol('ftrace_stub'),
  );
  let enable = Infinity;
  let disable = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    enable = Math.min(
      enable,
      cpuMilliseconds(() => ftrace.register(ops)),
    );
    disable = Math.min(
      disable,
      cpuMilliseconds(() => ftrace.unregister(ops)),
    );
  }
  return { enable, disable };
}

export async function benchFtrace(): Promise<readonly BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const version of ['6.1', '6.12'] as const) {
    const kernel = await bootLab({ version, textSize: TEXT_BYTES });
    const first = kernel.ftrace.records.size;
    const boot = cpuMilliseconds(() => kernel.defineWords(functions()));
    const { enable, disable } = enableAndDisable(kernel);
    const { records } = kernel.ftrace;
    const sites = records.size - first;
    rows.push(
      { name: `${version}: place and initialise ${sites} sites`, value: boot, unit: 'ms' },
      { name: `${version}: enable one ops on all`, value: enable, unit: 'ms' },
      { name: `${version}: disable it`, value: disable, unit: 'ms' },
      { name: `${version}: a site of them`, value: (1e6 * enable) / records.size, unit: 'ns' },
      { name: `${version}: a record`, value: records.bytes / records.size, unit: 'bytes' },
    );
    kernel.close();
  }
  return rows;
}

/**
 * Puts every fault into the code, one at a time, and lets the fuzzer look for it.
 *
 *   npm run mutations -- [--count N] [--seed S] [--only TEXT] [--shard I/N]
 *
 * A line per fault: what found it, after how many programs, in how many seconds of CPU time. Exit 1 when
 * one is not found that should be.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { table } from '../../src/cli/command.js';
import type { CampaignResult } from './campaign.js';
import { FAULTS, type Fault } from './faults.js';

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '20000' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string', default: '' },
    shard: { type: 'string', default: '1/1' },
  },
});
const [shard = 1, of = 1] = values.shard.split('/').map(Number);

interface Row {
  readonly fault: Fault;
  readonly result: CampaignResult & { readonly seconds: number };
}

const CHILD = fileURLToPath(new URL('./child.js', import.meta.url));

function run(fault: Fault, number: number): Row {
  const count = fault.unseen === undefined ? values.count : '2000';
  const child = spawnSync(process.execPath, [CHILD, String(number), count, values.seed], {
    encoding: 'utf8',
    maxBuffer: 1 << 24,
  });
  if (child.status !== 0) throw new Error(`${fault.name}: ${child.stderr}`);
  return { fault, result: JSON.parse(child.stdout) as Row['result'] };
}

function line({ fault, result }: Row): string[] {
  const { foundAfter, programs, seconds, text } = result;
  const found = foundAfter === undefined ? `not in ${programs}` : String(foundAfter);
  return [fault.area, fault.name, fault.campaign, found, seconds.toFixed(1), text.slice(0, 60)];
}

const rows: Row[] = [];
for (const [number, fault] of FAULTS.entries()) {
  if (number % of !== shard - 1 || !fault.name.includes(values.only)) continue;
  const row = run(fault, number);
  rows.push(row);
  process.stderr.write(`${line(row).join(' | ')}\n`);
}
const heading = ['area', 'fault', 'campaign', 'programs', 'seconds', 'seen as'];
for (const text of table([heading, ...rows.map(line)])) process.stdout.write(`${text}\n`);

const missed = rows.filter(({ fault, result }) => {
  return (result.foundAfter === undefined) !== (fault.unseen !== undefined);
});
for (const { fault, result } of missed) {
  const what = result.foundAfter === undefined ? 'was not found' : 'was found all the same';
  process.stdout.write(`${fault.name} ${what}\n`);
}
process.exitCode = missed.length > 0 ? 1 : 0;

/**
 * Virtqueues under random corruptions, as many as wanted.
 *
 *   npm run hostile-rings -- [--count N] [--seed S]
 *
 * Prints what happened; the first thing that does not hold ends it with exit code 1.
 */
import process from 'node:process';
import { parseArgs } from 'node:util';
import { installVirtioNet } from '../../src/lab/xdp-traffic.js';
import { bootLab } from '../../src/node/boot.js';
import { runHostileRings } from './campaign.js';

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '100000' },
    seed: { type: 'string', default: '1' },
  },
});
const kernel = await bootLab({ engine: 'embedded' });
const begin = process.cpuUsage();
const counts = runHostileRings(kernel, installVirtioNet(kernel), {
  corruptions: Number(values.count),
  seed: Number(values.seed),
});
const { user, system } = process.cpuUsage(begin);
console.log(JSON.stringify({ ...counts, cpuSeconds: Math.round((user + system) / 1e5) / 10 }));
kernel.close();

/**
 * The long run of random commands, frames, faults, stops and migrations: `node dist/bench/svq-stress.js [STEPS] [SEED]`.
 *
 * 100,000 steps in each of the strict modes by default, and as many frames there and back in every mode; one line per
 * mode, exit code 1 when anything was wrong.
 */
import { echoFrames } from '../src/lab/svq/echo.js';
import { SvqLab } from '../src/lab/svq/rig.js';
import { SvqStress } from '../src/lab/svq/stress.js';
import { bootLab } from '../src/node/boot.js';
import { SVQ_MODES } from '../src/vhost/queue.js';

const [steps = NaN, seed = NaN] = ['100000', '1'].map((byDefault, i) =>
  Number(process.argv[i + 2] ?? byDefault),
);
if (!Number.isInteger(steps) || steps < 1 || !Number.isInteger(seed)) {
  console.error('usage: node dist/bench/svq-stress.js [STEPS] [SEED]');
  process.exit(2);
}

const lab = new SvqLab(await bootLab());
for (const mode of ['transactional', 'translate'] as const) {
  const before = process.cpuUsage();
  const stress = new SvqStress(lab, mode, seed);
  for (let i = 0; i < steps; i++) stress.step();
  const problems = stress.finish();
  const { user, system } = process.cpuUsage(before);
  const counts = Object.entries(stress.counts).map(([name, count]) => `${name} ${count}`);
  const seconds = ((user + system) / 1e6).toFixed(1);
  console.log(
    `${mode}: ${steps} steps, ${counts.join(', ')}; ${seconds} s; ${problems.length} problems`,
  );
  for (const problem of problems.slice(0, 10)) console.log(`  ${problem}`);
  if (problems.length > 0) process.exitCode = 1;
}
for (const mode of SVQ_MODES) {
  const problems = echoFrames(lab, { mode, seed, count: steps });
  console.log(`${mode}: ${steps} frames there and back; ${problems.length} problems`);
  for (const problem of problems) console.log(`  ${problem}`);
  if (problems.length > 0) process.exitCode = 1;
}

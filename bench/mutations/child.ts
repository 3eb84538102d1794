/**
 * Runs the campaign of one fault in a process whose module has the fault, and prints the result as JSON.
 *
 *   node dist/bench/mutations/child.js FAULT COUNT SEED        FAULT: its number
 */
import { readFileSync } from 'node:fs';
import { register } from 'node:module';
import { join } from 'node:path';
import process from 'node:process';
import ts from 'typescript';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { applyFault } from './apply.js';
import { FAULTS } from './faults.js';

const [number = '', count = '20000', seed = '1'] = process.argv.slice(2);
const fault = FAULTS[Number(number)];
if (!fault) throw new RangeError(`no fault ${number}`);
const source = applyFault(fault, readFileSync(join(PACKAGE_ROOT, fault.file), 'utf8'));
const url = new URL(`../../${fault.file.replace(/\.ts$/, '.js')}`, import.meta.url).href;
const { outputText } = ts.transpileModule(source, {
  compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext },
});
register('./hook.js', import.meta.url, { data: { url, source: outputText } });
const { runCampaign } = await import('./campaign.js');
const start = process.cpuUsage();
try {
  const result = await runCampaign(fault.campaign, Number(count), Number(seed));
  const { user, system } = process.cpuUsage(start);
  process.stdout.write(`${JSON.stringify({ ...result, seconds: (user + system) / 1e6 })}\n`);
} catch (error) {
  // the code under test cannot even be set up
  const text = error instanceof Error ? error.message : String(error);
  process.stdout.write(`${JSON.stringify({ foundAfter: 1, programs: 1, text, seconds: 0 })}\n`);
}
process.exit(0);

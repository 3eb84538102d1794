/** `trampolab bench`: the benchmarks of `bench/`, all or by name. */
import { SUITES } from '../../bench/index.js';
import { UsageError } from '../index.js';
import { parseOptions, table, type Command, type Output } from './command.js';

const USAGE = `bench [NAME...]
${SUITES.map(({ name, summary }) => `  ${name.padEnd(12)} ${summary}`).join('\n')}
  --json, -j   as JSON`;

function format(value: number): string {
  if (value >= 1000) return Math.round(value).toString();
  return value.toFixed(value >= 10 ? 1 : 2);
}

async function benchCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, { json: { type: 'boolean', short: 'j' } });
  const unknown = positionals.find((name) => !SUITES.some((suite) => suite.name === name));
  if (unknown !== undefined) {
    const names = SUITES.map(({ name }) => name).join(', ');
    throw new UsageError(`no benchmark '${unknown}' (there are: ${names})`);
  }
  const chosen = SUITES.filter(
    ({ name }) => positionals.length === 0 || positionals.includes(name),
  );
  for (const suite of chosen) {
    const rows = await suite.run();
    if (values.json) {
      output.line(JSON.stringify({ suite: suite.name, rows }));
      continue;
    }
    output.line(`${suite.name}: ${suite.summary}`);
    const cells = rows.map(({ name, value, unit, ratio }) => [
      name,
      format(value),
      unit,
      ratio === undefined ? '' : `${format(ratio)}x`,
    ]);
    for (const line of table(cells)) output.line(`  ${line}`);
  }
  return 0;
}

export const bench: Command = {
  name: 'bench',
  summary: 'benchmarks, with ratios against what was measured in the same run',
  usage: USAGE,
  run: benchCommand,
};

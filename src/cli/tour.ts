/** `trampolab tour`: the main job, end to end, on the package's own examples. */
import { join } from 'node:path';
import pc from 'picocolors';
import { readCapture, runTour, UsageError, type TourRow } from '../index.js';
import { PACKAGE_ROOT, bootLab, readInput } from '../node/index.js';
import { choiceOption, parseOptions, table, type Command, type Output } from './command.js';

const USAGE = `tour [--engine E]
  --engine E   auto (default: unicorn where it can be loaded, else embedded), embedded or unicorn
  --json, -j   only the closing table, as JSON`;

function example(...parts: string[]): Uint8Array {
  return readInput(join(PACKAGE_ROOT, 'examples', ...parts));
}

async function tourCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    engine: { type: 'string' },
    json: { type: 'boolean', short: 'j' },
  });
  if (positionals[0] !== undefined) throw new UsageError(`unexpected '${positionals[0]}'`);
  const engine = choiceOption('engine', values.engine, 'auto', ['auto', 'embedded', 'unicorn']);
  const colours = pc.createColors(output.colour);
  const silent = values.json ?? false;
  const say = (text: string): void => {
    if (!silent) output.line(text);
  };
  let section = 0;
  const rows = await runTour(
    {
      boot: (vmallocUsed) => bootLab({ engine, vmallocUsed }),
      tracing: example('tracing', 'fentry_test2.o'),
      watcher: example('tracing', 'receive_sizes.o'),
      xdp: example('xdp', 'bounce_ttl.o'),
      xdpName: 'bounce_ttl',
      capture: readCapture(example('captures', 'mixed.pcap')),
      captureName: 'mixed.pcap',
    },
    {
      heading: (text) => {
        say(`${section === 0 ? '' : '\n'}${colours.bold(`${++section}. ${text}`)}\n`);
      },
      line: (text = '') => say(text),
      table: (cells) => {
        for (const line of table(cells)) say(line);
      },
    },
  );
  if (silent) output.line(JSON.stringify(rows satisfies TourRow[]));
  return 0;
}

export const tour: Command = {
  name: 'tour',
  summary: 'the main job, end to end, told step by step on real input',
  usage: USAGE,
  run: tourCommand,
};

/** `trampolab fuzz`: random programs on several engines; what differs is cut down and shown. */
import process from 'node:process';
import {
  InputError,
  UsageError,
  describeDifference,
  fuzz as runFuzz,
  minimise,
  saveCase,
} from '../index.js';
import { writeOutput } from '../node/index.js';
import { integerOption, parseOptions, type Command, type Output } from './command.js';
import { makeEngines, parseEngines } from './fuzz-engines.js';

const USAGE = `fuzz [--seed S] [--count N] [--engine A,B,...] [--shard I/N] [--save FILE]
  --seed S        of the campaign; the same seed and engines give the same programs (default 1)
  --count N       programs (default 1000)
  --engine A,B    two or more; all are compared with the first (default
                  interpreter,wasm,embedded). An engine is interpreter, wasm, embedded or
                  unicorn; the last two run the JIT's code and take, after colons, the kernel
                  version (6.1, 6.12, 7.3) and nolse, bti, nopac, far (images out of BL range):
                  embedded:7.3:nolse. With /N it gets every N-th program: unicorn/20
  --shard I/N     only every N-th program, from the I-th on (1/N .. N/N)
  --size N        parts of a program on the average (default 12)
  --save FILE     write a difference as a record that 'trampolab check' runs again
  --json, -j      as JSON`;

function parseShard(text: string | undefined): { index: number; of: number } {
  if (text === undefined) return { index: 0, of: 1 };
  const match = /^(\d+)\/(\d+)$/.exec(text);
  const index = Number(match?.[1]) - 1;
  const of = Number(match?.[2]);
  if (!match || index < 0 || index >= of) {
    throw new UsageError(`--shard takes I/N with I from 1 to N, not '${text}'`);
  }
  return { index, of };
}

async function fuzzCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    seed: { type: 'string' },
    count: { type: 'string' },
    engine: { type: 'string' },
    shard: { type: 'string' },
    size: { type: 'string' },
    save: { type: 'string' },
    json: { type: 'boolean', short: 'j' },
  });
  if (positionals.length > 0) throw new UsageError(`unexpected '${positionals[0]}'`);
  const seed = integerOption('seed', values.seed, 1, { min: 0, max: 0xffffffff });
  const count = integerOption('count', values.count, 1000, { min: 1, max: 1e9 });
  const size = integerOption('size', values.size, 12, { min: 1, max: 400 });
  const requests = parseEngines(values.engine ?? 'interpreter,wasm,embedded');
  if (requests.length < 2) throw new UsageError('--engine takes two engines or more');
  const shard = parseShard(values.shard);
  const engines = await makeEngines(requests);
  const names = engines.map(({ name, every }) => (every === undefined ? name : `${name}/${every}`));
  const progress = (done: number): void => {
    if (process.stderr.isTTY) process.stderr.write(`\r${done} of ${count}`);
  };
  try {
    const difference = runFuzz(engines, { seed, count, size, shard, progress });
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
    if (!difference) {
      const ran = Math.ceil((count - shard.index) / shard.of);
      if (values.json) output.line(JSON.stringify({ seed, programs: ran, difference: null }));
      else output.line(`${ran} programs from seed ${seed}: ${names.join(', ')} agree`);
      return 0;
    }
    const smallest = minimise(difference);
    const name = `fuzz-${seed}-${difference.index}`;
    const record = saveCase(name, smallest.fuzzCase, smallest.outcomes[0]);
    if (values.save !== undefined) {
      writeOutput(values.save, new TextEncoder().encode(`${record}\n`));
    }
    if (values.json) {
      const [expected, got] = smallest.outcomes;
      output.line(JSON.stringify({ seed, index: difference.index, expected, got, record }));
    } else {
      for (const line of describeDifference(smallest)) output.line(line);
    }
    throw new InputError(
      `${smallest.engines[1].name} differs from ${smallest.engines[0].name} on program ${difference.index} of seed ${seed}`,
    );
  } finally {
    for (const engine of engines) engine.close();
  }
}

export const fuzz: Command = {
  name: 'fuzz',
  summary: 'random programs on several engines; a difference is cut down and shown',
  usage: USAGE,
  run: fuzzCommand,
};

/** `trampolab fuzz`: random programs on several engines; what differs is cut down and shown. */
import process from 'node:process';
import { setFlagsFromString } from 'node:v8';
import {
  InputError,
  UsageError,
  describeDifference,
  describeTrampoline,
  fuzz as runFuzz,
  fuzzTrampolines,
  minimise,
  minimiseTrampoline,
  saveCase,
  saveTrampoline,
} from '../index.js';
import { writeOutput } from '../node/index.js';
import { integerOption, parseOptions, type Command, type Output } from './command.js';
import {
  makeEngines,
  makeTrampolineRunner,
  parseEngines,
  parseTrampolineKernels,
} from './fuzz-engines.js';

const USAGE = `fuzz [--trampolines] [--seed S] [--count N] [--engine A,B,...] [--shard I/N] [--save FILE]
  --seed S        of the campaign; the same seed and engines give the same programs (default 1)
  --count N       programs (default 1000)
  --engine A,B    two or more; all are compared with the first (default
                  interpreter,wasm,embedded). An engine is interpreter, wasm, embedded or
                  unicorn; the last two run the JIT's code and take, after colons, the kernel
                  version (6.1, 6.12, 7.3) and nolse, bti, nopac, far (images out of BL range),
                  edge (just at its end): embedded:7.3:nolse. With /N it gets every N-th
                  program: unicorn/20
  --trampolines   attaches random programs to functions with random arguments instead and
                  compares with what programs, function and caller should see; --engine
                  names kernels then, each with version, far and apart (trampolines out of BL
                  range of programs that they trace; default embedded:6.1,embedded,embedded:7.3)
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

interface Campaign {
  readonly seed: number;
  readonly count: number;
  readonly shard: { readonly index: number; readonly of: number };
  readonly save: string | undefined;
  readonly json: boolean;
  readonly output: Output;
}

function showProgress(done: number, count: number): void {
  if (process.stderr.isTTY) process.stderr.write(`\r${done} of ${count}`);
}

function endProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
}

function programsOf({ count, shard }: Campaign): number {
  return Math.max(0, Math.ceil((count - shard.index) / shard.of));
}

function saveRecord({ save }: Campaign, record: string): void {
  if (save !== undefined) writeOutput(save, new TextEncoder().encode(`${record}\n`));
}

function agree(campaign: Campaign, what: string, names: readonly string[]): number {
  const { seed, json, output } = campaign;
  const ran = programsOf(campaign);
  if (json) output.line(JSON.stringify({ seed, [what]: ran, difference: null }));
  else output.line(`${ran} ${what} from seed ${seed}: ${names.join(', ')} agree`);
  return 0;
}

async function fuzzPrograms(
  campaign: Campaign,
  engineNames: string,
  size: number,
): Promise<number> {
  const { seed, count, shard, json, output } = campaign;
  const requests = parseEngines(engineNames);
  if (requests.length < 2) throw new UsageError('--engine takes two engines or more');
  // a campaign is for one core: threads that share the collection of a small young generation cost more there
  setFlagsFromString('--no-parallel-scavenge');
  const engines = await makeEngines(requests);
  const names = engines.map(({ name, every }) => (every === undefined ? name : `${name}/${every}`));
  const progress = (done: number): void => showProgress(done, count);
  try {
    const difference = runFuzz(engines, { seed, count, size, shard, progress });
    endProgress();
    if (!difference) return agree(campaign, 'programs', names);
    const smallest = minimise(difference);
    const { index } = difference;
    const record = saveCase(`fuzz-${seed}-${index}`, smallest.fuzzCase, smallest.outcomes[0]);
    saveRecord(campaign, record);
    if (json) {
      const [expected, got] = smallest.outcomes.map(({ end }) => end);
      output.line(JSON.stringify({ seed, index, expected, got, record }));
    } else {
      for (const line of describeDifference(smallest)) output.line(line);
    }
    const [first, second] = smallest.engines;
    throw new InputError(
      `${second.name} differs from ${first.name} on program ${index} of seed ${seed}`,
    );
  } finally {
    for (const engine of engines) engine.close();
  }
}

async function trampolines(campaign: Campaign, kernelNames: string): Promise<number> {
  const { seed, count, shard, json, output } = campaign;
  const requests = parseTrampolineKernels(kernelNames);
  for (const request of requests) {
    const runner = await makeTrampolineRunner(request);
    const progress = (done: number): void => showProgress(done, count);
    const difference = fuzzTrampolines(runner, { seed, count, shard, progress });
    endProgress();
    if (!difference) {
      runner.kernel.close();
      continue;
    }
    const { index } = difference;
    const smallest = minimiseTrampoline(difference);
    const record = saveTrampoline(`trampoline-${seed}-${index}`, smallest);
    saveRecord(campaign, record);
    if (json) {
      const { expected, got } = smallest;
      output.line(JSON.stringify({ seed, index, expected, got, record }));
    } else {
      for (const line of describeTrampoline(smallest)) output.line(line);
    }
    throw new InputError(
      `${request.text} does not do what it should on trampoline ${index} of seed ${seed}`,
    );
  }
  return agree(
    campaign,
    'trampolines',
    requests.map(({ text }) => text),
  );
}

async function fuzzCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    seed: { type: 'string' },
    count: { type: 'string' },
    engine: { type: 'string' },
    shard: { type: 'string' },
    size: { type: 'string' },
    save: { type: 'string' },
    trampolines: { type: 'boolean' },
    json: { type: 'boolean', short: 'j' },
  });
  if (positionals.length > 0) throw new UsageError(`unexpected '${positionals[0]}'`);
  const size = integerOption('size', values.size, 12, { min: 1, max: 400 });
  const campaign: Campaign = {
    seed: integerOption('seed', values.seed, 1, { min: 0, max: 0xffffffff }),
    count: integerOption('count', values.count, 1000, { min: 1, max: 1e9 }),
    shard: parseShard(values.shard),
    save: values.save,
    json: values.json === true,
    output,
  };
  return values.trampolines
    ? trampolines(campaign, values.engine ?? 'embedded:6.1,embedded,embedded:7.3')
    : fuzzPrograms(campaign, values.engine ?? 'interpreter,wasm,embedded', size);
}

export const fuzz: Command = {
  name: 'fuzz',
  summary: 'random programs on several engines; a difference is cut down and shown',
  usage: USAGE,
  run: fuzzCommand,
};

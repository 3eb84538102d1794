/** `trampolab trace`: attach, call, and print every executed instruction. */
import {
  InputError,
  UsageError,
  attachScenario,
  listSite,
  traceAttached,
  type AttachedTrace,
  type Kernel,
  type Scenario,
} from '../index.js';
import { bootLab } from '../node/index.js';
import {
  choiceOption,
  integerOption,
  parseOptions,
  requiredArgument,
  table,
  type Command,
  type Output,
} from './command.js';

const USAGE = `trace FUNCTION [ARGUMENT...] [--fentry N] [--fexit N] [--fmod-ret N] [--ops N] [--far]
  FUNCTION        a traceable function; --list names them
  ARGUMENT        values of x0.., decimal or 0x; default 1 2 3 .. (&N: address of an int that holds N)
  --fentry N      attach N programs of two instructions each at entry
  --fexit N       ... at exit
  --fmod-ret N    ... that may replace the function (they return 0: it runs)
  --ops N         N ordinary ftrace ops beside them
  --far           BPF images out of BL range (128 MiB of vmalloc space in use)
  --engine E      embedded or unicorn; default embedded
  --list [GLOB]   traceable functions instead of a trace
  --json, -j      as JSON`;

const FAR_BYTES = 128 << 20;

/** Numbers as they are; `&N` becomes the address of an int with the value N. */
function parseArguments(kernel: Kernel, target: string, words: readonly string[]): bigint[] {
  const model = kernel.text.prototypes.get(kernel.symbol(target));
  const parameters = model?.parameters ?? [];
  if (words.length > parameters.length) {
    throw new UsageError(`${target} takes ${parameters.length} arguments, not ${words.length}`);
  }
  return parameters.map(({ type }, i) => {
    const word = words[i] ?? (type.includes('*') ? '&0' : String(i + 1));
    const value = /^&?(-?\d+|0x[0-9a-f]+)$/i.test(word) ? BigInt(word.replace('&', '')) : undefined;
    if (value === undefined) throw new UsageError(`argument '${word}' is no number`);
    if (!word.startsWith('&')) return value;
    const address = kernel.kmalloc(8);
    kernel.memory.write64(address, value);
    return address;
  });
}

function globToPattern(glob: string): RegExp {
  const escaped = glob.replace(/[.+^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${escaped.replace(/\*/g, '.*').replace(/\?/g, '.')}$`);
}

function printText(output: Output, kernel: Kernel, target: string, trace: AttachedTrace): void {
  for (const line of listSite(kernel, target)) output.line(line);
  output.line();
  for (const line of trace.lines) output.line(line);
  output.line();
  if (trace.frame.length > 0) {
    output.line('trampoline frame when the last program began:');
    for (const line of trace.frame) output.line(line);
    output.line();
  }
  output.line(`${target} returned ${trace.result} (0x${trace.result.toString(16)})`);
  const rows = Object.entries(trace.path).filter(([, count]) => count > 0);
  const total = rows.reduce((sum, [, count]) => sum + count, 0);
  output.line(`${total} instructions executed:`);
  const cells = rows.map(([part, count]) => [part, String(count)]);
  for (const line of table(cells)) output.line(`  ${line}`);
}

async function traceCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    fentry: { type: 'string' },
    fexit: { type: 'string' },
    'fmod-ret': { type: 'string' },
    ops: { type: 'string' },
    far: { type: 'boolean' },
    engine: { type: 'string' },
    list: { type: 'boolean' },
    json: { type: 'boolean', short: 'j' },
  });
  const engine = choiceOption('engine', values.engine, 'embedded', ['embedded', 'unicorn']);
  const count = (name: string, text: string | undefined): number =>
    integerOption(name, text, 0, { min: 0, max: 200 });
  const scenario: Scenario = {
    fentry: count('fentry', values.fentry),
    fexit: count('fexit', values.fexit),
    fmod_ret: count('fmod-ret', values['fmod-ret']),
    ops: count('ops', values.ops),
  };
  const kernel = await bootLab({ engine, vmallocUsed: values.far ? FAR_BYTES : 0 });
  try {
    if (values.list) {
      const pattern = globToPattern(positionals[0] ?? '*');
      const names = kernel.ftrace.available().filter((name) => pattern.test(name));
      if (names.length === 0)
        throw new InputError(`no traceable function matches '${positionals[0]}'`);
      if (values.json) output.line(JSON.stringify(names));
      else for (const name of names) output.line(name);
      return 0;
    }
    const [target, ...words] = [requiredArgument(positionals, 'FUNCTION'), ...positionals.slice(1)];
    const parameters = parseArguments(kernel, target, words);
    const attached = attachScenario(kernel, target, scenario);
    const trampoline = attached.attachments[0]?.trampoline;
    const trace = traceAttached(kernel, target, parameters, trampoline);
    if (values.json) output.line(JSON.stringify(toJson(kernel, target, trace)));
    else printText(output, kernel, target, trace);
    attached.detach();
    return 0;
  } finally {
    kernel.close();
  }
}

function toJson(kernel: Kernel, target: string, trace: AttachedTrace): object {
  return {
    function: target,
    result: `0x${trace.result.toString(16)}`,
    counts: trace.path,
    instructions: trace.entries.map(({ pc, word, changes }) => ({
      pc: `0x${pc.toString(16)}`,
      symbol: kernel.symbols.format(pc),
      word: word.toString(16).padStart(8, '0'),
      changes: Object.fromEntries(
        changes.map(({ register, value }) => [register, `0x${value.toString(16)}`]),
      ),
    })),
  };
}

export const trace: Command = {
  name: 'trace',
  summary: 'attach to a kernel function, call it, print every executed instruction',
  usage: USAGE,
  run: traceCommand,
};

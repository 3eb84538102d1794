/** `trampolab trace`: attach, call, and print every executed instruction. */
import {
  FTRACE_VERSIONS,
  InputError,
  KERNEL_OF_FTRACE,
  UsageError,
  attachProbes,
  attachScenario,
  callArguments,
  listFunctions,
  listProgramSite,
  listSite,
  loadObject,
  parseObject,
  traceAttached,
  xdpContext,
  type AttachedTrace,
  type Kernel,
  type ProbeCounts,
  type ProgramTarget,
  type Scenario,
} from '../index.js';
import { bootLab, parseInput } from '../node/index.js';
import {
  choiceOption,
  integerOption,
  parseOptions,
  requiredArgument,
  table,
  type Command,
  type Output,
} from './command.js';

const USAGE = `trace FUNCTION [ARGUMENT...] [--fentry N] [--fexit N] [--fmod-ret N] [--ops N] [--graph] [--far]
trace --target PROG.o[:FUNCTION] [--fentry N] [--fexit N]
  FUNCTION        a traceable function; --list names them
  ARGUMENT        its arguments, decimal or 0x; default 1 2 3 .. (&N: address of an int that holds N; A:B: a
                  structure of two words)
  --target P[:F]  function F (default: the main one) of the first program of object P, called with a packet of 64
                  zeros, in place of a kernel function
  --fentry N      attach N programs of two instructions each at entry
  --fexit N       ... at exit
  --fmod-ret N    ... that may replace the function (they return 0: it runs)
  --fsession N    ... at entry and exit (7.3)
  --cookie N      attach cookie of the first program, the next has N + 1 and so on
  --kernel V      6.1, 6.12 (default) or 7.3; for ftrace also v5, sep-2022, 6.2, 6.3 (JIT and trampolines: 6.1)
  --ops N         N ordinary ftrace ops beside them
  --graph         the function_graph tracer; it shows the call as tracefs does
  --kprobe N      N kprobes at the function's first instruction
  --kretprobe N   N kretprobes
  --fprobe N      N fprobes (7.3)
  --far           BPF images out of BL range (128 MiB of vmalloc space in use)
  --engine E      embedded or unicorn; default embedded
  --list [GLOB]   traceable functions instead of a trace
  --json, -j      as JSON`;

const FAR_BYTES = 128 << 20;

/** Numbers as they are; `&N` becomes the address of an int with the value N; `A:B` are words of a structure. */
function parseArguments(kernel: Kernel, target: string, words: readonly string[]): bigint[] {
  const model = kernel.text.prototypes.get(kernel.symbol(target));
  const parameters = model?.parameters ?? [];
  if (words.length > parameters.length) {
    throw new UsageError(`${target} takes ${parameters.length} arguments, not ${words.length}`);
  }
  const valueOf = (word: string): bigint => {
    const value = /^&?(-?\d+|0x[0-9a-f]+)$/i.test(word) ? BigInt(word.replace('&', '')) : undefined;
    if (value === undefined) throw new UsageError(`argument '${word}' is no number`);
    if (!word.startsWith('&')) return value;
    const address = kernel.kmalloc(8);
    kernel.memory.write64(address, value);
    return address;
  };
  const values = parameters.map(({ type, size, struct }, i) => {
    const fallback = type.includes('*') ? '&0' : String(i + 1);
    const parts = (words[i] ?? fallback).split(':');
    const slots = Math.ceil(size / 8);
    if (parts.length > slots) {
      throw new UsageError(
        `argument '${words[i]}' has ${parts.length} words, ${type} has ${slots}`,
      );
    }
    return struct && words[i] === undefined
      ? Array.from({ length: slots }, () => valueOf(fallback))
      : parts.map(valueOf);
  });
  return model ? callArguments(model, values) : [];
}

/** What is traced: a kernel function, or a function of a program that is called through its main one. */
interface Target {
  /** Its symbol. */
  readonly name: string;
  readonly attach: string | ProgramTarget;
  readonly entry: string | bigint;
  readonly args: readonly bigint[];
  readonly site: () => readonly string[];
}

function kernelTarget(kernel: Kernel, positionals: readonly string[]): Target {
  const [name, ...words] = [requiredArgument(positionals, 'FUNCTION'), ...positionals.slice(1)];
  return {
    name,
    attach: name,
    entry: name,
    args: parseArguments(kernel, name, words),
    site: () => listSite(kernel, name),
  };
}

const PACKET_BYTES = 64;

function programTarget(kernel: Kernel, text: string): Target {
  const [, path = text, fn] = /^(.+\.o):(\w+)$/.exec(text) ?? [];
  const spec = parseInput(path, (bytes) => parseObject(bytes, { name: path }));
  const object = loadObject(kernel, spec, { programs: spec.programs.slice(0, 1) });
  const [program] = object.programs.values();
  if (!program) throw new InputError(`${path} has no program`);
  const { base } = program.functionImage(fn ?? program.name);
  const isXdp = program.xlated.type === 'xdp';
  return {
    name: kernel.symbols.lookup(base)?.name ?? '',
    attach: { program, ...(fn === undefined ? {} : { function: fn }) },
    entry: program.entry,
    args: [isXdp ? xdpContext(kernel, new Uint8Array(PACKET_BYTES)).xdp.address : 0n],
    site: () => listProgramSite(kernel, base),
  };
}

function printText(
  output: Output,
  target: Target,
  trace: AttachedTrace,
  seen: readonly string[],
): void {
  for (const line of target.site()) output.line(line);
  output.line();
  for (const line of trace.lines) output.line(line);
  output.line();
  if (trace.frame.length > 0) {
    output.line('trampoline frame when the last program began:');
    for (const line of trace.frame) output.line(line);
    output.line();
  }
  if (seen.length > 0) {
    for (const line of seen) output.line(line);
    output.line();
  }
  const { name, entry } = target;
  const called = typeof entry === 'string' ? name : 'the program';
  output.line(`${called} returned ${trace.result} (0x${trace.result.toString(16)})`);
  const rows = Object.entries(trace.path).filter(([, count]) => count > 0);
  const total = rows.reduce((sum, [, count]) => sum + count, 0);
  output.line(`${total} instructions executed:`);
  const cells = rows.map(([part, count]) => [part, String(count)]);
  for (const line of table(cells)) output.line(`  ${line}`);
}

function cookieOption(text: string | undefined): bigint {
  if (text === undefined) return 0n;
  if (/^(\d+|0x[0-9a-f]+)$/i.test(text)) return BigInt.asUintN(64, BigInt(text));
  throw new UsageError(`--cookie takes a number, not '${text}'`);
}

async function traceCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    fentry: { type: 'string' },
    fexit: { type: 'string' },
    'fmod-ret': { type: 'string' },
    fsession: { type: 'string' },
    cookie: { type: 'string' },
    kernel: { type: 'string' },
    target: { type: 'string' },
    ops: { type: 'string' },
    graph: { type: 'boolean' },
    kprobe: { type: 'string' },
    kretprobe: { type: 'string' },
    fprobe: { type: 'string' },
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
    fsession: count('fsession', values.fsession),
    cookie: cookieOption(values.cookie),
    ops: count('ops', values.ops),
  };
  const probeCounts: ProbeCounts = {
    graph: values.graph ?? false,
    kprobe: count('kprobe', values.kprobe),
    kretprobe: count('kretprobe', values.kretprobe),
    fprobe: count('fprobe', values.fprobe),
  };
  const version = choiceOption('kernel', values.kernel, '6.12', FTRACE_VERSIONS);
  if (values.target !== undefined && positionals.length > 0) {
    throw new UsageError('--target stands in place of FUNCTION');
  }
  if (values.target !== undefined && Object.values(probeCounts).some((each) => each)) {
    throw new UsageError('tracers and probes are for kernel functions, not for --target');
  }
  const kernel = await bootLab({
    engine,
    version: KERNEL_OF_FTRACE[version],
    ftrace: version,
    vmallocUsed: values.far ? FAR_BYTES : 0,
  });
  try {
    if (values.list) {
      const names = listFunctions(kernel.ftrace, kernel.symbols, 'available', positionals[0]);
      if (names.length === 0)
        throw new InputError(`no traceable function matches '${positionals[0]}'`);
      if (values.json) output.line(JSON.stringify(names));
      else for (const name of names) output.line(name);
      return 0;
    }
    const target =
      values.target === undefined
        ? kernelTarget(kernel, positionals)
        : programTarget(kernel, values.target);
    const { name, attach, args: parameters, entry } = target;
    const attached = attachScenario(kernel, attach, scenario);
    const probes =
      typeof attach === 'string' ? attachProbes(kernel, attach, probeCounts) : undefined;
    const trampoline = attached.attachments[0]?.trampoline;
    const trace = traceAttached(kernel, name, parameters, trampoline, entry);
    if (values.json) output.line(JSON.stringify(toJson(kernel, name, trace)));
    else printText(output, target, trace, probes?.lines() ?? []);
    probes?.detach();
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

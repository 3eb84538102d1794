/** `trampolab ftrace`: what tracefs lists of the lab's patch sites, and what ftrace of each version does. */
import {
  FTRACE_PROFILES,
  FTRACE_VERSIONS,
  InputError,
  KERNEL_OF_FTRACE,
  UsageError,
  attachScenario,
  listFunctions,
  type FtraceProfile,
  type FtraceVersion,
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

const USAGE = `ftrace list [GLOB] [--kernel V]
ftrace enabled FUNCTION [--fentry N] [--fexit N] [--ops N] [--assist] [--far] [--kernel V]
ftrace profiles
  list          functions that can be traced: available_filter_functions
  GLOB          as set_ftrace_filter takes it: foo, foo*, *foo, *foo*, a*b, with ! those that do not match
  enabled       attach to FUNCTION, then show enabled_functions
  profiles      what ftrace of each version does its own way
  --fentry N    attach N programs at entry
  --fexit N     ... at exit
  --ops N       N ordinary ftrace ops beside them
  --assist      those ops ask for protection against recursion
  --far         BPF images out of BL range (128 MiB of vmalloc space in use)
  --kernel V    ${FTRACE_VERSIONS.join(', ')}; default 6.12
  --json, -j    as JSON`;

const FAR_BYTES = 128 << 20;
const VERBS = ['list', 'enabled', 'profiles'] as const;

interface FtraceOptions {
  readonly version: FtraceVersion;
  readonly fentry: number;
  readonly fexit: number;
  readonly ops: number;
  readonly assist: boolean;
  readonly far: boolean;
}

/** Columns of `profiles`: its heading and what stands in it. */
const PROFILE_COLUMNS: readonly (readonly [string, (profile: FtraceProfile) => string])[] = [
  ['version', ({ version }) => (/^\d/.test(version) ? `Linux ${version}` : version)],
  ['entry', ({ site }) => `=${site}`],
  ['saves', ({ frame }) => frame],
  ['literal', ({ callOps, site }) => (callOps ? 'ops' : site === '7,5' ? 'target' : 'none')],
  ['direct calls', ({ direct }) => (direct ? `by ${direct.api}` : 'none')],
  ['far', ({ direct }) => direct?.far ?? ''],
  ['late', ({ direct }) => direct?.late ?? ''],
  ['most ops', ({ refBits }) => String(2 ** refBits - 1)],
];

async function ftraceCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    fentry: { type: 'string' },
    fexit: { type: 'string' },
    ops: { type: 'string' },
    assist: { type: 'boolean' },
    far: { type: 'boolean' },
    kernel: { type: 'string' },
    json: { type: 'boolean', short: 'j' },
  });
  const given = requiredArgument(positionals, 'VERB');
  const verb = VERBS.find((each) => each === given);
  if (!verb) throw new UsageError(`ftrace takes ${VERBS.join('|')}, not '${given}'`);
  if (positionals.length > 2) throw new UsageError(`what is '${positionals[2]}'?`);
  const count = (name: string, text: string | undefined): number =>
    integerOption(name, text, 0, { min: 0, max: 200 });
  const options: FtraceOptions = {
    version: choiceOption('kernel', values.kernel, '6.12', FTRACE_VERSIONS),
    fentry: count('fentry', values.fentry),
    fexit: count('fexit', values.fexit),
    ops: count('ops', values.ops),
    assist: values.assist ?? false,
    far: values.far ?? false,
  };
  const lines = await linesOf(verb, positionals[1], options, values.json ?? false);
  if (values.json && verb !== 'profiles') output.line(JSON.stringify(lines));
  else for (const line of lines) output.line(line);
  return 0;
}

async function linesOf(
  verb: (typeof VERBS)[number],
  argument: string | undefined,
  options: FtraceOptions,
  json: boolean,
): Promise<readonly string[]> {
  if (verb === 'profiles') return profileLines(json);
  const { version, fentry, fexit, ops, assist, far } = options;
  const kernel = await bootLab({
    version: KERNEL_OF_FTRACE[version],
    ftrace: version,
    vmallocUsed: far ? FAR_BYTES : 0,
  });
  try {
    if (verb === 'list') {
      const lines = listFunctions(kernel.ftrace, kernel.symbols, 'available', argument);
      if (lines.length === 0) throw new InputError(`no traceable function matches '${argument}'`);
      return lines;
    }
    const fn = requiredArgument(argument === undefined ? [] : [argument], 'FUNCTION');
    const attached = attachScenario(kernel, fn, { fentry, fexit, ops, assist });
    const lines = listFunctions(kernel.ftrace, kernel.symbols, 'enabled');
    attached.detach();
    return lines;
  } finally {
    kernel.close();
  }
}

function profileLines(json: boolean): readonly string[] {
  const profiles = FTRACE_VERSIONS.map((version) => FTRACE_PROFILES[version]);
  if (json) return [JSON.stringify(profiles)];
  const rows = profiles.map((profile) => PROFILE_COLUMNS.map(([, cell]) => cell(profile)));
  return table([PROFILE_COLUMNS.map(([heading]) => heading), ...rows]);
}

export const ftrace: Command = {
  name: 'ftrace',
  summary: 'traceable functions, enabled_functions, what each version of ftrace does',
  usage: USAGE,
  run: ftraceCommand,
};

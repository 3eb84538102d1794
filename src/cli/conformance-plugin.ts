/**
 * `trampolab conformance-plugin`: one program for bpf_conformance_runner.
 *
 * Reference: the plugin protocol of github.com/Alan-Jowett/bpf_conformance. The runner starts the plugin once
 * per test: `[MEMORY] [options] [--elf]`, the program as one line of hex on standard input; R0 in hex goes
 * to standard output. When the program is refused or stopped, the reason alone is the output and the exit
 * code is 1.
 *
 *   bpf_conformance_runner --test_file_directory tests --plugin_path trampolab-plugin
 *
 * where `trampolab-plugin` is a script of one line: `exec trampolab conformance-plugin "$@"`.
 */
import {
  CONFORMANCE_HELPERS,
  InterpreterRunner,
  WasmRunner,
  JitRunner,
  UsageError,
  hexToBytes,
  textProgram,
  type RunOutcome,
  type RunRequest,
} from '../index.js';
import { bootLab, readInput } from '../node/index.js';
import { choiceOption, parseOptions, type Command, type Output } from './command.js';
import { ENGINES, type EngineName } from './engine.js';

const USAGE = `conformance-plugin [MEMORY] [--engine E] [--elf]
  MEMORY            bytes in hex that r1 points to; r2 is their number
  --engine E        interpreter (default), wasm, embedded or unicorn
  --elf             standard input is an object with function main in .text, as hex
  The program comes as one line of hex on standard input; r0 goes to standard output.`;

async function pluginCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    engine: { type: 'string' },
    elf: { type: 'boolean' },
  });
  const [memory, ...others] = positionals;
  if (others.length > 0) throw new UsageError(`one MEMORY is enough: '${others[0]}' is too much`);
  const engine = choiceOption('engine', values.engine, 'interpreter', ENGINES);
  const request = readRequest(memory, values.elf ?? false);
  const outcome = await runOn(engine, request);
  if (outcome.kind !== 'return') {
    output.line(outcome.reason);
    return 1;
  }
  output.line(outcome.r0.toString(16));
  return 0;
}

function readRequest(memory: string | undefined, isElf: boolean): RunRequest {
  const input = hexToBytes(new TextDecoder().decode(readInput('-')).trim());
  return {
    name: 'test',
    insns: isElf ? textProgram(input) : input,
    // an empty argument is no memory
    memory: memory === undefined || memory.trim() === '' ? undefined : hexToBytes(memory.trim()),
    helpers: CONFORMANCE_HELPERS,
  };
}

async function runOn(engine: EngineName, request: RunRequest): Promise<RunOutcome> {
  if (engine === 'interpreter') return new InterpreterRunner().run(request);
  if (engine === 'wasm') return new WasmRunner().run(request);
  const kernel = await bootLab({ engine });
  try {
    return new JitRunner(kernel).run(request);
  } finally {
    kernel.close();
  }
}

export const conformancePlugin: Command = {
  name: 'conformance-plugin',
  summary: 'run one program for bpf_conformance_runner',
  usage: USAGE,
  run: pluginCommand,
};

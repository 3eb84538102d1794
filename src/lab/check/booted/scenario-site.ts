/**
 * A kernel function's patch site in one state of a booted kernel against ours with as much attached.
 *
 * How many ftrace_ops cover it and whether one is a direct call is in enabled_functions; in the lab the same
 * number of ops is attached, and a program for the direct one. Compared are the first two words (the
 * branch with the booted kernel's addresses) and, where there are literals, what this one points to:
 * ftrace_nop_ops, ftrace_list_ops, the ops of the direct call with its func and image, or another ops; and the line
 * of enabled_functions, without the names of ordinary ops, sizes, addresses, and M, which depends on what was
 * attached before. Not compared: a kprobe's BRK.
 */
import { branchWord } from '../../../a64/immediates.js';
import { nop } from '../../../jit/emit.js';
import { compareValues, compareWords } from '../../../jit/vectors/compare.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { listFunctions } from '../../../kernel/ftrace/listing.js';
import { attachScenario } from '../../scenario.js';
import { branchTarget } from './image.js';
import { commentSymbol, type ScenarioLiteral, type ScenarioState } from './scenario-file.js';

/** BRK that arm64 kprobes put at an address. */
const KPROBE_BRK = 0xd4200080;

/** What is registered at a site. */
interface Enabled {
  readonly ops: number;
  readonly direct: boolean;
}

/** `bpf_fentry_test1 (2)     D   M`: number of ops; flags R, I, D, O, M. */
function enabledOf({ enabled }: ScenarioState): Enabled {
  const [, count = '0', flags = ''] =
    enabled.map((line) => /^(?:\w+) \((\d+)\)([ A-Z]*)/.exec(line)).find((match) => match) ?? [];
  return { ops: Number(count), direct: flags.includes('D') };
}

/** Why a state is not compared. */
export function skipState({ words }: ScenarioState): string | undefined {
  return words[0] === KPROBE_BRK ? 'a kprobe is at the entry: kprobes are not modelled' : undefined;
}

/** The first difference, in one line. */
export function compareSite(kernel: Kernel, state: ScenarioState): string | undefined {
  const { ops, direct } = enabledOf(state);
  const attached = attachScenario(kernel, state.fn, {
    fentry: direct ? 1 : 0,
    ops: ops - (direct ? 1 : 0),
  });
  try {
    const image = attached.attachments[0]?.trampoline.image?.code.base;
    return compareView(kernel, state, image);
  } finally {
    attached.detach();
  }
}

/** `image` is that of our direct call. */
function compareView(
  kernel: Kernel,
  state: ScenarioState,
  image: bigint | undefined,
): string | undefined {
  const address = kernel.symbol(state.fn);
  const { memory } = kernel;
  const branch = branchTarget(memory.read32(address + 4n), address + 4n, true);
  let target = 'nothing';
  if (branch !== undefined) {
    target = branch === image ? 'the image' : (kernel.symbols.lookup(branch)?.name ?? 'unknown');
  }
  const expected = theirTarget(state);
  const difference = compareValues([['the site branches to', expected.text, target]]);
  if (difference !== undefined) return difference;
  const word =
    expected.address === undefined ? nop() : branchWord(state.address + 4n, expected.address, true);
  const words = [memory.read32(address), word];
  const different = compareWords(state.words.slice(0, 2), words, state.address);
  if (different) return different.text;
  const shown = compareValues([
    ['enabled_functions shows', theirLine(state), ourLine(kernel, state.fn)],
  ]);
  if (shown !== undefined || !state.literal) return shown;
  const literal = memory.read64(address - 8n);
  return compareValues([
    ['the literal points to', theirOps(state.literal), labOps(kernel, literal, image)],
  ]);
}

function theirTarget(state: ScenarioState): { text: string; address?: bigint } {
  const address = branchTarget(state.words[1] ?? 0, state.address + 4n, true);
  if (address === undefined) return { text: 'nothing' };
  const isImage = address === state.literal?.directCall && address !== 0n;
  if (isImage) return { text: 'the image', address };
  return { text: commentSymbol(state.disassembly[1]) ?? 'unknown', address };
}

const NAMED: readonly string[] = ['ftrace_nop_ops', 'ftrace_list_ops'];

function theirOps({ symbol, func, directCall }: ScenarioLiteral): string {
  const name = symbol.split('+')[0] ?? '';
  if (NAMED.includes(name)) return name;
  return directCall === 0n ? 'another ops' : `an ops of ${symbolOf(func)} for the image`;
}

const symbolOf = (text: string): string => /(\w+)\+0x0$/.exec(text)?.[1] ?? text;

function labOps(kernel: Kernel, literal: bigint, image: bigint | undefined): string {
  const name = kernel.symbols.lookup(literal)?.name ?? '';
  if (NAMED.includes(name)) return name;
  const ops = kernel.ftrace.opsAt(literal);
  if (!ops) return 'no ops';
  if (ops.directCall === 0n) return 'another ops';
  const whose = ops.directCall === image ? 'the image' : 'something else';
  return `an ops of ${kernel.symbols.lookup(ops.func)?.name ?? 'nothing'} for ${whose}`;
}

function theirLine({ fn, enabled }: ScenarioState): string {
  return plainLine(enabled.find((line) => line.startsWith(`${fn} `)) ?? 'nothing');
}

function ourLine(kernel: Kernel, fn: string): string {
  const [line = 'nothing'] = listFunctions(kernel.ftrace, kernel.symbols, 'enabled', fn);
  return plainLine(line);
}

/** Without what differs between two kernels that have the same attached. */
function plainLine(line: string): string {
  return line
    .replace(/^(.* \(\d+\)[ RIDO]{8}) [ M] /, '$1')
    .replace(/\tsubops:.*/, '')
    .replace(/ops: \S+ \((\S+)\)/, (_, func: string) =>
      func.startsWith('call_direct_funcs') ? 'ops: the direct ops' : 'ops: another',
    )
    .replace(/\+0x0\/0x[0-9a-f]+/g, '');
}

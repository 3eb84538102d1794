/**
 * A kernel function's patch site in one state of a booted kernel against ours in the same state.
 *
 * Compared are the first two words (the branch with the booted kernel's addresses; a kprobe's BRK), where there are
 * literals what this one points to: by name where it is a variable of the kernel's, with func, flags, saved_func,
 * trampoline and direct_call of the ftrace_ops; and the line of enabled_functions, without sizes, addresses and
 * M, which depends on what was attached in scenarios before.
 */
import { branchWord } from '../../../a64/immediates.js';
import { nop } from '../../../jit/emit.js';
import { compareValues, compareWords, type Comparison } from '../../../jit/vectors/compare.js';
import { listFunctions } from '../../../kernel/ftrace/listing.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { branchTarget } from './image.js';
import { commentSymbol, type ScenarioLiteral, type ScenarioState } from './scenario-file.js';

/** The first difference, in one line. The kernel is in that state. */
export function compareSite(kernel: Kernel, state: ScenarioState): string | undefined {
  const address = kernel.symbol(state.fn);
  const { memory } = kernel;
  const image = kernel.bpf.trampolineAt(state.fn)?.image?.code.base;
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
  return compareValues([
    ['enabled_functions shows', theirLine(state), ourLine(kernel, state.fn)],
    ...(state.literal ? compareOps(kernel, state.literal, memory.read64(address - 8n), image) : []),
  ]);
}

function theirTarget(state: ScenarioState): { text: string; address?: bigint } {
  const address = branchTarget(state.words[1] ?? 0, state.address + 4n, true);
  if (address === undefined) return { text: 'nothing' };
  const isImage = address === state.literal?.directCall && address !== 0n;
  if (isImage) return { text: 'the image', address };
  return { text: commentSymbol(state.disassembly[1]) ?? 'unknown', address };
}

/** What the literal points to, member by member. */
function compareOps(
  kernel: Kernel,
  theirs: ScenarioLiteral,
  literal: bigint,
  image: bigint | undefined,
): Comparison[] {
  const ops = [...kernel.ftrace.list(), kernel.ftrace.nopOps, kernel.ftrace.listOps].find(
    (each) => each.address === literal,
  );
  const nameOf = (address: bigint): string =>
    address === 0n ? 'nothing' : kernel.symbols.format(address).replace(/\+0x0$/, '');
  const target = ops?.directCall === image ? 'the image' : nameOf(ops?.directCall ?? 0n);
  return [
    [
      'the literal points to',
      opsName(theirs.symbol),
      opsName(kernel.symbols.lookup(literal)?.name ?? ''),
    ],
    ['ops->func', symbolOf(theirs.func), nameOf(ops?.func ?? 0n)],
    ['ops->flags', theirs.flags, ops?.flags],
    ['ops->saved_func', symbolOf(theirs.savedFunc), nameOf(ops?.savedFunc ?? 0n)],
    ['ops->trampoline', symbolOf(theirs.trampoline), nameOf(ops?.trampoline ?? 0n)],
    ['ops->direct_call', theirs.directCall === 0n ? 'nothing' : 'the image', target],
  ];
}

/** Ops of trampolines and of tracing instances are on the heap and have no name. */
const opsName = (symbol: string): string => symbol.split('+')[0] || 'ops on the heap';

/** `0xffff8000801fa948 call_direct_funcs+0x0`; `0x0`. */
const symbolOf = (text: string): string => /(\w+)\+0x0$/.exec(text)?.[1] ?? 'nothing';

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
    .replace(/ops: 0x[0-9a-f]+/, 'ops: ADDRESS')
    .replace(/\+0x0\/0x[0-9a-f]+/g, '');
}

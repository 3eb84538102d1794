/**
 * A JIT image from somewhere else: its functions, whom it calls, which addresses it holds.
 *
 * `bpftool prog dump jited id N file F` writes the images of all functions behind each other. Each begins with
 * `[bti jc;] mov x9, x30; nop`, which no other place of an image has. Addresses of maps and of their values are
 * constants made by MOVN and MOVK; those that BLR goes to are calls, as BL is.
 *
 * Usage:
 *   const image = readImage('f.bin', bytes, [0xffff800081f65890n]);
 *   image.calls; image.constants;
 */
import { hex64, viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import { bti, nop } from '../../jit/emit.js';
import { branchTarget, constantAt, constantBefore } from '../check/booted/image.js';

export interface ForeignFunction {
  readonly base: bigint;
  readonly words: readonly number[];
}

export interface ForeignImage {
  readonly functions: readonly ForeignFunction[];
  /** Targets of calls outside the image, each once. */
  readonly calls: readonly bigint[];
  /** Kernel addresses that are no targets of calls, each once, in the order in which they come. */
  readonly constants: readonly bigint[];
}

const BTI_JC = bti('jc');
const NOP = nop();
const BLR_X10 = 0xd63f0140;
/** mov x9, x30 as ADD and as ORR. */
const SAVE_PARENT: readonly number[] = [0x910003c9, 0xaa1e03e9];
/** The linear map of 52-bit VA begins here; above vmalloc space there is no data either. */
const LOWEST = 0xfff0_0000_0000_0000n;
const HIGHEST = 0xffff_fe00_0000_0000n;

/**
 * @param bases where the functions were, in order; the image goes there again
 * Throws InputError when the bytes are no image, or `bases` are not as many as it has functions.
 */
export function readImage(name: string, bytes: Uint8Array, bases: readonly bigint[]): ForeignImage {
  if (bytes.length === 0 || bytes.length % 4 !== 0) {
    throw new InputError(`${name}: ${bytes.length} bytes are no sequence of instructions`);
  }
  const view = viewOf(bytes);
  const words = Array.from({ length: bytes.length / 4 }, (_, i) => view.getUint32(4 * i, true));
  const starts = words.flatMap((word, i) => {
    if (!SAVE_PARENT.includes(word) || words[i + 1] !== NOP) return [];
    return [words[i - 1] === BTI_JC ? i - 1 : i];
  });
  if (starts[0] !== 0) {
    throw new InputError(`${name}: does not begin as an arm64 BPF image (mov x9, x30; nop)`);
  }
  if (bases.length !== starts.length) {
    throw new InputError(
      `${name}: ${starts.length} functions, but ${bases.length} addresses for them`,
    );
  }
  const functions = starts.map((start, i) => ({
    base: bases[i] ?? 0n,
    words: words.slice(start, starts[i + 1] ?? words.length),
  }));
  for (const { base } of functions) {
    if ((base & 3n) !== 0n) throw new InputError(`${name}: ${hex64(base)} is no address of code`);
  }
  return { functions, ...addressesOf(functions) };
}

function addressesOf(
  functions: readonly ForeignFunction[],
): Pick<ForeignImage, 'calls' | 'constants'> {
  const isInside = (address: bigint): boolean =>
    functions.some(
      ({ base, words }) => address >= base && address < base + BigInt(4 * words.length),
    );
  const calls = new Set<bigint>();
  const constants = new Set<bigint>();
  for (const { base, words } of functions) {
    for (const [i, word] of words.entries()) {
      const target =
        word === BLR_X10
          ? constantBefore(words, i)
          : branchTarget(word, base + BigInt(4 * i), true);
      if (target !== undefined && !isInside(target)) calls.add(target);
    }
  }
  for (const { words } of functions) {
    for (const i of words.keys()) {
      const value = constantAt(words, i);
      if (value === undefined || value < LOWEST || value >= HIGHEST) continue;
      if (!calls.has(value) && !isInside(value)) constants.add(value);
    }
  }
  return { calls: [...calls], constants: [...constants] };
}

/**
 * offsetof(struct bpf_array, value) as the image has it where it looks up an array in place:
 * `add x0, x0, #imm; ldr w7|w8, [x1]`. Undefined when it does not.
 */
export function arrayValueOffset({ functions }: ForeignImage): number | undefined {
  for (const { words } of functions) {
    for (const [i, word] of words.entries()) {
      const next = words[i + 1];
      const isLookup = next === 0xb9400027 || next === 0xb9400028;
      if (isLookup && (word & 0xffc003ff) >>> 0 === 0x91000000) return (word >>> 10) & 0xfff;
    }
  }
  return undefined;
}

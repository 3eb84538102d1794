/**
 * Comparison of words and numbers that a kernel made with ours: the first difference as one line.
 */
import { print } from '../../a64/print.js';
import { hex32 } from '../../common/bytes.js';

export interface WordDifference {
  readonly index: number;
  /** `word 7 is 91001c00 (add x0, x0, #0x7), ours nothing`. */
  readonly text: string;
}

/** The first word that differs. `base` is the address of word 0. */
export function compareWords(
  expected: ArrayLike<number>,
  ours: ArrayLike<number>,
  base: bigint,
): WordDifference | undefined {
  const count = Math.max(expected.length, ours.length);
  for (let index = 0; index < count; index++) {
    if (expected[index] === ours[index]) continue;
    const pc = base + BigInt(4 * index);
    const text = `word ${index} is ${showWord(expected[index], pc)}, ours ${showWord(ours[index], pc)}`;
    return { index, text };
  }
  return undefined;
}

function showWord(word: number | undefined, pc: bigint): string {
  return word === undefined ? 'nothing' : `${hex32(word)} (${print(word, pc)})`;
}

/** Name, what the record says (undefined: nothing), ours. */
export type Comparison = readonly [
  name: string,
  expected: number | bigint | string | undefined,
  ours: number | bigint | string | undefined,
];

/** The first value that the record gives and that is not ours. */
export function compareValues(comparisons: readonly Comparison[]): string | undefined {
  for (const [name, expected, ours] of comparisons) {
    if (expected === undefined || expected === ours) continue;
    return `${name} is ${describe(expected)}, ours ${describe(ours)}`;
  }
  return undefined;
}

function describe(value: number | bigint | string | undefined): string {
  return typeof value === 'bigint' ? `0x${value.toString(16)}` : String(value ?? 'none');
}

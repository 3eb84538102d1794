/**
 * bpf_csum_diff: the difference of two buffers as a ones' complement sum.
 *
 * Up to 6.12 sizes must be multiples of 4 and add up to at most 512, and the result is what arm64's
 * csum_partial leaves: a sum folded to 16 bits plus the seed. Newer kernels take any size and fold
 * the whole to 16 bits. Reference: net/core/filter.c bpf_csum_diff, lib/checksum.c,
 * arch/arm64/lib/csum.c.
 */
import type { Memory } from '../../cpu/memory.js';
import { withIntrinsic, type HelperBody, type RegisterPairs } from '../host.js';
import { argument32, fail, offsetOf, type Helper } from './helper.js';

/** Version of the helpers' semantics. */
export type HelperVersion = '6.12' | '6.18';

/** sizeof(struct bpf_scratchpad.diff) */
export const MAX_DIFF = 512;

export function checksumHelpers(version: HelperVersion): readonly Helper[] {
  const csumDiff: HelperBody = (registers, { memory }) => {
    const fromSize = argument32(registers, 2) >>> 0;
    const toSize = argument32(registers, 4) >>> 0;
    if (version === '6.12' && ((fromSize | toSize) & 3 || fromSize + toSize > MAX_DIFF)) {
      fail(registers, 'EINVAL');
      return;
    }
    const from = sum16(memory, registers, 1, fromSize);
    const to = sum16(memory, registers, 3, toSize);
    const seed = argument32(registers, 5) >>> 0;
    registers[0] =
      version === '6.12' ? diff(from, fromSize, to, seed) : foldedDiff(from, fromSize, to, seed);
    registers[1] = 0;
  };
  return [
    {
      id: 28,
      name: 'csum_diff',
      arguments: ['mem_or_null', 'size_or_zero', 'mem_or_null', 'size_or_zero', 'anything'],
      result: 'integer',
      body: version === '6.12' ? withIntrinsic({ kind: 'csum_diff' }, csumDiff) : csumDiff,
    },
  ];
}

/** csum_partial(~from words, to words; seed) of arm64. */
function diff(from: number, fromSize: number, to: number, seed: number): number {
  // the complement of every 16-bit word of `from`
  const complement = (fromSize / 2) * 0xffff - from;
  return add32(fold(complement + to), seed);
}

/** csum_from32to16(seed - from + to) */
function foldedDiff(from: number, fromSize: number, to: number, seed: number): number {
  const raised = add32(seed, to);
  return fold(fromSize === 0 ? raised : add32(raised, ~from >>> 0));
}

/** Sum of the little-endian 16-bit words at argument `n`; a last odd byte counts as a low one. */
function sum16(memory: Memory, registers: RegisterPairs, n: number, size: number): number {
  if (size === 0) return 0;
  const at = offsetOf(memory, registers, n, size, 'read');
  let sum = 0;
  for (let i = 0; i + 1 < size; i += 2) sum += memory.view.getUint16(at + i, true);
  return size % 2 === 0 ? sum : sum + memory.bytes[at + size - 1];
}

/** Ones' complement addition of 32-bit numbers. */
function add32(a: number, b: number): number {
  const sum = a + b;
  return sum > 0xffff_ffff ? sum - 0xffff_ffff : sum;
}

/** Folds a sum to 16 bits by end-around carries. */
function fold(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded % 0x1_0000) + Math.floor(folded / 0x1_0000);
  return folded;
}

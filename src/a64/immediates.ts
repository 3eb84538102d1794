/**
 * Immediates that are more than a bit field: logical masks and branch ranges.
 *
 * Logical immediates (Arm ARM DecodeBitMasks, shared pseudocode): N:imms chooses an element of 2,
 * 4, .. 64 bits that holds imms+1 ones (its low bits), rotated right by immr and repeated over the
 * register.
 *   N imms     element
 *   1 xxxxxx   64
 *   0 0xxxxx   32
 *   0 10xxxx   16  and so on to 11110x = 2
 *
 *   encodeLogical(~7n, 64)           // { N: 1, immr: 61, imms: 60 }
 *   encodeLogical(0x1234n, 64)       // undefined: no such mask
 */
import { u64 } from '../common/bytes.js';

export interface LogicalImmediate {
  readonly N: number;
  readonly immr: number;
  readonly imms: number;
}

/** The mask of N:immr:imms for a register of `width` bits; `undefined` when reserved. */
export function decodeLogical(
  N: number,
  immr: number,
  imms: number,
  width: 32 | 64,
): bigint | undefined {
  if (width === 32 && N === 1) return undefined;
  const combined = (N << 6) | (~imms & 0x3f);
  const length = 31 - Math.clz32(combined);
  if (length < 1) return undefined;
  const size = 1 << length;
  const ones = (imms & (size - 1)) + 1;
  if (ones === size) return undefined;
  const rotation = BigInt(immr & (size - 1));
  const bits = BigInt(size);
  const run = (1n << BigInt(ones)) - 1n;
  const element = BigInt.asUintN(size, (run >> rotation) | (run << (bits - rotation)));
  let mask = 0n;
  for (let at = 0n; at < BigInt(width); at += bits) mask |= element << at;
  return mask;
}

/** N:immr:imms of a mask, or `undefined` when no logical immediate gives it. */
export function encodeLogical(value: bigint, width: 32 | 64): LogicalImmediate | undefined {
  const mask = BigInt.asUintN(width, value);
  let size = width as number;
  while (size > 2) {
    const half = BigInt(size / 2);
    if (BigInt.asUintN(size / 2, mask) !== BigInt.asUintN(size / 2, mask >> half)) break;
    size /= 2;
  }
  const element = BigInt.asUintN(size, mask);
  let ones = 0;
  for (let rest = element; rest !== 0n; rest >>= 1n) ones += Number(rest & 1n);
  if (ones === 0 || ones === size) return undefined;
  // 110..0 above the count of ones marks the element size
  const imms = (~(2 * size - 1) & 0x3f) | (ones - 1);
  const N = size === 64 ? 1 : 0;
  for (let immr = 0; immr < size; immr++) {
    if (decodeLogical(N, immr, imms, width) === mask) return { N, immr, imms };
  }
  return undefined;
}

/**
 * AARCH64_BREAK_FAULT (brk #0x100), which the kernel's encoders return for what cannot be encoded.
 */
export const AARCH64_BREAK_FAULT = 0xd4202000;

/** Whether B or BL at `pc` reaches `target`: word-aligned, distance in [-128 MiB, 128 MiB). */
export function reachable(pc: bigint, target: bigint): boolean {
  const distance = BigInt.asIntN(64, u64(target) - u64(pc));
  return (distance & 3n) === 0n && distance >= -0x800_0000n && distance < 0x800_0000n;
}

/**
 * The word of B (`link` false) or BL at `pc` to `target`; AARCH64_BREAK_FAULT when it does not
 * reach, as aarch64_insn_gen_branch_imm does.
 */
export function branchWord(pc: bigint, target: bigint, link: boolean): number {
  if (!reachable(pc, target)) return AARCH64_BREAK_FAULT;
  const imm26 = Number(BigInt.asUintN(26, (u64(target) - u64(pc)) >> 2n));
  return ((link ? 0x94000000 : 0x14000000) | imm26) >>> 0;
}

/**
 * Tristate numbers: 64 bits of which each is 0, 1 or unknown.
 *
 * `mask` has the unknown bits, `value` the known ones; a bit is never set in both. Operations give the
 * smallest set that is easy to compute and holds every result. Reference: include/linux/tnum.h,
 * Vishwanathan et al., "Sound, Precise, and Fast Abstract Interpretation with Tristate Numbers".
 *
 * Usage:
 *   tnumAdd(tnumConst(4n), { value: 0n, mask: 3n }); // 4..7
 */
export interface Tnum {
  readonly value: bigint;
  readonly mask: bigint;
}

export const U64_MAX = 0xffff_ffff_ffff_ffffn;
const HIGH32 = 0xffff_ffff_0000_0000n;

export const TNUM_UNKNOWN: Tnum = { value: 0n, mask: U64_MAX };

function u64(value: bigint): bigint {
  return BigInt.asUintN(64, value);
}

export function tnumConst(value: bigint): Tnum {
  return { value: u64(value), mask: 0n };
}

export function tnumAdd(a: Tnum, b: Tnum): Tnum {
  const least = a.value + b.value;
  // bits that a carry may reach are those in which least and greatest sum differ
  const mask = u64(((least + a.mask + b.mask) ^ least) | a.mask | b.mask);
  return { value: u64(least) & ~mask, mask };
}

export function tnumSub(a: Tnum, b: Tnum): Tnum {
  const difference = a.value - b.value;
  const mask = u64((difference + a.mask) ^ (difference - b.mask)) | a.mask | b.mask;
  return { value: u64(difference) & ~mask, mask };
}

export function tnumAnd(a: Tnum, b: Tnum): Tnum {
  const value = a.value & b.value;
  return { value, mask: (a.value | a.mask) & (b.value | b.mask) & ~value };
}

export function tnumOr(a: Tnum, b: Tnum): Tnum {
  const value = a.value | b.value;
  return { value, mask: (a.mask | b.mask) & ~value };
}

export function tnumXor(a: Tnum, b: Tnum): Tnum {
  const mask = a.mask | b.mask;
  return { value: (a.value ^ b.value) & ~mask, mask };
}

export function tnumMul(a: Tnum, b: Tnum): Tnum {
  if (a.mask === 0n && b.mask === 0n) return tnumConst(a.value * b.value);
  // long multiplication: known product of the values, and each unknown bit of a may add what b may be
  let uncertain: Tnum = { value: 0n, mask: 0n };
  let { value, mask } = a;
  let multiplier = b;
  while (value !== 0n || mask !== 0n) {
    if ((value & 1n) !== 0n) uncertain = tnumAdd(uncertain, { value: 0n, mask: multiplier.mask });
    else if ((mask & 1n) !== 0n) {
      uncertain = tnumAdd(uncertain, { value: 0n, mask: multiplier.value | multiplier.mask });
    }
    value >>= 1n;
    mask >>= 1n;
    multiplier = { value: u64(multiplier.value << 1n), mask: u64(multiplier.mask << 1n) };
  }
  return tnumAdd(tnumConst(a.value * b.value), uncertain);
}

export function tnumShiftLeft({ value, mask }: Tnum, by: number): Tnum {
  return { value: u64(value << BigInt(by)), mask: u64(mask << BigInt(by)) };
}

export function tnumShiftRight({ value, mask }: Tnum, by: number): Tnum {
  return { value: value >> BigInt(by), mask: mask >> BigInt(by) };
}

/** `bits` wide, sign kept; the bits above are zero. */
export function tnumArithmeticShift({ value, mask }: Tnum, by: number, bits: 32 | 64): Tnum {
  const shift = (x: bigint): bigint => BigInt.asUintN(bits, BigInt.asIntN(bits, x) >> BigInt(by));
  return { value: shift(value) & ~shift(mask), mask: shift(mask) };
}

/** The low `bytes` bytes in the opposite order; the bytes above are zero. */
export function tnumSwap({ value, mask }: Tnum, bytes: number): Tnum {
  const swap = (from: bigint): bigint => {
    let [left, to] = [from, 0n];
    for (let i = 0; i < bytes; i++) {
      to = (to << 8n) | (left & 0xffn);
      left >>= 8n;
    }
    return to;
  };
  return { value: swap(value), mask: swap(mask) };
}

/** What is in both; undefined when nothing is. */
export function tnumIntersect(a: Tnum, b: Tnum): Tnum | undefined {
  if (((a.value ^ b.value) & ~a.mask & ~b.mask) !== 0n) return undefined;
  const mask = a.mask & b.mask;
  return { value: (a.value | b.value) & ~mask, mask };
}

/** Whether every number of `b` is one of `a`. */
export function tnumContains(a: Tnum, b: Tnum): boolean {
  return (b.mask & ~a.mask) === 0n && (b.value & ~a.mask) === a.value;
}

/** The upper half of `a` with the lower half `low`. */
export function tnumWithLow(a: Tnum, low: Tnum): Tnum {
  return { value: (a.value & HIGH32) | low.value, mask: (a.mask & HIGH32) | low.mask };
}

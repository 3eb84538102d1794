/**
 * The lower half of a number, as ranges and known bits of 32 bits: plain numbers, no bigint.
 *
 * Most numbers of a program are below 2^32, and 32-bit operations leave only such; for them this is all
 * there is to know. `value` and `mask` are a tristate number as in tnum.ts, as signed 32-bit patterns.
 * Every function gives a superset of the results. Reference: scalar32_min_max_*, reg_bounds_sync in
 * kernel/bpf/verifier.c, kernel/bpf/tnum.c.
 *
 * Usage:
 *   syncHalf({ ...UNKNOWN_HALF, u32max: 9 }); // s32 0..9, mask 0xf
 */
export interface Half {
  readonly u32min: number;
  readonly u32max: number;
  readonly s32min: number;
  readonly s32max: number;
  readonly value32: number;
  readonly mask32: number;
}

export const U32_MAX = 0xffff_ffff;
export const S32_MIN = -0x8000_0000;
export const S32_MAX = 0x7fff_ffff;

export const UNKNOWN_HALF: Half = {
  u32min: 0,
  u32max: U32_MAX,
  s32min: S32_MIN,
  s32max: S32_MAX,
  value32: 0,
  mask32: -1,
};

/** Operations whose 32-bit result follows from the operands' lower halves. */
export type HalfOperation = 'add' | 'sub' | 'mul' | 'and' | 'or' | 'xor' | 'lsh' | 'rsh' | 'arsh';

/** Tightens all parts against each other; undefined when no number fits them all. */
export function syncHalf(half: Half): Half | undefined {
  let { u32min, u32max, s32min, s32max, value32, mask32 } = half;
  for (;;) {
    // what the bits say
    const most = (value32 | mask32) >>> 0;
    if (value32 >>> 0 > u32min) u32min = value32 >>> 0;
    if (most < u32max) u32max = most;
    s32min = Math.max(s32min, value32 | (mask32 & S32_MIN));
    s32max = Math.min(s32max, value32 | (mask32 & S32_MAX));
    // a range that does not cross the sign is the same in both orders
    if ((u32min | 0) <= (u32max | 0)) {
      s32min = Math.max(s32min, u32min | 0);
      s32max = Math.min(s32max, u32max | 0);
    } else if (s32min < 0 && s32max >= 0) {
      // both go over their edge: they may meet on one side only
      if (u32max < s32min >>> 0) {
        s32min = Math.max(s32min, u32min | 0);
        u32max = Math.min(u32max, s32max);
      } else if (u32min > s32max) {
        s32max = Math.min(s32max, u32max | 0);
        u32min = Math.max(u32min, s32min >>> 0);
      }
    }
    if (s32min >>> 0 <= s32max >>> 0) {
      u32min = Math.max(u32min, s32min >>> 0);
      u32max = Math.min(u32max, s32max >>> 0);
    }
    if (u32min > u32max || s32min > s32max) return undefined;
    // bits above the highest one that differs are known
    const differs = u32min ^ u32max;
    const unknown = differs === 0 ? 0 : -1 >>> Math.clz32(differs);
    const known = u32min & ~unknown;
    if (((value32 ^ known) & ~mask32 & ~unknown) !== 0) return undefined;
    const mask = mask32 & unknown;
    if (mask === mask32) break;
    mask32 = mask;
    value32 = (value32 | known) & ~mask;
  }
  return { u32min, u32max, s32min, s32max, value32, mask32 };
}

/** The results of `a op b` in 32 bits; a shift is by `b.u32min`, which is below 32. Not tightened. */
export function computeHalf(op: HalfOperation, a: Half, b: Half): Half {
  const by = b.u32min;
  switch (op) {
    case 'add': {
      const sum = (a.value32 + b.value32) | 0;
      const carried = ((sum + a.mask32 + b.mask32) | 0) ^ sum;
      const [smin, smax] = [a.s32min + b.s32min, a.s32max + b.s32max];
      const mask = carried | a.mask32 | b.mask32;
      return wrappedHalf(a.u32min + b.u32min, a.u32max + b.u32max, smin, smax, sum, mask);
    }
    case 'sub': {
      const difference = (a.value32 - b.value32) | 0;
      const borrowed = ((difference + a.mask32) | 0) ^ ((difference - b.mask32) | 0);
      const [smin, smax] = [a.s32min - b.s32max, a.s32max - b.s32min];
      const mask = borrowed | a.mask32 | b.mask32;
      return wrappedHalf(a.u32min - b.u32max, a.u32max - b.u32min, smin, smax, difference, mask);
    }
    case 'mul': {
      // inexact beyond 2^53, but then far outside anyway; + 0 makes -0 a plain zero
      const [one, two] = [a.s32min * b.s32min + 0, a.s32min * b.s32max + 0];
      const [three, four] = [a.s32max * b.s32min + 0, a.s32max * b.s32max + 0];
      const [smin, smax] = [Math.min(one, two, three, four), Math.max(one, two, three, four)];
      const { value32, mask32 } = productBits(a, b);
      return halfOf(a.u32min * b.u32min, a.u32max * b.u32max, smin, smax, value32, mask32);
    }
    case 'and': {
      const ones = a.value32 & b.value32;
      const mask = (a.value32 | a.mask32) & (b.value32 | b.mask32) & ~ones;
      return halfOf(0, Math.min(a.u32max, b.u32max), S32_MIN, S32_MAX, ones, mask);
    }
    case 'or': {
      const ones = a.value32 | b.value32;
      const mask = (a.mask32 | b.mask32) & ~ones;
      return halfOf(Math.max(a.u32min, b.u32min), U32_MAX, S32_MIN, S32_MAX, ones, mask);
    }
    case 'xor':
      return halfOf(0, U32_MAX, S32_MIN, S32_MAX, a.value32 ^ b.value32, a.mask32 | b.mask32);
    case 'lsh': {
      // the kernel lets the highest bit be set by the least number only
      const fits = a.u32max <= 2 ** (31 - by);
      const [min, max] = fits ? [a.u32min * 2 ** by, a.u32max * 2 ** by] : [0, U32_MAX];
      return halfOf(min, max, S32_MIN, S32_MAX, a.value32 << by, a.mask32 << by);
    }
    case 'rsh': {
      const [min, max] = [a.u32min >>> by, a.u32max >>> by];
      return halfOf(min, max, S32_MIN, S32_MAX, a.value32 >>> by, (a.mask32 >>> by) | 0);
    }
    case 'arsh': {
      const [smin, smax] = [a.s32min >> by, a.s32max >> by];
      return halfOf(0, U32_MAX, smin, smax, a.value32 >> by, a.mask32 >> by);
    }
  }
}

/** Where both ends overflow the order is kept. */
function wrappedHalf(
  umin: number,
  umax: number,
  smin: number,
  smax: number,
  value: number,
  mask: number,
): Half {
  const by = umin > U32_MAX ? -(2 ** 32) : umax < 0 ? 2 ** 32 : 0;
  return halfOf(umin + by, umax + by, smin, smax, value, mask);
}

/** A range that does not fit says nothing. */
function halfOf(
  umin: number,
  umax: number,
  smin: number,
  smax: number,
  value: number,
  mask: number,
): Half {
  const isUnsigned = umin >= 0 && umax <= U32_MAX;
  const isSigned = smin >= S32_MIN && smax <= S32_MAX;
  return {
    u32min: isUnsigned ? umin : 0,
    u32max: isUnsigned ? umax : U32_MAX,
    s32min: isSigned ? smin : S32_MIN,
    s32max: isSigned ? smax : S32_MAX,
    value32: value & ~mask,
    mask32: mask,
  };
}

/** Long multiplication: the product of what is known, and what each unknown bit may add to it. */
function productBits(a: Half, b: Half): Pick<Half, 'value32' | 'mask32'> {
  const product = Math.imul(a.value32, b.value32);
  let [value, mask] = [a.value32, a.mask32];
  let [shifted, unknown] = [b.value32, b.mask32];
  let uncertain = 0;
  while (value !== 0 || mask !== 0) {
    const added = (value & 1) !== 0 ? unknown : (mask & 1) !== 0 ? shifted | unknown : 0;
    // a sum of unknown bits: carries may go anywhere above
    uncertain |= added | ((uncertain + added) | 0);
    value >>>= 1;
    mask >>>= 1;
    shifted <<= 1;
    unknown <<= 1;
  }
  const carried = ((product + uncertain) | 0) ^ product;
  const mask32 = carried | uncertain;
  return { value32: product & ~mask32, mask32 };
}

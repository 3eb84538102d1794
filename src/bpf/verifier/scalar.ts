/**
 * What is known about a number in a register or stack slot.
 *
 * A `Scalar` is a set of 64-bit numbers: unsigned, signed, 32-bit unsigned and 32-bit signed ranges and
 * a tristate number, each a superset; `tightened` fits them to each other. Reference: struct
 * bpf_reg_state and reg_bounds_sync in kernel/bpf/verifier.c.
 *
 * Scalars are values: they are shared, never changed, except for `precise`. Two places that hold the
 * same object hold the same number at run time, so a comparison that narrows one narrows both. Each
 * remembers the scalars it was computed from: `markPrecise` walks back to those, which marks them in
 * every stored state that holds them. Without that mark the exact range does not matter for safety.
 *
 * Usage:
 *   const byte = unsignedScalar(255n);
 *   const narrowed = refine(byte.bounds, { umax: 9n });
 */
import { ComputedTable, type Hashed } from './computed-table.js';
import {
  TNUM_UNKNOWN,
  U64_MAX,
  tnumContains,
  tnumIntersect,
  tnumLow,
  tnumRange,
  tnumWithLow,
  type Tnum,
} from './tnum.js';

export const S64_MIN = -(1n << 63n);
export const S64_MAX = (1n << 63n) - 1n;
export const U32_MAX = 0xffff_ffff;
const S32_MIN = -0x8000_0000;
const S32_MAX = 0x7fff_ffff;
const LOW32 = 0xffff_ffffn;
const HIGH32 = U64_MAX ^ LOW32;

/** Ranges include both ends. */
export interface Bounds {
  readonly umin: bigint;
  readonly umax: bigint;
  readonly smin: bigint;
  readonly smax: bigint;
  readonly u32min: number;
  readonly u32max: number;
  readonly s32min: number;
  readonly s32max: number;
  readonly bits: Tnum;
}

/** Bounds that were tightened; never changed, so one object may be shared by many scalars. */
export class Range implements Bounds, Hashed {
  readonly umin: bigint;
  readonly umax: bigint;
  readonly smin: bigint;
  readonly smax: bigint;
  readonly u32min: number;
  readonly u32max: number;
  readonly s32min: number;
  readonly s32max: number;
  readonly bits: Tnum;
  readonly isConst: boolean;
  readonly hash: number;

  constructor(bounds: Bounds) {
    this.umin = bounds.umin;
    this.umax = bounds.umax;
    this.smin = bounds.smin;
    this.smax = bounds.smax;
    this.u32min = bounds.u32min;
    this.u32max = bounds.u32max;
    this.s32min = bounds.s32min;
    this.s32max = bounds.s32max;
    this.bits = bounds.bits;
    this.isConst = bounds.bits.mask === 0n;
    const unsigned = Math.imul(this.u32min, 31) ^ Math.imul(this.u32max, 0x2545f491);
    this.hash = unsigned ^ Math.imul(this.s32min, 0x1b873593) ^ Math.imul(this.s32max, 0x5bd1e995);
  }
}

export class Scalar implements Bounds {
  readonly kind = 'scalar';
  readonly bounds: Range;
  /** May be the address of kernel data: an argument of a traced function. Reading there is allowed. */
  readonly kernel: boolean;
  /** Its exact range matters in comparisons of states. */
  precise = false;
  /** Its exact range was needed to prove something. */
  needed = false;
  readonly first: Scalar | undefined;
  readonly second: Scalar | undefined;

  constructor(bounds: Range, first?: Scalar, second?: Scalar, kernel = false) {
    this.bounds = bounds;
    this.first = first;
    this.second = second;
    this.kernel = kernel;
  }

  get umin(): bigint {
    return this.bounds.umin;
  }

  get umax(): bigint {
    return this.bounds.umax;
  }

  get smin(): bigint {
    return this.bounds.smin;
  }

  get smax(): bigint {
    return this.bounds.smax;
  }

  get u32min(): number {
    return this.bounds.u32min;
  }

  get u32max(): number {
    return this.bounds.u32max;
  }

  get s32min(): number {
    return this.bounds.s32min;
  }

  get s32max(): number {
    return this.bounds.s32max;
  }

  get bits(): Tnum {
    return this.bounds.bits;
  }

  get isConst(): boolean {
    return this.bounds.isConst;
  }

  /** Whether it is exactly this unsigned number. */
  is(value: bigint): boolean {
    return this.bounds.isConst && this.bounds.umin === value;
  }
}

/**
 * Marks a scalar, and all that it was computed from, as needed exactly. `assumed` when nothing is
 * proved with it yet: a loop that is still being walked may.
 */
export function markPrecise(scalar: Scalar, assumed = false): void {
  const isMarked = (each: Scalar): boolean => (assumed ? each.precise : each.needed);
  if (isMarked(scalar)) return;
  const left = [scalar];
  for (let each = left.pop(); each; each = left.pop()) {
    if (isMarked(each)) continue;
    each.precise = true;
    if (!assumed) each.needed = true;
    if (each.first && !isMarked(each.first)) left.push(each.first);
    if (each.second && !isMarked(each.second)) left.push(each.second);
  }
}

export const UNKNOWN = new Range({
  umin: 0n,
  umax: U64_MAX,
  smin: S64_MIN,
  smax: S64_MAX,
  u32min: 0,
  u32max: U32_MAX,
  s32min: S32_MIN,
  s32max: S32_MAX,
  bits: TNUM_UNKNOWN,
});

export function unknownScalar(first?: Scalar, second?: Scalar): Scalar {
  return new Scalar(UNKNOWN, first, second);
}

/** An argument of a traced function: a number, or an address that may be read. */
export function kernelScalar(): Scalar {
  return new Scalar(UNKNOWN, undefined, undefined, true);
}

const CONSTANTS: (Range | undefined)[] = Array.from({ length: 1024 }, () => undefined);

/** Exactly one number. The same object for one that was asked for a short while ago. */
export function constRange(value: bigint): Range {
  const place = Number(value & 1023n);
  const known = CONSTANTS[place];
  const umin = BigInt.asUintN(64, value);
  if (known?.umin === umin) return known;
  const range = new Range(constBounds(umin));
  CONSTANTS[place] = range;
  return range;
}

function constBounds(value: bigint): Bounds {
  const umin = BigInt.asUintN(64, value);
  const smin = BigInt.asIntN(64, value);
  const u32min = Number(umin & LOW32);
  const s32min = u32min | 0;
  return {
    umin,
    umax: umin,
    smin,
    smax: smin,
    u32min,
    u32max: u32min,
    s32min,
    s32max: s32min,
    bits: { value: umin, mask: 0n },
  };
}

export function constScalar(value: bigint, first?: Scalar, second?: Scalar): Scalar {
  return new Scalar(constRange(value), first, second);
}

/** Any number up to `umax`. */
export function unsignedScalar(umax: bigint, first?: Scalar): Scalar {
  return new Scalar(unsignedBounds(umax), first);
}

const UNSIGNED = new Map<bigint, Range>();

function unsignedBounds(umax: bigint): Range {
  const known = UNSIGNED.get(umax);
  if (known) return known;
  const bounds = syncBounds({ ...UNKNOWN, umax }) ?? UNKNOWN;
  if (UNSIGNED.size < 64) UNSIGNED.set(umax, bounds);
  return bounds;
}

/** Tightens all parts against each other; undefined when no number fits them all. */
export function syncBounds(bounds: Bounds): Range | undefined {
  let { umin, umax, smin, smax, u32min, u32max, s32min, s32max, bits } = bounds;
  for (let round = 0; round < 2; round++) {
    // what the bits say
    const most = bits.value | bits.mask;
    if (bits.value > umin) umin = bits.value;
    if (most < umax) umax = most;
    const signBit = 1n << 63n;
    const low = BigInt.asIntN(64, bits.value | (bits.mask & signBit));
    const high = BigInt.asIntN(64, bits.value | (bits.mask & ~signBit));
    if (low > smin) smin = low;
    if (high < smax) smax = high;
    const value32 = Number(bits.value & LOW32);
    const mask32 = Number(bits.mask & LOW32);
    u32min = Math.max(u32min, value32);
    u32max = Math.min(u32max, (value32 | mask32) >>> 0);
    s32min = Math.max(s32min, value32 | (mask32 & S32_MIN));
    s32max = Math.min(s32max, value32 | (mask32 & S32_MAX));
    // what each range says about the others, lower half first
    for (let again = 0; again < 2; again++) {
      if (umin >> 32n === umax >> 32n) {
        u32min = Math.max(u32min, Number(umin & LOW32));
        u32max = Math.min(u32max, Number(umax & LOW32));
      }
      if (smin >> 32n === smax >> 32n) {
        u32min = Math.max(u32min, Number(BigInt.asUintN(32, smin)));
        u32max = Math.min(u32max, Number(BigInt.asUintN(32, smax)));
      }
      if (smin >= BigInt(S32_MIN) && smax <= BigInt(S32_MAX)) {
        s32min = Math.max(s32min, Number(smin));
        s32max = Math.min(s32max, Number(smax));
      }
      if ((u32min | 0) <= (u32max | 0)) {
        s32min = Math.max(s32min, u32min | 0);
        s32max = Math.min(s32max, u32max | 0);
      }
      if (s32min >>> 0 <= s32max >>> 0) {
        u32min = Math.max(u32min, s32min >>> 0);
        u32max = Math.min(u32max, s32max >>> 0);
      }
      const fromU = BigInt.asIntN(64, umin);
      const toU = BigInt.asIntN(64, umax);
      if (fromU <= toU) {
        if (fromU > smin) smin = fromU;
        if (toU < smax) smax = toU;
      }
      if (smin >= 0n || smax < 0n) {
        const fromS = BigInt.asUintN(64, smin);
        const toS = BigInt.asUintN(64, smax);
        if (fromS > umin) umin = fromS;
        if (toS < umax) umax = toS;
      }
      // the lower half within the whole
      const floor = (umin & HIGH32) | BigInt(u32min);
      const ceiling = (umax & HIGH32) | BigInt(u32max);
      if (floor > umin) umin = floor;
      if (ceiling < umax) umax = ceiling;
      const sfloor = ((smin >> 32n) << 32n) | BigInt(u32min);
      const sceiling = ((smax >> 32n) << 32n) | BigInt(u32max);
      if (sfloor > smin) smin = sfloor;
      if (sceiling < smax) smax = sceiling;
    }
    if (umin > umax || smin > smax || u32min > u32max || s32min > s32max) return undefined;
    const known = bits;
    if (umin !== 0n || umax !== U64_MAX) {
      const wide = tnumIntersect(bits, tnumRange(umin, umax));
      if (!wide) return undefined;
      bits = wide;
    }
    if (u32min !== 0 || u32max !== U32_MAX) {
      const half = tnumRange(BigInt(u32min), BigInt(u32max));
      const narrow = tnumIntersect(tnumLow(bits), half);
      if (!narrow) return undefined;
      bits = tnumWithLow(bits, narrow);
    }
    if (bits.mask === 0n) {
      const { value } = bits;
      const signed = BigInt.asIntN(64, value);
      const half = Number(value & LOW32);
      if (value < umin || value > umax || signed < smin || signed > smax) return undefined;
      if (half < u32min || half > u32max || (half | 0) < s32min || (half | 0) > s32max) {
        return undefined;
      }
      return constRange(value);
    }
    if (bits.mask === known.mask) break;
  }
  return new Range({ umin, umax, smin, smax, u32min, u32max, s32min, s32max, bits });
}

/** Bounds of a computed value, tightened: they are never contradictory. */
export function tightened(bounds: Bounds): Range {
  return syncBounds(bounds) ?? UNKNOWN;
}

/** A scalar with these bounds, tightened. */
export function fromBounds(bounds: Bounds, first?: Scalar, second?: Scalar): Scalar {
  return new Scalar(tightened(bounds), first, second);
}

/** `range` restricted further; undefined when nothing is left. */
export function refine(range: Range, limits: Partial<Bounds>): Range | undefined {
  const max = (a: bigint, b: bigint | undefined): bigint => (b !== undefined && b > a ? b : a);
  const min = (a: bigint, b: bigint | undefined): bigint => (b !== undefined && b < a ? b : a);
  const bits = limits.bits ? tnumIntersect(range.bits, limits.bits) : range.bits;
  if (!bits) return undefined;
  return syncBounds({
    umin: max(range.umin, limits.umin),
    umax: min(range.umax, limits.umax),
    smin: max(range.smin, limits.smin),
    smax: min(range.smax, limits.smax),
    u32min: Math.max(range.u32min, limits.u32min ?? 0),
    u32max: Math.min(range.u32max, limits.u32max ?? U32_MAX),
    s32min: Math.max(range.s32min, limits.s32min ?? S32_MIN),
    s32max: Math.min(range.s32max, limits.s32max ?? S32_MAX),
    bits,
  });
}

/** The lower half, zero-extended: what a 32-bit operation leaves. */
export function lowHalf(bounds: Bounds): Range {
  return tightened({
    ...UNKNOWN,
    umax: LOW32,
    u32min: bounds.u32min,
    u32max: bounds.u32max,
    s32min: bounds.s32min,
    s32max: bounds.s32max,
    bits: tnumLow(bounds.bits),
  });
}

/** Ranges that were cut, by the key and the range. */
const cut = new ComputedTable<Range>();

function cutOnce(key: number, range: Range, make: () => Range): Range {
  let result = cut.get(key, range, range);
  if (!result) {
    result = make();
    cut.set(key, range, range, result);
  }
  return result;
}

/** The low `size` bytes, zero-extended; the same object when nothing is cut off. */
export function truncate(scalar: Scalar, size: number): Scalar {
  if (size >= 8) return scalar;
  const { bounds } = scalar;
  const range = cutOnce(size, bounds, () => truncated(bounds, size));
  return range === bounds ? scalar : new Scalar(range, scalar);
}

function truncated(range: Range, size: number): Range {
  const bits = BigInt(8 * size);
  const limit = (1n << bits) - 1n;
  if (range.umax <= limit) return range;
  if (range.isConst) return constRange(range.umin & limit);
  if (size === 4) return lowHalf(range);
  // the range survives when all numbers agree above the cut
  const same = range.umin >> bits === range.umax >> bits;
  return tightened({
    ...UNKNOWN,
    umin: same ? range.umin & limit : 0n,
    umax: same ? range.umax & limit : limit,
    bits: { value: range.bits.value & limit, mask: range.bits.mask & limit },
  });
}

/** The low `size` bytes, sign-extended to 64 bits; to 32 bits, zero-extended, when `width` is 32. */
export function signExtend(scalar: Scalar, size: number, width: 32 | 64 = 64): Scalar {
  const { bounds } = scalar;
  return new Scalar(
    cutOnce(size + width, bounds, () => signExtended(bounds, 8 * size, width)),
    scalar,
  );
}

function signExtended(range: Range, bits: number, width: 32 | 64): Range {
  if (range.isConst) {
    const value = BigInt.asIntN(bits, range.umin);
    return constRange(width === 32 ? BigInt.asUintN(32, value) : value);
  }
  // it survives when all numbers agree above the cut and in the new sign (set_sext64_default_val)
  const [low, high] = width === 64 ? [range.smin, range.smax] : signedHalf(range);
  const [a, b] = [BigInt.asIntN(bits, low), BigInt.asIntN(bits, high)];
  const survives = low >> BigInt(bits) === high >> BigInt(bits) && a < 0n === b < 0n;
  const least = survives ? a : -(1n << BigInt(bits - 1));
  const most = survives ? b : (1n << BigInt(bits - 1)) - 1n;
  if (width === 64) return tightened({ ...UNKNOWN, smin: least, smax: most });
  return lowHalf({ ...UNKNOWN, s32min: Number(least), s32max: Number(most) });
}

function signedHalf({ s32min, s32max }: Bounds): readonly [bigint, bigint] {
  return [BigInt(s32min), BigInt(s32max)];
}

/** Whether every number of `inner` is one of `outer`, judged by all parts. */
export function boundsContain(outer: Range, inner: Range): boolean {
  if (outer === inner) return true;
  return (
    outer.umin <= inner.umin &&
    outer.umax >= inner.umax &&
    outer.smin <= inner.smin &&
    outer.smax >= inner.smax &&
    outer.u32min <= inner.u32min &&
    outer.u32max >= inner.u32max &&
    outer.s32min <= inner.s32min &&
    outer.s32max >= inner.s32max &&
    tnumContains(outer.bits, inner.bits)
  );
}

export function sameBounds(a: Range, b: Range): boolean {
  if (a === b) return true;
  return (
    a.umin === b.umin &&
    a.umax === b.umax &&
    a.smin === b.smin &&
    a.smax === b.smax &&
    a.u32min === b.u32min &&
    a.u32max === b.u32max &&
    a.s32min === b.s32min &&
    a.s32max === b.s32max &&
    a.bits.value === b.bits.value &&
    a.bits.mask === b.bits.mask
  );
}

/** As the verifier prints it: `5`, or `(umax=255,var_off=(0x0; 0xff))`. */
export function describeScalar(scalar: Bounds): string {
  if (scalar.bits.mask === 0n) return `${scalar.smin}`;
  const parts: string[] = [];
  if (scalar.smin !== S64_MIN) parts.push(`smin=${scalar.smin}`);
  if (scalar.smax !== S64_MAX) parts.push(`smax=${scalar.smax}`);
  if (scalar.umin !== 0n) parts.push(`umin=${scalar.umin}`);
  if (scalar.umax !== U64_MAX) parts.push(`umax=${scalar.umax}`);
  if (scalar.s32min !== S32_MIN && BigInt(scalar.s32min) !== scalar.smin) {
    parts.push(`smin32=${scalar.s32min}`);
  }
  if (scalar.s32max !== S32_MAX && BigInt(scalar.s32max) !== scalar.smax) {
    parts.push(`smax32=${scalar.s32max}`);
  }
  if (scalar.u32min !== 0 && BigInt(scalar.u32min) !== scalar.umin) {
    parts.push(`umin32=${scalar.u32min}`);
  }
  if (scalar.u32max !== U32_MAX && BigInt(scalar.u32max) !== scalar.umax) {
    parts.push(`umax32=${scalar.u32max}`);
  }
  const { value, mask } = scalar.bits;
  if (mask !== U64_MAX) parts.push(`var_off=${describeBits(value, mask)}`);
  return `(${parts.join(',')})`;
}

export function describeBits(value: bigint, mask: bigint): string {
  return `(0x${value.toString(16)}; 0x${mask.toString(16)})`;
}

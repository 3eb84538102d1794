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
import { ComputedTable } from './computed-table.js';
import { S32_MAX, S32_MIN, syncHalf, U32_MAX, UNKNOWN_HALF, type Half } from './half.js';
import { rangeOf, type Bounds, type Range } from './range.js';
import {
  TNUM_UNKNOWN,
  U64_MAX,
  tnumContains,
  tnumIntersect,
  tnumWithLow,
  type Tnum,
} from './tnum.js';

export const S64_MIN = -(1n << 63n);
export const S64_MAX = (1n << 63n) - 1n;
const LOW32 = 0xffff_ffffn;

/** The number that these 32 bits are, unsigned. */
export function lowConstRange(bits: number): Range {
  const [u32, s32] = [bits >>> 0, bits | 0];
  const half = { u32min: u32, u32max: u32, s32min: s32, s32max: s32, value32: s32, mask32: 0 };
  return rangeOf(half);
}

/** Numbers below 2^32. Bounds of a computed value are never contradictory. */
export function lowRange(half: Half): Range {
  return rangeOf(syncHalf(half) ?? UNKNOWN_HALF);
}

/** What a scalar is a constant apart from (`linked-scalars.ts`). */
export interface Link {
  readonly base: Scalar;
  readonly delta: bigint;
  /** Bits of the addition; in 32 of them it wraps at 2^32, and `base` is below that. */
  readonly width: 32 | 64;
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
  readonly link: Link | undefined;

  constructor(bounds: Range, first?: Scalar, second?: Scalar, kernel = false, link?: Link) {
    this.bounds = bounds;
    this.first = first;
    this.second = second;
    this.kernel = kernel;
    this.link = link;
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

export const UNKNOWN: Bounds = {
  umin: 0n,
  umax: U64_MAX,
  smin: S64_MIN,
  smax: S64_MAX,
  u32min: 0,
  u32max: U32_MAX,
  s32min: S32_MIN,
  s32max: S32_MAX,
  bits: TNUM_UNKNOWN,
};

export const UNKNOWN_RANGE = rangeOf(UNKNOWN_HALF, UNKNOWN);

export function unknownScalar(first?: Scalar, second?: Scalar): Scalar {
  return new Scalar(UNKNOWN_RANGE, first, second);
}

/** An argument of a traced function: a number, or an address that may be read. */
export function kernelScalar(): Scalar {
  return new Scalar(UNKNOWN_RANGE, undefined, undefined, true);
}

const CONSTANTS: (Range | undefined)[] = Array.from({ length: 1024 }, () => undefined);

/** Exactly one number. The same object for one that was asked for a short while ago. */
export function constRange(value: bigint): Range {
  const place = Number(value & 1023n);
  const known = CONSTANTS[place];
  const umin = BigInt.asUintN(64, value);
  if (known?.umin === umin) return known;
  const u32min = Number(umin & LOW32);
  const s32min = u32min | 0;
  const half = { u32min, u32max: u32min, s32min, s32max: s32min, value32: s32min, mask32: 0 };
  const smin = BigInt.asIntN(64, umin);
  const whole = { umin, umax: umin, smin, smax: smin, bits: { value: umin, mask: 0n } };
  const range = umin > LOW32 ? rangeOf(half, whole, Number(umin >> 32n) | 0) : rangeOf(half);
  CONSTANTS[place] = range;
  return range;
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
  const bounds = syncBounds({ ...UNKNOWN, umax }) ?? UNKNOWN_RANGE;
  if (UNSIGNED.size < 64) UNSIGNED.set(umax, bounds);
  return bounds;
}

const WHOLE = new BigInt64Array(6);
const WORDS = new Int32Array(WHOLE.buffer);

function isBelow(high: number, low: number, otherHigh: number, otherLow: number): boolean {
  return high < otherHigh || (high === otherHigh && low < otherLow);
}

/** Tightens all parts against each other; undefined when no number fits them all. */
export function syncBounds(bounds: Bounds): Range | undefined {
  if (bounds.umax <= LOW32) return syncLow(bounds);
  let { u32min, u32max, s32min, s32max } = bounds;
  // pairs of words: no bigint is made while the parts are compared
  WHOLE[0] = BigInt.asIntN(64, bounds.umin);
  WHOLE[1] = BigInt.asIntN(64, bounds.umax);
  WHOLE[2] = bounds.smin;
  WHOLE[3] = bounds.smax;
  WHOLE[4] = BigInt.asIntN(64, bounds.bits.value);
  WHOLE[5] = BigInt.asIntN(64, bounds.bits.mask);
  const word = (at: number): number => WORDS[at] ?? 0;
  let [uminLow, uminHigh] = [word(0) >>> 0, word(1) >>> 0];
  let [umaxLow, umaxHigh] = [word(2) >>> 0, word(3) >>> 0];
  let [sminLow, sminHigh] = [word(4) >>> 0, word(5)];
  let [smaxLow, smaxHigh] = [word(6) >>> 0, word(7)];
  let [valueLow, valueHigh] = [word(8), word(9)];
  let [maskLow, maskHigh] = [word(10), word(11)];
  const raiseUnsigned = (high: number, low: number): void => {
    if (isBelow(uminHigh, uminLow, high, low)) [uminHigh, uminLow] = [high, low];
  };
  const lowerUnsigned = (high: number, low: number): void => {
    if (isBelow(high, low, umaxHigh, umaxLow)) [umaxHigh, umaxLow] = [high, low];
  };
  const raiseSigned = (high: number, low: number): void => {
    if (isBelow(sminHigh, sminLow, high, low)) [sminHigh, sminLow] = [high, low];
  };
  const lowerSigned = (high: number, low: number): void => {
    if (isBelow(high, low, smaxHigh, smaxLow)) [smaxHigh, smaxLow] = [high, low];
  };
  for (let round = 0; round < 2; round++) {
    // what the bits say
    raiseUnsigned(valueHigh >>> 0, valueLow >>> 0);
    lowerUnsigned((valueHigh | maskHigh) >>> 0, (valueLow | maskLow) >>> 0);
    raiseSigned(valueHigh | (maskHigh & S32_MIN), valueLow >>> 0);
    lowerSigned(valueHigh | (maskHigh & S32_MAX), (valueLow | maskLow) >>> 0);
    u32min = Math.max(u32min, valueLow >>> 0);
    u32max = Math.min(u32max, (valueLow | maskLow) >>> 0);
    s32min = Math.max(s32min, valueLow | (maskLow & S32_MIN));
    s32max = Math.min(s32max, valueLow | (maskLow & S32_MAX));
    // what each range says about the others, lower half first
    for (let again = 0; again < 2; again++) {
      if (uminHigh === umaxHigh) {
        u32min = Math.max(u32min, uminLow);
        u32max = Math.min(u32max, umaxLow);
      }
      if (sminHigh === smaxHigh) {
        u32min = Math.max(u32min, sminLow);
        u32max = Math.min(u32max, smaxLow);
      }
      if (sminHigh === (sminLow | 0) >> 31 && smaxHigh === (smaxLow | 0) >> 31) {
        s32min = Math.max(s32min, sminLow | 0);
        s32max = Math.min(s32max, smaxLow | 0);
      }
      if ((u32min | 0) <= (u32max | 0)) {
        s32min = Math.max(s32min, u32min | 0);
        s32max = Math.min(s32max, u32max | 0);
      } else if (s32min < 0 && s32max >= 0) {
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
      if (!isBelow(umaxHigh | 0, umaxLow, uminHigh | 0, uminLow)) {
        raiseSigned(uminHigh | 0, uminLow);
        lowerSigned(umaxHigh | 0, umaxLow);
      } else if (sminHigh < 0 && smaxHigh >= 0) {
        // both go over their edge: they may meet on one side only
        if (isBelow(umaxHigh, umaxLow, sminHigh >>> 0, sminLow)) {
          raiseSigned(uminHigh | 0, uminLow);
          lowerUnsigned(smaxHigh, smaxLow);
        } else if (isBelow(smaxHigh, smaxLow, uminHigh, uminLow)) {
          lowerSigned(umaxHigh | 0, umaxLow);
          raiseUnsigned(sminHigh >>> 0, sminLow);
        }
      }
      if (sminHigh >= 0 || smaxHigh < 0) {
        raiseUnsigned(sminHigh >>> 0, sminLow);
        lowerUnsigned(smaxHigh >>> 0, smaxLow);
      }
      // the lower half within the whole
      uminLow = Math.max(uminLow, u32min);
      umaxLow = Math.min(umaxLow, u32max);
      sminLow = Math.max(sminLow, u32min);
      smaxLow = Math.min(smaxLow, u32max);
    }
    if (isBelow(umaxHigh, umaxLow, uminHigh, uminLow)) return undefined;
    if (isBelow(smaxHigh, smaxLow, sminHigh, sminLow)) return undefined;
    if (u32min > u32max || s32min > s32max) return undefined;
    // bits above the highest one that differs are known
    const openHigh = differing(uminHigh, umaxHigh);
    const openLow = openHigh === 0 ? differing(uminLow, umaxLow) : -1;
    const openHalf = differing(u32min, u32max);
    const clash =
      ((valueHigh ^ uminHigh) & ~maskHigh & ~openHigh) |
      ((valueLow ^ uminLow) & ~maskLow & ~openLow) |
      ((valueLow ^ u32min) & ~maskLow & ~openHalf) |
      ((uminLow ^ u32min) & ~openLow & ~openHalf);
    if (clash !== 0) return undefined;
    const [newHigh, newLow] = [maskHigh & openHigh, maskLow & openLow & openHalf];
    valueHigh = (valueHigh | (uminHigh & ~openHigh)) & ~newHigh;
    valueLow = (valueLow | (uminLow & ~openLow) | (u32min & ~openHalf)) & ~newLow;
    const isSettled = newHigh === maskHigh && newLow === maskLow;
    [maskHigh, maskLow] = [newHigh, newLow];
    if (isSettled) break;
  }
  const half = { u32min, u32max, s32min, s32max, value32: valueLow, mask32: maskLow };
  if (umaxHigh === 0) {
    const tight = syncHalf(half);
    return tight && rangeOf(tight);
  }
  if ((maskHigh | maskLow) === 0) {
    const value = pair(valueHigh, valueLow);
    const signed = BigInt.asIntN(64, value);
    const isInside =
      !isBelow(valueHigh >>> 0, valueLow >>> 0, uminHigh, uminLow) &&
      !isBelow(umaxHigh, umaxLow, valueHigh >>> 0, valueLow >>> 0) &&
      signed >= bounds.smin &&
      signed <= bounds.smax;
    const isHalf = valueLow >>> 0 >= u32min && valueLow >>> 0 <= u32max;
    return isInside && isHalf && valueLow >= s32min && valueLow <= s32max
      ? constRange(value)
      : undefined;
  }
  const upper = mixed(mixed(mixed(uminHigh, umaxHigh), mixed(sminHigh, smaxHigh)), maskHigh);
  const whole = {
    umin: pair(uminHigh, uminLow),
    umax: pair(umaxHigh, umaxLow),
    smin: BigInt.asIntN(64, pair(sminHigh, sminLow)),
    smax: BigInt.asIntN(64, pair(smaxHigh, smaxLow)),
    bits: { value: pair(valueHigh, valueLow), mask: pair(maskHigh, maskLow) },
  };
  return rangeOf(half, whole, mixed(upper, valueHigh));
}

function mixed(a: number, b: number): number {
  return Math.imul(a ^ (a >>> 15), 0x2c1b3c6d) + b;
}

/** A mask of the bits up to the highest one in which two words differ. */
function differing(a: number, b: number): number {
  const bits = a ^ b;
  return bits === 0 ? 0 : (-1 >>> Math.clz32(bits)) | 0;
}

const PAIR = new BigUint64Array(1);
const PAIR_WORDS = new Int32Array(PAIR.buffer);

function pair(high: number, low: number): bigint {
  PAIR_WORDS[0] = low;
  PAIR_WORDS[1] = high;
  return PAIR[0] ?? 0n;
}

/** The same of numbers below 2^32. */
function syncLow(bounds: Bounds): Range | undefined {
  const { umin, umax, smin, smax, bits } = bounds;
  if (smax < 0n || smin > umax || bits.value > LOW32) return undefined;
  const half = syncHalf({
    u32min: Math.max(bounds.u32min, Number(smin > umin ? smin : umin)),
    u32max: Math.min(bounds.u32max, Number(smax < umax ? smax : umax)),
    s32min: bounds.s32min,
    s32max: bounds.s32max,
    value32: Number(bits.value) | 0,
    mask32: Number(bits.mask & LOW32) | 0,
  });
  return half && rangeOf(half);
}

/** Bounds of a computed value, tightened: they are never contradictory. */
export function tightened(bounds: Bounds): Range {
  return syncBounds(bounds) ?? UNKNOWN_RANGE;
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

/** `range` restricted by what is known of its lower half. */
export function refineHalf(range: Range, limits: Partial<Half>): Range | undefined {
  const { value32 = 0, mask32 = -1 } = limits;
  if (((range.value32 ^ value32) & ~range.mask32 & ~mask32) !== 0) return undefined;
  const mask = range.mask32 & mask32;
  const half: Half = {
    u32min: Math.max(range.u32min, limits.u32min ?? 0),
    u32max: Math.min(range.u32max, limits.u32max ?? U32_MAX),
    s32min: Math.max(range.s32min, limits.s32min ?? S32_MIN),
    s32max: Math.min(range.s32max, limits.s32max ?? S32_MAX),
    value32: (range.value32 | value32) & ~mask,
    mask32: mask,
  };
  if (range.isLow) {
    const tight = syncHalf(half);
    return tight && rangeOf(tight);
  }
  const { umin, umax, smin, smax, bits } = range;
  const low = { value: BigInt(half.value32 >>> 0), mask: BigInt(mask >>> 0) };
  return syncBounds({ umin, umax, smin, smax, ...half, bits: tnumWithLow(bits, low) });
}

/** The lower half is these 32 bits; of the upper one nothing more is known than before (__mark_reg32_known). */
export function withLow(scalar: Scalar, low: number): Scalar {
  const u32 = low >>> 0;
  const half = { u32min: u32, u32max: u32, s32min: low, s32max: low, value32: low, mask32: 0 };
  // where what was known says otherwise no run gets here: anything above will do
  const range = refineHalf(scalar.bounds, half) ?? refineHalf(UNKNOWN_RANGE, half);
  return new Scalar(range ?? UNKNOWN_RANGE, scalar);
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
  if (range.isLow && range.u32max <= 2 ** (8 * size) - 1) return range;
  if (size === 4) return rangeOf(range);
  if (range.isConst) return constRange(range.umin & limit);
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
  return lowRange({ ...UNKNOWN_HALF, s32min: Number(least), s32max: Number(most) });
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

/**
 * Bounds of a number that were tightened, as shared objects.
 *
 * Loops compute few different ranges over and over; `rangeOf` gives the same object for equal ones, so that
 * tables of results (`ComputedTable`), which know operands as objects, find them again. It is a cache with
 * a place for each hash: two equal ranges may still be two objects. Reference: the bounds of struct
 * bpf_reg_state.
 *
 * Usage:
 *   rangeOf(UNKNOWN_HALF) === rangeOf({ ...UNKNOWN_HALF }); // any number below 2^32
 */
import type { Hashed } from './computed-table.js';
import type { Half } from './half.js';
import type { Tnum } from './tnum.js';

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

/** What is known of all 64 bits. */
export type Whole = Pick<Bounds, 'umin' | 'umax' | 'smin' | 'smax' | 'bits'>;

/**
 * Bounds that were tightened; never changed, so one object may be shared by many scalars. Of numbers
 * below 2^32 only the half is kept: bigints are made when somebody asks.
 */
export class Range implements Bounds, Half, Hashed {
  readonly u32min: number;
  readonly u32max: number;
  readonly s32min: number;
  readonly s32max: number;
  readonly value32: number;
  readonly mask32: number;
  /** Whether all numbers are below 2^32. */
  readonly isLow: boolean;
  readonly isConst: boolean;
  readonly hash: number;
  #whole: Whole | undefined;

  /** @param upper a mix of what is known of the upper half, for the hash */
  constructor(half: Half, whole?: Whole, upper = 0) {
    this.u32min = half.u32min;
    this.u32max = half.u32max;
    this.s32min = half.s32min;
    this.s32max = half.s32max;
    this.value32 = half.value32;
    this.mask32 = half.mask32;
    this.isLow = whole === undefined;
    this.isConst = half.mask32 === 0 && (whole === undefined || whole.bits.mask === 0n);
    this.hash =
      Math.imul(this.u32min, 31) ^
      Math.imul(this.u32max, 0x2545f491) ^
      Math.imul(this.value32, 0x1b873593) ^
      Math.imul(this.s32max, 0x5bd1e995) ^
      Math.imul(upper, 0x9e3779b1);
    this.#whole = whole;
  }

  get #all(): Whole {
    return (this.#whole ??= wholeOf(this));
  }

  get umin(): bigint {
    return this.#all.umin;
  }

  get umax(): bigint {
    return this.#all.umax;
  }

  get smin(): bigint {
    return this.#all.smin;
  }

  get smax(): bigint {
    return this.#all.smax;
  }

  get bits(): Tnum {
    return this.#all.bits;
  }
}

function wholeOf({ u32min, u32max, value32, mask32 }: Half): Whole {
  const umin = BigInt(u32min);
  const umax = u32min === u32max ? umin : BigInt(u32max);
  const value = value32 >>> 0 === u32min ? umin : BigInt(value32 >>> 0);
  const bits = { value, mask: mask32 === 0 ? 0n : BigInt(mask32 >>> 0) };
  return { umin, umax, smin: umin, smax: umax, bits };
}

const PLACES = 1 << 13;
const KNOWN: (Range | undefined)[] = Array.from({ length: PLACES }, () => undefined);

/**
 * A range with these bounds: the same object as the last time, if that is not too long ago. Loops compute few
 * different ranges, and tables of results (`ComputedTable`) know operands as objects.
 */
export function rangeOf(half: Half, whole?: Whole, upper = 0): Range {
  const range = new Range(half, whole, upper);
  const place = (range.hash ^ (range.hash >>> 13)) & (PLACES - 1);
  const known = KNOWN[place];
  if (known && sameBounds(known, range)) return known;
  KNOWN[place] = range;
  return range;
}

export function sameBounds(a: Range, b: Range): boolean {
  if (a === b) return true;
  const isSameHalf =
    a.isLow === b.isLow &&
    a.u32min === b.u32min &&
    a.u32max === b.u32max &&
    a.s32min === b.s32min &&
    a.s32max === b.s32max &&
    a.value32 === b.value32 &&
    a.mask32 === b.mask32;
  if (!isSameHalf || a.isLow) return isSameHalf;
  return (
    a.umin === b.umin &&
    a.umax === b.umax &&
    a.smin === b.smin &&
    a.smax === b.smax &&
    a.bits.value === b.bits.value &&
    a.bits.mask === b.bits.mask
  );
}

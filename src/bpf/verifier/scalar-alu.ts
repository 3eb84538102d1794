/**
 * Arithmetic on scalars: the set of results of an operation on two sets of numbers.
 *
 * Every result is in the set that comes out; what overflows or is not followed becomes unknown.
 * Reference: adjust_scalar_min_max_vals in kernel/bpf/verifier.c.
 */
import type { AluOperation } from '../opcodes.js';
import { ComputedTable } from './computed-table.js';
import { computeHalf, U32_MAX, UNKNOWN_HALF, type Half, type HalfOperation } from './half.js';
import type { Range } from './range.js';
import {
  constRange,
  constScalar,
  lowConstRange,
  lowRange,
  S64_MAX,
  S64_MIN,
  Scalar,
  tightened,
  UNKNOWN,
  unknownScalar,
} from './scalar.js';
import {
  tnumAdd,
  tnumAnd,
  tnumArithmeticShift,
  tnumMul,
  tnumOr,
  tnumShiftLeft,
  tnumShiftRight,
  tnumSub,
  tnumSwap,
  tnumXor,
  U64_MAX,
  type Tnum,
} from './tnum.js';

export type ScalarOperation = Exclude<AluOperation, 'mov'>;

/** Numbers of operations in keys of the table. */
const OPERATIONS: readonly ScalarOperation[] = [
  'add',
  'sub',
  'mul',
  'and',
  'or',
  'xor',
  'lsh',
  'rsh',
  'arsh',
];

/** Ranges of results, by operation and operands. */
const computed = new ComputedTable<Range>();

/** The results of `left op right` in `width` bits. */
export function compute(op: ScalarOperation, width: 32 | 64, left: Scalar, right: Scalar): Scalar {
  // anything, whatever the operands are
  if (!isFollowed(op, width, right)) return unknownScalar();
  const a = left.bounds;
  const b = right.bounds;
  if (a.isConst && b.isConst) return new Scalar(computeRange(op, width, a, b), left, right);
  const key = width + OPERATIONS.indexOf(op);
  let range = computed.get(key, a, b);
  if (!range) {
    range = computeRange(op, width, a, b);
    computed.set(key, a, b, range);
  }
  return new Scalar(range, left, right);
}

/** A constant result without a range around it. */
function lowConstant(op: Followed, a: number, b: number): number {
  switch (op) {
    case 'add':
      return a + b;
    case 'sub':
      return a - b;
    case 'mul':
      return Math.imul(a, b);
    case 'and':
      return a & b;
    case 'or':
      return a | b;
    case 'xor':
      return a ^ b;
    case 'lsh':
      return a << b;
    case 'rsh':
      return a >>> b;
    case 'arsh':
      return a >> b;
  }
}

function computeRange(op: Followed, width: 32 | 64, left: Range, right: Range): Range {
  if (width === 32 || staysLow(op, left, right)) {
    // 64 bits wide, nothing is negative: there is no sign to be shifted in
    const low = op === 'arsh' && width === 64 ? 'rsh' : op;
    if (left.mask32 === 0 && right.mask32 === 0) {
      return lowConstRange(lowConstant(low, left.value32, right.value32));
    }
    return lowRange(computeHalf(low, left, right));
  }
  if (left.isConst && right.isConst) return constRange(constant(op, left.umin, right.umin));
  return compute64(op, left, right);
}

/** Whether all 64-bit results are below 2^32, and so equal to the 32-bit ones. */
function staysLow(op: Followed, left: Range, right: Range): boolean {
  if (op === 'and') return left.isLow || right.isLow;
  if (!left.isLow || !right.isLow) return false;
  switch (op) {
    case 'add':
      return left.u32max + right.u32max <= U32_MAX;
    case 'sub':
      return left.u32min >= right.u32max;
    case 'mul':
      return left.u32max * right.u32max <= U32_MAX;
    case 'or':
    case 'xor':
      return true;
    case 'lsh':
      return right.u32max < 32 && left.u32max * 2 ** right.u32max <= U32_MAX;
    case 'rsh':
    case 'arsh':
      return right.u32max < 32;
  }
}

type Followed = HalfOperation;

/**
 * Whether the kernel looks at the result at all: not at quotients, nor at shifts by an amount that is
 * unknown or too large (is_safe_to_compute_dst_reg_range).
 */
function isFollowed(op: ScalarOperation, width: 32 | 64, right: Scalar): op is Followed {
  switch (op) {
    case 'div':
    case 'mod':
      return false;
    case 'lsh':
    case 'rsh':
    case 'arsh':
      return right.umin === right.umax && right.umax < BigInt(width);
    default:
      return true;
  }
}

function constant(op: Followed, left: bigint, right: bigint): bigint {
  switch (op) {
    case 'add':
      return left + right;
    case 'sub':
      return left - right;
    case 'mul':
      return left * right;
    case 'and':
      return left & right;
    case 'or':
      return left | right;
    case 'xor':
      return left ^ right;
    case 'lsh':
      return left << right;
    case 'rsh':
      return left >> right;
    case 'arsh':
      return BigInt.asIntN(64, left) >> right;
  }
}

/** 64-bit results: what is known of the halves, the bits, and the ranges where nothing overflows. */
function whole(half: Half, bits: Tnum, unsigned?: Ends, signed?: Ends): Range {
  const { u32min, u32max, s32min, s32max } = half;
  return tightened({
    umin: unsigned ? unsigned[0] : 0n,
    umax: unsigned ? unsigned[1] : U64_MAX,
    smin: signed ? signed[0] : S64_MIN,
    smax: signed ? signed[1] : S64_MAX,
    u32min,
    u32max,
    s32min,
    s32max,
    bits,
  });
}

type Ends = readonly [bigint, bigint];

function compute64(op: Followed, left: Range, right: Range): Range {
  if (op === 'lsh' || op === 'rsh' || op === 'arsh') return shift64(op, left, right.u32min);
  // the lower half for itself: it may be known where the whole is not
  const half = computeHalf(op, left, right);
  switch (op) {
    case 'add': {
      const signed = unlessOverflow([left.smin + right.smin, left.smax + right.smax]);
      const unsigned = wrapped(left.umin + right.umin, left.umax + right.umax);
      return whole(half, tnumAdd(left.bits, right.bits), unsigned, signed);
    }
    case 'sub': {
      const unsigned = wrapped(left.umin - right.umax, left.umax - right.umin);
      const signed = unlessOverflow([left.smin - right.smax, left.smax - right.smin]);
      const bits = tnumSub(left.bits, right.bits);
      return whole(half, bits, unsigned, signed);
    }
    case 'mul': {
      const most = left.umax * right.umax;
      const unsigned = most <= U64_MAX ? ([left.umin * right.umin, most] as const) : undefined;
      const signed = unlessOverflow([
        left.smin * right.smin,
        left.smin * right.smax,
        left.smax * right.smin,
        left.smax * right.smax,
      ]);
      return whole(half, tnumMul(left.bits, right.bits), unsigned, signed);
    }
    case 'and': {
      const bits = tnumAnd(left.bits, right.bits);
      return whole(half, bits, [bits.value, left.umax < right.umax ? left.umax : right.umax]);
    }
    case 'or': {
      const bits = tnumOr(left.bits, right.bits);
      const umin = left.umin > right.umin ? left.umin : right.umin;
      return whole(half, bits, [umin, bits.value | bits.mask]);
    }
    case 'xor':
      return whole(half, tnumXor(left.bits, right.bits));
  }
}

/** Unsigned ends of a sum or difference: where both overflow the order is kept. */
function wrapped(umin: bigint, umax: bigint): Ends | undefined {
  const isOrdered = umin >> 64n === umax >> 64n;
  return isOrdered ? [BigInt.asUintN(64, umin), BigInt.asUintN(64, umax)] : undefined;
}

/** The least and the greatest of them, when they are signed 64-bit numbers. */
function unlessOverflow(corners: readonly bigint[]): Ends | undefined {
  let smin = corners[0] ?? S64_MIN;
  let smax = smin;
  for (const corner of corners) {
    if (corner < smin) smin = corner;
    if (corner > smax) smax = corner;
  }
  return smin >= S64_MIN && smax <= S64_MAX ? [smin, smax] : undefined;
}

function shift64(op: 'lsh' | 'rsh' | 'arsh', left: Range, distance: number): Range {
  const by = BigInt(distance);
  switch (op) {
    case 'lsh': {
      const bits = tnumShiftLeft(left.bits, distance);
      // the kernel lets the highest bit be set by the least number only
      const fits = left.umax <= 1n << BigInt(63 - distance);
      const unsigned = fits ? ([left.umin << by, left.umax << by] as const) : undefined;
      // the first half of a sign extension
      const { s32min, s32max } = left;
      const signed =
        distance === 32 ? ([BigInt(s32min) << by, BigInt(s32max) << by] as const) : undefined;
      return whole(UNKNOWN_HALF, bits, unsigned, signed);
    }
    case 'rsh':
      return whole(UNKNOWN_HALF, tnumShiftRight(left.bits, distance), [
        left.umin >> by,
        left.umax >> by,
      ]);
    case 'arsh':
      return whole(UNKNOWN_HALF, tnumArithmeticShift(left.bits, distance, 64), undefined, [
        left.smin >> by,
        left.smax >> by,
      ]);
  }
}

/** The low `size` bytes the other way round; only bits are followed, no ranges. */
export function byteSwapped(scalar: Scalar, size: number): Scalar {
  const bits = tnumSwap(scalar.bits, size);
  return new Scalar(tightened({ ...UNKNOWN, bits }), scalar);
}

/** `-scalar` in `width` bits. */
export function negated(scalar: Scalar, width: 32 | 64): Scalar {
  return compute('sub', width, constScalar(0n), scalar);
}

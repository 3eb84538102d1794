/**
 * Arithmetic on scalars: the set of results of an operation on two sets of numbers.
 *
 * Every result is in the set that comes out; what overflows or is not followed becomes unknown.
 * Reference: adjust_scalar_min_max_vals in kernel/bpf/verifier.c.
 */
import type { AluOperation } from '../opcodes.js';
import { ComputedTable } from './computed-table.js';
import {
  constRange,
  constScalar,
  lowHalf,
  S64_MAX,
  S64_MIN,
  Scalar,
  tightened,
  U32_MAX,
  UNKNOWN,
  unknownScalar,
  type Bounds,
  type Range,
} from './scalar.js';
import {
  tnumAdd,
  tnumAnd,
  tnumArithmeticShift,
  tnumLow,
  tnumMul,
  tnumOr,
  tnumShiftLeft,
  tnumShiftRight,
  tnumSub,
  tnumXor,
  U64_MAX,
  type Tnum,
} from './tnum.js';

const S32_MIN = -0x8000_0000;
const S32_MAX = 0x7fff_ffff;

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
  if (!isFollowed(op, width, right)) return unknownScalar(left, right);
  const [a, b] = [left.bounds, right.bounds];
  const key = width + OPERATIONS.indexOf(op);
  let range = computed.get(key, a, b);
  if (!range) {
    range = computeRange(op, width, a, b);
    computed.set(key, a, b, range);
  }
  return new Scalar(range, left, right);
}

function computeRange(op: Followed, width: 32 | 64, left: Range, right: Range): Range {
  if (left.isConst && right.isConst) {
    return constRange(constant(op, width, left.bits.value, right.bits.value));
  }
  return width === 64 ? compute64(op, left, right) : compute32(op, left, right);
}

type Followed = Exclude<ScalarOperation, 'div' | 'mod'>;

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

function constant(op: Followed, width: 32 | 64, left: bigint, right: bigint): bigint {
  const [a, b] = [BigInt.asUintN(width, left), BigInt.asUintN(width, right)];
  const result = (value: bigint): bigint => BigInt.asUintN(width, value);
  switch (op) {
    case 'add':
      return result(a + b);
    case 'sub':
      return result(a - b);
    case 'mul':
      return result(a * b);
    case 'and':
      return a & b;
    case 'or':
      return a | b;
    case 'xor':
      return a ^ b;
    case 'lsh':
      return result(a << b);
    case 'rsh':
      return a >> b;
    case 'arsh':
      return result(BigInt.asIntN(width, a) >> b);
  }
}

function compute64(op: Followed, left: Range, right: Range): Range {
  // the lower half for itself: it may be known where the whole is not
  const make = (bounds: Partial<Bounds>): Range =>
    tightened({ ...UNKNOWN, ...halfResult(op, left, right), ...bounds });
  switch (op) {
    case 'add':
      return make({
        ...unsignedSum(left, right),
        ...signedRange([left.smin + right.smin, left.smax + right.smax]),
        bits: tnumAdd(left.bits, right.bits),
      });
    case 'sub':
      return make({
        ...(left.umin >= right.umax
          ? { umin: left.umin - right.umax, umax: left.umax - right.umin }
          : {}),
        ...signedRange([left.smin - right.smax, left.smax - right.smin]),
        bits: tnumSub(left.bits, right.bits),
      });
    case 'mul': {
      const most = left.umax * right.umax;
      const unsigned = most <= U64_MAX ? { umin: left.umin * right.umin, umax: most } : {};
      const corners = [
        left.smin * right.smin,
        left.smin * right.smax,
        left.smax * right.smin,
        left.smax * right.smax,
      ];
      return make({
        ...unsigned,
        ...signedRange(corners),
        bits: tnumMul(left.bits, right.bits),
      });
    }
    case 'and': {
      const bits = tnumAnd(left.bits, right.bits);
      return make({
        umin: bits.value,
        umax: left.umax < right.umax ? left.umax : right.umax,
        bits,
      });
    }
    case 'or': {
      const bits = tnumOr(left.bits, right.bits);
      return make({
        umin: left.umin > right.umin ? left.umin : right.umin,
        umax: bits.value | bits.mask,
        bits,
      });
    }
    case 'xor':
      return make({ bits: tnumXor(left.bits, right.bits) });
    case 'lsh':
    case 'rsh':
    case 'arsh':
      return shift64(op, left, right);
  }
}

function unsignedSum(left: Range, right: Range): Partial<Bounds> {
  const [umin, umax] = [left.umin + right.umin, left.umax + right.umax];
  if (umax <= U64_MAX) return { umin, umax };
  // both ends overflow: the order is kept
  return umin > U64_MAX ? { umin: umin - U64_MAX - 1n, umax: umax - U64_MAX - 1n } : {};
}

function signedRange(corners: readonly bigint[]): Partial<Bounds> {
  let smin = corners[0] ?? S64_MIN;
  let smax = smin;
  for (const corner of corners) {
    if (corner < smin) smin = corner;
    if (corner > smax) smax = corner;
  }
  return smin >= S64_MIN && smax <= S64_MAX ? { smin, smax } : {};
}

function shift64(op: 'lsh' | 'rsh' | 'arsh', left: Range, right: Range): Range {
  const by = right.umin;
  const distance = Number(by);
  const bounds = ((): Partial<Bounds> => {
    switch (op) {
      case 'lsh': {
        const highest = left.umax << by;
        // the first half of a sign extension
        const { s32min, s32max } = left;
        const half = { smin: BigInt(s32min) << 32n, smax: BigInt(s32max) << 32n };
        return {
          ...(highest <= U64_MAX ? { umin: left.umin << by, umax: highest } : {}),
          ...(distance === 32 ? half : {}),
          bits: tnumShiftLeft(left.bits, distance),
        };
      }
      case 'rsh':
        return {
          umin: left.umin >> by,
          umax: left.umax >> by,
          bits: tnumShiftRight(left.bits, distance),
        };
      case 'arsh':
        return {
          smin: left.smin >> by,
          smax: left.smax >> by,
          bits: tnumArithmeticShift(left.bits, distance, 64),
        };
    }
  })();
  return tightened({ ...UNKNOWN, ...bounds });
}

/** A range of unsigned and one of signed 32-bit numbers, as far as they are known. */
type Half = Partial<Pick<Bounds, 'u32min' | 'u32max' | 's32min' | 's32max' | 'bits'>>;

function compute32(op: Followed, left: Range, right: Range): Range {
  return lowHalf({ ...UNKNOWN, ...halfResult(op, left, right) });
}

function halfResult(op: Followed, left: Range, right: Range): Half {
  const [a, b] = [tnumLow(left.bits), tnumLow(right.bits)];
  switch (op) {
    case 'add':
      return {
        ...unsigned32(left.u32min + right.u32min, left.u32max + right.u32max),
        ...signed32([left.s32min + right.s32min, left.s32max + right.s32max]),
        bits: tnumAdd(a, b),
      };
    case 'sub':
      return {
        ...unsigned32(left.u32min - right.u32max, left.u32max - right.u32min),
        ...signed32([left.s32min - right.s32max, left.s32max - right.s32min]),
        bits: tnumSub(a, b),
      };
    case 'mul':
      return {
        ...unsigned32(left.u32min * right.u32min, left.u32max * right.u32max),
        ...signed32([
          left.s32min * right.s32min,
          left.s32min * right.s32max,
          left.s32max * right.s32min,
          left.s32max * right.s32max,
        ]),
        bits: tnumMul(a, b),
      };
    case 'and':
      return { ...unsigned32(0, Math.min(left.u32max, right.u32max)), bits: tnumAnd(a, b) };
    case 'or':
      return {
        ...unsigned32(Math.max(left.u32min, right.u32min), U32_MAX),
        bits: tnumOr(a, b),
      };
    case 'xor':
      return { bits: tnumXor(a, b) };
    case 'lsh':
    case 'rsh':
    case 'arsh':
      return shift32(op, left, right, a);
  }
}

function unsigned32(u32min: number, u32max: number): Half {
  return u32min >= 0 && u32max <= U32_MAX ? { u32min, u32max } : {};
}

function signed32(corners: readonly number[]): Half {
  const s32min = Math.min(...corners);
  const s32max = Math.max(...corners);
  // products of 32-bit numbers are exact in a double up to 2^53; beyond, they are far outside anyway
  return s32min >= S32_MIN && s32max <= S32_MAX ? { s32min: s32min + 0, s32max: s32max + 0 } : {};
}

function shift32(op: 'lsh' | 'rsh' | 'arsh', left: Range, right: Range, bits: Tnum): Half {
  const by = right.u32min;
  switch (op) {
    case 'lsh':
      return {
        ...unsigned32(left.u32min * 2 ** by, left.u32max * 2 ** by),
        bits: tnumLow(tnumShiftLeft(bits, by)),
      };
    case 'rsh':
      return {
        ...unsigned32(left.u32min >>> by, left.u32max >>> by),
        bits: tnumShiftRight(bits, by),
      };
    case 'arsh':
      return {
        s32min: left.s32min >> by,
        s32max: left.s32max >> by,
        bits: tnumArithmeticShift(bits, by, 32),
      };
  }
}

/** `-scalar` in `width` bits. */
export function negated(scalar: Scalar, width: 32 | 64): Scalar {
  return compute('sub', width, constScalar(0n), scalar);
}

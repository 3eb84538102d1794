/**
 * Arithmetic on scalars: the set of results of an operation on two sets of numbers.
 *
 * Every result is in the set that comes out; what overflows or is not followed becomes unknown.
 * Reference: adjust_scalar_min_max_vals in kernel/bpf/verifier.c. As there, divisions give an unknown
 * number and shifts by an unknown or too large amount too.
 */
import type { AluOperation } from '../opcodes.js';
import {
  constScalar,
  fromBounds,
  S64_MAX,
  S64_MIN,
  Scalar,
  U32_MAX,
  UNKNOWN,
  unknownScalar,
  zeroExtend32,
  type Bounds,
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

/** The results of `left op right` in `width` bits. */
export function compute(op: ScalarOperation, width: 32 | 64, left: Scalar, right: Scalar): Scalar {
  if (op === 'div' || op === 'mod') {
    return width === 64 ? unknownScalar(left, right) : zeroExtend32(UNKNOWN, left, right);
  }
  if (left.isConst && right.isConst) {
    const value = constant(op, width, left.bits.value, right.bits.value);
    if (value === undefined) return unknownScalar(left, right);
    return constScalar(value, left, right);
  }
  return width === 64 ? compute64(op, left, right) : compute32(op, left, right);
}

type Followed = Exclude<ScalarOperation, 'div' | 'mod'>;

function constant(op: Followed, width: 32 | 64, left: bigint, right: bigint): bigint | undefined {
  const bits = BigInt(width);
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
      return b < bits ? result(a << b) : undefined;
    case 'rsh':
      return b < bits ? a >> b : undefined;
    case 'arsh':
      return b < bits ? result(BigInt.asIntN(width, a) >> b) : undefined;
  }
}

function compute64(op: Followed, left: Scalar, right: Scalar): Scalar {
  const make = (bounds: Partial<Bounds>): Scalar =>
    fromBounds({ ...UNKNOWN, ...bounds }, left, right);
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
      return right.umax < 64n ? shift64(op, left, right) : unknownScalar(left, right);
  }
}

function unsignedSum(left: Scalar, right: Scalar): Partial<Bounds> {
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

function shift64(op: 'lsh' | 'rsh' | 'arsh', left: Scalar, right: Scalar): Scalar {
  const [least, most] = [right.umin, right.umax];
  const by = right.isConst ? Number(least) : undefined;
  const bounds = ((): Partial<Bounds> => {
    switch (op) {
      case 'lsh': {
        const highest = left.umax << most;
        return {
          ...(highest <= U64_MAX ? { umin: left.umin << least, umax: highest } : {}),
          bits: by === undefined ? UNKNOWN.bits : tnumShiftLeft(left.bits, by),
        };
      }
      case 'rsh':
        return {
          umin: left.umin >> most,
          umax: left.umax >> least,
          bits: by === undefined ? UNKNOWN.bits : tnumShiftRight(left.bits, by),
        };
      case 'arsh':
        return {
          smin: left.smin >= 0n ? left.smin >> most : left.smin >> least,
          smax: left.smax >= 0n ? left.smax >> least : left.smax >> most,
          bits: by === undefined ? UNKNOWN.bits : tnumArithmeticShift(left.bits, by, 64),
        };
    }
  })();
  return fromBounds({ ...UNKNOWN, ...bounds }, left, right);
}

/** A range of unsigned and one of signed 32-bit numbers, as far as they are known. */
type Half = Partial<Pick<Bounds, 'u32min' | 'u32max' | 's32min' | 's32max' | 'bits'>>;

function compute32(op: Followed, left: Scalar, right: Scalar): Scalar {
  const half = halfResult(op, left, right);
  return zeroExtend32({ ...UNKNOWN, ...half }, left, right);
}

function halfResult(op: Followed, left: Scalar, right: Scalar): Half {
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
      return right.u32max < 32 ? shift32(op, left, right, a) : {};
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

function shift32(op: 'lsh' | 'rsh' | 'arsh', left: Scalar, right: Scalar, bits: Tnum): Half {
  const [least, most] = [right.u32min, right.u32max];
  const isConst = least === most;
  switch (op) {
    case 'lsh':
      return {
        ...unsigned32(left.u32min * 2 ** least, left.u32max * 2 ** most),
        ...(isConst ? { bits: tnumLow(tnumShiftLeft(bits, least)) } : {}),
      };
    case 'rsh':
      return {
        ...unsigned32(left.u32min >>> most, left.u32max >>> least),
        ...(isConst ? { bits: tnumShiftRight(bits, least) } : {}),
      };
    case 'arsh':
      return {
        s32min: left.s32min >= 0 ? left.s32min >> most : left.s32min >> least,
        s32max: left.s32max >= 0 ? left.s32max >> least : left.s32max >> most,
        ...(isConst ? { bits: tnumArithmeticShift(bits, least, 32) } : {}),
      };
  }
}

/** The results of a byte swap to `bits` bits; a swap that changes nothing only cuts. */
export function swapped(scalar: Scalar, bits: number, swaps: boolean): Scalar {
  if (scalar.isConst) {
    const bytes = bits / 8;
    let value = BigInt.asUintN(bits, scalar.bits.value);
    if (swaps) {
      let turned = 0n;
      for (let i = 0; i < bytes; i++) {
        turned = (turned << 8n) | (value & 0xffn);
        value >>= 8n;
      }
      value = turned;
    }
    return constScalar(value, scalar);
  }
  return fromBounds({ ...UNKNOWN, umax: (1n << BigInt(bits)) - 1n }, scalar);
}

/** `-scalar` in `width` bits. */
export function negated(scalar: Scalar, width: 32 | 64): Scalar {
  return compute('sub', width, constScalar(0n), scalar);
}

/**
 * Comparisons of scalars: whether a branch is decided, and what each outcome tells.
 *
 * Reference: is_branch_taken, reg_set_min_max, regs_refine_cond_op in kernel/bpf/verifier.c.
 */
import type { JumpOperation } from '../opcodes.js';
import { ComputedTable } from './computed-table.js';
import { S32_MAX, S32_MIN, U32_MAX, type Half } from './half.js';
import type { Bounds, Range } from './range.js';
import { refine, refineHalf, syncBounds, UNKNOWN } from './scalar.js';
import { tnumIntersect, U64_MAX } from './tnum.js';

const S64_MIN = -(1n << 63n);
const S64_MAX = (1n << 63n) - 1n;

/** What holds when the jump is not taken; `jset` has no opposite among the jumps. */
const OPPOSITE: Readonly<Record<Comparison, Comparison>> = {
  jeq: 'jne',
  jne: 'jeq',
  jgt: 'jle',
  jle: 'jgt',
  jge: 'jlt',
  jlt: 'jge',
  jsgt: 'jsle',
  jsle: 'jsgt',
  jsge: 'jslt',
  jslt: 'jsge',
};

/** `a op b` as `b op' a`. */
export const MIRRORED: Readonly<Record<JumpOperation, JumpOperation>> = {
  jeq: 'jeq',
  jne: 'jne',
  jset: 'jset',
  jgt: 'jlt',
  jlt: 'jgt',
  jge: 'jle',
  jle: 'jge',
  jsgt: 'jslt',
  jslt: 'jsgt',
  jsge: 'jsle',
  jsle: 'jsge',
};

interface Ends {
  readonly min: bigint | number;
  readonly max: bigint | number;
  readonly smin: bigint | number;
  readonly smax: bigint | number;
}

/**
 * How much of the numbers a comparison is about: all, the lower half, or the lower half because there
 * is nothing else (then signed order is unsigned order).
 */
type Part = 'whole' | 'half' | 'low';

function partOf(width: 32 | 64, left: Range, right: Range): Part {
  if (width === 32) return 'half';
  return left.isLow && right.isLow ? 'low' : 'whole';
}

function endsOf(range: Range, part: Part): Ends {
  switch (part) {
    case 'whole': {
      const { umin: min, umax: max, smin, smax } = range;
      return { min, max, smin, smax };
    }
    case 'half':
      return { min: range.u32min, max: range.u32max, smin: range.s32min, smax: range.s32max };
    case 'low': {
      const { u32min: min, u32max: max } = range;
      return { min, max, smin: min, smax: max };
    }
  }
}

/** Both sides, as far as they are known then. */
type Sides = readonly [Range, Range];

/** What a comparison comes to: the ranges in each outcome; undefined where it cannot have that outcome. */
export interface Outcomes {
  readonly taken: Sides | undefined;
  readonly fallen: Sides | undefined;
}

const OPERATIONS = Object.keys(MIRRORED);
const compared = new ComputedTable<Outcomes>();

/** Compares two numbers that are not the same one. */
export function outcomesOf(op: JumpOperation, width: 32 | 64, left: Range, right: Range): Outcomes {
  if (left.isConst && right.isConst) {
    const holds = decided(op, width, left, right) === true;
    const sides: Sides = [left, right];
    return { taken: holds ? sides : undefined, fallen: holds ? undefined : sides };
  }
  const key = width + OPERATIONS.indexOf(op);
  let result = compared.get(key, left, right);
  if (!result) {
    const always = decided(op, width, left, right);
    const taken = always === false ? undefined : narrowed(op, width, left, right, true);
    const fallen = always === true ? undefined : narrowed(op, width, left, right, false);
    result = {
      // one of them happens
      taken: taken ?? (fallen || always === false ? undefined : [left, right]),
      fallen: fallen ?? (taken || always === true ? undefined : [left, right]),
    };
    compared.set(key, left, right, result);
  }
  return result;
}

/** True or false when the comparison always has that outcome; undefined when it depends. */
export function decided(
  op: JumpOperation,
  width: 32 | 64,
  left: Range,
  right: Range,
): boolean | undefined {
  const part = partOf(width, left, right);
  const a = endsOf(left, part);
  const b = endsOf(right, part);
  switch (op) {
    case 'jeq':
    case 'jne': {
      const apart = a.min > b.max || a.max < b.min || a.smin > b.smax || a.smax < b.smin;
      const equal = apart ? false : equalBits(part, left, right);
      return equal === undefined ? undefined : equal === (op === 'jeq');
    }
    case 'jset':
      return commonBits(part, left, right);
    case 'jgt':
      return a.min > b.max ? true : a.max <= b.min ? false : undefined;
    case 'jge':
      return a.min >= b.max ? true : a.max < b.min ? false : undefined;
    case 'jlt':
      return a.max < b.min ? true : a.min >= b.max ? false : undefined;
    case 'jle':
      return a.max <= b.min ? true : a.min > b.max ? false : undefined;
    case 'jsgt':
      return a.smin > b.smax ? true : a.smax <= b.smin ? false : undefined;
    case 'jsge':
      return a.smin >= b.smax ? true : a.smax < b.smin ? false : undefined;
    case 'jslt':
      return a.smax < b.smin ? true : a.smin >= b.smax ? false : undefined;
    case 'jsle':
      return a.smax <= b.smin ? true : a.smin > b.smax ? false : undefined;
  }
}

/** Whether known bits make the numbers equal or different. */
function equalBits(part: Part, left: Range, right: Range): boolean | undefined {
  if (part === 'whole') {
    if (left.isConst && right.isConst) return left.umin === right.umin;
    return tnumIntersect(left.bits, right.bits) ? undefined : false;
  }
  const known = ~left.mask32 & ~right.mask32;
  if (((left.value32 ^ right.value32) & known) !== 0) return false;
  return known === -1 ? true : undefined;
}

/** Whether `left & right` is not zero. */
function commonBits(part: Part, left: Range, right: Range): boolean | undefined {
  if (part === 'whole') {
    const [a, b] = [left.bits, right.bits];
    if ((a.value & b.value) !== 0n) return true;
    return ((a.value | a.mask) & (b.value | b.mask)) === 0n ? false : undefined;
  }
  if ((left.value32 & right.value32) !== 0) return true;
  const possible = (left.value32 | left.mask32) & (right.value32 | right.mask32);
  return possible === 0 ? false : undefined;
}

/** Both sides as they are when the comparison has this outcome; undefined when it cannot have it. */
function narrowed(
  op: JumpOperation,
  width: 32 | 64,
  left: Range,
  right: Range,
  taken: boolean,
): Sides | undefined {
  const part = partOf(width, left, right);
  if (op === 'jset') return narrowedBits(part, left, right, taken);
  const holds = taken ? op : OPPOSITE[op];
  const sides =
    part === 'whole' ? narrowWhole(holds, left, right) : narrowHalf(holds, part, left, right);
  return sides[0] && sides[1] && [sides[0], sides[1]];
}

type Maybe = readonly [Range | undefined, Range | undefined];

function narrowWhole(op: Comparison, left: Range, right: Range): Maybe {
  const [forLeft, forRight] = limits64(op, left, right);
  return [
    left.isConst ? left : refine(left, forLeft),
    right.isConst ? right : refine(right, forRight),
  ];
}

function narrowHalf(op: Comparison, part: Part, left: Range, right: Range): Maybe {
  const [forLeft, forRight] =
    part === 'half'
      ? limits32(op, left, right)
      : op === 'jeq'
        ? [unsignedOnly(right), unsignedOnly(left)]
        : limits32(UNSIGNED[op], left, right);
  return [
    left.isConst ? left : refineHalf(left, forLeft),
    right.isConst ? right : refineHalf(right, forRight),
  ];
}

type Comparison = Exclude<JumpOperation, 'jset'>;

const UNSIGNED: Readonly<Record<Comparison, Comparison>> = {
  jeq: 'jeq',
  jne: 'jne',
  jgt: 'jgt',
  jge: 'jge',
  jlt: 'jlt',
  jle: 'jle',
  jsgt: 'jgt',
  jsge: 'jge',
  jslt: 'jlt',
  jsle: 'jle',
};

function unsignedOnly({ u32min, u32max, value32, mask32 }: Range): Partial<Half> {
  return { u32min, u32max, value32, mask32 };
}

type Limits = readonly [Partial<Bounds>, Partial<Bounds>];
type HalfLimits = readonly [Partial<Half>, Partial<Half>];

function limits64(op: Comparison, left: Range, right: Range): Limits {
  switch (op) {
    case 'jeq':
      return [wholeOnly(right), wholeOnly(left)];
    case 'jne':
      return [excluding64(left, right), excluding64(right, left)];
    case 'jgt':
      return [
        { umin: right.umin < U64_MAX ? right.umin + 1n : right.umin },
        { umax: left.umax > 0n ? left.umax - 1n : 0n },
      ];
    case 'jge':
      return [{ umin: right.umin }, { umax: left.umax }];
    case 'jlt':
      return [
        { umax: right.umax > 0n ? right.umax - 1n : 0n },
        { umin: left.umin < U64_MAX ? left.umin + 1n : left.umin },
      ];
    case 'jle':
      return [{ umax: right.umax }, { umin: left.umin }];
    case 'jsgt':
      return [
        { smin: right.smin < S64_MAX ? right.smin + 1n : right.smin },
        { smax: left.smax > S64_MIN ? left.smax - 1n : left.smax },
      ];
    case 'jsge':
      return [{ smin: right.smin }, { smax: left.smax }];
    case 'jslt':
      return [
        { smax: right.smax > S64_MIN ? right.smax - 1n : right.smax },
        { smin: left.smin < S64_MAX ? left.smin + 1n : left.smin },
      ];
    case 'jsle':
      return [{ smax: right.smax }, { smin: left.smin }];
  }
}

/** Without the number `other`, when that is at an end of the range. */
function excluding64(scalar: Range, other: Range): Partial<Bounds> {
  if (!other.isConst) return {};
  const { umin, smin } = other;
  return {
    ...(scalar.umin === umin && umin < U64_MAX ? { umin: umin + 1n } : {}),
    ...(scalar.umax === umin && umin > 0n ? { umax: umin - 1n } : {}),
    ...(scalar.smin === smin && smin < S64_MAX ? { smin: smin + 1n } : {}),
    ...(scalar.smax === smin && smin > S64_MIN ? { smax: smin - 1n } : {}),
  };
}

/** What a comparison of all 64 bits is about: 32-bit ranges are found out from these anew. */
function wholeOnly({ umin, umax, smin, smax, bits }: Range): Partial<Bounds> {
  return { umin, umax, smin, smax, bits };
}

function limits32(op: Comparison, left: Range, right: Range): HalfLimits {
  switch (op) {
    case 'jeq':
      return [right, left];
    case 'jne':
      return [excluding32(left, right), excluding32(right, left)];
    case 'jgt':
      return [
        { u32min: Math.min(right.u32min + 1, U32_MAX) },
        { u32max: Math.max(left.u32max - 1, 0) },
      ];
    case 'jge':
      return [{ u32min: right.u32min }, { u32max: left.u32max }];
    case 'jlt':
      return [
        { u32max: Math.max(right.u32max - 1, 0) },
        { u32min: Math.min(left.u32min + 1, U32_MAX) },
      ];
    case 'jle':
      return [{ u32max: right.u32max }, { u32min: left.u32min }];
    case 'jsgt':
      return [
        { s32min: Math.min(right.s32min + 1, S32_MAX) },
        { s32max: Math.max(left.s32max - 1, S32_MIN) },
      ];
    case 'jsge':
      return [{ s32min: right.s32min }, { s32max: left.s32max }];
    case 'jslt':
      return [
        { s32max: Math.max(right.s32max - 1, S32_MIN) },
        { s32min: Math.min(left.s32min + 1, S32_MAX) },
      ];
    case 'jsle':
      return [{ s32max: right.s32max }, { s32min: left.s32min }];
  }
}

function excluding32(scalar: Range, other: Range): Partial<Half> {
  const { u32min, u32max, s32min } = other;
  if (u32min !== u32max) return {};
  return {
    ...(scalar.u32min === u32min && u32min < U32_MAX ? { u32min: u32min + 1 } : {}),
    ...(scalar.u32max === u32min && u32min > 0 ? { u32max: u32min - 1 } : {}),
    ...(scalar.s32min === s32min && s32min < S32_MAX ? { s32min: s32min + 1 } : {}),
    ...(scalar.s32max === s32min && s32min > S32_MIN ? { s32max: s32min - 1 } : {}),
  };
}

/** `left & right` is not zero when taken; else all bits of a known mask are clear. */
function narrowedBits(part: Part, left: Range, right: Range, taken: boolean): Sides | undefined {
  if (isKnown(part, right)) {
    const first = testedBy(part, left, right, taken);
    return first && [first, right];
  }
  if (!isKnown(part, left)) return [left, right];
  const second = testedBy(part, right, left, taken);
  return second && [left, second];
}

function isKnown(part: Part, range: Range): boolean {
  return part === 'whole' ? range.isConst : range.mask32 === 0;
}

function testedBy(part: Part, range: Range, known: Range, taken: boolean): Range | undefined {
  if (range.isConst) return range;
  const tested = part === 'whole' ? known.umin : BigInt(known.value32 >>> 0);
  if (!taken) {
    // the kernel forgets the ranges and keeps the bits
    const { value, mask } = range.bits;
    return syncBounds({ ...UNKNOWN, bits: { value: value & ~tested, mask: mask & ~tested } });
  }
  // one bit tested: it is set
  const isOne = tested !== 0n && (tested & (tested - 1n)) === 0n;
  return isOne ? refine(range, { bits: { value: tested, mask: U64_MAX & ~tested } }) : range;
}

/**
 * Comparisons of scalars: whether a branch is decided, and what each outcome tells.
 *
 * Reference: is_branch_taken, reg_set_min_max, regs_refine_cond_op in kernel/bpf/verifier.c.
 */
import type { JumpOperation } from '../opcodes.js';
import { ComputedTable } from './computed-table.js';
import { refine, U32_MAX, type Bounds, type Range } from './scalar.js';
import { tnumIntersect, tnumLow, U64_MAX, type Tnum } from './tnum.js';

const S64_MIN = -(1n << 63n);
const S64_MAX = (1n << 63n) - 1n;
const S32_MIN = -0x8000_0000;
const S32_MAX = 0x7fff_ffff;
const LOW32 = 0xffff_ffffn;

/** What holds when the jump is not taken; `jset` has no opposite among the jumps. */
const OPPOSITE: Readonly<Record<Exclude<JumpOperation, 'jset'>, JumpOperation>> = {
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
  readonly min: bigint;
  readonly max: bigint;
  readonly smin: bigint;
  readonly smax: bigint;
  readonly bits: Tnum;
}

function endsOf(scalar: Range, width: 32 | 64): Ends {
  if (width === 64) {
    const { umin: min, umax: max, smin, smax, bits } = scalar;
    return { min, max, smin, smax, bits };
  }
  return {
    min: BigInt(scalar.u32min),
    max: BigInt(scalar.u32max),
    smin: BigInt(scalar.s32min),
    smax: BigInt(scalar.s32max),
    bits: tnumLow(scalar.bits),
  };
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
  const a = endsOf(left, width);
  const b = endsOf(right, width);
  switch (op) {
    case 'jeq':
    case 'jne': {
      const equal = alwaysEqual(a, b);
      return equal === undefined ? undefined : equal === (op === 'jeq');
    }
    case 'jset':
      if ((a.bits.value & b.bits.value) !== 0n) return true;
      if (((a.bits.value | a.bits.mask) & (b.bits.value | b.bits.mask)) === 0n) return false;
      return undefined;
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

function alwaysEqual(a: Ends, b: Ends): boolean | undefined {
  if (a.bits.mask === 0n && b.bits.mask === 0n) return a.bits.value === b.bits.value;
  if (a.min > b.max || a.max < b.min || a.smin > b.smax || a.smax < b.smin) return false;
  return tnumIntersect(a.bits, b.bits) ? undefined : false;
}

/** Both sides as they are when the comparison has this outcome; undefined when it cannot have it. */
function narrowed(
  op: JumpOperation,
  width: 32 | 64,
  left: Range,
  right: Range,
  taken: boolean,
): Sides | undefined {
  if (op === 'jset') return narrowedBits(width, left, right, taken);
  const holds = taken ? op : OPPOSITE[op];
  const limits = width === 64 ? limits64(holds, left, right) : limits32(holds, left, right);
  if (!limits) return [left, right];
  const [forLeft, forRight] = limits;
  const first = left.isConst ? left : refine(left, forLeft);
  const second = right.isConst ? right : refine(right, forRight);
  return first && second && [first, second];
}

type Limits = readonly [Partial<Bounds>, Partial<Bounds>];

function limits64(op: JumpOperation, left: Range, right: Range): Limits | undefined {
  switch (op) {
    case 'jeq':
      return [right, left];
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
    case 'jset':
      return undefined;
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

function limits32(op: JumpOperation, left: Range, right: Range): Limits | undefined {
  switch (op) {
    case 'jeq':
      return [half(right), half(left)];
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
    case 'jset':
      return undefined;
  }
}

function half(scalar: Range): Partial<Bounds> {
  const { u32min, u32max, s32min, s32max, bits } = scalar;
  // the upper half stays open
  const open: Tnum = {
    value: bits.value & LOW32,
    mask: (bits.mask & LOW32) | (U64_MAX ^ LOW32),
  };
  return { u32min, u32max, s32min, s32max, bits: open };
}

function excluding32(scalar: Range, other: Range): Partial<Bounds> {
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
function narrowedBits(
  width: 32 | 64,
  left: Range,
  right: Range,
  taken: boolean,
): Sides | undefined {
  if (!right.isConst || left.isConst) return [left, right];
  const tested = width === 64 ? right.bits.value : right.bits.value & LOW32;
  if (!taken) {
    const first = refine(left, { bits: { value: 0n, mask: U64_MAX & ~tested } });
    return first && [first, right];
  }
  // one bit tested: it is set
  if (tested === 0n || (tested & (tested - 1n)) !== 0n) return [left, right];
  const first = refine(left, { bits: { value: tested, mask: U64_MAX & ~tested } });
  return first && [first, right];
}

/**
 * Data processing that the hot switch leaves out: shifted and extended operands, flags, bitfields,
 * conditional operations, multiplication, division, bit reversal, CRC32 (Arm ARM C6.2, shared
 * pseudocode J1.1).
 *
 * 64-bit values are pairs of Int32; BigInt only where a product or quotient needs more.
 */
import { high32, join64, low32 } from '../../common/bytes.js';
import { NEXT, NZCV_SLOT, type Core } from './core.js';
import {
  AMOUNT_SHIFT,
  FLAGS,
  INCREMENT,
  INVERT,
  KIND_SHIFT,
  LOGIC_CONSTANT,
  LOGIC_SHIFT,
  OP,
  SIGNED,
  SUBTRACT,
  WIDE,
} from './operations.js';

/** A 64-bit value under way, so that helpers need not allocate. */
interface Pair {
  lo: number;
  hi: number;
}

/** LSL, LSR, ASR, ROR (kind 0..3) of `value` in place, by less than the width. */
function shift(value: Pair, kind: number, amount: number, wide: boolean): void {
  const { lo, hi } = value;
  if (!wide) {
    value.hi = 0;
    if (amount === 0) return;
    if (kind === 0) value.lo = lo << amount;
    else if (kind === 1) value.lo = lo >>> amount;
    else if (kind === 2) value.lo = lo >> amount;
    else value.lo = (lo >>> amount) | (lo << (32 - amount));
    return;
  }
  if (amount === 0) return;
  const by = amount & 31;
  // bits of `from` that a shift by less than 32 moves into the other half
  const down = (from: number, into: number): number =>
    by === 0 ? from : (from >>> by) | (into << (32 - by));
  if (kind === 0) {
    const up = by === 0 ? hi : (hi << by) | (lo >>> (32 - by));
    value.hi = amount >= 32 ? lo << by : up;
    value.lo = amount >= 32 ? 0 : lo << by;
  } else if (kind === 3) {
    const low = amount >= 32 ? hi : lo;
    const high = amount >= 32 ? lo : hi;
    value.lo = down(low, high);
    value.hi = down(high, low);
  } else {
    const fill = kind === 2 ? hi >> 31 : 0;
    const top = kind === 2 ? hi >> by : hi >>> by;
    value.lo = amount >= 32 ? top : down(lo, hi);
    value.hi = amount >= 32 ? fill : top;
  }
}

/** ExtendReg: UXTB .. SXTX (0..7), then left by `amount`. */
function extend(value: Pair, option: number, amount: number): void {
  const { lo } = value;
  const signed = option > 3;
  switch (option & 3) {
    case 0:
      value.lo = signed ? (lo << 24) >> 24 : lo & 0xff;
      break;
    case 1:
      value.lo = signed ? (lo << 16) >> 16 : lo & 0xffff;
      break;
    default:
  }
  if ((option & 3) !== 3) value.hi = signed ? value.lo >> 31 : 0;
  shift(value, 0, amount, true);
}

const operand: Pair = { lo: 0, hi: 0 };
const result: Pair = { lo: 0, hi: 0 };

function load(core: Core, slot: number, into: Pair): void {
  into.lo = core.lo[slot] as number;
  into.hi = core.hi[slot] as number;
}

function store(core: Core, slot: number, value: Pair, wide: boolean): void {
  core.lo[slot] = value.lo;
  core.hi[slot] = wide ? value.hi : 0;
}

/** AddWithCarry of x and y into `result`; gives NZCV. */
function addWithCarry(x: Pair, y: Pair, carry: number, wide: boolean): number {
  const low = (x.lo >>> 0) + (y.lo >>> 0) + carry;
  const lo = low | 0;
  const lowCarry = low > 0xffffffff ? 1 : 0;
  const high = (x.hi >>> 0) + (y.hi >>> 0) + lowCarry;
  const hi = high | 0;
  const [xs, ys, top] = wide ? [x.hi, y.hi, hi] : [x.lo, y.lo, lo];
  const zero = lo === 0 && (!wide || hi === 0);
  const out = wide ? (high > 0xffffffff ? 1 : 0) : lowCarry;
  result.lo = lo;
  result.hi = hi;
  const overflow = (~((xs as number) ^ (ys as number)) & ((xs as number) ^ (top as number))) >>> 31;
  return (((top as number) >>> 31) << 3) | (zero ? 4 : 0) | (out << 1) | overflow;
}

function arithmetic(core: Core, d: number, n: number, y: Pair, a: number, carryIn?: number): void {
  const wide = (a & WIDE) !== 0;
  const subtract = (a & SUBTRACT) !== 0;
  if (subtract) {
    y.lo = ~y.lo;
    y.hi = ~y.hi;
  }
  const x: Pair = { lo: core.lo[n] as number, hi: core.hi[n] as number };
  const nzcv = addWithCarry(x, y, carryIn ?? (subtract ? 1 : 0), wide);
  if ((a & FLAGS) !== 0) core.lo[NZCV_SLOT] = nzcv;
  store(core, d, result, wide);
}

function setLogicFlags(core: Core, value: Pair, wide: boolean): void {
  const zero = value.lo === 0 && (!wide || value.hi === 0);
  const top = wide ? value.hi : value.lo;
  core.lo[NZCV_SLOT] = ((top >>> 31) << 3) | (zero ? 4 : 0);
}

function logic(core: Core, d: number, n: number, m: number, a: number, b: number): void {
  const wide = (a & WIDE) !== 0;
  if ((a & LOGIC_CONSTANT) === 0) {
    load(core, m, operand);
    shift(operand, (a >> KIND_SHIFT) & 3, (a >> AMOUNT_SHIFT) & 63, wide);
    if ((a & INVERT) !== 0) {
      operand.lo = ~operand.lo;
      operand.hi = ~operand.hi;
    }
  } else {
    operand.lo = b;
    operand.hi = 0;
  }
  const kind = (a >> LOGIC_SHIFT) & 3;
  load(core, n, result);
  if (kind === 0) {
    result.lo &= operand.lo;
    result.hi &= operand.hi;
  } else if (kind === 1) {
    result.lo |= operand.lo;
    result.hi |= operand.hi;
  } else {
    result.lo ^= operand.lo;
    result.hi ^= operand.hi;
  }
  if ((a & FLAGS) !== 0) setLogicFlags(core, result, wide);
  store(core, d, result, wide);
}

/** SBFM, BFM, UBFM as a rotation, a mask and a fill. */
function bitfield(core: Core, op: number, d: number, n: number, wide: boolean, b: number): void {
  const immr = b & 63;
  const imms = (b >> 8) & 63;
  const width = wide ? 64 : 32;
  load(core, n, result);
  if (op === OP.BFM) {
    const count = BigInt(imms >= immr ? imms - immr + 1 : imms + 1);
    const mask = (1n << count) - 1n;
    const from = core.x(n);
    const old = core.x(d);
    // BFXIL takes bits imms..immr to the bottom, BFI the low bits to width - immr
    const at = imms >= immr ? 0n : BigInt(width - immr);
    const field = imms >= immr ? (from >> BigInt(immr)) & mask : from & mask;
    const merged = BigInt.asUintN(width, (old & ~(mask << at)) | (field << at));
    core.setX(d, merged);
    return;
  }
  const kind = op === OP.SBFM ? 2 : 1;
  shift(result, 0, width - 1 - imms, wide);
  if (imms >= immr) shift(result, kind, width - 1 - imms + immr, wide);
  else shift(result, kind, immr - imms - 1, wide);
  store(core, d, result, wide);
}

function multiply(core: Core, d: number, n: number, m: number, a: number, ra: number): void {
  const subtract = (a & SUBTRACT) !== 0;
  if ((a & WIDE) === 0) {
    const product = Math.imul(core.lo[n] as number, core.lo[m] as number);
    const addend = core.lo[ra] as number;
    core.lo[d] = subtract ? addend - product : addend + product;
    core.hi[d] = 0;
    return;
  }
  const long = (a & (SIGNED | INVERT)) !== 0;
  const [x, y] = [core.lo[n] as number, core.lo[m] as number];
  // 32 x 32 -> 64 in four 16-bit products
  const low = (x & 0xffff) * (y & 0xffff);
  const cross = (x >>> 16) * (y & 0xffff) + (low >>> 16);
  const cross2 = (x & 0xffff) * (y >>> 16) + (cross & 0xffff);
  const carried = Math.floor(cross / 0x10000) + Math.floor(cross2 / 0x10000);
  let hi = ((x >>> 16) * (y >>> 16) + carried) | 0;
  const lo = Math.imul(x, y);
  if (!long) {
    hi = (hi + Math.imul(core.hi[n] as number, y) + Math.imul(x, core.hi[m] as number)) | 0;
  } else if ((a & SIGNED) !== 0) {
    hi = (hi - (x < 0 ? y : 0) - (y < 0 ? x : 0)) | 0;
  }
  load(core, ra, operand);
  if (subtract) {
    const borrow = operand.lo >>> 0 < lo >>> 0 ? 1 : 0;
    core.hi[d] = operand.hi - hi - borrow;
    core.lo[d] = operand.lo - lo;
  } else {
    const sum = (operand.lo + lo) | 0;
    core.hi[d] = operand.hi + hi + (sum >>> 0 < lo >>> 0 ? 1 : 0);
    core.lo[d] = sum;
  }
}

/** Division by zero gives zero; the quotient of the least number by -1 wraps. */
function divide(core: Core, d: number, n: number, m: number, a: number): void {
  const signed = (a & SIGNED) !== 0;
  if ((a & WIDE) === 0) {
    const [x, y] = [core.lo[n] as number, core.lo[m] as number];
    if (y === 0) core.lo[d] = 0;
    else core.lo[d] = signed ? x / y : (x >>> 0) / (y >>> 0);
    core.hi[d] = 0;
    return;
  }
  if (core.hi[n] === 0 && core.hi[m] === 0) {
    const y = (core.lo[m] as number) >>> 0;
    core.lo[d] = y === 0 ? 0 : ((core.lo[n] as number) >>> 0) / y;
    core.hi[d] = 0;
    return;
  }
  const [x, y] = signed
    ? [BigInt.asIntN(64, core.x(n)), BigInt.asIntN(64, core.x(m))]
    : [core.x(n), core.x(m)];
  core.setX(d, (y as bigint) === 0n ? 0n : (x as bigint) / (y as bigint));
}

function reverseBytes(word: number): number {
  return (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);
}

function reverseBits(word: number): number {
  let x = reverseBytes(word);
  x = ((x >>> 4) & 0x0f0f0f0f) | ((x & 0x0f0f0f0f) << 4);
  x = ((x >>> 2) & 0x33333333) | ((x & 0x33333333) << 2);
  return ((x >>> 1) & 0x55555555) | ((x & 0x55555555) << 1);
}

function swapBytePairs(word: number): number {
  return ((word >>> 8) & 0x00ff00ff) | ((word & 0x00ff00ff) << 8);
}

function leadingZeros(lo: number, hi: number, wide: boolean): number {
  if (!wide) return Math.clz32(lo);
  return hi === 0 ? 32 + Math.clz32(lo) : Math.clz32(hi);
}

function reverse(core: Core, d: number, n: number, kind: number, wide: boolean): void {
  const { lo, hi } = { lo: core.lo[n] as number, hi: core.hi[n] as number };
  switch (kind) {
    case 0: // RBIT
      result.lo = reverseBits(wide ? hi : lo);
      result.hi = reverseBits(lo);
      break;
    case 1: // REV16
      result.lo = swapBytePairs(lo);
      result.hi = swapBytePairs(hi);
      break;
    case 2: // REV32
      result.lo = reverseBytes(lo);
      result.hi = reverseBytes(hi);
      break;
    case 3: // REV
      result.lo = reverseBytes(hi);
      result.hi = reverseBytes(lo);
      break;
    case 4: // CLZ
      result.lo = leadingZeros(lo, hi, wide);
      result.hi = 0;
      break;
    default: {
      // CLS: zeros above the highest bit that differs from its upper neighbour
      const sign = (wide ? hi : lo) >> 31;
      result.lo = leadingZeros(lo ^ sign, hi ^ sign, wide) - 1;
      result.hi = 0;
    }
  }
  store(core, d, result, wide);
}

function crc(core: Core, d: number, n: number, m: number, size: number, polynomial: number): void {
  let sum = core.lo[n] as number;
  for (let byte = 0; byte < 1 << size; byte++) {
    const from = (byte < 4 ? core.lo[m] : core.hi[m]) as number;
    sum ^= (from >>> (8 * (byte & 3))) & 0xff;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ ((sum & 1) === 1 ? polynomial : 0);
  }
  core.lo[d] = sum;
  core.hi[d] = 0;
}

export function executeData(core: Core, records: Int32Array, at: number): number {
  const head = records[at] as number;
  const a = records[at + 1] as number;
  const b = records[at + 2] as number;
  const op = head & 255;
  const d = (head >>> 8) & 63;
  const n = (head >>> 16) & 63;
  const m = head >>> 24;
  const wide = (a & WIDE) !== 0;
  switch (op) {
    case OP.ARITH_SHIFTED:
      load(core, m, operand);
      shift(operand, (a >> KIND_SHIFT) & 3, (a >> AMOUNT_SHIFT) & 63, wide);
      arithmetic(core, d, n, operand, a);
      break;
    case OP.ARITH_EXTENDED:
      load(core, m, operand);
      extend(operand, (a >> KIND_SHIFT) & 7, (a >> AMOUNT_SHIFT) & 7);
      arithmetic(core, d, n, operand, a);
      break;
    case OP.ARITH_CARRY:
      load(core, m, operand);
      arithmetic(core, d, n, operand, a, ((core.lo[NZCV_SLOT] as number) >> 1) & 1);
      break;
    case OP.ARITH_IMMEDIATE:
      operand.lo = b;
      operand.hi = 0;
      arithmetic(core, d, n, operand, a);
      break;
    case OP.LOGIC_SHIFTED:
      logic(core, d, n, m, a, b);
      break;
    case OP.TEST_IMMEDIATE:
      result.lo = (core.lo[n] as number) & a;
      result.hi = (core.hi[n] as number) & b;
      setLogicFlags(core, result, m === 1);
      store(core, d, result, m === 1);
      break;
    case OP.SBFM:
    case OP.BFM:
    case OP.UBFM:
      bitfield(core, op, d, n, wide, b);
      break;
    case OP.EXTRACT:
      extract(core, d, n, m, wide, b);
      break;
    case OP.SELECT:
      select(core, d, n, m, a, b);
      break;
    case OP.COMPARE:
      compare(core, n, m, a, b);
      break;
    case OP.MULTIPLY:
      multiply(core, d, n, m, a, b);
      break;
    case OP.MULTIPLY_HIGH: {
      const width = (a & SIGNED) !== 0 ? BigInt.asIntN : BigInt.asUintN;
      const product = (width(64, core.x(n)) * width(64, core.x(m))) >> 64n;
      core.lo[d] = low32(product);
      core.hi[d] = high32(product);
      break;
    }
    case OP.DIVIDE:
      divide(core, d, n, m, a);
      break;
    case OP.SHIFT:
      load(core, n, result);
      shift(result, (a >> KIND_SHIFT) & 3, (core.lo[m] as number) & (wide ? 63 : 31), wide);
      store(core, d, result, wide);
      break;
    case OP.REVERSE:
      reverse(core, d, n, (a >> KIND_SHIFT) & 7, wide);
      break;
    case OP.CRC:
      crc(core, d, n, m, a, b);
      break;
    default:
      throw new RangeError(`data operation ${op}`);
  }
  return NEXT;
}

function extract(core: Core, d: number, n: number, m: number, wide: boolean, lsb: number): void {
  const low = join64(core.lo[m] as number, core.hi[m] as number);
  const high = join64(core.lo[n] as number, core.hi[n] as number);
  const width = wide ? 64n : 32n;
  const both = (high << width) | BigInt.asUintN(Number(width), low);
  core.setX(d, BigInt.asUintN(Number(width), both >> BigInt(lsb)));
}

function select(core: Core, d: number, n: number, m: number, a: number, mask: number): void {
  const wide = (a & WIDE) !== 0;
  if (((mask >>> (core.lo[NZCV_SLOT] as number)) & 1) === 1) {
    load(core, n, result);
  } else {
    load(core, m, result);
    if ((a & INVERT) !== 0) {
      result.lo = ~result.lo;
      result.hi = ~result.hi;
    }
    if ((a & INCREMENT) !== 0) {
      result.lo = (result.lo + 1) | 0;
      if (result.lo === 0) result.hi = (result.hi + 1) | 0;
    }
  }
  store(core, d, result, wide);
}

function compare(core: Core, n: number, m: number, a: number, mask: number): void {
  if (((mask >>> (core.lo[NZCV_SLOT] as number)) & 1) === 0) {
    core.lo[NZCV_SLOT] = (a >> KIND_SHIFT) & 15;
    return;
  }
  if ((a & INVERT) !== 0) {
    operand.lo = (a >> AMOUNT_SHIFT) & 31;
    operand.hi = 0;
  } else {
    load(core, m, operand);
  }
  const subtract = (a & SUBTRACT) !== 0;
  if (subtract) {
    operand.lo = ~operand.lo;
    operand.hi = ~operand.hi;
  }
  load(core, n, result);
  const x: Pair = { lo: result.lo, hi: result.hi };
  core.lo[NZCV_SLOT] = addWithCarry(x, operand, subtract ? 1 : 0, (a & WIDE) !== 0);
}

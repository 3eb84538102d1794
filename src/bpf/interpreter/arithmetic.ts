/**
 * The 64-bit operations that take more than a line on (lo, hi) pairs of Int32: multiplication,
 * division, byte swaps, sign extension.
 *
 * `words` is the interpreter's array; `d` and `s` are indexes of the operand pairs. Division by zero
 * gives 0, modulo by zero leaves dst (RFC 9669 section 4.1); the most negative number divided by -1
 * is itself.
 */
import { OPERATION } from './link.js';

/** dst = dst / src or dst % src, unsigned. */
function divide64(words: Int32Array, d: number, s: number, wantRemainder: boolean): void {
  const aLo = (words[d] as number) >>> 0;
  const aHi = (words[d + 1] as number) >>> 0;
  const bLo = (words[s] as number) >>> 0;
  const bHi = (words[s + 1] as number) >>> 0;
  if (bLo === 0 && bHi === 0) {
    if (!wantRemainder) words[d] = words[d + 1] = 0;
    return;
  }
  if (aHi < 0x20_0000 && bHi < 0x20_0000) {
    // both below 2^53: the quotient of doubles rounds to the right integer
    const a = aHi * 0x1_0000_0000 + aLo;
    const b = bHi * 0x1_0000_0000 + bLo;
    const result = wantRemainder ? a % b : Math.floor(a / b);
    words[d] = result | 0;
    words[d + 1] = (result / 0x1_0000_0000) | 0;
    return;
  }
  const a = (BigInt(aHi) << 32n) | BigInt(aLo);
  const b = (BigInt(bHi) << 32n) | BigInt(bLo);
  put(words, d, wantRemainder ? a % b : a / b);
}

/** What the loop leaves to others of the operations that do not touch memory. */
export function rareOperation(words: Int32Array, operation: number, d: number, s: number): void {
  switch (operation) {
    case OPERATION.DIV64:
    case OPERATION.MOD64:
      divide64(words, d, s, operation === OPERATION.MOD64);
      return;
    case OPERATION.SDIV64:
    case OPERATION.SMOD64: {
      const a = signed64(words, d);
      const b = signed64(words, s);
      if (operation === OPERATION.SDIV64) put(words, d, b === 0n ? 0n : a / b);
      else if (b !== 0n) put(words, d, a % b);
      return;
    }
    case OPERATION.SDIV32:
    case OPERATION.SMOD32: {
      const a = words[d] as number;
      const b = words[s] as number;
      if (operation === OPERATION.SDIV32) words[d] = b === 0 ? 0 : (a / b) | 0;
      else if (b !== 0) words[d] = (a % b) | 0;
      words[d + 1] = 0;
      return;
    }
    case OPERATION.SDIV32_INT:
    case OPERATION.SMOD32_INT:
      divideByAbs(words, d, s, operation === OPERATION.SMOD32_INT);
      return;
    case OPERATION.SWAP64: {
      const lo = swap32(words[d] as number);
      words[d] = swap32(words[d + 1] as number);
      words[d + 1] = lo;
      return;
    }
    default:
      throw new RangeError(`no operation 0x${operation.toString(16)}`);
  }
}

/** SDIV32 or SMOD32 by do_div() of abs() in 64 bits, with what abs() makes of the most negative int. */
function divideByAbs(words: Int32Array, d: number, s: number, wantRemainder: boolean): void {
  const a = words[d] as number;
  const b = words[s] as number;
  words[d + 1] = 0;
  if (b === 0) {
    if (!wantRemainder) words[d] = 0;
    return;
  }
  // abs() of an int, | 0 as it overflows; the dividend becomes a u64, the divisor a u32
  const dividend = BigInt.asUintN(64, BigInt(Math.abs(a) | 0));
  const divisor = BigInt(Math.abs(b));
  const magnitude = wantRemainder ? dividend % divisor : dividend / divisor;
  const isNegative = wantRemainder ? a < 0 : a < 0 !== b < 0;
  words[d] = Number(BigInt.asIntN(32, isNegative ? -magnitude : magnitude));
}

/** Bytes of a 32-bit word in reverse order. */
function swap32(value: number): number {
  return (value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24);
}

function signed64(words: Int32Array, index: number): bigint {
  return (BigInt(words[index + 1] as number) << 32n) | BigInt((words[index] as number) >>> 0);
}

function put(words: Int32Array, index: number, value: bigint): void {
  words[index] = Number(BigInt.asIntN(32, value));
  words[index + 1] = Number(BigInt.asIntN(32, value >> 32n));
}

/**
 * Byte and number helpers that every floor uses: hex text, 64-bit halves, alignment.
 *
 * 64-bit values are `bigint` at the edges and (lo, hi) pairs of Int32 inside hot loops.
 */
import { InputError } from './errors.js';

// storing a BigInt into a typed array cuts it to 64 bits without making another BigInt
const SCRATCH = new BigInt64Array(1);
const HALVES = new Int32Array(SCRATCH.buffer);

/** The low 32 bits of `value` as an Int32. */
export function low32(value: bigint): number {
  SCRATCH[0] = value;
  return HALVES[0] as number;
}

/** The high 32 bits of the 64-bit `value` as an Int32. */
export function high32(value: bigint): number {
  SCRATCH[0] = value;
  return HALVES[1] as number;
}

/** The unsigned 64-bit value of two halves. */
export function join64(lo: number, hi: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

export function u64(value: bigint): bigint {
  return BigInt.asUintN(64, value);
}

export function s64(value: bigint): bigint {
  return BigInt.asIntN(64, value);
}

/** `value` rounded up to a multiple of `alignment` (a power of two). */
export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

/** `0x` and 16 hex digits, as an oops prints a register. */
export function hex64(value: bigint): string {
  return `0x${u64(value).toString(16).padStart(16, '0')}`;
}

/** Eight hex digits of a 32-bit word. */
export function hex32(word: number): string {
  return (word >>> 0).toString(16).padStart(8, '0');
}

export function bytesToHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

/** Bytes of hex text; spaces and an `0x` prefix are accepted. Throws `InputError` on anything else. */
export function hexToBytes(text: string): Uint8Array {
  const digits = text.replace(/\s+/g, '').replace(/^0x/i, '');
  if (digits.length % 2 !== 0) throw new InputError(`odd number of hex digits (${digits.length})`);
  const bad = digits.search(/[^0-9a-fA-F]/);
  if (bad >= 0) throw new InputError(`'${digits[bad]}' at position ${bad} is not a hex digit`);
  const bytes = new Uint8Array(digits.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(digits.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** A view of the same bytes for multi-byte reads and writes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * The same bytes as a plain Uint8Array. What Node reads is a Buffer, whose `slice` does not copy:
 * readers of files call this first.
 */
export function plainBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

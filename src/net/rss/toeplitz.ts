/**
 * The Toeplitz hash: XOR of those 32-bit windows of a key whose data bit is set.
 *
 * Reference: Microsoft, "RSS hashing functions"; virtio 1.4 "Hash calculation". Bits count from the
 * most significant one of byte 0; behind its end a key is all zeros. The hash is linear, so the bytes
 * of an input may come in pieces: each byte at each position contributes a word of its own, which
 * a table of 256 per position holds. Results are unsigned.
 *
 * Usage:
 *   const key = new ToeplitzKey(MICROSOFT_KEY);
 *   key.hash(addressesAndPorts);
 *   key.mix(key.mix(0, 0, addresses, 0, 8), 8, ports, 0, 4) >>> 0;    // the same in pieces
 */
import { hexToBytes } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';

/** The key of "Verifying the RSS hash calculation", and the default of many drivers. */
export const MICROSOFT_KEY: Readonly<Uint8Array> = hexToBytes(
  '6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa',
);

/** A key of period 16 bits: both directions of a flow have the same hash. */
export const SYMMETRIC_KEY: Readonly<Uint8Array> = hexToBytes('6d5a'.repeat(20));

const NAMED_KEYS: Readonly<Record<string, Readonly<Uint8Array>>> = {
  microsoft: MICROSOFT_KEY,
  symmetric: SYMMETRIC_KEY,
};

/** A key by name or as hex digits; colons between bytes, as ethtool prints them, are accepted. */
export function parseKey(text: string): Uint8Array {
  const named = NAMED_KEYS[text];
  if (named) return Uint8Array.from(named);
  let key: Uint8Array;
  try {
    key = hexToBytes(text.replaceAll(':', ''));
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new InputError(`key: ${error.message} (or microsoft, symmetric)`);
  }
  if (key.length === 0) throw new InputError('key: no bytes');
  return key;
}

/** Bytes of input that every type of virtio's fits: two IPv6 addresses and two ports. */
const USUAL_BYTES = 36;

export class ToeplitzKey {
  readonly bytes: Uint8Array;
  /** 256 words for each position of a data byte. */
  #words: Int32Array;

  constructor(bytes: Readonly<Uint8Array>) {
    this.bytes = Uint8Array.from(bytes);
    this.#words = tableOf(this.bytes, USUAL_BYTES);
  }

  /** The hash of `length` bytes of `data` from `from` on. */
  hash(data: Uint8Array, from = 0, length = data.length - from): number {
    return this.mix(0, 0, data, from, length) >>> 0;
  }

  /**
   * `hash` with bytes mixed in that stand at `position` of the input; start with 0. The result is
   * signed, so that it stays a small integer: `>>> 0` at the end.
   */
  mix(hash: number, position: number, data: Uint8Array, from: number, length: number): number {
    if (position + length > this.#words.length >>> 8) this.#grow(position + length);
    const words = this.#words;
    const end = from + length;
    let mixed = hash;
    let row = position << 8;
    let at = from;
    // four at a time: inputs are whole addresses and ports
    for (; at + 4 <= end; at += 4, row += 1024) {
      mixed ^= words[row + (data[at] as number)] as number;
      mixed ^= words[row + 256 + (data[at + 1] as number)] as number;
      mixed ^= words[row + 512 + (data[at + 2] as number)] as number;
      mixed ^= words[row + 768 + (data[at + 3] as number)] as number;
    }
    for (; at < end; at++, row += 256) mixed ^= words[row + (data[at] as number)] as number;
    return mixed;
  }

  #grow(positions: number): void {
    this.#words = tableOf(this.bytes, 2 * positions);
  }
}

/** Key bits [8 * at, 8 * at + 32). */
function wordAt(key: Uint8Array, at: number): number {
  let word = 0;
  for (let i = 0; i < 4; i++) word = (word << 8) | (key[at + i] ?? 0);
  return word;
}

function tableOf(key: Uint8Array, positions: number): Int32Array {
  const words = new Int32Array(256 * positions);
  for (let position = 0; position < positions; position++) {
    const word = wordAt(key, position);
    const next = key[position + 4] ?? 0;
    const row = 256 * position;
    for (let bit = 0; bit < 8; bit++) {
      // the window of data bit `bit`, counted from the top, is that of value 0x80 >> bit
      const window = bit === 0 ? word : (word << bit) | (next >>> (8 - bit));
      const value = 0x80 >>> bit;
      words[row + value] = window;
    }
    for (let value = 1; value < 256; value++) {
      const lowest = value & -value;
      if (value === lowest) continue;
      const rest = words[row + (value ^ lowest)] as number;
      words[row + value] = rest ^ (words[row + lowest] as number);
    }
  }
  return words;
}

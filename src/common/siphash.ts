/**
 * SipHash-2-4: the kernel's keyed hash of short inputs.
 *
 * Reference: Aumasson and Bernstein, "SipHash: a fast short-input PRF"; lib/siphash.c.
 *
 * Usage:
 *   siphash(hexToBytes('0001'), [0x0706050403020100n, 0x0f0e0d0c0b0a0908n]); // a u64
 */
import { u64, viewOf } from './bytes.js';

/** Two u64 in the order of memory. */
export type SiphashKey = readonly [bigint, bigint];

const rotate = (x: bigint, bits: bigint): bigint => u64(x << bits) | (x >> (64n - bits));

/** v0..v3 */
type State = [bigint, bigint, bigint, bigint];

function rounds(v: State, count: number): void {
  for (let i = 0; i < count; i++) {
    v[0] = u64(v[0] + v[1]);
    v[1] = rotate(v[1], 13n) ^ v[0];
    v[0] = rotate(v[0], 32n);
    v[2] = u64(v[2] + v[3]);
    v[3] = rotate(v[3], 16n) ^ v[2];
    v[0] = u64(v[0] + v[3]);
    v[3] = rotate(v[3], 21n) ^ v[0];
    v[2] = u64(v[2] + v[1]);
    v[1] = rotate(v[1], 17n) ^ v[2];
    v[2] = rotate(v[2], 32n);
  }
}

export function siphash(data: Uint8Array, [k0, k1]: SiphashKey): bigint {
  const v: State = [
    k0 ^ 0x736f6d6570736575n,
    k1 ^ 0x646f72616e646f6dn,
    k0 ^ 0x6c7967656e657261n,
    k1 ^ 0x7465646279746573n,
  ];
  // the last word has what is left over, and the length on top
  const words = new Uint8Array((Math.floor(data.length / 8) + 1) * 8);
  words.set(data);
  words[words.length - 1] = data.length;
  const view = viewOf(words);
  for (let at = 0; at < words.length; at += 8) {
    const word = view.getBigUint64(at, true);
    v[3] ^= word;
    rounds(v, 2);
    v[0] ^= word;
  }
  v[2] ^= 0xffn;
  rounds(v, 4);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/**
 * The kernel's jhash and jhash2 (Bob Jenkins' lookup3): include/linux/jhash.h.
 *
 * Usage:
 *   jhash(view, offset, 13, seed); // u32
 */

const JHASH_INITVAL = 0xdeadbeef;

const rotate = (value: number, by: number): number => (value << by) | (value >>> (32 - by));

/** Hash of `size` bytes at `offset`; for a multiple of 4 the same as jhash2 of its little-endian words. */
export function jhash(view: DataView, offset: number, size: number, seed: number): number {
  let a = (JHASH_INITVAL + size + seed) | 0;
  let b = a;
  let c = a;
  let at = offset;
  let left = size;
  while (left > 12) {
    a = (a + view.getInt32(at, true)) | 0;
    b = (b + view.getInt32(at + 4, true)) | 0;
    c = (c + view.getInt32(at + 8, true)) | 0;
    a = (a - c) ^ rotate(c, 4);
    c = (c + b) | 0;
    b = (b - a) ^ rotate(a, 6);
    a = (a + c) | 0;
    c = (c - b) ^ rotate(b, 8);
    b = (b + a) | 0;
    a = (a - c) ^ rotate(c, 16);
    c = (c + b) | 0;
    b = (b - a) ^ rotate(a, 19);
    a = (a + c) | 0;
    c = (c - b) ^ rotate(b, 4);
    b = (b + a) | 0;
    at += 12;
    left -= 12;
  }
  if (left === 0) return c >>> 0;
  const word = (first: number): number => {
    let value = 0;
    for (let i = first; i < Math.min(first + 4, left); i++) {
      value |= view.getUint8(at + i) << (8 * (i - first));
    }
    return value;
  };
  a = (a + word(0)) | 0;
  b = (b + word(4)) | 0;
  c = (c + word(8)) | 0;
  c = ((c ^ b) - rotate(b, 14)) | 0;
  a = ((a ^ c) - rotate(c, 11)) | 0;
  b = ((b ^ a) - rotate(a, 25)) | 0;
  c = ((c ^ b) - rotate(b, 16)) | 0;
  a = ((a ^ c) - rotate(c, 4)) | 0;
  b = ((b ^ a) - rotate(a, 14)) | 0;
  c = ((c ^ b) - rotate(b, 24)) | 0;
  return c >>> 0;
}

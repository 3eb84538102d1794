/**
 * The Internet checksum: ones-complement sums of 16-bit big-endian words.
 *
 * Reference: RFC 1071, RFC 1624 (incremental update), RFC 768/9293/8200 §8.1 (pseudo-headers),
 * lib/checksum.c. A *partial* field is what a sender leaves for the device to complete
 * (CHECKSUM_PARTIAL): the folded pseudo-header sum, not complemented. A *complete* field is the
 * complement of pseudo-header plus L4 bytes. Sums stay below 2^53, so they never lose a carry before
 * the fold.
 *
 * Usage:
 *   const pseudo = pseudoHeaderSum(source, destination, 17, udp.length);
 *   const partial = fold(pseudo);
 *   const complete = completeChecksum(pseudo, udp, 17);
 */

/** Sum of the 16-bit big-endian words of `bytes`; an odd last byte is the high half of a word. */
export function sumWords(bytes: Uint8Array, start = 0): number {
  let sum = start;
  const even = bytes.length & ~1;
  for (let i = 0; i < even; i += 2) {
    sum += ((bytes[i] as number) << 8) | (bytes[i + 1] as number);
  }
  if (even < bytes.length) sum += (bytes[even] as number) << 8;
  return sum;
}

/** Adds the carries until 16 bits are left. */
export function fold(sum: number): number {
  let rest = sum;
  while (rest > 0xffff) rest = (rest % 0x10000) + Math.floor(rest / 0x10000);
  return rest;
}

/**
 * Sum over the pseudo-header. IPv4 (4-byte addresses): source, destination, {0, protocol}, 16-bit
 * length. IPv6 (16-byte addresses): source, destination, 32-bit length, {0, 0, 0, next header}.
 */
export function pseudoHeaderSum(
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  length: number,
): number {
  const addresses = sumWords(destination, sumWords(source));
  return addresses + protocol + (length & 0xffff) + (length >>> 16);
}

/** What CHECKSUM_PARTIAL leaves in the checksum field. */
export function partialChecksum(pseudoSum: number): number {
  return fold(pseudoSum);
}

const UDP = 17;

/**
 * The finished L4 checksum. `segment` holds the L4 header and payload with a zero checksum field.
 * UDP sends 0 as 0xffff, because 0 means "no checksum" there.
 */
export function completeChecksum(pseudoSum: number, segment: Uint8Array, protocol: number): number {
  const checksum = ~fold(sumWords(segment, pseudoSum)) & 0xffff;
  return checksum === 0 && protocol === UDP ? 0xffff : checksum;
}

/** The checksum of bytes whose field is zero: IPv4 headers, ICMP. */
export function internetChecksum(bytes: Uint8Array): number {
  return ~fold(sumWords(bytes)) & 0xffff;
}

/** Whether an L4 segment with its field filled in is right. */
export function checksumHolds(pseudoSum: number, segment: Uint8Array): boolean {
  return fold(sumWords(segment, pseudoSum)) === 0xffff;
}

/** A checksum after one 16-bit word of the data changed: HC' = ~(~HC + ~m + m') (RFC 1624, eqn 3). */
export function updateChecksum(checksum: number, before: number, after: number): number {
  return ~fold((~checksum & 0xffff) + (~before & 0xffff) + (after & 0xffff)) & 0xffff;
}

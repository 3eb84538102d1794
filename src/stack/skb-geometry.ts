/**
 * Sizes that skbs and the drivers that build them share.
 *
 * Reference: include/linux/skbuff.h, if_ether.h; 64-bit, 4 KiB pages, 64-byte cache lines.
 */
export const ETH_HLEN = 14;
export const MAX_SKB_FRAGS = 17;
const SMP_CACHE_BYTES = 64;

/** `SKB_DATA_ALIGN`. */
export function skbDataAlign(bytes: number): number {
  return (bytes + SMP_CACHE_BYTES - 1) & -SMP_CACHE_BYTES;
}

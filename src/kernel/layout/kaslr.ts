/**
 * How far KASLR moves the kernel image from KIMAGE_VADDR.
 *
 *   masked (to 6.8)   2^(VA_BITS-3) + (seed & (2^(VA_BITS-2) - 1))       48-bit VA: [32 TiB, 96 TiB)
 *   scaled (6.9)      range/2 + range * seed / 2^64, range = half of vmalloc: [31.5 TiB, 94.5 TiB)
 *
 * in steps of MIN_KIMG_ALIGN (2 MiB); what physical memory's offset in such a step is, the virtual one is too.
 *
 * Reference: kaslr_early_init in arch/arm64/kernel/kaslr.c, kernel/pi/kaslr_early.c; kernel/head.S.
 * Left out: the linear map, which KASLR moves too, by the memory's size.
 */
import { Random } from '../../common/random.js';
import type { AddressMap } from './address-map.js';
import type { LayoutProfile } from './profile.js';

/** MIN_KIMG_ALIGN. */
export const KASLR_GRANULE = 2n << 20n;

/** @param seed `/chosen/kaslr-seed`, 64 bits */
export function kaslrOffset(profile: LayoutProfile, map: AddressMap, seed: bigint): bigint {
  const offset = wholeOffset(profile, map, BigInt.asUintN(64, seed));
  return offset - (offset % KASLR_GRANULE);
}

function wholeOffset(profile: LayoutProfile, map: AddressMap, seed: bigint): bigint {
  switch (profile.kaslr) {
    case 'masked': {
      const bits = BigInt(map.vaBits);
      return (1n << (bits - 3n)) + BigInt.asUintN(map.vaBits - 2, seed);
    }
    case 'scaled': {
      const range = (map.vmalloc.end - map.kimage) / 2n;
      return range / 2n + ((range * seed) >> 64n);
    }
  }
}

/** The random numbers that the kernel draws later, for a layout that its seed alone decides. */
export function laterRandom(seed: bigint): Random {
  const folded = BigInt.asUintN(32, seed ^ (seed >> 32n));
  return new Random(Number(folded));
}

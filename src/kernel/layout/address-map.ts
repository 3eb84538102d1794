/**
 * The arm64 kernel's address map of a version, 4 KiB pages: the regions that are fixed at build time.
 *
 *   PAGE_OFFSET = -(1 << VA_BITS)          linear map up to PAGE_END
 *   PAGE_END = -(1 << (VA_BITS - 1))       [128 MiB for BPF images, up to 5.16]
 *   MODULES_VADDR                          128 MiB, since 6.5 2 GiB
 *   KIMAGE_VADDR = VMALLOC_START           the image without KASLR; all of vmalloc
 *   VMALLOC_END                            256 MiB below vmemmap, since 6.9 8 MiB
 *   VMEMMAP_START                          64 bytes for each page of the linear map
 *
 * Reference: arch/arm64/include/asm/memory.h, pgtable.h. Left out: fixmap, PCI I/O, KASAN shadow, user space.
 */
import { u64 } from '../../common/bytes.js';
import type { LayoutProfile } from './profile.js';

const MiB = 1n << 20n;
const GiB = 1n << 30n;
const PAGE_SHIFT = 12n;
/** log2 of sizeof(struct page). */
const STRUCT_PAGE_SHIFT = 6n;
/** BPF_JIT_REGION_SIZE. */
const BPF_REGION_SIZE = 128n * MiB;

export const VA_BITS = [39, 48] as const;
export type VaBits = (typeof VA_BITS)[number];

/** Addresses [start, end). */
export interface Window {
  readonly start: bigint;
  readonly end: bigint;
}

export interface AddressMap {
  readonly vaBits: VaBits;
  readonly linear: Window;
  /** Where there is one. */
  readonly bpfRegion: Window | undefined;
  readonly modules: Window;
  /** KIMAGE_VADDR. */
  readonly kimage: bigint;
  readonly vmalloc: Window;
  readonly vmemmap: Window;
}

export function addressMap(profile: LayoutProfile, vaBits: VaBits = 48): AddressMap {
  const bits = BigInt(vaBits);
  const pageOffset = u64(-(1n << bits));
  const pageEnd = u64(-(1n << (bits - 1n)));
  const bpfRegion =
    profile.bpf === 'region' ? { start: pageEnd, end: pageEnd + BPF_REGION_SIZE } : undefined;
  const modulesStart = bpfRegion?.end ?? pageEnd;
  const kimage = modulesStart + profile.modulesSize;
  const { vmemmap, gap } = vmemmapOf(profile, pageOffset, pageEnd, bits);
  return {
    vaBits,
    linear: { start: pageOffset, end: pageEnd },
    bpfRegion,
    modules: { start: modulesStart, end: kimage },
    kimage,
    vmalloc: { start: kimage, end: vmemmap.start - gap },
    vmemmap,
  };
}

/** vmemmap, and what lies between vmalloc space and it. */
function vmemmapOf(
  profile: LayoutProfile,
  pageOffset: bigint,
  pageEnd: bigint,
  bits: bigint,
): { readonly vmemmap: Window; readonly gap: bigint } {
  const size = ((pageEnd - pageOffset) >> PAGE_SHIFT) << STRUCT_PAGE_SHIFT;
  switch (profile.vmemmap) {
    case 'power of two': {
      const start = u64(-(1n << (bits - (PAGE_SHIFT - STRUCT_PAGE_SHIFT))));
      return { vmemmap: { start, end: start + size }, gap: 256n * MiB };
    }
    case 'exact': {
      const end = u64(-GiB);
      return { vmemmap: { start: end - size, end }, gap: 8n * MiB };
    }
  }
}

/**
 * The arm64 kernel address map, 48-bit VA, 4 KiB pages, as Linux 6.12 lays it out.
 *
 * Reference: arch/arm64/include/asm/memory.h, arch/arm64/kernel/pi/kaslr_early.c (6.12). The kernel
 * image, the BPF images and all vmalloc users share [VMALLOC_START, VMALLOC_END); without KASLR the
 * image sits at its start, so what is allocated first lies within BL range of the kernel text.
 * Left out: modules, the fixmap, vmemmap.
 */

const MiB = 1n << 20n;

export const PAGE_OFFSET = 0xffff000000000000n;
/** Also VMALLOC_START and MODULES_END. */
export const KIMAGE_VADDR = 0xffff800080000000n;
export const VMALLOC_END = 0xfffffdffbf800000n;
/** MIN_KIMG_ALIGN: what KASLR moves the image by. */
const KASLR_GRANULE = 2n * MiB;

/** Offsets inside the kernel image; the sizes are those of a Debian 6.12 arm64 image, rounded. */
const STEXT_OFFSET = 0x10000n;
const ETEXT_OFFSET = 0xe00000n;
const IMAGE_SIZE = 0x1e00000n;

export interface LayoutOptions {
  /** 64-bit KASLR seed; undefined: `nokaslr`. */
  readonly kaslrSeed?: bigint | undefined;
  /**
   * Where the linear map begins. Default: PAGE_OFFSET of 48-bit VA. 0xfff0000000000000 is that of 52-bit VA;
   * with KASAN's tags in the top byte it is where tagged objects are.
   */
  readonly pageOffset?: bigint;
}

export interface Layout {
  /** `_text`: start of the image. */
  readonly text: bigint;
  /** `_stext`: first executable byte. */
  readonly stext: bigint;
  /** `_etext`: end of executable text; kernel data follows. */
  readonly etext: bigint;
  /** `_end` of the image. */
  readonly end: bigint;
  readonly vmallocStart: bigint;
  readonly vmallocEnd: bigint;
  /** First address of the linear map that the lab's RAM occupies. */
  readonly linear: bigint;
}

/** Distance of the image from KIMAGE_VADDR under KASLR: the upper half of the middle of vmalloc. */
function kaslrOffset(seed: bigint): bigint {
  const range = (VMALLOC_END - KIMAGE_VADDR) / 2n;
  const offset = range / 2n + ((range * BigInt.asUintN(64, seed)) >> 64n);
  return offset - (offset % KASLR_GRANULE);
}

export function layoutOf(options: LayoutOptions = {}): Layout {
  const offset = options.kaslrSeed === undefined ? 0n : kaslrOffset(options.kaslrSeed);
  const text = KIMAGE_VADDR + offset;
  return {
    text,
    stext: text + STEXT_OFFSET,
    etext: text + ETEXT_OFFSET,
    end: text + IMAGE_SIZE,
    vmallocStart: KIMAGE_VADDR,
    vmallocEnd: VMALLOC_END,
    linear: options.pageOffset ?? PAGE_OFFSET,
  };
}

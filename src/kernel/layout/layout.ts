/**
 * Where a kernel's image, its modules and its BPF images are: a pure function of version and KASLR seed.
 *
 * Without KASLR the image sits at the start of vmalloc space, so what is allocated first lies within BL range
 * of the kernel text; with it the image is tens of TiB away from there.
 *
 * Usage:
 *   const layout = layoutOf({ version: '6.1', kaslrSeed: 0x1234n });
 *   const space = kernelSpace(layout, { used: 100 << 20 }); // address-space.ts: who takes what
 */
import { addressMap, type AddressMap, type VaBits, type Window } from './address-map.js';
import { KASLR_GRANULE, kaslrOffset, laterRandom } from './kaslr.js';
import { moduleWindows, type ImageBounds } from './module-windows.js';
import { LAYOUT_PROFILES, type LayoutProfile, type LayoutVersion } from './profile.js';

/** Offsets inside the kernel image; the sizes are those of a Debian 6.12 arm64 image, rounded. */
const STEXT_OFFSET = 0x10000n;
const ETEXT_OFFSET = 0xe00000n;
const IMAGE_SIZE = 0x1e00000n;

export interface LayoutOptions {
  /** Default 6.12. */
  readonly version?: LayoutVersion;
  /** Default 48. */
  readonly vaBits?: VaBits;
  /** 64-bit KASLR seed; undefined: `nokaslr`. */
  readonly kaslrSeed?: bigint | undefined;
  /** CONFIG_RANDOMIZE_MODULE_REGION_FULL; says something with KASLR only. Default false. */
  readonly fullModuleRegion?: boolean;
  /** Physical address of the image: with KASLR its offset in 2 MiB is the virtual one's too. Default 0. */
  readonly physicalBase?: bigint;
  /** Bytes from _text to _end. Default 30 MiB. */
  readonly imageSize?: bigint;
  /**
   * Where the linear map begins. Default: PAGE_OFFSET of VA_BITS. 0xfff0000000000000 is that of 52-bit VA;
   * with KASAN's tags in the top byte it is where tagged objects are.
   */
  readonly pageOffset?: bigint;
}

export interface Layout extends ImageBounds {
  readonly profile: LayoutProfile;
  readonly map: AddressMap;
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
  /** In the order in which the module allocator tries them. */
  readonly moduleWindows: readonly Window[];
  /** Where BPF images may lie. */
  readonly bpfWindow: Window;
}

export function layoutOf(options: LayoutOptions = {}): Layout {
  const profile = LAYOUT_PROFILES[options.version ?? '6.12'];
  const map = addressMap(profile, options.vaBits);
  const seed = options.kaslrSeed;
  const low = (options.physicalBase ?? 0n) % KASLR_GRANULE;
  const offset = seed === undefined ? 0n : kaslrOffset(profile, map, seed) + low;
  const text = map.kimage + offset;
  const image: ImageBounds = {
    text,
    stext: text + STEXT_OFFSET,
    etext: text + ETEXT_OFFSET,
    end: text + (options.imageSize ?? IMAGE_SIZE),
  };
  const random = seed === undefined ? undefined : laterRandom(seed);
  return {
    profile,
    map,
    ...image,
    vmallocStart: map.vmalloc.start,
    vmallocEnd: map.vmalloc.end,
    linear: options.pageOffset ?? map.linear.start,
    moduleWindows: moduleWindows(profile, map, image, random, options.fullModuleRegion ?? false),
    bpfWindow: map.bpfRegion ?? map.vmalloc,
  };
}

/**
 * Where modules may be placed: the windows that their allocator tries, in this order.
 *
 * | Linux  | KASLR | first                                              | then                    |
 * | ------ | ----- | -------------------------------------------------- | ----------------------- |
 * | to 6.4 | off   | the 128 MiB that end at _etext                     | 2 GiB from there on     |
 * |        | on    | 128 MiB around [_stext, _etext)                    | the same                |
 * |        | FULL  | 128 MiB anywhere in the 2 GiB that end at _end     | the same                |
 * | 6.5    | off   | the 128 MiB that end at _end                       | the 2 GiB that do       |
 * |        | on    | a box of 128 MiB with all of the image in it       | a box of 2 GiB with that |
 * |        | FULL  | a box of 2 GiB with the image in it                |                         |
 *
 * FULL is CONFIG_RANDOMIZE_MODULE_REGION_FULL. Reference: kaslr_init in arch/arm64/kernel/kaslr.c, module_alloc
 * in kernel/module.c (6.1); random_bounding_box, module_init_limits (6.5). Left out: KASAN.
 */
import type { Random } from '../../common/random.js';
import type { AddressMap, Window } from './address-map.js';
import type { LayoutProfile } from './profile.js';

const SZ_128M = 128n << 20n;
const SZ_2G = 2n << 30n;
const PAGE_SIZE = 4096n;
const PAGE_MASK = ~(PAGE_SIZE - 1n);

/** The parts of the image that windows are laid around. */
export interface ImageBounds {
  readonly text: bigint;
  readonly stext: bigint;
  readonly etext: bigint;
  readonly end: bigint;
}

export function moduleWindows(
  profile: LayoutProfile,
  map: AddressMap,
  image: ImageBounds,
  /** Undefined: no KASLR. */
  random: Random | undefined,
  full: boolean,
): readonly Window[] {
  switch (profile.modulePlacement) {
    case 'around text':
      return aroundText(map, image, random, full);
    case 'boxes':
      return boxes(image, random, full);
  }
}

function aroundText(
  map: AddressMap,
  { stext, etext, end }: ImageBounds,
  random: Random | undefined,
  full: boolean,
): readonly Window[] {
  let base = etext - SZ_128M;
  if (random) {
    let range = SZ_128M - (etext - stext);
    if (full) {
      range = SZ_2G - (end - stext);
      base = end - SZ_2G > map.modules.start ? end - SZ_2G : map.modules.start;
    }
    base = (base + ((range * BigInt(random.below(1 << 21))) >> 21n)) & PAGE_MASK;
  }
  return [
    { start: base, end: base + SZ_128M },
    { start: base, end: base + SZ_2G },
  ];
}

function boxes(
  { text, end }: ImageBounds,
  random: Random | undefined,
  full: boolean,
): readonly Window[] {
  if (!random) {
    return [
      { start: end - SZ_128M, end },
      { start: end - SZ_2G, end },
    ];
  }
  if (full) return boundingBox(SZ_2G, { start: text, end }, random);
  const direct = boundingBox(SZ_128M, { start: text, end }, random);
  return [...direct, ...boundingBox(SZ_2G, direct[0] ?? { start: text, end }, random)];
}

/** A box of `size` bytes at a random page that has all of `inner` in it; none if it is too small. */
function boundingBox(size: bigint, inner: Window, random: Random): readonly Window[] {
  const slack = size - (inner.end - inner.start);
  if (slack <= 0n) return [];
  const pages = BigInt(random.below(Number(slack / PAGE_SIZE) + 1));
  const start = inner.start - pages * PAGE_SIZE;
  return [{ start, end: start + size }];
}

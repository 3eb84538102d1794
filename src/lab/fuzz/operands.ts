/**
 * Immediates and offsets at which something changes: widths, signs, carries, encodings.
 *
 * A64 has a 12-bit immediate, shifted by 12 or not, for adding and comparing; rotated runs of ones for
 * logic; 16 bits of a register at a time for constants; offsets of accesses in 12 scaled bits.
 */
import type { Random } from '../../common/random.js';

/** Values at which carries, signs and widths change. */
const EDGES = [0, 1, -1, 2, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 32767, 32768, 65535, 65536];
const EXTREMES = [0x7fffffff, -0x80000000, 0x55555555, 0x0f0f0f0f];
/** Around the ends of imm12 and imm12 << 12. */
const ADD_EDGES = [0xffe, 0xfff, 0x1000, 0x1001, 0x2000, 0xfff000, 0xfff001, 0xffffff, 0x1000000];
/** What 16 bits of a constant may be. */
const HALVES = [0, 0xffff, 0x8000, 0x7fff, 1];

function half(random: Random): number {
  return random.below(2) === 0 ? random.pick(HALVES) : random.below(0x10000);
}

/** A run of ones, rotated, repeated over 32 bits: what a logical immediate may be, or one bit off. */
function bitmask(random: Random): number {
  const size = 2 << random.below(5);
  const ones = 1 + random.below(size - 1);
  const rotation = random.below(size);
  const run = 2 ** ones - 1;
  const element = run * 2 ** rotation;
  const folded = (element % 2 ** size) + Math.floor(element / 2 ** size);
  let value = 0;
  for (let at = 0; at < 32; at += size) value |= size === 32 ? folded : folded << at;
  return random.below(4) === 0 ? value ^ (1 << random.below(32)) : value;
}

export function randomImmediate(random: Random): number {
  switch (random.below(8)) {
    case 0:
    case 1:
      return random.pick(EDGES);
    case 2:
      return random.pick(EXTREMES);
    case 3: {
      const edge = random.pick(ADD_EDGES);
      return random.below(2) === 0 ? edge : -edge;
    }
    case 4:
      return bitmask(random);
    case 5:
      return (half(random) << 16) | half(random);
    case 6:
      return random.below(4096);
    default:
      return random.u32() | 0;
  }
}

/** The two halves of an ld_imm64. */
export function randomConstant(random: Random): readonly [low: number, high: number] {
  if (random.below(4) === 0) return [randomImmediate(random), randomImmediate(random)];
  const word = (): number => (half(random) << 16) | half(random);
  return [word(), word()];
}

/** An offset of an access of `size` bytes that an instruction may or may not hold; 16 bits signed. */
export function randomOffset(random: Random, size: number): number {
  switch (random.below(5)) {
    case 0:
      return random.pick([-256, -257, -255, -1, -8, 255, 256, 257]);
    case 1:
      // the last scaled offset, the first that is none, and one that is not aligned
      return Math.min(0x7fff, random.pick([0xffe, 0xfff, 0x1000]) * size + random.below(2));
    case 2:
      return random.pick([4095, 4096, 4097, -4095, -4096, -4097, 8192]);
    case 3:
      return random.pick([0x7ff8, 0x7fff, -0x8000, -0x7fff, 0x4000, -0x4000]);
    default:
      return random.below(0x10000) - 0x8000;
  }
}

/**
 * A seeded pseudo-random generator (xorshift128), so that the same seed gives the same output
 * everywhere. Not for cryptography.
 */

/** Shifts of xorshift128. */
export const RANDOM_SHIFTS = { left: 11, right: 8, last: 19 } as const;

export class Random {
  /** x, y, z, w of the algorithm, the newest first. */
  readonly #state: Int32Array;

  /** @param state where the generator keeps its four words. */
  constructor(seed: number, state: Int32Array = new Int32Array(4)) {
    this.#state = state;
    // splitmix32 spreads small seeds over the whole state
    let s = seed | 0;
    const next = (): number => {
      s = (s + 0x9e3779b9) | 0;
      let t = s ^ (s >>> 16);
      t = Math.imul(t, 0x21f0aaad);
      t ^= t >>> 15;
      t = Math.imul(t, 0x735a2d97);
      return t ^ (t >>> 15);
    };
    state[0] = next();
    state[1] = next();
    state[2] = next();
    state[3] = next() | 1;
  }

  /** A uniform unsigned 32-bit number. */
  u32(): number {
    const state = this.#state;
    let t = state[3] as number;
    const s = state[0] as number;
    state[3] = state[2] as number;
    state[2] = state[1] as number;
    state[1] = s;
    t ^= t << RANDOM_SHIFTS.left;
    t ^= t >>> RANDOM_SHIFTS.right;
    t ^= s ^ (s >>> RANDOM_SHIFTS.last);
    state[0] = t;
    return t >>> 0;
  }

  /** A uniform unsigned 64-bit number. */
  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }

  /** A uniform integer in `[0, bound)`. */
  below(bound: number): number {
    return Math.floor((this.u32() / 0x1_0000_0000) * bound);
  }

  /** One element of a non-empty array. */
  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined && items.length === 0) throw new RangeError('pick from an empty array');
    return item as T;
  }
}

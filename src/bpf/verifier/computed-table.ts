/**
 * Results that were computed before: a table as packages for decision diagrams have one.
 *
 * A program's loops compare and compute the same ranges over and over, and a range is an object that is
 * never changed; so operand objects and a key find the result again. Each place of the table holds one
 * entry, a later one takes the place of an earlier: it is bounded, and only a cache.
 *
 * Usage:
 *   const known = table.get(key, left, right);
 *   if (!known) table.set(key, left, right, compute(left, right));
 */
export interface Hashed {
  readonly hash: number;
}

const PLACES = 1 << 12;

export class ComputedTable<Result> {
  readonly #entries: (Entry<Result> | undefined)[] = Array.from(
    { length: PLACES },
    () => undefined,
  );

  get(key: number, left: Hashed, right: Hashed): Result | undefined {
    const entry = this.#entries[placeOf(key, left, right)];
    if (entry?.left !== left || entry.right !== right || entry.key !== key) return undefined;
    return entry.result;
  }

  set(key: number, left: Hashed, right: Hashed, result: Result): void {
    this.#entries[placeOf(key, left, right)] = { key, left, right, result };
  }
}

interface Entry<Result> {
  readonly key: number;
  readonly left: Hashed;
  readonly right: Hashed;
  readonly result: Result;
}

function placeOf(key: number, left: Hashed, right: Hashed): number {
  const mixed = Math.imul(left.hash, 0x9e3779b1) ^ Math.imul(right.hash + key, 0x85ebca6b);
  return (mixed ^ (mixed >>> 15)) & (PLACES - 1);
}

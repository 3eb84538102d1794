/**
 * What a CPU has decoded, by word: records are filled from here when the same word is met elsewhere.
 *
 * Programs of one generator have most of their words in common.
 */

/** Words that are kept: a few MB; more are not met again in time. */
const MOST_KEPT = 1 << 16;

/** Records of decoded words: three Int32 each, found by the word. */
export class DecodedWords {
  #records = new Int32Array(3 << 10);
  readonly #places = new Map<number, number>();

  /** Puts the record of `word` at `at`; false when it is not known. */
  copy(word: number, records: Int32Array, at: number): boolean {
    const place = this.#places.get(word);
    if (place === undefined) return false;
    records[at] = this.#records[place] as number;
    records[at + 1] = this.#records[place + 1] as number;
    records[at + 2] = this.#records[place + 2] as number;
    return true;
  }

  keep(word: number, records: Int32Array, at: number): void {
    if (this.#places.size === MOST_KEPT) this.#places.clear();
    const place = 3 * this.#places.size;
    if (place === this.#records.length) {
      const larger = new Int32Array(2 * place);
      larger.set(this.#records);
      this.#records = larger;
    }
    this.#places.set(word, place);
    this.#records.set(records.subarray(at, at + 3), place);
  }
}

/**
 * Pieces of memory by physical address. A list is cleared and filled again, so it costs nothing.
 *
 * Usage:
 *   pieces.count = 0;
 *   pieces.add(at, 64);
 */
export class PieceList {
  count = 0;
  #addresses = new Int32Array(64);
  #lengths = new Int32Array(64);

  address(index: number): number {
    return this.#addresses[index] as number;
  }

  length(index: number): number {
    return this.#lengths[index] as number;
  }

  /** Bytes in the pieces from `first` on. */
  bytes(first = 0): number {
    let total = 0;
    for (let i = first; i < this.count; i++) total += this.length(i);
    return total;
  }

  shorten(index: number, length: number): void {
    this.#lengths[index] = length;
  }

  add(address: number, length: number): void {
    if (this.count === this.#addresses.length) {
      this.#addresses = doubled(this.#addresses);
      this.#lengths = doubled(this.#lengths);
    }
    this.#addresses[this.count] = address;
    this.#lengths[this.count] = length;
    this.count++;
  }
}

function doubled(numbers: Int32Array): Int32Array<ArrayBuffer> {
  const copy = new Int32Array(2 * numbers.length);
  copy.set(numbers);
  return copy;
}

/**
 * All records of patch sites, sorted by address: nine bytes each, found by binary search.
 *
 * An address is kept as its distance in words from a base (the start of the kernel image), a small integer; names
 * are looked up when they are asked for. Reference: struct ftrace_page, lookup_rec.
 *
 * Usage:
 *   const table = new RecordTable(layout.text, nameOf);
 *   table.insert([{ ip: 0xffff80008001000cn, lead: 1 }]);
 *   table.get(0xffff80008001000cn)?.name;
 */
import { s64 } from '../../common/bytes.js';

/** One site, as others see it. */
export interface DynFtrace {
  /** Address of the instruction that becomes the call. */
  readonly ip: bigint;
  /** Symbol of the function. */
  readonly name: string;
  readonly flags: number;
}

export interface NewRecord {
  readonly ip: bigint;
  /** Instructions before it in the function: 1, or 2 behind a BTI. */
  readonly lead: number;
  readonly flags?: number;
}

const FIRST_CAPACITY = 64;

export class RecordTable {
  /** FTRACE_FL_* and the count, by index. */
  flags = new Int32Array(FIRST_CAPACITY);
  readonly base: bigint;
  readonly #nameOf: (address: bigint) => string;
  #words = new Int32Array(FIRST_CAPACITY);
  #leads = new Uint8Array(FIRST_CAPACITY);
  #size = 0;

  constructor(base: bigint, nameOf: (address: bigint) => string) {
    this.base = base;
    this.#nameOf = nameOf;
  }

  get size(): number {
    return this.#size;
  }

  /** Bytes that the records take. */
  get bytes(): number {
    return this.flags.byteLength + this.#words.byteLength + this.#leads.byteLength;
  }

  /** Distance of the site from `base`, in bytes. */
  offset(index: number): number {
    return 4 * (this.#words[index] as number);
  }

  ip(index: number): bigint {
    return this.base + BigInt(this.offset(index));
  }

  /** Distance of the function's first byte from `base`. */
  entryOffset(index: number): number {
    return 4 * ((this.#words[index] as number) - (this.#leads[index] as number));
  }

  functionOf(index: number): bigint {
    return this.base + BigInt(this.entryOffset(index));
  }

  nameOf(index: number): string {
    return this.#nameOf(this.functionOf(index));
  }

  /** Index of the record of a site, or -1. */
  indexOf(ip: bigint): number {
    const distance = s64(ip - this.base);
    if ((distance & 3n) !== 0n) return -1;
    const word = Number(distance / 4n);
    const index = this.#lowerBound(word);
    return index < this.#size && this.#words[index] === word ? index : -1;
  }

  /** Index of the record of the function that begins at `address`, or -1. */
  indexOfFunction(address: bigint): number {
    for (const lead of [1, 2]) {
      const index = this.indexOf(address + BigInt(4 * lead));
      if (index >= 0 && this.#leads[index] === lead) return index;
    }
    return -1;
  }

  has(ip: bigint): boolean {
    return this.indexOf(ip) >= 0;
  }

  get(ip: bigint): DynFtrace | undefined {
    const index = this.indexOf(ip);
    return index < 0 ? undefined : this.at(index);
  }

  at(index: number): DynFtrace {
    const flags = this.flags[index] as number;
    return { ip: this.ip(index), name: this.nameOf(index), flags };
  }

  *values(): Generator<DynFtrace> {
    for (let index = 0; index < this.#size; index++) yield this.at(index);
  }

  /** Indices of the records of [start, end): from `first` up to `last`, which is not one of them. */
  range(start: bigint, end: bigint): { first: number; last: number } {
    const wordAt = (address: bigint): number => Number((s64(address - this.base) + 3n) / 4n);
    return { first: this.#lowerBound(wordAt(start)), last: this.#lowerBound(wordAt(end)) };
  }

  /** Forgets the records of [start, end); their sites. */
  remove(start: bigint, end: bigint): bigint[] {
    const { first, last } = this.range(start, end);
    const gone = Array.from({ length: last - first }, (_, i) => this.ip(first + i));
    for (const column of [this.#words, this.flags, this.#leads]) {
      column.copyWithin(first, last, this.#size);
    }
    this.#size -= gone.length;
    return gone;
  }

  /** Takes records in; they may come in any order. */
  insert(records: readonly NewRecord[]): void {
    const added = records
      .map(({ ip, lead, flags = 0 }) => ({ word: Number(s64(ip - this.base) / 4n), lead, flags }))
      .sort((a, b) => a.word - b.word);
    const old = { words: this.#words, flags: this.flags, leads: this.#leads };
    const size = this.#size + added.length;
    if (size > this.flags.length) {
      // a whole kernel comes at once and shall not take twice its room
      const capacity = Math.max(size, Math.min(2 * this.flags.length, size + 4096));
      this.#words = new Int32Array(capacity);
      this.flags = new Int32Array(capacity);
      this.#leads = new Uint8Array(capacity);
      this.#words.set(old.words);
      this.flags.set(old.flags);
      this.#leads.set(old.leads);
    }
    // merged from the end, so that nothing is overwritten that has not been moved
    let from = this.#size - 1;
    let next = added.length - 1;
    for (let to = size - 1; next >= 0; to--) {
      const { word, lead, flags } = added[next] as (typeof added)[number];
      if (from >= 0 && (this.#words[from] as number) > word) {
        this.#words[to] = this.#words[from] as number;
        this.flags[to] = this.flags[from] as number;
        this.#leads[to] = this.#leads[from] as number;
        from--;
      } else {
        this.#words[to] = word;
        this.flags[to] = flags;
        this.#leads[to] = lead;
        next--;
      }
    }
    this.#size = size;
  }

  #lowerBound(word: number): number {
    let low = 0;
    let high = this.#size;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#words[middle] as number) < word) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

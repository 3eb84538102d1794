/**
 * Bytes that come in chunks and are taken in order, so that a file of any size is read in little memory.
 *
 * Usage:
 *   const source = new ByteSource(chunks);
 *   const header = source.peek(24);    // fewer only at the end
 *   source.skip(24);
 *   if (source.ready(16) === 16) length = source.u32(8, little);
 */
import { plainBytes, viewOf } from '../common/bytes.js';
import { concatBytes } from './packet.js';

export class ByteSource {
  /** Bytes skipped so far. */
  at = 0;
  readonly #chunks: Iterator<Uint8Array>;
  #bytes: Uint8Array = new Uint8Array(0);
  #view = viewOf(this.#bytes);
  /** Where in `#bytes` the next byte lies. */
  #from = 0;

  constructor(chunks: Iterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.iterator]();
  }

  /** The next `count` bytes; fewer when the input ends before. Good until the next call. */
  peek(count: number): Uint8Array {
    this.ready(count);
    return this.#bytes.subarray(this.#from, this.#from + count);
  }

  /** How many of the next `count` bytes there are: fewer when the input ends before. */
  ready(count: number): number {
    if (this.#bytes.length - this.#from < count) this.#fetch(count);
    return Math.min(count, this.#bytes.length - this.#from);
  }

  /** A u32 among bytes that are ready, `at` bytes from the next one. */
  u32(at: number, little: boolean): number {
    return this.#view.getUint32(this.#from + at, little);
  }

  /** A copy of `count` bytes that are ready, from `at` bytes behind the next one. */
  copy(at: number, count: number): Uint8Array {
    return this.#bytes.slice(this.#from + at, this.#from + at + count);
  }

  /** Leaves behind bytes that were peeked at. */
  skip(count: number): void {
    this.#from += count;
    this.at += count;
  }

  #fetch(count: number): void {
    const rest = this.#bytes.subarray(this.#from);
    const parts = rest.length > 0 ? [rest] : [];
    let size = rest.length;
    while (size < count) {
      const next = this.#chunks.next();
      if (next.done) break;
      parts.push(plainBytes(next.value));
      size += next.value.length;
    }
    const [first] = parts;
    this.#bytes = parts.length === 1 && first ? first : concatBytes(...parts);
    this.#view = viewOf(this.#bytes);
    this.#from = 0;
  }
}

/**
 * Bytes that come in chunks and are taken in order, so that a file of any size is read in little memory.
 *
 * Usage:
 *   const source = new ByteSource(chunks);
 *   const header = source.peek(24);    // fewer only at the end
 *   source.skip(24);
 */
import { plainBytes } from '../common/bytes.js';
import { concatBytes } from './packet.js';

export class ByteSource {
  /** Bytes skipped so far. */
  at = 0;
  readonly #chunks: Iterator<Uint8Array>;
  #bytes: Uint8Array = new Uint8Array(0);
  /** Where in `#bytes` the next byte lies. */
  #from = 0;

  constructor(chunks: Iterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.iterator]();
  }

  /** The next `count` bytes; fewer when the input ends before. Good until the next call. */
  peek(count: number): Uint8Array {
    if (this.#bytes.length - this.#from < count) this.#fetch(count);
    return this.#bytes.subarray(this.#from, this.#from + count);
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
    this.#from = 0;
  }
}

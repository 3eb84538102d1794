/**
 * The hash table under all hash maps: elements with a key, chained in buckets, all of it in memory.
 *
 * Its region holds the first element of each bucket, a mark per element for maps that age their entries,
 * and the elements: next one in the chain, hash, key. Elements are numbers; programs get addresses of keys
 * in bpf_for_each_map_elem, but cannot store there. The wasm tier looks keys up in the same place, so
 * layout and hash function are in `HashLayout` and `wasm/hash.ts`. Reference: struct bucket and
 * htab_elem in kernel/bpf/hashtab.c. The hash function is this lab's: the kernel's has a random seed, so
 * no result may depend on it.
 */
import { alignUp } from '../../common/bytes.js';
import type { Memory, Region } from '../../cpu/memory.js';

/** End of a chain; also the mark of a bucket without elements. */
const NONE = -1;
/** The next one of an element that is in no bucket. */
const FREE = -2;

/** Bytes of an element in front of its key: next one, hash. */
export const ELEMENT_HASH = 4;
export const ELEMENT_KEY = 8;

/** Multipliers and shifts of the hash function. */
export const HASH = { word: 0x9e3779b1, last: 0x85ebca6b, shift: 15, high: 16, low: 13 } as const;

/** Where things lie in a table's region. */
export interface HashLayout {
  readonly keySize: number;
  /** A power of 2. */
  readonly buckets: number;
  /** One byte per element. */
  readonly marks: number;
  readonly elements: number;
  /** Bytes from one element to the next. */
  readonly stride: number;
  /** Bytes of all. */
  readonly size: number;
}

export function hashLayout(keySize: number, count: number): HashLayout {
  const buckets = 2 ** Math.ceil(Math.log2(count));
  const marks = 4 * buckets;
  const elements = alignUp(marks + count, 8);
  const stride = ELEMENT_KEY + alignUp(keySize, 8);
  return { keySize, buckets, marks, elements, stride, size: elements + stride * count };
}

export class HashTable {
  readonly count: number;
  readonly layout: HashLayout;
  readonly region: Region;
  /** One byte per element, for the map's own use. */
  readonly marks: Uint8Array;
  readonly #memory: Memory;
  /** First element of each bucket. */
  readonly #heads: Int32Array;
  /** The elements as words. */
  readonly #words: Int32Array;
  readonly #stride: number;

  constructor(memory: Memory, region: Region, layout: HashLayout, count: number) {
    const { buckets, elements, marks, stride } = layout;
    const { buffer } = memory.wasm;
    this.#memory = memory;
    this.region = region;
    this.layout = layout;
    this.count = count;
    this.marks = new Uint8Array(buffer, region.offset + marks, count);
    this.#stride = stride / 4;
    this.#heads = new Int32Array(buffer, region.offset, buckets).fill(NONE);
    this.#words = new Int32Array(buffer, region.offset + elements, this.#stride * count);
    for (let element = 0; element < count; element++) this.#words[element * this.#stride] = FREE;
  }

  isLinked(element: number): boolean {
    return this.#words[element * this.#stride] !== FREE;
  }

  /** Offset of an element's key. */
  keyAt(element: number): number {
    const { elements, stride } = this.layout;
    return this.region.offset + elements + element * stride + ELEMENT_KEY;
  }

  keyAddress(element: number): bigint {
    return this.region.address + BigInt(this.keyAt(element) - this.region.offset);
  }

  /** The element with the key at offset `key`, or -1. */
  find(key: number): number {
    const hash = this.#hash(key);
    let element = this.#heads[hash & (this.#heads.length - 1)];
    while (element !== NONE) {
      const at = element * this.#stride;
      if (this.#words[at + 1] === hash && this.#sameKey(element, key)) return element;
      element = this.#words[at];
    }
    return NONE;
  }

  /** Puts an element that is in no bucket under the key at offset `key`. */
  link(element: number, key: number): void {
    const hash = this.#hash(key);
    const bucket = hash & (this.#heads.length - 1);
    const at = element * this.#stride;
    this.#words[at] = this.#heads[bucket];
    this.#words[at + 1] = hash;
    this.#heads[bucket] = element;
    const to = this.keyAt(element);
    if (to !== key) this.#memory.bytes.copyWithin(to, key, key + this.layout.keySize);
  }

  unlink(element: number): void {
    const at = element * this.#stride;
    const bucket = this.#words[at + 1] & (this.#heads.length - 1);
    if (this.#heads[bucket] === element) {
      this.#heads[bucket] = this.#words[at];
    } else {
      let before = this.#heads[bucket] * this.#stride;
      while (this.#words[before] !== element) before = this.#words[before] * this.#stride;
      this.#words[before] = this.#words[at];
    }
    this.#words[at] = FREE;
  }

  #sameKey(element: number, key: number): boolean {
    const { bytes } = this.#memory;
    const { keySize } = this.layout;
    const at = this.keyAt(element);
    for (let i = 0; i < keySize; i++) {
      if (bytes[at + i] !== bytes[key + i]) return false;
    }
    return true;
  }

  /** Multiplicative mixing of the key's 32-bit words, then of the bytes that are left. */
  #hash(key: number): number {
    const { bytes, view } = this.#memory;
    const { keySize } = this.layout;
    let hash = keySize;
    let i = 0;
    for (; i + 4 <= keySize; i += 4) {
      hash = Math.imul(hash ^ view.getInt32(key + i, true), HASH.word);
      hash ^= hash >>> HASH.shift;
    }
    for (; i < keySize; i++) hash = Math.imul(hash ^ bytes[key + i], HASH.word);
    hash = Math.imul(hash ^ (hash >>> HASH.high), HASH.last);
    return hash ^ (hash >>> HASH.low);
  }
}

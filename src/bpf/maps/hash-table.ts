/**
 * The hash table under all hash maps: elements with a key, chained in buckets.
 *
 * Elements are numbers; keys lie in memory (programs get key addresses in bpf_for_each_map_elem), the
 * chains in typed arrays. Reference: struct bucket and htab_elem in kernel/bpf/hashtab.c. The hash
 * function is this lab's: the kernel's has a random seed, so no result may depend on it.
 */
import { alignUp } from '../../common/bytes.js';
import type { Memory, Region } from '../../cpu/memory.js';

/** End of a chain; also the mark of a bucket without elements. */
const NONE = -1;
/** In `#next` of an element that is in no bucket. */
const FREE = -2;

export class HashTable {
  readonly count: number;
  readonly keys: Region;
  readonly keyStride: number;
  readonly #memory: Memory;
  readonly #keySize: number;
  /** First element of each bucket. */
  readonly #heads: Int32Array;
  /** Next element in the chain. */
  readonly #next: Int32Array;
  readonly #hashes: Int32Array;

  /** Bytes of keys that `count` elements need. */
  static keyBytes(keySize: number, count: number): number {
    return alignUp(keySize, 8) * count;
  }

  constructor(memory: Memory, keys: Region, keySize: number, count: number) {
    this.#memory = memory;
    this.keys = keys;
    this.#keySize = keySize;
    this.keyStride = alignUp(keySize, 8);
    this.count = count;
    this.#heads = new Int32Array(2 ** Math.ceil(Math.log2(count))).fill(NONE);
    this.#next = new Int32Array(count).fill(FREE);
    this.#hashes = new Int32Array(count);
  }

  isLinked(element: number): boolean {
    return this.#next[element] !== FREE;
  }

  /** Offset of an element's key. */
  keyAt(element: number): number {
    return this.keys.offset + element * this.keyStride;
  }

  /** The element with the key at offset `key`, or -1. */
  find(key: number): number {
    const hash = this.#hash(key);
    let element = this.#heads[hash & (this.#heads.length - 1)];
    while (element !== NONE) {
      if (this.#hashes[element] === hash && this.#sameKey(element, key)) return element;
      element = this.#next[element];
    }
    return NONE;
  }

  /** Puts an element that is in no bucket under the key at offset `key`. */
  link(element: number, key: number): void {
    const hash = this.#hash(key);
    const bucket = hash & (this.#heads.length - 1);
    this.#next[element] = this.#heads[bucket];
    this.#heads[bucket] = element;
    this.#hashes[element] = hash;
    const to = this.keyAt(element);
    if (to !== key) this.#memory.bytes.copyWithin(to, key, key + this.#keySize);
  }

  unlink(element: number): void {
    const bucket = this.#hashes[element] & (this.#heads.length - 1);
    if (this.#heads[bucket] === element) {
      this.#heads[bucket] = this.#next[element];
    } else {
      let before = this.#heads[bucket];
      while (this.#next[before] !== element) before = this.#next[before];
      this.#next[before] = this.#next[element];
    }
    this.#next[element] = FREE;
  }

  #sameKey(element: number, key: number): boolean {
    const { bytes } = this.#memory;
    const at = this.keyAt(element);
    for (let i = 0; i < this.#keySize; i++) {
      if (bytes[at + i] !== bytes[key + i]) return false;
    }
    return true;
  }

  /** Multiplicative mixing of the key's 32-bit words, then of the bytes that are left. */
  #hash(key: number): number {
    const { bytes, view } = this.#memory;
    const keySize = this.#keySize;
    let hash = keySize;
    let i = 0;
    for (; i + 4 <= keySize; i += 4) {
      hash = Math.imul(hash ^ view.getInt32(key + i, true), 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    for (; i < keySize; i++) hash = Math.imul(hash ^ bytes[key + i], 0x9e3779b1);
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    return hash ^ (hash >>> 13);
  }
}

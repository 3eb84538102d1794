/**
 * The hash table under all hash maps: elements chained in buckets, all of it in memory.
 *
 * Two regions. One is the table's own, which programs cannot store to: the first element of each bucket, and of
 * each element the next one in the chain and its hash. The other has the elements, each laid out like a
 * `struct htab_elem`, as inlined look-ups go through it: 48 bytes (in an LRU map with the mark of use), the key,
 * the value or a pointer to it. Elements are numbers. The wasm tier looks keys up in the same place, so
 * layout and hash function are in `HashLayout` and `wasm/hash.ts`. Reference: struct bucket and
 * htab_elem in kernel/bpf/hashtab.c; its own links (`hash_node`) are left zero. The hash function is this lab's:
 * the kernel's has a random seed, so no result may depend on it.
 */
import { alignUp } from '../../common/bytes.js';
import type { Memory, Region } from '../../cpu/memory.js';

/** End of a chain; also the mark of a bucket without elements. */
const NONE = -1;
/** The next one of an element that is in no bucket. */
const FREE = -2;

/** Bytes of an element's links: next one, hash. */
export const LINK = { hash: 4, size: 8 } as const;

/** offsetof(struct htab_elem, lru_node.ref), offsetof(struct htab_elem, key). */
export const HTAB_ELEM = { ref: 35, key: 48 } as const;

/** Multipliers and shifts of the hash function. */
export const HASH = { word: 0x9e3779b1, last: 0x85ebca6b, shift: 15, high: 16, low: 13 } as const;

export interface HashLayout {
  readonly keySize: number;
  readonly count: number;
  /** A power of 2. */
  readonly buckets: number;
  /** Where the links begin in the table's region, and its size. */
  readonly links: number;
  readonly tableSize: number;
  /** Where the value is in an element, and bytes from one element to the next. */
  readonly value: number;
  readonly elementSize: number;
}

/** Offset of the value in an element: htab_elem_value. */
export function valueInElement(keySize: number): number {
  return HTAB_ELEM.key + alignUp(keySize, 8);
}

/** @param valueSize bytes that an element has for the value */
export function hashLayout(keySize: number, valueSize: number, count: number): HashLayout {
  const buckets = 2 ** Math.ceil(Math.log2(count));
  const links = alignUp(4 * buckets, 8);
  const value = valueInElement(keySize);
  return {
    keySize,
    count,
    buckets,
    links,
    tableSize: links + LINK.size * count,
    value,
    elementSize: value + valueSize,
  };
}

export class HashTable {
  readonly count: number;
  readonly layout: HashLayout;
  readonly region: Region;
  readonly elements: Region;
  readonly #memory: Memory;
  /** First element of each bucket. */
  readonly #heads: Int32Array;
  /** Next one and hash of each element. */
  readonly #links: Int32Array;

  /** @param region of `layout.tableSize` bytes, `elements` of `layout.elementSize` times `layout.count` */
  constructor(memory: Memory, region: Region, elements: Region, layout: HashLayout) {
    const { buckets, count, links } = layout;
    const { buffer } = memory.wasm;
    this.#memory = memory;
    this.region = region;
    this.elements = elements;
    this.layout = layout;
    this.count = count;
    this.#heads = new Int32Array(buffer, region.offset, buckets).fill(NONE);
    this.#links = new Int32Array(buffer, region.offset + links, 2 * count);
    for (let element = 0; element < count; element++) this.#links[2 * element] = FREE;
  }

  isLinked(element: number): boolean {
    return this.#links[2 * element] !== FREE;
  }

  /** Offset of an element. */
  elementAt(element: number): number {
    return this.elements.offset + element * this.layout.elementSize;
  }

  /** Offset of an element's key. */
  keyAt(element: number): number {
    return this.elementAt(element) + HTAB_ELEM.key;
  }

  keyAddress(element: number): bigint {
    return this.elements.address + BigInt(this.keyAt(element) - this.elements.offset);
  }

  /** The element with the key at offset `key`, or -1. */
  find(key: number): number {
    const hash = this.#hash(key);
    let element = this.#heads[hash & (this.#heads.length - 1)];
    while (element !== NONE) {
      if (this.#links[2 * element + 1] === hash && this.#sameKey(element, key)) return element;
      element = this.#links[2 * element];
    }
    return NONE;
  }

  /** Puts an element that is in no bucket under the key at offset `key`. */
  link(element: number, key: number): void {
    const hash = this.#hash(key);
    const bucket = hash & (this.#heads.length - 1);
    this.#links[2 * element] = this.#heads[bucket];
    this.#links[2 * element + 1] = hash;
    this.#heads[bucket] = element;
    const to = this.keyAt(element);
    if (to !== key) this.#memory.bytes.copyWithin(to, key, key + this.layout.keySize);
  }

  unlink(element: number): void {
    const links = this.#links;
    const bucket = links[2 * element + 1] & (this.#heads.length - 1);
    if (this.#heads[bucket] === element) {
      this.#heads[bucket] = links[2 * element];
    } else {
      let before = this.#heads[bucket];
      while (links[2 * before] !== element) before = links[2 * before];
      links[2 * before] = links[2 * element];
    }
    links[2 * element] = FREE;
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

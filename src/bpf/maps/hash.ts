/**
 * BPF_MAP_TYPE_HASH and BPF_MAP_TYPE_PERCPU_HASH: a hash table with all elements preallocated.
 *
 * Reference: kernel/bpf/hashtab.c. Buckets are chains through typed arrays; keys and values lie in
 * memory regions, element i at i times their stride. Differences to the kernel: an update of an
 * existing key writes in place instead of swapping elements, BPF_F_NO_PREALLOC preallocates too, and
 * iteration goes by element, not by bucket. Deleting while iterating is safe.
 */
import { alignUp } from '../../common/bytes.js';
import { ERRNO } from '../../common/errno.js';
import type { Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';
import { BPF_EXIST, BPF_NOEXIST, MapBase, type MapEntry } from './base.js';
import type { MapSpec } from './map.js';

/** End of a chain; also the mark of a bucket without elements. */
const NONE = -1;
/** In `#next` of an element that holds no entry. */
const FREE = -2;

export class HashMap extends MapBase {
  protected readonly cpuCount: number;
  readonly #keys: Region;
  readonly #keyStride: number;
  readonly #values: Region[] = [];
  /** First element of each bucket. */
  readonly #heads: Int32Array;
  /** Next element in the chain. */
  readonly #next: Int32Array;
  readonly #hashes: Int32Array;
  /** Stack of elements that hold no entry. */
  readonly #freeList: Int32Array;
  #freeCount: number;

  constructor(spec: MapSpec, host: BpfHost) {
    super(spec, host);
    const { maxEntries, keySize } = spec;
    this.cpuCount = spec.type === 'PERCPU_HASH' ? host.cpuCount : 1;
    this.#keyStride = alignUp(keySize, 8);
    this.#keys = this.allocate('keys of', this.#keyStride * maxEntries);
    for (let cpu = 0; cpu < this.cpuCount; cpu++) {
      this.#values.push(this.allocate('values of', this.stride * maxEntries));
    }
    const buckets = 2 ** Math.ceil(Math.log2(maxEntries));
    this.#heads = new Int32Array(buckets).fill(NONE);
    this.#next = new Int32Array(maxEntries).fill(FREE);
    this.#hashes = new Int32Array(maxEntries);
    this.#freeList = Int32Array.from({ length: maxEntries }, (_, i) => maxEntries - 1 - i);
    this.#freeCount = maxEntries;
  }

  get valueAddress(): bigint {
    return 0n;
  }

  valueRegion(cpu: number): Region {
    return this.#values[this.cpuCount === 1 ? 0 : cpu];
  }

  /** Entries that exist. */
  get size(): number {
    return this.spec.maxEntries - this.#freeCount;
  }

  locate(key: number, cpu: number): number {
    const element = this.#find(key, this.#hash(key));
    return element < 0 ? -1 : this.valueRegion(cpu).offset + element * this.stride;
  }

  protected store(key: number, value: Uint8Array, cpu: number, flags: number): number {
    if (flags > BPF_EXIST) return -ERRNO.EINVAL;
    const hash = this.#hash(key);
    let element = this.#find(key, hash);
    if (element >= 0) {
      if (flags === BPF_NOEXIST) return -ERRNO.EEXIST;
    } else {
      if (flags === BPF_EXIST) return -ERRNO.ENOENT;
      if (this.#freeCount === 0) return -ERRNO.E2BIG;
      element = this.#insert(key, hash);
    }
    for (let each = 0; each < this.cpuCount; each++) {
      if (cpu < 0 || this.cpuCount === 1 || each === cpu) {
        this.memory.bytes.set(value, this.valueRegion(each).offset + element * this.stride);
      }
    }
    return 0;
  }

  protected remove(key: number): number {
    const hash = this.#hash(key);
    const element = this.#find(key, hash);
    if (element < 0) return -ERRNO.ENOENT;
    const bucket = hash & (this.#heads.length - 1);
    if (this.#heads[bucket] === element) {
      this.#heads[bucket] = this.#next[element];
    } else {
      let before = this.#heads[bucket];
      while (this.#next[before] !== element) before = this.#next[before];
      this.#next[before] = this.#next[element];
    }
    this.#next[element] = FREE;
    this.#freeList[this.#freeCount++] = element;
    return 0;
  }

  *entries(): Iterable<MapEntry> {
    const { maxEntries, keySize, valueSize } = this.spec;
    const { bytes } = this.memory;
    for (let element = 0; element < maxEntries; element++) {
      if (this.#next[element] === FREE) continue;
      const keyAt = this.#keys.offset + element * this.#keyStride;
      const values = this.#values.map(({ offset }) => {
        const at = offset + element * this.stride;
        return bytes.slice(at, at + valueSize);
      });
      yield { key: bytes.slice(keyAt, keyAt + keySize), values };
    }
  }

  /** Takes a free element, fills in its key, zeroes its values. */
  #insert(key: number, hash: number): number {
    const { bytes } = this.memory;
    const element = this.#freeList[--this.#freeCount];
    const bucket = hash & (this.#heads.length - 1);
    this.#next[element] = this.#heads[bucket];
    this.#heads[bucket] = element;
    this.#hashes[element] = hash;
    bytes.copyWithin(this.#keys.offset + element * this.#keyStride, key, key + this.spec.keySize);
    for (const { offset } of this.#values) {
      const at = offset + element * this.stride;
      bytes.fill(0, at, at + this.stride);
    }
    return element;
  }

  #find(key: number, hash: number): number {
    let element = this.#heads[hash & (this.#heads.length - 1)];
    while (element !== NONE) {
      if (this.#hashes[element] === hash && this.#sameKey(element, key)) return element;
      element = this.#next[element];
    }
    return NONE;
  }

  #sameKey(element: number, key: number): boolean {
    const { bytes } = this.memory;
    const at = this.#keys.offset + element * this.#keyStride;
    for (let i = 0; i < this.spec.keySize; i++) {
      if (bytes[at + i] !== bytes[key + i]) return false;
    }
    return true;
  }

  /** Multiplicative mixing of the key's 32-bit words, then of the bytes that are left. */
  #hash(key: number): number {
    const { bytes, view } = this.memory;
    const { keySize } = this.spec;
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

/**
 * BPF_MAP_TYPE_HASH and BPF_MAP_TYPE_PERCPU_HASH: a hash table with all elements preallocated.
 *
 * Reference: kernel/bpf/hashtab.c. Values lie in memory regions, element i at i times their stride; keys
 * in the table's.
 * As in the kernel an update of an existing key moves the entry to a spare element (one per CPU), so a
 * pointer from an earlier lookup keeps seeing the old value; a per-CPU value is written in place.
 * Differences: BPF_F_NO_PREALLOC preallocates too, and iteration goes by element, not by bucket.
 * Deleting while iterating is safe.
 */
import { ERRNO } from '../../common/errno.js';
import type { Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';
import { BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST, MapBase, type MapEntry } from './base.js';
import { hashLayout, HashTable } from './hash-table.js';
import { isPerCpu, type MapSpec } from './map.js';

/** Elements, keys and values: what plain and LRU hash maps share. */
export abstract class HashBase extends MapBase {
  protected readonly cpuCount: number;
  readonly table: HashTable;
  readonly #values: Region[] = [];

  constructor(spec: MapSpec, host: BpfHost, elements: number) {
    super(spec, host);
    this.cpuCount = isPerCpu(spec.type) ? host.cpuCount : 1;
    const layout = hashLayout(spec.keySize, elements);
    const region = this.allocate('buckets of', layout.size, 'r');
    this.table = new HashTable(this.memory, region, layout, elements);
    for (let cpu = 0; cpu < this.cpuCount; cpu++) {
      this.#values.push(this.allocate('values of', this.stride * elements));
    }
  }

  get valueAddress(): bigint {
    return 0n;
  }

  valueRegion(cpu: number): Region {
    return this.#values[this.cpuCount === 1 ? 0 : cpu];
  }

  locate(key: number, cpu: number): number {
    const element = this.table.find(key);
    return element < 0 ? -1 : this.valueRegion(cpu).offset + element * this.stride;
  }

  /** Address of the key whose value is at `address`. */
  keyOfValue(address: bigint): bigint {
    const region = this.valueRegion(0);
    const element = Math.floor(Number(address - region.address) / this.stride);
    return this.table.keyAddress(element);
  }

  /** Address and key offset of each entry's value for `cpu`. */
  *elements(cpu: number): Iterable<{ readonly key: bigint; readonly value: bigint }> {
    const region = this.valueRegion(cpu);
    for (let element = 0; element < this.table.count; element++) {
      if (!this.table.isLinked(element)) continue;
      yield {
        key: this.table.keyAddress(element),
        value: region.address + BigInt(element * this.stride),
      };
    }
  }

  *entries(): Iterable<MapEntry> {
    const { bytes } = this.memory;
    for (let element = 0; element < this.table.count; element++) {
      if (!this.table.isLinked(element)) continue;
      const at = this.table.keyAt(element);
      const values = this.#values.map(({ offset }) =>
        this.valueBytes(offset + element * this.stride),
      );
      yield { key: bytes.slice(at, at + this.spec.keySize), values };
    }
  }

  /** Zeroes an element's values. */
  protected clearValues(element: number): void {
    for (const { offset } of this.#values) {
      const at = offset + element * this.stride;
      this.memory.bytes.fill(0, at, at + this.stride);
    }
  }

  /** Writes the value of `cpu`, or of all CPUs when it is -1. */
  protected writeValues(element: number, value: Uint8Array, cpu: number): void {
    for (let each = 0; each < this.cpuCount; each++) {
      if (cpu < 0 || this.cpuCount === 1 || each === cpu) {
        const region = this.valueRegion(each);
        this.copyValue(value, region.offset + element * this.stride);
        // written in place
        if (this.cpuCount > 1) this.releaseFields(region.address + BigInt(element * this.stride));
      }
    }
  }

  /** Gives back what an element's values hold, on all CPUs. */
  protected releaseElement(element: number): void {
    if (!this.spec.record) return;
    for (const { address } of this.#values) {
      this.releaseFields(address + BigInt(element * this.stride));
    }
  }

  protected override releaseAll(): void {
    for (let element = 0; element < this.table.count; element++) this.releaseElement(element);
  }

  /** check_flags of hashtab.c. */
  protected checkExistence(exists: boolean, flags: number): number {
    if (exists && (flags & ~BPF_F_LOCK) === BPF_NOEXIST) return -ERRNO.EEXIST;
    if (!exists && (flags & ~BPF_F_LOCK) === BPF_EXIST) return -ERRNO.ENOENT;
    return 0;
  }
}

export class HashMap extends HashBase {
  /** Stack of elements that hold no entry. */
  readonly #freeList: Int32Array;
  #freeCount: number;
  /** The spare element of each CPU. */
  readonly #spares: Int32Array;

  constructor(spec: MapSpec, host: BpfHost) {
    const { maxEntries } = spec;
    const spares = isPerCpu(spec.type) ? 0 : host.cpuCount;
    super(spec, host, maxEntries + spares);
    this.#freeList = Int32Array.from({ length: maxEntries }, (_, i) => maxEntries - 1 - i);
    this.#freeCount = maxEntries;
    this.#spares = Int32Array.from({ length: spares }, (_, i) => maxEntries + i);
  }

  /** Entries that exist. */
  get size(): number {
    return this.spec.maxEntries - this.#freeCount;
  }

  protected store(key: number, value: Uint8Array, cpu: number, flags: number): number {
    const element = this.table.find(key);
    const refused = this.checkFlags(flags) || this.checkExistence(element >= 0, flags);
    if (refused !== 0) return refused;
    if (element >= 0) this.#replace(element, key, value, cpu, flags);
    else return this.#add(key, value, cpu);
    return 0;
  }

  protected erase(key: number): number {
    const element = this.table.find(key);
    if (element < 0) return -ERRNO.ENOENT;
    this.table.unlink(element);
    this.releaseElement(element);
    this.#freeList[this.#freeCount++] = element;
    return 0;
  }

  #add(key: number, value: Uint8Array, cpu: number): number {
    if (this.#freeCount === 0) return -ERRNO.E2BIG;
    const element = this.#freeList[--this.#freeCount];
    this.table.link(element, key);
    this.clearValues(element);
    this.writeValues(element, value, cpu);
    return 0;
  }

  #replace(element: number, key: number, value: Uint8Array, cpu: number, flags: number): void {
    const own = this.#spares[Math.max(this.host.currentCpu(), 0)];
    if (own === undefined || (flags & BPF_F_LOCK) !== 0) {
      this.writeValues(element, value, cpu);
      return;
    }
    this.clearValues(own);
    this.writeValues(own, value, cpu);
    // the key may be the old element's own: link copies it before that is unlinked
    this.table.link(own, key);
    this.table.unlink(element);
    this.releaseElement(element);
    this.#spares[this.host.currentCpu()] = element;
  }
}

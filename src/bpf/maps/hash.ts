/**
 * BPF_MAP_TYPE_HASH and BPF_MAP_TYPE_PERCPU_HASH: a hash table with all elements preallocated.
 *
 * Reference: kernel/bpf/hashtab.c. Keys and values lie in the elements of the table; those of a per-CPU map hold
 * per-CPU pointers, the values lie in a region for each CPU.
 * As in the kernel an update of an existing key moves the entry to a spare element (one per CPU), so a
 * pointer from an earlier lookup keeps seeing the old value; a per-CPU value is written in place.
 * Differences: BPF_F_NO_PREALLOC preallocates too, and iteration goes by element, not by bucket.
 * Deleting while iterating is safe.
 */
import { ERRNO } from '../../common/errno.js';
import type { Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';
import {
  BPF_EXIST,
  BPF_F_LOCK,
  BPF_NOEXIST,
  MapBase,
  POINTER_SIZE,
  valuesIn,
  type MapEntry,
  type Values,
} from './base.js';
import { hashLayout, HashTable } from './hash-table.js';
import { isPerCpu, type MapSpec } from './map.js';

/** Elements, keys and values: what plain and LRU hash maps share. */
export abstract class HashBase extends MapBase {
  protected readonly cpuCount: number;
  readonly table: HashTable;
  /** Bytes from the value of one element to that of the next. */
  readonly step: number;
  readonly #values: readonly Values[];

  constructor(spec: MapSpec, host: BpfHost, elements: number) {
    super(spec, host);
    const ofEachCpu = isPerCpu(spec.type);
    this.cpuCount = ofEachCpu ? host.cpuCount : 1;
    const layout = hashLayout(spec.keySize, ofEachCpu ? POINTER_SIZE : this.stride, elements);
    const region = this.allocate('buckets of', layout.tableSize, 'r');
    const what = ofEachCpu ? 'elements of' : 'values of';
    const inTable = this.allocate(what, layout.elementSize * elements);
    this.table = new HashTable(this.memory, region, inTable, layout);
    if (!ofEachCpu) {
      this.step = layout.elementSize;
      const address = inTable.address + BigInt(layout.value);
      this.#values = [{ region: inTable, address, offset: inTable.offset + layout.value }];
      return;
    }
    this.step = this.stride;
    const { pointer, regions } = this.allocatePerCpu('values of', this.stride * elements);
    this.#values = regions.map(valuesIn);
    for (let element = 0; element < elements; element++) {
      const value = pointer + BigInt(element * this.stride);
      this.memory.view.setBigUint64(this.table.elementAt(element) + layout.value, value, true);
    }
  }

  get valueAddress(): bigint {
    return 0n;
  }

  valueRegion(cpu: number): Region {
    return this.firstValue(cpu).region;
  }

  /** Where the value of element 0 is for `cpu`. */
  firstValue(cpu: number): Values {
    return this.#values[this.cpuCount === 1 ? 0 : cpu];
  }

  /** Offset of the value of `cpu` in the backing store. */
  protected valueAt(element: number, cpu: number): number {
    return this.firstValue(cpu).offset + element * this.step;
  }

  /** `struct htab_elem *` of the key at `keyAddress`, or 0: __htab_map_lookup_elem. */
  findElement(keyAddress: bigint): bigint {
    const element = this.table.find(this.offsetOf(keyAddress, this.spec.keySize, 'read'));
    if (element < 0) return 0n;
    const { elements, layout } = this.table;
    return elements.address + BigInt(element * layout.elementSize);
  }

  locate(key: number, cpu: number): number {
    const element = this.table.find(key);
    return element < 0 ? -1 : this.valueAt(element, cpu);
  }

  /** Address of the key whose value is at `address`. */
  keyOfValue(address: bigint): bigint {
    const element = Math.floor(Number(address - this.firstValue(0).address) / this.step);
    return this.table.keyAddress(element);
  }

  /** Address and key offset of each entry's value for `cpu`. */
  *elements(cpu: number): Iterable<{ readonly key: bigint; readonly value: bigint }> {
    const { address } = this.firstValue(cpu);
    for (let element = 0; element < this.table.count; element++) {
      if (!this.table.isLinked(element)) continue;
      yield {
        key: this.table.keyAddress(element),
        value: address + BigInt(element * this.step),
      };
    }
  }

  *entries(): Iterable<MapEntry> {
    const { bytes } = this.memory;
    for (let element = 0; element < this.table.count; element++) {
      if (!this.table.isLinked(element)) continue;
      const at = this.table.keyAt(element);
      const values = this.#values.map((_, each) => this.valueBytes(this.valueAt(element, each)));
      yield { key: bytes.slice(at, at + this.spec.keySize), values };
    }
  }

  /** Zeroes an element's values. */
  protected clearValues(element: number): void {
    for (let each = 0; each < this.cpuCount; each++) {
      const at = this.valueAt(element, each);
      this.memory.bytes.fill(0, at, at + this.stride);
    }
  }

  /** Writes the value of `cpu`, or of all CPUs when it is -1. */
  protected writeValues(element: number, value: Uint8Array, cpu: number): void {
    for (let each = 0; each < this.cpuCount; each++) {
      if (cpu < 0 || this.cpuCount === 1 || each === cpu) {
        this.copyValue(value, this.valueAt(element, each));
        // written in place
        if (this.cpuCount > 1) this.releaseFields(this.valueAddressOf(element, each));
      }
    }
  }

  protected valueAddressOf(element: number, cpu: number): bigint {
    return this.firstValue(cpu).address + BigInt(element * this.step);
  }

  /** Gives back what an element's values hold, on all CPUs. */
  protected releaseElement(element: number): void {
    if (!this.spec.record) return;
    for (const cpu of this.#values.keys()) this.releaseFields(this.valueAddressOf(element, cpu));
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

/**
 * A map as user space uses it: by bytes or, where the object has BTF, by JavaScript values.
 *
 * Reference: the commands of bpf(2) (BPF_MAP_LOOKUP_ELEM, UPDATE, DELETE, GET_NEXT_KEY,
 * LOOKUP_AND_DELETE, *_BATCH). Refusals are KernelErrors with the kernel's errno. Left out: pinning,
 * file descriptors.
 *
 * Usage:
 *   const flows = new UserMap(object.maps.get('flows'), { btf, keyType, valueType });
 *   flows.update({ saddr: 1, daddr: 2 }, { packets: 0, bytes: 0 });
 *   for (const { key, value } of flows) print(key, value);
 */
import { errnoName } from '../../common/errno.js';
import { KernelError } from '../../common/errors.js';
import { decodeValue, type BtfValue } from '../btf/value.js';
import { encodeValue } from './encode.js';
import { entryBytes, type MapTypes } from './dump.js';
import { isPerCpu, isPushPop, type BpfMap, type MapTypeName, type PushPopMap } from './map.js';

/** A value as a caller gives it: bytes, or by its type. */
export type UserValue = Uint8Array | BtfValue;

export interface UserEntry {
  /** By their types, or bytes where there are none. A per-CPU map gives a list of values. */
  readonly key: UserValue;
  readonly value: UserValue | readonly UserValue[];
}

export interface BatchResult {
  readonly entries: readonly UserEntry[];
  /** Where to go on; undefined at the end. */
  readonly next: Uint8Array | undefined;
}

const FLAGS = { any: 0n, noexist: 1n, exist: 2n } as const;

/** Map types with an atomic look-up and delete. */
const HASHES: readonly MapTypeName[] = ['HASH', 'PERCPU_HASH', 'LRU_HASH', 'LRU_PERCPU_HASH'];

export class UserMap implements Iterable<UserEntry> {
  readonly map: BpfMap;
  readonly #types: MapTypes;

  constructor(map: BpfMap, types: MapTypes = {}) {
    this.map = map;
    this.#types = types;
  }

  /** undefined when there is no such entry. */
  lookup(key: UserValue): UserValue | readonly UserValue[] | undefined {
    const values = this.map.get(this.#keyBytes(key));
    return values && this.#valueOf(values);
  }

  /** A per-CPU map takes one value for all CPUs, or a list with one for each. */
  update(
    key: UserValue,
    value: UserValue | readonly UserValue[],
    flags: keyof typeof FLAGS = 'any',
  ): void {
    const result = this.map.set(this.#keyBytes(key), this.#entryBytes(value), FLAGS[flags]);
    this.#refuse(result, 'update');
  }

  delete(key: UserValue): void {
    this.#refuse(this.map.remove(this.#keyBytes(key)), 'delete');
  }

  /**
   * Looks up and deletes; of a queue or stack, pops. undefined when nothing is there. Only these and hash
   * tables can do it.
   */
  lookupAndDelete(key?: UserValue): UserValue | readonly UserValue[] | undefined {
    if (isPushPop(this.map)) return this.pop();
    this.#refuseUnlessHash('lookup and delete');
    if (key === undefined) return undefined;
    const value = this.lookup(key);
    if (value !== undefined) this.delete(key);
    return value;
  }

  /** Queue, stack and bloom filter: adds a value; `exist` makes room by dropping the oldest of a queue. */
  push(value: UserValue, flags: keyof typeof FLAGS = 'any'): void {
    this.#refuse(this.#pushPop('push').pushBytes(this.#valueBytes(value), FLAGS[flags]), 'push');
  }

  /** Queue and stack: takes the next value away; undefined when there is none. */
  pop(): UserValue | undefined {
    const value = this.#pushPop('pop').popBytes();
    return value && this.#decode(this.#types.valueType, value);
  }

  /** Queue and stack: the value that `pop` would take; undefined when there is none. */
  peek(): UserValue | undefined {
    this.#pushPop('peek');
    const [first] = this.map.entries();
    const value = first?.values[0];
    return value && this.#decode(this.#types.valueType, value);
  }

  /** The key after `key`, the first for none or one that is gone; undefined at the end. */
  nextKey(key?: UserValue): Uint8Array | undefined {
    const bytes = key === undefined ? undefined : this.#keyBytes(key);
    const keys = [...this.map.entries()].map((entry) => entry.key);
    const same = (other: Uint8Array): boolean =>
      bytes !== undefined && other.every((byte, i) => byte === bytes[i]);
    return keys[keys.findIndex(same) + 1];
  }

  /** All keys, by their type. */
  *keys(): Iterable<UserValue> {
    for (const { key } of this.map.entries()) yield this.#decode(this.#types.keyType, key);
  }

  /** Up to `count` entries from behind `from`. */
  lookupBatch(count: number, from?: Uint8Array): BatchResult {
    const all = [...this.map.entries()];
    const start = from
      ? all.findIndex(({ key }) => key.every((byte, i) => byte === from[i])) + 1
      : 0;
    const part = all.slice(start, start + count);
    const entries = part.map(({ key, values }) => this.#entry(key, values));
    return { entries, next: start + count < all.length ? part.at(-1)?.key : undefined };
  }

  /** Takes up to `count` entries away: hash tables only. Nothing is left when fewer come. */
  lookupAndDeleteBatch(count: number): readonly UserEntry[] {
    this.#refuseUnlessHash('lookup and delete of a batch');
    const part = [...this.map.entries()].slice(0, count);
    for (const { key } of part) this.map.remove(key);
    return part.map(({ key, values }) => this.#entry(key, values));
  }

  /** Stops at the first that is refused; its KernelError says how many were done. */
  updateBatch(entries: Iterable<UserEntry>, flags: keyof typeof FLAGS = 'any'): number {
    let done = 0;
    for (const { key, value } of entries) {
      const result = this.map.set(this.#keyBytes(key), this.#entryBytes(value), FLAGS[flags]);
      this.#refuse(result, `update after ${done} of a batch`);
      done++;
    }
    return done;
  }

  deleteBatch(keys: Iterable<UserValue>): number {
    let done = 0;
    for (const key of keys) {
      this.#refuse(this.map.remove(this.#keyBytes(key)), `delete after ${done} of a batch`);
      done++;
    }
    return done;
  }

  *[Symbol.iterator](): Iterator<UserEntry> {
    for (const { key, values } of this.map.entries()) yield this.#entry(key, values);
  }

  #entry(key: Uint8Array, values: readonly Uint8Array[]): UserEntry {
    return { key: this.#decode(this.#types.keyType, key), value: this.#valueOf(values) };
  }

  #valueOf(values: readonly Uint8Array[]): UserValue | readonly UserValue[] {
    const decoded = values.map((value) => this.#decode(this.#types.valueType, value));
    const [first = new Uint8Array(0)] = decoded;
    return isPerCpu(this.map.spec.type) ? decoded : first;
  }

  #decode(type: number | undefined, bytes: Uint8Array): UserValue {
    const { btf } = this.#types;
    return btf && type ? decodeValue(btf, type, bytes) : bytes;
  }

  #keyBytes(key: UserValue): Uint8Array {
    return this.#encode(this.#types.keyType, key, this.map.spec.keySize);
  }

  #valueBytes(value: UserValue): Uint8Array {
    return this.#encode(this.#types.valueType, value, this.map.spec.valueSize);
  }

  /** The value of one entry, or those of all CPUs. */
  #entryBytes(value: UserValue | readonly UserValue[]): Uint8Array {
    if (!Array.isArray(value) || !isPerCpu(this.map.spec.type)) {
      return this.#valueBytes(value as UserValue);
    }
    return entryBytes(
      this.map,
      value.map((each: UserValue) => this.#valueBytes(each)),
    );
  }

  #pushPop(what: string): PushPopMap {
    if (isPushPop(this.map)) return this.map;
    throw new KernelError('ENOTSUPP', `map ${this.map.spec.name}: ${what}`);
  }

  #refuseUnlessHash(what: string): void {
    if (HASHES.includes(this.map.spec.type)) return;
    throw new KernelError('ENOTSUPP', `map ${this.map.spec.name}: ${what}`);
  }

  #encode(type: number | undefined, value: UserValue, size: number): Uint8Array {
    if (value instanceof Uint8Array) return value;
    const { btf } = this.#types;
    return encodeValue(value, size, btf && type ? { btf, type } : undefined);
  }

  #refuse(result: number, what: string): void {
    if (result === 0) return;
    throw new KernelError(errnoName(result) ?? 'EINVAL', `map ${this.map.spec.name}: ${what}`);
  }
}

/**
 * What all map types share: the `struct bpf_map` in memory, value regions, access by address.
 *
 * The header at `address` has map_type, key_size, value_size, max_entries and map_flags where 6.12
 * keeps them (JITed tail calls read max_entries where the host says); its other fields are zero. Values lie in
 * regions of their own (one per CPU for per-CPU maps), so a program that runs out of them faults.
 * `locate` works on offsets in the backing store and allocates nothing.
 */
import { alignUp, high32, low32 } from '../../common/bytes.js';
import { ERRNO } from '../../common/errno.js';
import { KernelError, InputError } from '../../common/errors.js';
import { MemoryAccessError, type AccessKind } from '../../cpu/fault.js';
import type { Memory, Permissions, Region } from '../../cpu/memory.js';
import { hasField } from '../btf/record.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import { BPF_MAP_TYPE, isPerCpu, type BpfMap, type MapSpec } from './map.js';

/** Offsets in `struct bpf_map`, 6.12 arm64 (vectors/jit/meta-6.12.json). */
export const BPF_MAP = {
  mapType: 24,
  keySize: 28,
  valueSize: 32,
  maxEntries: 36,
  mapFlags: 48,
  size: 248,
} as const;

/** Flags of update; 0 is BPF_ANY. */
export const BPF_NOEXIST = 1;
export const BPF_EXIST = 2;
export const BPF_F_LOCK = 4;
/** All flags of update; numbers beyond are one refused number. */
const UPDATE_FLAGS = 7n;

export interface MapEntry {
  readonly key: Uint8Array;
  readonly values: readonly Uint8Array[];
}

export abstract class MapBase implements BpfMap {
  readonly spec: MapSpec;
  readonly address: bigint;
  /** Set when the host takes the map. */
  id = 0;
  /** False once freed. */
  alive = true;
  /** Bytes from one value to the next. */
  readonly stride: number;
  protected readonly host: BpfHost;
  protected readonly memory: Memory;
  readonly #regions: Region[] = [];
  /** Holds the key of `set` and `get`. */
  #scratch: Region | undefined;
  #lastRegion: Region | undefined;
  #lastLo = 0;
  #lastHi = 0;

  constructor(spec: MapSpec, host: BpfHost, headerSize: number = BPF_MAP.size) {
    this.spec = spec;
    this.host = host;
    this.memory = host.memory;
    this.stride = alignUp(spec.valueSize, 8);
    const header = this.allocate('bpf_map', headerSize).address;
    this.address = header;
    this.memory.write32(header + BigInt(BPF_MAP.mapType), BPF_MAP_TYPE[spec.type]);
    this.memory.write32(header + BigInt(BPF_MAP.keySize), spec.keySize);
    this.memory.write32(header + BigInt(BPF_MAP.valueSize), spec.valueSize);
    const { maxEntries } = host.arrayOffsets ?? BPF_MAP;
    this.memory.write32(header + BigInt(maxEntries), spec.maxEntries);
    this.memory.write32(header + BigInt(BPF_MAP.mapFlags), spec.flags);
  }

  abstract get valueAddress(): bigint;

  /** Region that holds the values of `cpu`. */
  abstract valueRegion(cpu: number): Region;

  /** Offset of the value of `cpu` under the key at offset `key`, or -1. */
  abstract locate(key: number, cpu: number): number;

  /** Stores the value at offset `value` for `cpu`, or for all CPUs when it is -1. */
  protected abstract store(key: number, value: Uint8Array, cpu: number, flags: number): number;

  protected abstract erase(key: number): number;

  abstract entries(): Iterable<MapEntry>;

  lookup(keyAddress: bigint): bigint {
    const cpu = this.host.currentCpu();
    const at = this.locateAndMark(this.offsetOf(keyAddress, this.spec.keySize, 'read'), cpu);
    if (at < 0) return 0n;
    const region = this.valueRegion(cpu);
    return region.address + BigInt(at - region.offset);
  }

  /** R0 = the address of what lies at offset `at` in the values of `cpu`. */
  addressInto(registers: RegisterPairs, at: number, cpu: number): void {
    const region = this.valueRegion(cpu);
    if (region !== this.#lastRegion) {
      this.#lastRegion = region;
      this.#lastLo = low32(region.address);
      this.#lastHi = high32(region.address);
    }
    // a region lies within 4 GiB: the upper half is that of its start
    registers[0] = this.#lastLo + (at - region.offset);
    registers[1] = this.#lastHi;
  }

  update(keyAddress: bigint, valueAddress: bigint, flags: bigint): number {
    const { keySize, valueSize } = this.spec;
    const key = this.offsetOf(keyAddress, keySize, 'read');
    const value = this.offsetOf(valueAddress, valueSize, 'read');
    const bytes = this.memory.bytes.subarray(value, value + valueSize);
    return this.store(key, bytes, this.host.currentCpu(), flagNumber(flags));
  }

  delete(keyAddress: bigint): number {
    return this.erase(this.offsetOf(keyAddress, this.spec.keySize, 'read'));
  }

  /** As `locate`, for a program: a type that ages its entries marks the entry as used. */
  locateAndMark(key: number, cpu: number): number {
    return this.locate(key, cpu);
  }

  set(key: Uint8Array, value: Uint8Array, flags = 0n): number {
    const { name, valueSize } = this.spec;
    const packed = this.stride * this.cpuCount;
    const perCpu = isPerCpu(this.spec.type) && value.length === packed;
    if (value.length !== valueSize && !perCpu) {
      throw new InputError(`map ${name}: value of ${value.length} bytes, needs ${valueSize}`);
    }
    return this.#withKey(key, (offset) => {
      const first = value.subarray(0, valueSize);
      const result = this.store(offset, first, -1, flagNumber(flags));
      if (result !== 0 || !perCpu) return result;
      for (let cpu = 1; cpu < this.cpuCount; cpu++) {
        const at = cpu * this.stride;
        this.store(offset, value.subarray(at, at + valueSize), cpu, 0);
      }
      return 0;
    });
  }

  remove(key: Uint8Array): number {
    return this.#withKey(key, (offset) => this.erase(offset));
  }

  get(key: Uint8Array): readonly Uint8Array[] | undefined {
    return this.#withKey(key, (offset) => {
      const values: Uint8Array[] = [];
      for (let cpu = 0; cpu < this.cpuCount; cpu++) {
        const at = this.locate(offset, cpu);
        if (at < 0) return undefined;
        values.push(this.valueBytes(at));
      }
      return values;
    });
  }

  free(): void {
    if (this.alive && this.spec.record) this.releaseAll();
    this.alive = false;
    this.host.removeMap(this);
    for (const region of this.#regions.splice(0)) this.host.release(region);
  }

  /** Values per key: the CPUs of a per-CPU map, else 1. */
  protected abstract get cpuCount(): number;

  /** Copies a value to offset `to`, leaving the kernel's objects in it alone. */
  protected copyValue(value: Uint8Array, to: number): void {
    const { bytes } = this.memory;
    let from = 0;
    for (const { offset, size } of this.spec.record?.fields ?? []) {
      bytes.set(value.subarray(from, offset), to + from);
      from = offset + size;
    }
    bytes.set(value.subarray(from), to + from);
  }

  /** A copy of the value at offset `at` as user space sees it: the kernel's objects read as zero. */
  protected valueBytes(at: number): Uint8Array {
    const value = this.memory.bytes.slice(at, at + this.spec.valueSize);
    for (const { offset, size } of this.spec.record?.fields ?? []) {
      value.fill(0, offset, offset + size);
    }
    return value;
  }

  /** The errno of an update's flags, or 0: BPF_F_LOCK needs a lock in the value. */
  protected checkFlags(flags: number): number {
    if ((flags & ~BPF_F_LOCK) > BPF_EXIST) return -ERRNO.EINVAL;
    const locks = hasField(this.spec.record, 'bpf_spin_lock');
    return (flags & BPF_F_LOCK) !== 0 && !locks ? -ERRNO.EINVAL : 0;
  }

  /** Gives back what the fields of the value at `address` hold: timers, objects, lists (bpf_obj_free_fields). */
  protected releaseFields(address: bigint): void {
    const { record } = this.spec;
    if (record) this.host.objects.freeFields(this.host, record, address);
  }

  /** Gives back what all values hold: the map is freed. */
  protected releaseAll(): void {}

  /** @param permissions those of programs: the map itself stores to its regions anyway. */
  protected allocate(what: string, size: number, permissions: Permissions = 'rw'): Region {
    try {
      const writable = this.host.allocate(`${what} ${this.spec.name}`, size);
      const region = permissions === 'rw' ? writable : this.memory.protect(writable, permissions);
      this.#regions.push(region);
      return region;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      for (const region of this.#regions.splice(0)) this.host.release(region);
      throw new KernelError('ENOMEM', `map ${this.spec.name}: ${error.message}`);
    }
  }

  /** Offset of `size` accessible bytes at `address`. Throws MemoryAccessError. */
  protected offsetOf(
    address: bigint,
    size: number,
    access: AccessKind & ('read' | 'write'),
  ): number {
    const hi = high32(address);
    const lo = low32(address);
    const at =
      access === 'read'
        ? this.memory.offsetRead(hi, lo, size)
        : this.memory.offsetWrite(hi, lo, size);
    if (at >= 0) return at;
    const fault = this.memory.faultAt(address, size, access);
    throw new MemoryAccessError(fault ?? { access, address, size, reason: 'unmapped' });
  }

  /** Runs `use` with the key's bytes in memory. */
  #withKey<T>(key: Uint8Array, use: (offset: number) => T): T {
    const { name, keySize } = this.spec;
    if (key.length !== keySize) {
      throw new InputError(`map ${name}: key of ${key.length} bytes, needs ${keySize}`);
    }
    this.#scratch ??= this.allocate('key of', Math.max(keySize, 8));
    this.memory.bytes.set(key, this.#scratch.offset);
    return use(this.#scratch.offset);
  }
}

/** Update flags as a number; every unknown flag gives one that no map takes. */
export function flagNumber(flags: bigint): number {
  return flags >= 0n && flags <= UPDATE_FLAGS ? Number(flags) : 8;
}

/**
 * BPF_MAP_TYPE_ARRAY_OF_MAPS and BPF_MAP_TYPE_HASH_OF_MAPS: values are maps.
 *
 * A program's lookup gives the address of the inner `struct bpf_map`, user space sees its id. Elements
 * hold that address in memory, like the kernel's. Reference: kernel/bpf/map_in_map.c, arraymap.c
 * array_of_map_*, hashtab.c htab_of_map_*. An inner map must look like the template: same type, key
 * size, value size and flags, and for arrays max_entries unless they have BPF_F_INNER_MAP.
 */
import { ERRNO } from '../../common/errno.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import { ArrayMap } from './array.js';
import { BPF_MAP, flagNumber, POINTER_SIZE, type MapBase, type MapEntry } from './base.js';
import { HashMap } from './hash.js';
import type { BpfMap, MapOfMaps, MapSpec } from './map.js';

const BPF_F_INNER_MAP = 1 << 12;

/** bpf_map_meta_equal and array_map_meta_equal */
function isLike(template: MapSpec, spec: MapSpec): boolean {
  const { type, keySize, valueSize, flags, maxEntries } = template;
  const alike =
    spec.type === type &&
    spec.keySize === keySize &&
    spec.valueSize === valueSize &&
    spec.flags === flags;
  if (!alike || type !== 'ARRAY' || (flags & BPF_F_INNER_MAP) !== 0) return alike;
  return spec.maxEntries === maxEntries;
}

/** The spec under which pointers are stored. */
function withPointers(spec: MapSpec): MapSpec {
  return { ...spec, valueSize: POINTER_SIZE };
}

function pointerBytes(map: BpfMap): Uint8Array {
  const bytes = new Uint8Array(POINTER_SIZE);
  new DataView(bytes.buffer).setBigUint64(0, map.address, true);
  return bytes;
}

function pointerOf(values: readonly Uint8Array[] | undefined): bigint {
  const [value] = values ?? [];
  return value ? new DataView(value.buffer).getBigUint64(0, true) : 0n;
}

/** What both kinds do the same way. */
class InnerMaps {
  readonly #host: BpfHost;
  readonly #template: MapSpec | undefined;

  constructor(spec: MapSpec, host: BpfHost) {
    this.#host = host;
    this.#template = spec.inner;
  }

  check(inner: BpfMap): number {
    return this.#template && isLike(this.#template, inner.spec) ? 0 : -ERRNO.EINVAL;
  }

  find(values: readonly Uint8Array[] | undefined): BpfMap | undefined {
    const pointer = pointerOf(values);
    return pointer === 0n ? undefined : this.#host.mapAt(pointer);
  }

  /** Entries with the inner map's id for a value; empty slots are no entries. */
  *entries(entries: Iterable<MapEntry>): Iterable<MapEntry> {
    for (const { key, values } of entries) {
      const inner = this.find(values);
      if (!inner) continue;
      yield { key, values: [idBytes(inner)] };
    }
  }
}

/** The value size that user space sees is 4: a file descriptor or an id. */
function showValueSize(map: MapBase, spec: MapSpec, host: BpfHost): void {
  host.memory.write32(map.address + BigInt(BPF_MAP.valueSize), spec.valueSize);
}

export class ArrayOfMaps extends ArrayMap implements MapOfMaps {
  readonly #inner: InnerMaps;

  constructor(spec: MapSpec, host: BpfHost) {
    super(withPointers(spec), host);
    this.#inner = new InnerMaps(spec, host);
    showValueSize(this, spec, host);
  }

  override lookup(keyAddress: bigint): bigint {
    const slot = super.lookup(keyAddress);
    return slot === 0n ? 0n : this.memory.read64(slot);
  }

  override addressInto(registers: RegisterPairs, at: number): void {
    registers[0] = this.memory.view.getInt32(at, true);
    registers[1] = this.memory.view.getInt32(at + 4, true);
  }

  setMap(key: Uint8Array, inner: BpfMap, flags = 0n): number {
    if (flags !== 0n) return -ERRNO.EINVAL;
    return this.#inner.check(inner) || super.set(key, pointerBytes(inner));
  }

  innerMap(key: Uint8Array): BpfMap | undefined {
    return this.#inner.find(super.get(key));
  }

  /** A value would be a file descriptor; there are none here: `setMap` instead. */
  override set(): number {
    return -ERRNO.EBADF;
  }

  override get(key: Uint8Array): readonly Uint8Array[] | undefined {
    const inner = this.innerMap(key);
    return inner ? [idBytes(inner)] : undefined;
  }

  /** Empties a slot. */
  protected override erase(key?: number): number {
    if (key === undefined) return -ERRNO.EINVAL;
    const at = this.locate(key, 0);
    if (at < 0) return -ERRNO.E2BIG;
    const wasEmpty = this.memory.view.getBigUint64(at, true) === 0n;
    this.memory.view.setBigUint64(at, 0n, true);
    return wasEmpty ? -ERRNO.ENOENT : 0;
  }

  override *entries(): Iterable<MapEntry> {
    yield* this.#inner.entries(super.entries());
  }
}

export class HashOfMaps extends HashMap implements MapOfMaps {
  readonly #inner: InnerMaps;

  constructor(spec: MapSpec, host: BpfHost) {
    super(withPointers(spec), host);
    this.#inner = new InnerMaps(spec, host);
    showValueSize(this, spec, host);
  }

  override lookup(keyAddress: bigint): bigint {
    const slot = super.lookup(keyAddress);
    return slot === 0n ? 0n : this.memory.read64(slot);
  }

  override addressInto(registers: RegisterPairs, at: number): void {
    registers[0] = this.memory.view.getInt32(at, true);
    registers[1] = this.memory.view.getInt32(at + 4, true);
  }

  setMap(key: Uint8Array, inner: BpfMap, flags = 0n): number {
    if (flagNumber(flags) > 2) return -ERRNO.EINVAL;
    return this.#inner.check(inner) || super.set(key, pointerBytes(inner), flags);
  }

  innerMap(key: Uint8Array): BpfMap | undefined {
    return this.#inner.find(super.get(key));
  }

  /** A value would be a file descriptor; there are none here: `setMap` instead. */
  override set(): number {
    return -ERRNO.EBADF;
  }

  override get(key: Uint8Array): readonly Uint8Array[] | undefined {
    const inner = this.innerMap(key);
    return inner ? [idBytes(inner)] : undefined;
  }

  override *entries(): Iterable<MapEntry> {
    yield* this.#inner.entries(super.entries());
  }
}

function idBytes(map: BpfMap): Uint8Array {
  const id = new Uint8Array(4);
  new DataView(id.buffer).setUint32(0, map.id, true);
  return id;
}

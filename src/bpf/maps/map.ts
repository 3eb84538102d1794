/**
 * What every map type offers: the kernel-side operations that helpers call, on kernel addresses.
 *
 * Results follow `struct bpf_map_ops` (include/linux/bpf.h): lookup gives the address of the value or
 * 0, the others 0 or a negative errno. Types with operations of their own have an interface here and
 * a guard that recognises them.
 */

import type { BtfRecord } from '../btf/record.js';
import type { XlatedProgram } from '../program.js';

/** Map types by their uapi numbers (include/uapi/linux/bpf.h). */
export const BPF_MAP_TYPE = {
  HASH: 1,
  ARRAY: 2,
  PROG_ARRAY: 3,
  PERF_EVENT_ARRAY: 4,
  PERCPU_HASH: 5,
  PERCPU_ARRAY: 6,
  STACK_TRACE: 7,
  CGROUP_ARRAY: 8,
  LRU_HASH: 9,
  LRU_PERCPU_HASH: 10,
  LPM_TRIE: 11,
  ARRAY_OF_MAPS: 12,
  HASH_OF_MAPS: 13,
  DEVMAP: 14,
  SOCKMAP: 15,
  CPUMAP: 16,
  XSKMAP: 17,
  SOCKHASH: 18,
  CGROUP_STORAGE: 19,
  REUSEPORT_SOCKARRAY: 20,
  PERCPU_CGROUP_STORAGE: 21,
  QUEUE: 22,
  STACK: 23,
  SK_STORAGE: 24,
  DEVMAP_HASH: 25,
  RINGBUF: 27,
  INODE_STORAGE: 28,
  TASK_STORAGE: 29,
  BLOOM_FILTER: 30,
  USER_RINGBUF: 31,
  CGRP_STORAGE: 32,
} as const;

export type MapTypeName = keyof typeof BPF_MAP_TYPE;

/** How a map is made: pure data, as `bpf(BPF_MAP_CREATE)` takes it. */
export interface MapSpec {
  readonly name: string;
  readonly type: MapTypeName;
  /** Bytes. */
  readonly keySize: number;
  /** Bytes. */
  readonly valueSize: number;
  readonly maxEntries: number;
  /** BPF_F_* of map creation. */
  readonly flags: number;
  /** Bloom filter: the number of hash functions in the low 4 bits. Default: 0. */
  readonly mapExtra?: number;
  /** Map-in-map: what its maps look like. */
  readonly inner?: MapSpec;
  /** The kernel's fields in the values: locks, timers, lists and so on, from their BTF. Default: none. */
  readonly record?: BtfRecord;
}

/** A live map. Keys and values are given by address in the host's memory. */
export interface BpfMap {
  readonly spec: MapSpec;
  /** Number that the host gave it, from 1: what `bpftool map` calls its id. */
  readonly id: number;
  /** Address of its `struct bpf_map`: what xlated programs hold. */
  readonly address: bigint;
  /** Address of the first value of an array map (direct value access, global data); else 0. */
  readonly valueAddress: bigint;

  /** Address of the value for the current CPU, or 0. */
  lookup(keyAddress: bigint): bigint;
  update(keyAddress: bigint, valueAddress: bigint, flags: bigint): number;
  delete(keyAddress: bigint): number;

  /** All entries in iteration order; a per-CPU map gives one value per CPU, else one. */
  entries(): Iterable<{ readonly key: Uint8Array; readonly values: readonly Uint8Array[] }>;
  /**
   * User-side update from bytes; 0 or a negative errno. A per-CPU map takes one value for all CPUs, or
   * one per CPU behind each other, each rounded up to 8 bytes.
   */
  set(key: Uint8Array, value: Uint8Array, flags?: bigint): number;
  /** User-side lookup: one value per CPU, or undefined. Leaves no mark (LRU). */
  get(key: Uint8Array): readonly Uint8Array[] | undefined;
  /** User-side delete; 0 or a negative errno. */
  remove(key: Uint8Array): number;
  /** Frees its memory. */
  free(): void;
}

/** A map of programs: what tail calls go through. */
export interface ProgArrayMap extends BpfMap {
  /** The program in slot `index`; undefined when the slot is empty or out of range. */
  programAt(index: number): XlatedProgram | undefined;
  /**
   * Fills a slot (undefined empties it); 0 or a negative errno. JIT images find the program by the address
   * of its `struct bpf_prog`. Default: the one that the host gives it.
   */
  setProgram(index: number, program: XlatedProgram | undefined, address?: bigint): number;
}

/** Queue, stack and bloom filter: maps without keys. */
export interface PushPopMap extends BpfMap {
  push(valueAddress: bigint, flags: bigint): number;
  pop(valueAddress: bigint): number;
  peek(valueAddress: bigint): number;
  /** User-side push, pop and peek. */
  pushBytes(value: Uint8Array, flags?: bigint): number;
  popBytes(): Uint8Array | undefined;
}

/** Array and hash of maps. */
export interface MapOfMaps extends BpfMap {
  /** Puts a map under a key; 0 or a negative errno. */
  setMap(key: Uint8Array, inner: BpfMap, flags?: bigint): number;
  innerMap(key: Uint8Array): BpfMap | undefined;
}

/** Where packets are redirected to: devmap, devmap hash, cpumap, xskmap. */
export interface RedirectMap extends BpfMap {
  /** Whether something is there to redirect to. */
  hasTarget(key: number): boolean;
  /** Whether BPF_F_BROADCAST and BPF_F_EXCLUDE_INGRESS may be asked of it. */
  readonly canBroadcast: boolean;
  /** Physical address of what is there: the kernel's object, or the value where the host makes none. */
  target(key: number): number;
  /** Those of all entries, in the order in which a broadcast visits them. */
  targets(): Iterable<number>;
}

export function isProgArray(map: BpfMap | undefined): map is ProgArrayMap {
  return map !== undefined && 'programAt' in map;
}

export function isPushPop(map: BpfMap): map is PushPopMap {
  return 'pushBytes' in map;
}

export function isMapOfMaps(map: BpfMap): map is MapOfMaps {
  return 'innerMap' in map;
}

export function isRedirectMap(map: BpfMap): map is RedirectMap {
  return 'hasTarget' in map;
}

const PER_CPU: ReadonlySet<MapTypeName> = new Set([
  'PERCPU_HASH',
  'PERCPU_ARRAY',
  'LRU_PERCPU_HASH',
]);

/** Whether each CPU has a value of its own. */
export function isPerCpu(type: MapTypeName): boolean {
  return PER_CPU.has(type);
}

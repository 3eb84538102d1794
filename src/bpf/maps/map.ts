/**
 * What every map type offers: the kernel-side operations that helpers call, on kernel addresses.
 *
 * Results follow `struct bpf_map_ops` (include/linux/bpf.h): lookup gives the address of the value or
 * 0, the others 0 or a negative errno.
 */

import type { XlatedProgram } from '../program.js';

/** Map types by their uapi numbers (include/uapi/linux/bpf.h). */
export const BPF_MAP_TYPE = {
  HASH: 1,
  ARRAY: 2,
  PROG_ARRAY: 3,
  PERCPU_HASH: 5,
  PERCPU_ARRAY: 6,
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
}

/** A live map. Keys and values are given by address in the host's memory. */
export interface BpfMap {
  readonly spec: MapSpec;
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
  /** User-side update from bytes (for all CPUs the same); 0 or a negative errno. */
  set(key: Uint8Array, value: Uint8Array, flags?: bigint): number;
  /** User-side lookup: one value per CPU, or undefined. */
  get(key: Uint8Array): readonly Uint8Array[] | undefined;
  /** Frees its memory. */
  free(): void;
}

/** A map of programs: what tail calls go through. */
export interface ProgArrayMap extends BpfMap {
  /** The program in slot `index`; undefined when the slot is empty or out of range. */
  programAt(index: number): XlatedProgram | undefined;
  /** Fills a slot (undefined empties it); 0 or a negative errno. */
  setProgram(index: number, program: XlatedProgram | undefined, address?: bigint): number;
}

/**
 * From the numbers of a map definition to a `MapSpec` that `createMap` takes.
 *
 * Names of all map types (enum bpf_map_type in include/uapi/linux/bpf.h), so that a refusal can say
 * what was asked for.
 */
import { InputError } from '../../common/errors.js';
import { PAGE_SIZE } from '../../cpu/memory.js';
import type { Btf } from '../btf/btf.js';
import { BPF_MAP_TYPE, type MapSpec, type MapTypeName, type ValueFields } from '../maps/map.js';
import type { MapDefinition } from './spec.js';

const NAMES = `
  UNSPEC HASH ARRAY PROG_ARRAY PERF_EVENT_ARRAY PERCPU_HASH PERCPU_ARRAY STACK_TRACE CGROUP_ARRAY
  LRU_HASH LRU_PERCPU_HASH LPM_TRIE ARRAY_OF_MAPS HASH_OF_MAPS DEVMAP SOCKMAP CPUMAP XSKMAP SOCKHASH
  CGROUP_STORAGE REUSEPORT_SOCKARRAY PERCPU_CGROUP_STORAGE QUEUE STACK SK_STORAGE DEVMAP_HASH
  STRUCT_OPS RINGBUF INODE_STORAGE TASK_STORAGE BLOOM_FILTER USER_RINGBUF CGRP_STORAGE ARENA
`
  .trim()
  .split(/\s+/);

function isSupported(name: string): name is MapTypeName {
  return Object.hasOwn(BPF_MAP_TYPE, name);
}

/** `LRU_HASH`; undefined for numbers without a name. */
function mapTypeName(type: number): string | undefined {
  return NAMES[type];
}

/** What `mapSpec` needs to know besides the definition. */
export interface MapSpecOptions {
  /** BTF of the object: locks and timers in values are found by it. */
  readonly btf?: Btf | undefined;
  /** CPUs of the machine: the size of a perf event array that names none. */
  readonly cpuCount: number;
}

export function mapSpec(definition: MapDefinition, options: MapSpecOptions): MapSpec {
  const { name, keySize, valueSize, flags, inner, mapExtra } = definition;
  const type = mapTypeName(definition.type);
  if (type === undefined) {
    throw new InputError(`map '${name}': unknown map type ${definition.type}`);
  }
  if (!isSupported(type)) {
    throw new InputError(`map '${name}': map type ${definition.type} (${type}) is not supported`);
  }
  const fields = options.btf ? valueFields(options.btf, definition.valueType) : undefined;
  return {
    name,
    type,
    keySize,
    valueSize,
    maxEntries: entriesOf(type, definition.maxEntries, options.cpuCount),
    flags,
    ...(mapExtra ? { mapExtra } : {}),
    ...(inner ? { inner: mapSpec(inner, options) } : {}),
    ...(fields ? { fields } : {}),
  };
}

/** max_entries as libbpf adjusts it. */
function entriesOf(type: MapTypeName, maxEntries: number, cpuCount: number): number {
  if (type === 'PERF_EVENT_ARRAY' && maxEntries === 0) return cpuCount;
  if (type !== 'RINGBUF' || maxEntries === 0) return maxEntries;
  // a power of two of whole pages
  return Math.max(PAGE_SIZE, 2 ** Math.ceil(Math.log2(maxEntries)));
}

/** Where a value has a `struct bpf_spin_lock` or `struct bpf_timer` as a member. */
function valueFields(btf: Btf, valueType: number): ValueFields | undefined {
  if (valueType === 0) return undefined;
  const struct = btf.resolve(valueType);
  if (struct.kind !== 'struct') return undefined;
  const offsetOf = (name: string): number | undefined => {
    const member = struct.members.find(({ type }) => {
      const resolved = btf.resolve(type);
      return resolved.kind === 'struct' && resolved.name === name;
    });
    return member && member.bitOffset / 8;
  };
  const spinLock = offsetOf('bpf_spin_lock');
  const timer = offsetOf('bpf_timer');
  if (spinLock === undefined && timer === undefined) return undefined;
  return {
    ...(spinLock === undefined ? {} : { spinLock }),
    ...(timer === undefined ? {} : { timer }),
  };
}

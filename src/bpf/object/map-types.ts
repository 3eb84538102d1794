/**
 * From the numbers of a map definition to a `MapSpec` that `createMap` takes.
 *
 * Names of all map types (enum bpf_map_type in include/uapi/linux/bpf.h), so that a refusal can say
 * what was asked for.
 */
import { InputError } from '../../common/errors.js';
import { PAGE_SIZE } from '../../cpu/memory.js';
import type { LocalTypes } from '../btf/local-types.js';
import { BPF_MAP_TYPE, type MapSpec, type MapTypeName } from '../maps/map.js';
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
export function mapTypeName(type: number): string | undefined {
  return NAMES[type];
}

/** What `mapSpec` needs to know besides the definition. */
export interface MapSpecOptions {
  /** Types of the object: the kernel's fields in values are found by them. Default: values have none. */
  readonly types?: LocalTypes | undefined;
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
  const { valueType } = definition;
  const record = valueType === 0 ? undefined : options.types?.valueRecord(valueType, valueSize);
  return {
    name,
    type,
    keySize,
    valueSize,
    maxEntries: entriesOf(type, definition.maxEntries, options.cpuCount),
    flags,
    ...(mapExtra ? { mapExtra } : {}),
    ...(inner ? { inner: mapSpec(inner, options) } : {}),
    ...(record ? { record } : {}),
  };
}

/** max_entries as libbpf adjusts it. */
function entriesOf(type: MapTypeName, maxEntries: number, cpuCount: number): number {
  if (type === 'PERF_EVENT_ARRAY' && maxEntries === 0) return cpuCount;
  if (type !== 'RINGBUF' || maxEntries === 0) return maxEntries;
  // a power of two of whole pages
  return Math.max(PAGE_SIZE, 2 ** Math.ceil(Math.log2(maxEntries)));
}

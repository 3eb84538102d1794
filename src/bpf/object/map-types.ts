/**
 * From the numbers of a map definition to a `MapSpec` that `createMap` takes.
 *
 * Names of all map types (enum bpf_map_type in include/uapi/linux/bpf.h), so that a refusal can say
 * what was asked for.
 */
import { InputError } from '../../common/errors.js';
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
function mapTypeName(type: number): string | undefined {
  return NAMES[type];
}

export function mapSpec(definition: MapDefinition): MapSpec {
  const { name, keySize, valueSize, maxEntries, flags, initialValues } = definition;
  const type = mapTypeName(definition.type);
  if (type === undefined) {
    throw new InputError(`map '${name}': unknown map type ${definition.type}`);
  }
  if (!isSupported(type)) {
    throw new InputError(`map '${name}': map type ${definition.type} (${type}) is not supported`);
  }
  if (initialValues.length > 0) {
    throw new InputError(`map '${name}': initial values (.values) are not supported`);
  }
  return { name, type, keySize, valueSize, maxEntries, flags };
}

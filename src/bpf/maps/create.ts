/**
 * BPF_MAP_CREATE: checks a map's parameters and makes it.
 *
 * One row per map type: the flags of creation it takes, its checks, its class. Left out: permissions.
 *
 * Usage:
 *   const map = createMap({ name: 'counts', type: 'ARRAY', keySize: 4, valueSize: 8, maxEntries: 4,
 *                           flags: 0 }, host);
 */
import { KernelError } from '../../common/errors.js';
import type { BpfHost } from '../host.js';
import { ArrayMap } from './array.js';
import type { MapBase } from './base.js';
import { BloomFilter } from './bloom-filter.js';
import * as check from './checks.js';
import { ACCESS_FLAGS, BPF_F, allOf, type Complaint, type MapCheck } from './checks.js';
import { HashMap } from './hash.js';
import { InertMap } from './inert.js';
import { LpmTrie } from './lpm-trie.js';
import { LruHashMap } from './lru-hash.js';
import { ArrayOfMaps, HashOfMaps } from './map-of-maps.js';
import type { BpfMap, MapSpec, MapTypeName } from './map.js';
import { PerfEventArray } from './perf-event-array.js';
import { ProgArray } from './prog-array.js';
import { QueueStackMap } from './queue-stack.js';
import { Cpumap, Devmap, DevmapHash, Xskmap } from './redirect-maps.js';
import { RingBuffer } from './ringbuf.js';

interface MapType {
  /** Flags of creation that it takes. */
  readonly flags: number;
  readonly check: MapCheck;
  readonly make: new (spec: MapSpec, host: BpfHost) => MapBase;
}

const { NUMA_NODE, NO_PREALLOC, NO_COMMON_LRU, ZERO_SEED, MMAPABLE, INNER_MAP } = BPF_F;
const SLOT_FLAGS = NUMA_NODE | ACCESS_FLAGS;
const HASH_FLAGS = NO_PREALLOC | NO_COMMON_LRU | ZERO_SEED | SLOT_FLAGS;
const DEVICE_FLAGS = NUMA_NODE | BPF_F.RDONLY | BPF_F.WRONLY;

/** Maps that hold nothing here; what the kernel asks of their sizes is left out. */
const INERT: MapType = {
  flags: HASH_FLAGS | MMAPABLE | BPF_F.CLONE,
  check: () => undefined,
  make: InertMap,
};

const withValues = allOf(check.entries, check.someValue, check.access);
const array = allOf(withValues, check.array);
const descriptors = allOf(check.descriptors, array);
const hash = allOf(withValues, check.hash);
const bag = allOf(withValues, check.keyless, check.bag);
const device = allOf(check.entries, check.device);

const MAP_TYPES: Readonly<Record<MapTypeName, MapType>> = {
  HASH: { flags: HASH_FLAGS, check: allOf(check.notLru, hash), make: HashMap },
  ARRAY: { flags: SLOT_FLAGS | MMAPABLE | INNER_MAP, check: array, make: ArrayMap },
  PROG_ARRAY: { flags: SLOT_FLAGS, check: descriptors, make: ProgArray },
  PERF_EVENT_ARRAY: {
    flags: SLOT_FLAGS | BPF_F.PRESERVE_ELEMS,
    check: descriptors,
    make: PerfEventArray,
  },
  PERCPU_HASH: {
    flags: HASH_FLAGS,
    check: allOf(check.notLru, hash, check.perCpu),
    make: HashMap,
  },
  PERCPU_ARRAY: { flags: SLOT_FLAGS, check: allOf(array, check.perCpu), make: ArrayMap },
  LRU_HASH: { flags: HASH_FLAGS, check: allOf(check.lru, hash), make: LruHashMap },
  LRU_PERCPU_HASH: {
    flags: HASH_FLAGS,
    check: allOf(check.lru, hash, check.perCpu),
    make: LruHashMap,
  },
  LPM_TRIE: {
    flags: NO_PREALLOC | SLOT_FLAGS,
    check: allOf(withValues, check.trie),
    make: LpmTrie,
  },
  ARRAY_OF_MAPS: {
    flags: SLOT_FLAGS,
    check: allOf(descriptors, check.inner),
    make: ArrayOfMaps,
  },
  HASH_OF_MAPS: {
    flags: HASH_FLAGS,
    check: allOf(check.notLru, check.descriptors, hash, check.inner),
    make: HashOfMaps,
  },
  DEVMAP: { flags: DEVICE_FLAGS, check: device, make: Devmap },
  DEVMAP_HASH: { flags: DEVICE_FLAGS, check: device, make: DevmapHash },
  CPUMAP: { flags: NUMA_NODE, check: allOf(device, check.cpus), make: Cpumap },
  XSKMAP: { flags: DEVICE_FLAGS, check: allOf(check.entries, check.sockets), make: Xskmap },
  QUEUE: { flags: SLOT_FLAGS, check: bag, make: QueueStackMap },
  STACK: { flags: SLOT_FLAGS, check: bag, make: QueueStackMap },
  RINGBUF: {
    flags: NUMA_NODE,
    check: allOf(check.entries, check.keyless, check.ring),
    make: RingBuffer,
  },
  BLOOM_FILTER: {
    flags: SLOT_FLAGS | ZERO_SEED,
    check: allOf(withValues, check.keyless, check.bloom),
    make: BloomFilter,
  },
  STACK_TRACE: INERT,
  CGROUP_ARRAY: INERT,
  SOCKMAP: INERT,
  SOCKHASH: INERT,
  CGROUP_STORAGE: INERT,
  REUSEPORT_SOCKARRAY: INERT,
  PERCPU_CGROUP_STORAGE: INERT,
  SK_STORAGE: INERT,
  INODE_STORAGE: INERT,
  TASK_STORAGE: INERT,
  USER_RINGBUF: INERT,
  CGRP_STORAGE: INERT,
};

/** Makes a map and tells the host of it. Throws KernelError when the parameters are refused. */
export function createMap(spec: MapSpec, host: BpfHost): BpfMap {
  const type = rowOf(spec);
  refuse(spec, checkSpec(spec, type));
  const { inner } = spec;
  if (inner) refuse(inner, checkSpec(inner, rowOf(inner)));
  const map = new type.make(spec, host);
  map.id = host.addMap(map);
  return map;
}

function rowOf(spec: MapSpec): MapType {
  const types: Readonly<Record<string, MapType | undefined>> = MAP_TYPES;
  const type = Object.hasOwn(types, spec.type) ? types[spec.type] : undefined;
  if (!type) throw new KernelError('EINVAL', `map ${spec.name}: unknown map type ${spec.type}`);
  return type;
}

function checkSpec(spec: MapSpec, { flags, check: checkType }: MapType): Complaint {
  const unknown = spec.flags & ~flags;
  if (unknown) return ['EINVAL', `flags 0x${unknown.toString(16)} are not for ${spec.type}`];
  if (spec.mapExtra && spec.type !== 'BLOOM_FILTER') {
    return ['EINVAL', `map_extra ${spec.mapExtra} is for bloom filters`];
  }
  return checkType(spec) ?? check.record(spec);
}

function refuse(spec: MapSpec, complaint: Complaint): void {
  if (complaint) throw new KernelError(complaint[0], `map ${spec.name}: ${complaint[1]}`);
}

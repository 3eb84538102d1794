/**
 * What BPF_MAP_CREATE checks per map type, with the errno of each refusal.
 *
 * Reference: the map_alloc_check and map_alloc operations of kernel/bpf/*.c (array_map_alloc_check,
 * fd_array_map_alloc_check, htab_map_alloc_check, trie_alloc, queue_stack_map_alloc_check,
 * ringbuf_map_alloc, bloom_map_alloc, dev_map_init_map, cpu_map_alloc, xsk_map_alloc).
 */
import { alignUp } from '../../common/bytes.js';
import type { ErrnoName } from '../../common/errno.js';
import { PAGE_SIZE } from '../../cpu/memory.js';
import type { FieldKind } from '../btf/record.js';
import type { MapSpec, MapTypeName } from './map.js';

/** Flags of creation (include/uapi/linux/bpf.h). */
export const BPF_F = {
  NO_PREALLOC: 1 << 0,
  NO_COMMON_LRU: 1 << 1,
  NUMA_NODE: 1 << 2,
  RDONLY: 1 << 3,
  WRONLY: 1 << 4,
  ZERO_SEED: 1 << 6,
  RDONLY_PROG: 1 << 7,
  WRONLY_PROG: 1 << 8,
  CLONE: 1 << 9,
  MMAPABLE: 1 << 10,
  PRESERVE_ELEMS: 1 << 11,
  INNER_MAP: 1 << 12,
} as const;

export const ACCESS_FLAGS = BPF_F.RDONLY | BPF_F.WRONLY | BPF_F.RDONLY_PROG | BPF_F.WRONLY_PROG;

/** Most bytes of one per-CPU value (PCPU_MIN_UNIT_SIZE). */
const MAX_PERCPU_VALUE = 32768;
/** KMALLOC_MAX_SIZE with 4 KiB pages. */
const MAX_KMALLOC = 4 << 20;
/** sizeof(struct htab_elem) without its key. */
const HTAB_ELEM = 48;
/** CONFIG_NR_CPUS of arm64. */
const NR_CPUS = 512;

/** Why a map is refused; undefined when it is not. */
export type Complaint = readonly [ErrnoName, string] | undefined;
export type MapCheck = (spec: MapSpec) => Complaint;

/** The first complaint of several checks. */
export function allOf(...checks: readonly MapCheck[]): MapCheck {
  return (spec) => {
    for (const check of checks) {
      const complaint = check(spec);
      if (complaint) return complaint;
    }
    return undefined;
  };
}

/** Access flags that contradict each other. */
export const access: MapCheck = ({ flags }) => {
  const both = (pair: number): boolean => (flags & pair) === pair;
  if (both(BPF_F.RDONLY_PROG | BPF_F.WRONLY_PROG)) {
    return ['EINVAL', 'BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG exclude each other'];
  }
  if (both(BPF_F.RDONLY | BPF_F.WRONLY)) {
    return ['EINVAL', 'BPF_F_RDONLY and BPF_F_WRONLY exclude each other'];
  }
  return undefined;
};

export const entries: MapCheck = ({ maxEntries }) =>
  maxEntries <= 0 ? ['EINVAL', `max_entries ${maxEntries}: its loader is to size it`] : undefined;

export const someValue: MapCheck = ({ valueSize }) =>
  valueSize <= 0 ? ['EINVAL', `value size ${valueSize}`] : undefined;

export const array: MapCheck = (spec) => {
  if (spec.keySize !== 4) return ['EINVAL', `key size ${spec.keySize}, an array's is 4`];
  if (spec.valueSize > 0x7fff_ffff) return ['E2BIG', `value size ${spec.valueSize}`];
  if (spec.maxEntries > 0x8000_0000) return ['E2BIG', `max_entries ${spec.maxEntries}`];
  return undefined;
};

/** Arrays of file descriptors: values are u32 for user space, and programs do not touch them. */
export const descriptors: MapCheck = ({ type, valueSize, flags }) => {
  if (valueSize !== 4) return ['EINVAL', `value size ${valueSize}, that of ${type} is 4`];
  if (flags & (BPF_F.RDONLY_PROG | BPF_F.WRONLY_PROG)) {
    return ['EINVAL', 'BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG are not for such a map'];
  }
  return undefined;
};

export const hash: MapCheck = (spec) => {
  if (spec.keySize === 0) return ['EINVAL', 'key size 0'];
  if (spec.maxEntries > 0x8000_0000) return ['E2BIG', `max_entries ${spec.maxEntries}`];
  const size = spec.keySize + spec.valueSize;
  return size >= MAX_KMALLOC - HTAB_ELEM ? ['E2BIG', `elements of ${size} bytes`] : undefined;
};

export const perCpu: MapCheck = ({ valueSize, flags }) => {
  if (flags & BPF_F.NUMA_NODE) return ['EINVAL', 'per-CPU maps lie on all NUMA nodes'];
  return alignUp(valueSize, 8) > MAX_PERCPU_VALUE
    ? ['E2BIG', `per-CPU values of ${valueSize} bytes, at most ${MAX_PERCPU_VALUE}`]
    : undefined;
};

export const notLru: MapCheck = ({ flags }) =>
  flags & BPF_F.NO_COMMON_LRU ? ['EINVAL', 'BPF_F_NO_COMMON_LRU is for LRU maps'] : undefined;

export const lru: MapCheck = ({ flags }) => {
  if (flags & BPF_F.NO_PREALLOC) return ['ENOTSUPP', 'an LRU map is preallocated'];
  if (flags & BPF_F.NO_COMMON_LRU && flags & BPF_F.NUMA_NODE) {
    return ['EINVAL', 'BPF_F_NO_COMMON_LRU lists lie on all NUMA nodes'];
  }
  return undefined;
};

export const trie: MapCheck = ({ keySize, flags, valueSize }) => {
  if (!(flags & BPF_F.NO_PREALLOC)) return ['EINVAL', 'an LPM trie needs BPF_F_NO_PREALLOC'];
  if (keySize < 5 || keySize > 260) return ['EINVAL', `key size ${keySize}, a trie's is 5 to 260`];
  return valueSize > MAX_KMALLOC - 256 - 32 ? ['EINVAL', `value size ${valueSize}`] : undefined;
};

export const keyless: MapCheck = ({ type, keySize }) =>
  keySize === 0 ? undefined : ['EINVAL', `key size ${keySize}, a ${type} has no keys`];

export const bag: MapCheck = ({ valueSize }) =>
  valueSize > MAX_KMALLOC ? ['E2BIG', `value size ${valueSize}`] : undefined;

export const ring: MapCheck = ({ valueSize, maxEntries }) => {
  if (valueSize !== 0) return ['EINVAL', `value size ${valueSize}, a ring buffer has no values`];
  if (2 ** Math.round(Math.log2(maxEntries)) !== maxEntries || maxEntries % PAGE_SIZE !== 0) {
    return ['EINVAL', `max_entries ${maxEntries} is no power of two of at least a page`];
  }
  return undefined;
};

export const bloom: MapCheck = ({ mapExtra = 0 }) =>
  mapExtra > 15 ? ['EINVAL', `map_extra ${mapExtra}, at most 15 hash functions`] : undefined;

export const device: MapCheck = ({ keySize, valueSize }) => {
  if (keySize !== 4) return ['EINVAL', `key size ${keySize}, it is 4`];
  return valueSize === 4 || valueSize === 8
    ? undefined
    : ['EINVAL', `value size ${valueSize}, it is 4 or 8`];
};

export const cpus: MapCheck = ({ maxEntries }) =>
  maxEntries > NR_CPUS
    ? ['E2BIG', `max_entries ${maxEntries}, there are at most ${NR_CPUS} CPUs`]
    : undefined;

export const sockets: MapCheck = ({ keySize, valueSize }) =>
  keySize === 4 && valueSize === 4
    ? undefined
    : ['EINVAL', `key size ${keySize} and value size ${valueSize}, both are 4`];

/** bpf_map_meta_alloc: what a map-in-map may hold. */
export const inner: MapCheck = ({ inner: template }) => {
  if (!template) return ['EBADF', 'a map of maps needs a template of its inner maps'];
  switch (template.type) {
    case 'ARRAY_OF_MAPS':
    case 'HASH_OF_MAPS':
      return ['EINVAL', 'maps are nested over two deep'];
    case 'PROG_ARRAY':
      return ['ENOTSUPP', 'a prog array cannot be an inner map'];
    default:
      return undefined;
  }
};

const LOCKABLE: readonly MapTypeName[] = [
  'HASH',
  'ARRAY',
  'CGROUP_STORAGE',
  'SK_STORAGE',
  'INODE_STORAGE',
  'TASK_STORAGE',
  'CGRP_STORAGE',
];
const GLOBAL: readonly MapTypeName[] = ['HASH', 'LRU_HASH', 'ARRAY'];
const OWNING: readonly MapTypeName[] = [
  'HASH',
  'PERCPU_HASH',
  'LRU_HASH',
  'LRU_PERCPU_HASH',
  'ARRAY',
  'PERCPU_ARRAY',
  'SK_STORAGE',
  'INODE_STORAGE',
  'TASK_STORAGE',
  'CGRP_STORAGE',
];

/** Map types whose values may have a field, in the order in which the kernel asks. */
const MAPS_OF_FIELD: readonly (readonly [FieldKind, readonly MapTypeName[]])[] = [
  ['bpf_spin_lock', LOCKABLE],
  ['bpf_timer', GLOBAL],
  ['kptr_untrusted', OWNING],
  ['kptr', OWNING],
  ['percpu_kptr', OWNING],
  ['bpf_list_head', GLOBAL],
  ['bpf_rb_root', GLOBAL],
  ['bpf_refcount', OWNING],
  ['bpf_wq', GLOBAL],
];

/** map_check_btf: what of the kernel's the values have. */
export const record: MapCheck = ({ type, flags, record: fields }) => {
  if (!fields) return undefined;
  if (flags & (BPF_F.RDONLY_PROG | BPF_F.WRONLY_PROG)) {
    return [
      'EACCES',
      'values with fields of the kernel, and BPF_F_RDONLY_PROG or BPF_F_WRONLY_PROG',
    ];
  }
  const refused = MAPS_OF_FIELD.find(
    ([kind, types]) => fields.fields.some((each) => each.kind === kind) && !types.includes(type),
  );
  return refused && ['EOPNOTSUPP', `values of ${type} cannot have a ${refused[0]}`];
};

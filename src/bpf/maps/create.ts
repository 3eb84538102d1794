/**
 * BPF_MAP_CREATE: checks a map's parameters and makes it.
 *
 * One row per map type. Reference: kernel/bpf/arraymap.c array_map_alloc_check, hashtab.c
 * htab_map_alloc_check, uapi BPF_F_* flags. Left out: permissions, BTF checks of keys and values.
 *
 * Usage:
 *   const map = createMap({ name: 'counts', type: 'ARRAY', keySize: 4, valueSize: 8, maxEntries: 4,
 *                           flags: 0 }, host);
 */
import { alignUp } from '../../common/bytes.js';
import type { ErrnoName } from '../../common/errno.js';
import { KernelError } from '../../common/errors.js';
import type { BpfHost } from '../host.js';
import { ArrayMap } from './array.js';
import { HashMap } from './hash.js';
import type { BpfMap, MapSpec, MapTypeName } from './map.js';
import { ProgArray } from './prog-array.js';

const BPF_F_NO_PREALLOC = 1 << 0;
const BPF_F_NUMA_NODE = 1 << 2;
/** RDONLY, WRONLY, RDONLY_PROG, WRONLY_PROG */
const ACCESS_FLAGS = (1 << 3) | (1 << 4) | (1 << 7) | (1 << 8);
const BPF_F_ZERO_SEED = 1 << 6;
const BPF_F_MMAPABLE = 1 << 10;

/** Most bytes of one per-CPU value (PCPU_MIN_UNIT_SIZE). */
const MAX_PERCPU_VALUE = 32768;
/** KMALLOC_MAX_SIZE with 4 KiB pages. */
const MAX_ELEMENT = 4 << 20;

type Complaint = readonly [ErrnoName, string];

interface MapType {
  /** Flags of creation that it takes. */
  readonly flags: number;
  readonly check: (spec: MapSpec) => Complaint | undefined;
  readonly make: (spec: MapSpec, host: BpfHost) => BpfMap;
}

function checkArray(spec: MapSpec): Complaint | undefined {
  if (spec.keySize !== 4) return ['EINVAL', `key size ${spec.keySize}, an array's is 4`];
  if (spec.valueSize > 0x7fff_ffff) return ['E2BIG', `value size ${spec.valueSize}`];
  return undefined;
}

function checkHash(spec: MapSpec): Complaint | undefined {
  if (spec.keySize === 0) return ['EINVAL', 'key size 0'];
  const size = spec.keySize + spec.valueSize;
  if (size >= MAX_ELEMENT) return ['E2BIG', `elements of ${size} bytes`];
  return undefined;
}

function checkPerCpu(spec: MapSpec): Complaint | undefined {
  if (alignUp(spec.valueSize, 8) > MAX_PERCPU_VALUE) {
    return ['E2BIG', `per-CPU values of ${spec.valueSize} bytes, at most ${MAX_PERCPU_VALUE}`];
  }
  return undefined;
}

function checkProgArray(spec: MapSpec): Complaint | undefined {
  if (spec.valueSize !== 4) return ['EINVAL', `value size ${spec.valueSize}, a prog array's is 4`];
  return checkArray(spec);
}

const ARRAY_FLAGS = BPF_F_NUMA_NODE | BPF_F_MMAPABLE | ACCESS_FLAGS;
const HASH_FLAGS = BPF_F_NO_PREALLOC | BPF_F_NUMA_NODE | BPF_F_ZERO_SEED | ACCESS_FLAGS;

const makeArray = (spec: MapSpec, host: BpfHost): BpfMap => new ArrayMap(spec, host);
const makeHash = (spec: MapSpec, host: BpfHost): BpfMap => new HashMap(spec, host);

const MAP_TYPES: Readonly<Record<MapTypeName, MapType>> = {
  HASH: { flags: HASH_FLAGS, check: checkHash, make: makeHash },
  ARRAY: { flags: ARRAY_FLAGS, check: checkArray, make: makeArray },
  PROG_ARRAY: {
    flags: ACCESS_FLAGS,
    check: checkProgArray,
    make: (spec, host) => new ProgArray(spec, host),
  },
  PERCPU_HASH: {
    flags: HASH_FLAGS,
    check: (spec) => checkHash(spec) ?? checkPerCpu(spec),
    make: makeHash,
  },
  PERCPU_ARRAY: {
    flags: ACCESS_FLAGS,
    check: (spec) => checkArray(spec) ?? checkPerCpu(spec),
    make: makeArray,
  },
};

/** Makes a map and tells the host of it. Throws KernelError when the parameters are refused. */
export function createMap(spec: MapSpec, host: BpfHost): BpfMap {
  const types: Readonly<Record<string, MapType | undefined>> = MAP_TYPES;
  const type = Object.hasOwn(types, spec.type) ? types[spec.type] : undefined;
  if (!type) throw new KernelError('EINVAL', `map ${spec.name}: unknown map type ${spec.type}`);
  const complaint = checkCommon(spec) ?? type.check(spec) ?? checkFlags(spec, type.flags);
  if (complaint) throw new KernelError(complaint[0], `map ${spec.name}: ${complaint[1]}`);
  const map = type.make(spec, host);
  host.addMap(map);
  return map;
}

function checkCommon(spec: MapSpec): Complaint | undefined {
  if (spec.maxEntries <= 0) return ['EINVAL', `max_entries ${spec.maxEntries}`];
  if (spec.maxEntries > 0x8000_0000) return ['E2BIG', `max_entries ${spec.maxEntries}`];
  if (spec.valueSize <= 0) return ['EINVAL', `value size ${spec.valueSize}`];
  return undefined;
}

function checkFlags(spec: MapSpec, allowed: number): Complaint | undefined {
  const unknown = spec.flags & ~allowed;
  return unknown
    ? ['EINVAL', `flags 0x${unknown.toString(16)} are not for ${spec.type}`]
    : undefined;
}

/**
 * Names of the kernel functions behind the operations of each map type: what calls of helpers on a map that is
 * known become.
 *
 * Reference: the `struct bpf_map_ops` of kernel/bpf/*.c and net/xdp/xskmap.c (6.1 and 6.12 have the same names),
 * do_misc_fixups in kernel/bpf/verifier.c. Operations that a type does not have are left out: the verifier refuses
 * their helpers.
 */
import type { MapTypeName } from './map.js';

/** BPF_FUNC_* of the helpers that become calls of a map's operations. */
export const MAP_HELPER = {
  lookup: 1,
  update: 2,
  delete: 3,
  redirect: 51,
  push: 87,
  pop: 88,
  peek: 89,
  forEach: 164,
  lookupPercpu: 195,
} as const;

type Operation = keyof typeof MAP_HELPER;
type Operations = Readonly<Partial<Record<Operation, string>>>;

/** `PREFIX_lookup_elem` and so on. */
function basic(prefix: string): Operations {
  return {
    lookup: `${prefix}_lookup_elem`,
    update: `${prefix}_update_elem`,
    delete: `${prefix}_delete_elem`,
  };
}

function bag(kind: 'queue' | 'stack'): Operations {
  return {
    ...basic('queue_stack_map'),
    push: 'queue_stack_map_push_elem',
    pop: `${kind}_map_pop_elem`,
    peek: `${kind}_map_peek_elem`,
  };
}

const DESCRIPTORS: Operations = {
  lookup: 'fd_array_map_lookup_elem',
  delete: 'fd_array_map_delete_elem',
};
const ARRAY: Operations = { ...basic('array_map'), forEach: 'bpf_for_each_array_elem' };
const HASH: Operations = { ...basic('htab_map'), forEach: 'bpf_for_each_hash_elem' };

const OPERATIONS: Readonly<Partial<Record<MapTypeName, Operations>>> = {
  ARRAY,
  PERCPU_ARRAY: {
    ...ARRAY,
    lookup: 'percpu_array_map_lookup_elem',
    lookupPercpu: 'percpu_array_map_lookup_percpu_elem',
  },
  PROG_ARRAY: DESCRIPTORS,
  PERF_EVENT_ARRAY: DESCRIPTORS,
  CGROUP_ARRAY: DESCRIPTORS,
  ARRAY_OF_MAPS: { ...DESCRIPTORS, lookup: 'array_of_map_lookup_elem' },
  HASH,
  LRU_HASH: { ...HASH, ...basic('htab_lru_map') },
  PERCPU_HASH: {
    ...HASH,
    lookup: 'htab_percpu_map_lookup_elem',
    update: 'htab_percpu_map_update_elem',
    lookupPercpu: 'htab_percpu_map_lookup_percpu_elem',
  },
  LRU_PERCPU_HASH: {
    ...HASH,
    lookup: 'htab_lru_percpu_map_lookup_elem',
    update: 'htab_lru_percpu_map_update_elem',
    delete: 'htab_lru_map_delete_elem',
    lookupPercpu: 'htab_lru_percpu_map_lookup_percpu_elem',
  },
  HASH_OF_MAPS: { lookup: 'htab_of_map_lookup_elem', delete: 'htab_map_delete_elem' },
  LPM_TRIE: basic('trie'),
  QUEUE: bag('queue'),
  STACK: bag('stack'),
  BLOOM_FILTER: {
    ...basic('bloom_map'),
    push: 'bloom_map_push_elem',
    pop: 'bloom_map_pop_elem',
    peek: 'bloom_map_peek_elem',
  },
  DEVMAP: { ...basic('dev_map'), redirect: 'dev_map_redirect' },
  DEVMAP_HASH: { ...basic('dev_map_hash'), redirect: 'dev_hash_map_redirect' },
  CPUMAP: { ...basic('cpu_map'), redirect: 'cpu_map_redirect' },
  XSKMAP: { ...basic('xsk_map'), redirect: 'xsk_map_redirect' },
  RINGBUF: basic('ringbuf_map'),
  USER_RINGBUF: basic('ringbuf_map'),
  STACK_TRACE: basic('stack_map'),
};

/** What inlined look-ups in hash tables call; it gives a `struct htab_elem`. */
export const HTAB_LOOKUP = '__htab_map_lookup_elem';

const OPERATION_OF_HELPER: ReadonlyMap<number, Operation> = new Map(
  (Object.keys(MAP_HELPER) as Operation[]).map((operation) => [MAP_HELPER[operation], operation]),
);

/** Whether calls of helper `id` are calls of an operation of their map. */
export function isMapOperation(id: number): boolean {
  return OPERATION_OF_HELPER.has(id);
}

/** The function that does helper `id` on maps of a type. */
export function mapOperation(type: string, id: number): string | undefined {
  const operation = OPERATION_OF_HELPER.get(id);
  const operations = Object.hasOwn(OPERATIONS, type) ? OPERATIONS[type as MapTypeName] : undefined;
  return operation && operations?.[operation];
}

/** All of them, with the helper whose body each has. */
export const MAP_OPERATIONS: ReadonlyMap<string, number> = new Map(
  Object.values(OPERATIONS).flatMap((operations) =>
    (Object.keys(operations) as Operation[]).flatMap((operation) => {
      const name = operations[operation];
      return name === undefined ? [] : [[name, MAP_HELPER[operation]] as const];
    }),
  ),
);

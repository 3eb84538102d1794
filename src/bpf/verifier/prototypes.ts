/**
 * What helpers take and give, as the verifier sees it: one row per helper.
 *
 * Reference: struct bpf_func_proto of each helper, bpf_base_func_proto, xdp_func_proto,
 * tracing_prog_func_proto, kprobe_prog_func_proto, sk_filter_func_proto.
 */
import { PROBE_KINDS, type SectionKind } from '../object/spec.js';

export type ArgumentRule =
  | 'any'
  | 'ctx'
  | 'map'
  | 'map_key'
  | 'map_value'
  | 'uninit_map_value'
  /** Memory that is read, whose size is the next argument; `?` NULL too, `uninit` written only. */
  | 'mem'
  | 'mem?'
  | 'uninit'
  | 'uninit?'
  | 'size'
  | 'size0'
  /** A constant number of bytes to be allocated. */
  | 'alloc_size'
  /** A string in read-only memory. */
  | 'const_str'
  | 'spin_lock'
  | 'timer'
  | 'func'
  /** What a callback gets: a stack pointer or NULL. */
  | 'callback_ctx'
  /** Gives back what was acquired. */
  | 'release_mem'
  | 'release_sock'
  | 'sock'
  /** A referenced kptr in a map value or object; what is put there; a per-CPU object. */
  | 'kptr_place'
  | 'kptr_or_null'
  | 'percpu'
  /** A dynptr: used, made of memory or a ring buffer record, given back. */
  | 'dynptr'
  | 'local_dynptr'
  | 'ringbuf_dynptr'
  | 'release_dynptr'
  /** So many bytes that are read, or written when `w`. */
  | `fixed:${number}`
  | `fixed:${number}w`;

export type ResultRule =
  | 'integer'
  | 'void'
  | 'map_value_or_null'
  | 'alloc_mem_or_null'
  | 'sock_or_null'
  | 'sock_common_or_null'
  /** A valid `struct task_struct`. */
  | 'task'
  /** Bytes of the dynptr among the arguments. */
  | 'dynptr_mem_or_null'
  /** Address of 8 bytes. */
  | 'session_cookie'
  /** What the kptr held. */
  | 'kptr_or_null'
  /** A CPU's part of a per-CPU object. */
  | 'cpu_part';

export interface Prototype {
  readonly id: number;
  readonly arguments: readonly ArgumentRule[];
  readonly result: ResultRule;
  readonly gplOnly: boolean;
  /** Program kinds that may call it; undefined for all. */
  readonly kinds: readonly SectionKind[] | undefined;
}

const XDP: readonly SectionKind[] = ['xdp'];
const TRACING: readonly SectionKind[] = ['fentry', 'fexit', 'fmod_ret', 'fsession', 'lsm'];
const TRACING_OR_PROBES: readonly SectionKind[] = [...TRACING, ...PROBE_KINDS];
const SKB: readonly SectionKind[] = ['tc', 'socket'];
const NETWORK: readonly SectionKind[] = ['xdp', 'tc'];

type Row = readonly [number, string, ResultRule?, { gpl?: true; kinds?: readonly SectionKind[] }?];

const GPL = { gpl: true } as const;

const ROWS: readonly Row[] = [
  [1, 'map map_key', 'map_value_or_null'],
  [2, 'map map_key map_value any'],
  [3, 'map map_key'],
  [4, 'uninit size0 any', 'integer', { gpl: true, kinds: TRACING_OR_PROBES }],
  [5, ''],
  [6, 'mem size', 'integer', GPL],
  [7, ''],
  [8, ''],
  [9, 'ctx any mem size any', 'integer', { kinds: ['tc'] }],
  [12, 'ctx map any', 'void'],
  [14, ''],
  [15, ''],
  [16, 'uninit size'],
  [23, 'any any', 'integer', { kinds: NETWORK }],
  [25, 'ctx map any mem size0', 'integer', GPL],
  [26, 'ctx any uninit size', 'integer', { kinds: SKB }],
  [27, 'ctx map any', 'integer', { gpl: true, kinds: TRACING_OR_PROBES }],
  [28, 'mem? size0 mem? size0 any', 'integer', { kinds: NETWORK }],
  [35, '', 'integer', GPL],
  [42, ''],
  [44, 'ctx any', 'integer', { kinds: XDP }],
  [45, 'uninit size0 any', 'integer', { gpl: true, kinds: TRACING_OR_PROBES }],
  [51, 'map any any', 'integer', { kinds: XDP }],
  [54, 'ctx any', 'integer', { kinds: XDP }],
  [65, 'ctx any', 'integer', { kinds: XDP }],
  [67, 'ctx uninit size0 any', 'integer', { gpl: true, kinds: TRACING_OR_PROBES }],
  [69, 'ctx mem size any', 'integer', { gpl: true, kinds: NETWORK }],
  [80, ''],
  [84, 'ctx mem size any any', 'sock_or_null', { kinds: NETWORK }],
  [85, 'ctx mem size any any', 'sock_or_null', { kinds: NETWORK }],
  [86, 'release_sock', 'integer', { kinds: NETWORK }],
  [87, 'map map_value any'],
  [88, 'map uninit_map_value'],
  [89, 'map uninit_map_value'],
  [93, 'spin_lock', 'void'],
  [94, 'spin_lock', 'void'],
  [99, 'ctx mem size any any', 'sock_common_or_null', { kinds: NETWORK }],
  [100, 'sock mem size mem size', 'integer', { kinds: NETWORK }],
  [105, 'mem size any fixed:8w'],
  [106, 'mem size any fixed:8w'],
  [110, 'sock mem size mem size', 'integer', { gpl: true, kinds: NETWORK }],
  [112, 'uninit size0 any', 'integer', GPL],
  [113, 'uninit size0 any', 'integer', GPL],
  [114, 'uninit size0 any', 'integer', GPL],
  [115, 'uninit size0 any', 'integer', GPL],
  [118, ''],
  [125, ''],
  [130, 'map mem size0 any'],
  [131, 'map alloc_size any', 'alloc_mem_or_null'],
  [132, 'release_mem any', 'void'],
  [133, 'release_mem any', 'void'],
  [134, 'map any'],
  [153, 'percpu any', 'cpu_part'],
  [154, 'percpu', 'cpu_part'],
  [158, '', 'task'],
  [160, ''],
  [163, 'ctx any fixed:4w any any', 'integer', { gpl: true, kinds: NETWORK }],
  [164, 'map func callback_ctx any'],
  [165, 'uninit? size0 const_str mem? size0', 'integer', GPL],
  [169, 'timer map any', 'integer', GPL],
  [170, 'timer func', 'integer', GPL],
  [171, 'timer any any', 'integer', GPL],
  [172, 'timer', 'integer', GPL],
  [173, 'ctx', 'integer', { kinds: TRACING_OR_PROBES }],
  [174, 'ctx', 'integer', { kinds: TRACING_OR_PROBES }],
  [177, 'mem size mem? size0', 'integer', GPL],
  [181, 'any func callback_ctx any'],
  [182, 'mem size const_str'],
  [183, 'ctx any fixed:8w', 'integer', { kinds: TRACING }],
  [184, 'ctx fixed:8w', 'integer', { kinds: TRACING }],
  [185, 'ctx', 'integer', { kinds: TRACING }],
  [188, 'ctx', 'integer', { kinds: XDP }],
  [189, 'ctx any uninit size', 'integer', { kinds: XDP }],
  [190, 'ctx any mem size', 'integer', { kinds: XDP }],
  [194, 'kptr_place kptr_or_null', 'kptr_or_null'],
  [195, 'map map_key any', 'map_value_or_null'],
  [197, 'uninit size0 any local_dynptr'],
  [198, 'map any any ringbuf_dynptr'],
  [199, 'release_dynptr any', 'void'],
  [200, 'release_dynptr any', 'void'],
  [201, 'uninit size0 dynptr any any'],
  [202, 'dynptr any mem size0 any'],
  [203, 'dynptr any alloc_size', 'dynptr_mem_or_null'],
  [204, 'fixed:20 mem size0', 'integer', { gpl: true, kinds: NETWORK }],
  [205, 'fixed:40 mem size0', 'integer', { gpl: true, kinds: NETWORK }],
  [206, 'fixed:20 fixed:20', 'integer', { gpl: true, kinds: NETWORK }],
  [207, 'fixed:40 fixed:20', 'integer', { gpl: true, kinds: NETWORK }],
  [208, ''],
  // bpf_session_is_return, bpf_session_cookie: see object/session-kfuncs.ts
  [2001, 'ctx', 'integer', { kinds: ['fsession'] }],
  [2002, 'ctx', 'session_cookie', { kinds: ['fsession'] }],
];

export const PROTOTYPES: ReadonlyMap<number, Prototype> = new Map(
  ROWS.map(([id, rules, result = 'integer', { gpl = false, kinds } = {}]) => [
    id,
    {
      id,
      arguments: rules.split(' ').filter((rule): rule is ArgumentRule => rule !== ''),
      result,
      gplOnly: gpl,
      kinds,
    },
  ]),
);

/** What an XDP program may call in 6.12: xdp_func_proto, bpf_sk_base_func_proto, bpf_base_func_proto. */
// prettier-ignore
export const XDP_HELPERS: ReadonlySet<number> = new Set([
  1, 2, 3, 5, 6, 7, 8, 12, 14, 23, 25, 28, 35, 42, 44, 51, 54, 65, 69, 80, 84, 85, 86, 87, 88, 89,
  93, 94, 99, 100, 105, 106, 110, 112, 113, 114, 115, 118, 120, 123, 125,
  130, 131, 132, 133, 134, 136, 137, 138, 139, 140, 149, 153, 154, 158, 160, 163, 164, 165,
  169, 170, 171, 172, 175, 177, 178, 181, 182, 188, 189, 190, 194, 195, 196,
  197, 198, 199, 200, 201, 202, 203, 204, 205, 206, 207, 208, 209, 210, 211,
]);

/** Helpers after which no packet pointer is valid. */
export const CHANGES_PACKET: ReadonlySet<number> = new Set([9, 12, 44, 54, 65]);

/** Helpers that give the callback in R2 to be called. */
export const CALLS_CALLBACK: ReadonlySet<number> = new Set([164, 181]);

/** Map types that only some helpers take. */
export const HELPERS_OF_MAP: Readonly<Record<string, readonly number[]>> = {
  PROG_ARRAY: [12],
  PERF_EVENT_ARRAY: [22, 25, 55],
  STACK_TRACE: [27],
  CGROUP_ARRAY: [33, 37],
  SOCKMAP: [52, 53, 60, 82],
  SOCKHASH: [70, 71, 72, 82],
  CGROUP_STORAGE: [81],
  REUSEPORT_SOCKARRAY: [82],
  PERCPU_CGROUP_STORAGE: [81],
  SK_STORAGE: [107, 108],
  INODE_STORAGE: [145, 146],
  TASK_STORAGE: [156, 157],
  USER_RINGBUF: [209],
  CGRP_STORAGE: [210, 211],
  DEVMAP: [51, 1],
  DEVMAP_HASH: [51, 1],
  XSKMAP: [51, 1],
  CPUMAP: [51],
  ARRAY_OF_MAPS: [1],
  HASH_OF_MAPS: [1],
  QUEUE: [87, 88, 89],
  STACK: [87, 88, 89],
  BLOOM_FILTER: [87, 89],
  RINGBUF: [130, 131, 134, 198],
};

/** Kinds of programs that may take sockets out of socket maps (may_update_sockmap), which they then do with helper 3. */
export const DELETES_SOCKETS: ReadonlySet<SectionKind> = new Set(['xdp', 'tc', 'socket']);
export const SOCKET_MAPS: ReadonlySet<string> = new Set(['SOCKMAP', 'SOCKHASH']);

/** Helpers that only take some map types. */
export const MAPS_OF_HELPER: ReadonlyMap<number, readonly string[]> = new Map([
  [12, ['PROG_ARRAY']],
  [25, ['PERF_EVENT_ARRAY']],
  [27, ['STACK_TRACE']],
  [51, ['DEVMAP', 'DEVMAP_HASH', 'CPUMAP', 'XSKMAP']],
  [87, ['QUEUE', 'STACK', 'BLOOM_FILTER']],
  [88, ['QUEUE', 'STACK']],
  [89, ['QUEUE', 'STACK', 'BLOOM_FILTER']],
  [130, ['RINGBUF']],
  [131, ['RINGBUF']],
  [134, ['RINGBUF']],
  [198, ['RINGBUF']],
  [195, ['PERCPU_ARRAY', 'PERCPU_HASH', 'LRU_PERCPU_HASH']],
]);

/** Map types that bpf_for_each_map_elem walks. */
export const ITERABLE_MAPS: readonly string[] = [
  'HASH',
  'ARRAY',
  'PERCPU_HASH',
  'PERCPU_ARRAY',
  'LRU_HASH',
  'LRU_PERCPU_HASH',
];

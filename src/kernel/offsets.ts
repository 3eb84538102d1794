/**
 * Offsets of the kernel structs that code in `asm/` and the models share, Linux 6.12 as Debian
 * configures it; those that differ between versions are in `bpf/profile.ts`.
 *
 * Source: BTF of a booted 6.12.107 arm64 kernel. They are inputs: another configuration
 * moves them, nothing else may hold these numbers.
 */
import { PT_REGS_SIZE } from '../bpf/pt-regs.js';
import type { FtraceProfile } from './ftrace/profile.js';

/**
 * struct ftrace_ops: what is at the same place in all versions; the rest is in `ftrace/profile.ts`. `size` is
 * that of the largest: room for one of any version.
 */
export const FTRACE_OPS = {
  func: 0,
  next: 8,
  flags: 16,
  private: 24,
  saved_func: 32,
  func_hash: 88,
  size: 216,
} as const;

/** struct ftrace_ops_hash as far as ops->func_hash is read. */
export const FTRACE_OPS_HASH = { notrace_hash: 0, filter_hash: 8, size: 16 } as const;

/** struct ftrace_hash. */
export const FTRACE_HASH = { size_bits: 0, buckets: 8, count: 16, flags: 24, size: 32 } as const;

/** struct ftrace_func_entry; `next` is that of its hlist_node. */
export const FTRACE_FUNC_ENTRY = { next: 0, ip: 16, size: 32 } as const;

/** struct __arch_ftrace_regs (112 bytes). */
export const FTRACE_REGS = {
  regs: 0,
  direct_tramp: 72,
  fp: 80,
  lr: 88,
  sp: 96,
  pc: 104,
  size: 112,
} as const;

/** struct pt_regs (336 bytes), which callbacks got up to 6.1; x0 to x30 are at its start. */
export const PT_REGS = {
  fp: 232,
  lr: 240,
  sp: 248,
  pc: 256,
  pstate: 264,
  orig_x0: 272,
  stackframe: 304,
  size: PT_REGS_SIZE,
} as const;

/**
 * What kprobe programs run with, as far as they ask for it: struct bpf_trace_run_ctx begins with the cookie, struct
 * bpf_kprobe_multi_run_ctx has the function's address. The layout is the lab's own.
 */
export const BPF_PROBE_RUN_CTX = { bpf_cookie: 0, entry_ip: 8, size: 16 } as const;

/** struct bpf_tramp_run_ctx (16 bytes). */
export const BPF_TRAMP_RUN_CTX = { bpf_cookie: 0, saved_run_ctx: 8 } as const;

/**
 * struct task_struct as far as the lab uses it; thread_info comes first, so `preempt_count` and `cpu` are where they are in Linux: there the
 * JIT's inlined bpf_get_smp_processor_id reads it. The rest is the lab's own layout.
 */
export const TASK_STRUCT = {
  preempt_count: 8,
  cpu: 16,
  ret_stack: 24,
  pid: 32,
  rcu_read_lock_nesting: 40,
  migration_disabled: 44,
  trace_recursion: 48,
  bpf_ctx: 56,
  trc_reader_nesting: 64,
  curr_ret_stack: 68,
  tracing_graph_pause: 72,
  trace_overrun: 76,
  kretprobe_instances: 80,
  size: 256,
} as const;

/** Names under which the texts in `asm/` know the offsets. */
export function asmOffsets({ ops }: FtraceProfile): ReadonlyMap<string, bigint> {
  const offsets: [string, number][] = [
    ['FTRACE_OPS_FUNC', FTRACE_OPS.func],
    ['FTRACE_OPS_NEXT', FTRACE_OPS.next],
    ['FTRACE_OPS_FLAGS', FTRACE_OPS.flags],
    ['FTRACE_OPS_PRIVATE', FTRACE_OPS.private],
    ['FTRACE_OPS_FUNC_HASH', FTRACE_OPS.func_hash],
    ['OPS_HASH_NOTRACE', FTRACE_OPS_HASH.notrace_hash],
    ['OPS_HASH_FILTER', FTRACE_OPS_HASH.filter_hash],
    ['FTRACE_HASH_BUCKETS', FTRACE_HASH.buckets],
    ['FTRACE_HASH_COUNT', FTRACE_HASH.count],
    ['FTRACE_ENTRY_IP', FTRACE_FUNC_ENTRY.ip],
    ['TASK_TRACE_RECURSION', TASK_STRUCT.trace_recursion],
    ['TASK_PREEMPT_COUNT', TASK_STRUCT.preempt_count],
    ...(ops.direct_call === undefined
      ? []
      : [['FTRACE_OPS_DIRECT_CALL', ops.direct_call] satisfies [string, number]]),
    ...[0, 2, 4, 6, 8].map((n): [string, number] => [`FREGS_X${n}`, 8 * n]),
    ['FREGS_DIRECT_TRAMP', FTRACE_REGS.direct_tramp],
    ['FREGS_FP', FTRACE_REGS.fp],
    ['FREGS_LR', FTRACE_REGS.lr],
    ['FREGS_SP', FTRACE_REGS.sp],
    ['FREGS_PC', FTRACE_REGS.pc],
    ['FREGS_SIZE', FTRACE_REGS.size],
    ...Array.from({ length: 15 }, (_, n): [string, number] => [`S_X${2 * n}`, 16 * n]),
    ['S_FP', PT_REGS.fp],
    ['S_LR', PT_REGS.lr],
    ['S_PC', PT_REGS.pc],
    ['S_ORIG_X0', PT_REGS.orig_x0],
    ['S_STACKFRAME', PT_REGS.stackframe],
    ['PT_REGS_SIZE', PT_REGS.size],
  ];
  return new Map(offsets.map(([name, value]) => [name, BigInt(value)]));
}

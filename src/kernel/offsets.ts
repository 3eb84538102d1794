/**
 * Offsets of the kernel structs that code in `asm/` and the models share, Linux 6.12 as Debian
 * configures it; those that differ between versions are in `bpf/profile.ts`.
 *
 * Source: BTF of a booted 6.12.107 arm64 kernel. They are inputs: another configuration
 * moves them, nothing else may hold these numbers.
 */

/** struct ftrace_ops (216 bytes). */
export const FTRACE_OPS = {
  func: 0,
  next: 8,
  flags: 16,
  private: 24,
  saved_func: 32,
  func_hash: 88,
  trampoline: 144,
  direct_call: 208,
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

/** struct bpf_tramp_run_ctx (16 bytes). */
export const BPF_TRAMP_RUN_CTX = { bpf_cookie: 0, saved_run_ctx: 8 } as const;

/**
 * struct task_struct as far as the lab uses it; thread_info comes first, so `cpu` is where the
 * JIT's inlined bpf_get_smp_processor_id reads it. The rest is the lab's own layout.
 */
export const TASK_STRUCT = {
  cpu: 16,
  pid: 32,
  rcu_read_lock_nesting: 40,
  migration_disabled: 44,
  trace_recursion: 48,
  bpf_ctx: 56,
  trc_reader_nesting: 64,
  size: 256,
} as const;

/** Names under which the texts in `asm/` know the offsets. */
export const ASM_OFFSETS: ReadonlyMap<string, bigint> = new Map([
  ['FTRACE_OPS_FUNC', BigInt(FTRACE_OPS.func)],
  ['FTRACE_OPS_NEXT', BigInt(FTRACE_OPS.next)],
  ['FTRACE_OPS_FLAGS', BigInt(FTRACE_OPS.flags)],
  ['FTRACE_OPS_PRIVATE', BigInt(FTRACE_OPS.private)],
  ['FTRACE_OPS_FUNC_HASH', BigInt(FTRACE_OPS.func_hash)],
  ['FTRACE_OPS_DIRECT_CALL', BigInt(FTRACE_OPS.direct_call)],
  ['OPS_HASH_NOTRACE', BigInt(FTRACE_OPS_HASH.notrace_hash)],
  ['OPS_HASH_FILTER', BigInt(FTRACE_OPS_HASH.filter_hash)],
  ['FTRACE_HASH_BUCKETS', BigInt(FTRACE_HASH.buckets)],
  ['FTRACE_HASH_COUNT', BigInt(FTRACE_HASH.count)],
  ['FTRACE_ENTRY_IP', BigInt(FTRACE_FUNC_ENTRY.ip)],
  ['TASK_TRACE_RECURSION', BigInt(TASK_STRUCT.trace_recursion)],
  ...[0, 2, 4, 6, 8].map((n): [string, bigint] => [`FREGS_X${n}`, BigInt(8 * n)]),
  ['FREGS_DIRECT_TRAMP', BigInt(FTRACE_REGS.direct_tramp)],
  ['FREGS_FP', BigInt(FTRACE_REGS.fp)],
  ['FREGS_LR', BigInt(FTRACE_REGS.lr)],
  ['FREGS_SP', BigInt(FTRACE_REGS.sp)],
  ['FREGS_PC', BigInt(FTRACE_REGS.pc)],
  ['FREGS_SIZE', BigInt(FTRACE_REGS.size)],
]);

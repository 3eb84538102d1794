/**
 * Filters of ftrace ops as hashes in kernel memory, where `lab_list_func` looks; ops keep them beside it.
 *
 * Reference: struct ftrace_ops_hash, struct ftrace_hash, struct ftrace_func_entry (kernel/trace/trace.h); all
 * hashes have one bucket. They show the ops as they are now: write them when all are registered.
 */
import type { FtraceOps } from '../../kernel/ftrace/ops.js';
import type { Kernel } from '../../kernel/kernel.js';
import {
  FTRACE_FUNC_ENTRY,
  FTRACE_HASH,
  FTRACE_OPS,
  FTRACE_OPS_HASH,
} from '../../kernel/offsets.js';

/** Writes the hashes of all registered ops; the result frees them. */
export function writeFilterHashes(kernel: Kernel): () => void {
  const allocated: bigint[] = [];
  const alloc = (size: number): bigint => {
    const address = kernel.kmalloc(size);
    allocated.push(address);
    return address;
  };
  const hash = (ips: Iterable<bigint>): bigint => {
    const { memory } = kernel;
    const address = alloc(FTRACE_HASH.size);
    const bucket = alloc(8);
    memory.write64(address + BigInt(FTRACE_HASH.buckets), bucket);
    let count = 0n;
    let first = 0n;
    for (const ip of ips) {
      const entry = alloc(FTRACE_FUNC_ENTRY.size);
      memory.write64(entry + BigInt(FTRACE_FUNC_ENTRY.next), first);
      memory.write64(entry + BigInt(FTRACE_FUNC_ENTRY.ip), ip);
      first = entry;
      count++;
    }
    memory.write64(bucket, first);
    memory.write64(address + BigInt(FTRACE_HASH.count), count);
    return address;
  };
  const write = (ops: FtraceOps): void => {
    const { memory } = kernel;
    const both = alloc(FTRACE_OPS_HASH.size);
    memory.write64(both + BigInt(FTRACE_OPS_HASH.filter_hash), hash(ops.filter));
    memory.write64(both + BigInt(FTRACE_OPS_HASH.notrace_hash), hash(ops.notrace));
    memory.write64(ops.address + BigInt(FTRACE_OPS.func_hash), both);
  };
  for (const ops of kernel.ftrace.list()) write(ops);
  return () => {
    for (const address of allocated) kernel.kfree(address);
  };
}

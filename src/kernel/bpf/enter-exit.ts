/**
 * What a trampoline calls around each program and around the original function.
 *
 * Reference: kernel/bpf/trampoline.c: __bpf_prog_enter*, __bpf_prog_exit*, __bpf_tramp_enter/exit.
 * The counters lie where Linux has them in spirit: recursion in a per-CPU int behind prog->active,
 * misses in prog->stats, locks as nesting counts of the task. Left out: run-time statistics
 * (enter always says "no start time").
 */
import type { KernelContext, KernelFunction } from '../function.js';
import { BPF_PROG, BPF_TRAMP_IMAGE, BPF_TRAMP_RUN_CTX, TASK_STRUCT } from '../offsets.js';

/** struct bpf_prog_stats. */
export const BPF_PROG_STATS = { cnt: 0, nsecs: 8, misses: 16, size: 24 } as const;

/** BPF_PROG_NO_START_TIME: statistics are off. */
const NO_START_TIME = 1n;

function addTo32(kernel: KernelContext, address: bigint, amount: number): number {
  const value = (kernel.memory.read32(address) + amount) >>> 0;
  kernel.memory.write32(address, value);
  return value;
}

function lock(kernel: KernelContext, amount: 1 | -1): void {
  addTo32(kernel, kernel.current + BigInt(TASK_STRUCT.rcu_read_lock_nesting), amount);
  addTo32(kernel, kernel.current + BigInt(TASK_STRUCT.migration_disabled), amount);
}

/** Installs the run context of this invocation, keeping the one around it. */
function setRunContext(kernel: KernelContext, runContext: bigint): void {
  const slot = kernel.current + BigInt(TASK_STRUCT.bpf_ctx);
  const saved = kernel.memory.read64(slot);
  kernel.memory.write64(runContext + BigInt(BPF_TRAMP_RUN_CTX.saved_run_ctx), saved);
  kernel.memory.write64(slot, runContext);
}

function resetRunContext(kernel: KernelContext, runContext: bigint): void {
  const saved = kernel.memory.read64(runContext + BigInt(BPF_TRAMP_RUN_CTX.saved_run_ctx));
  kernel.memory.write64(kernel.current + BigInt(TASK_STRUCT.bpf_ctx), saved);
}

/** The per-CPU recursion count of a program. */
function activeCounter(kernel: KernelContext, prog: bigint): bigint {
  return kernel.memory.read64(prog + BigInt(BPF_PROG.active)) + BigInt(4 * kernel.currentCpu);
}

function countMiss(kernel: KernelContext, prog: bigint): void {
  const stats = kernel.memory.read64(prog + BigInt(BPF_PROG.stats));
  const misses = stats + BigInt(BPF_PROG_STATS.misses);
  kernel.memory.write64(misses, kernel.memory.read64(misses) + 1n);
}

function enter(kernel: KernelContext, _prog: bigint, runContext: bigint): bigint {
  lock(kernel, 1);
  setRunContext(kernel, runContext);
  return NO_START_TIME;
}

function exit(kernel: KernelContext, _prog: bigint, _start: bigint, runContext: bigint): void {
  resetRunContext(kernel, runContext);
  lock(kernel, -1);
}

/** 0 tells the trampoline to skip the program: it is active on this CPU already. */
function enterRecur(kernel: KernelContext, prog: bigint, runContext: bigint): bigint {
  lock(kernel, 1);
  setRunContext(kernel, runContext);
  if (addTo32(kernel, activeCounter(kernel, prog), 1) === 1) return NO_START_TIME;
  countMiss(kernel, prog);
  return 0n;
}

function exitRecur(kernel: KernelContext, prog: bigint, _start: bigint, runContext: bigint): void {
  resetRunContext(kernel, runContext);
  addTo32(kernel, activeCounter(kernel, prog), -1);
  lock(kernel, -1);
}

function imageReference(kernel: KernelContext, image: bigint, amount: 1n | -1n): void {
  const address = image + BigInt(BPF_TRAMP_IMAGE.pcref);
  kernel.memory.write64(address, kernel.memory.read64(address) + amount);
}

type Body = KernelFunction['body'];

function enterFunction(name: string, body: Body): KernelFunction {
  const prototype = `u64 ${name}(struct bpf_prog *prog, struct bpf_tramp_run_ctx *run_ctx)`;
  return { name, prototype, parameters: 2, notrace: true, body };
}

function exitFunction(name: string, body: Body): KernelFunction {
  const prototype = `void ${name}(struct bpf_prog *prog, u64 start, struct bpf_tramp_run_ctx *run_ctx)`;
  return { name, prototype, parameters: 3, notrace: true, body };
}

function imageFunction(name: string, amount: 1n | -1n): KernelFunction {
  return {
    name,
    prototype: `void ${name}(struct bpf_tramp_image *tr)`,
    parameters: 1,
    notrace: true,
    body: (kernel, image) => imageReference(kernel, image as bigint, amount),
  };
}

/** All of them; sleepable programs differ in the RCU flavour only, which is a nesting count here. */
export const ENTER_EXIT_FUNCTIONS: readonly KernelFunction[] = [
  enterFunction('__bpf_prog_enter', enter as Body),
  exitFunction('__bpf_prog_exit', exit as Body),
  enterFunction('__bpf_prog_enter_recur', enterRecur as Body),
  exitFunction('__bpf_prog_exit_recur', exitRecur as Body),
  enterFunction('__bpf_prog_enter_sleepable', enter as Body),
  exitFunction('__bpf_prog_exit_sleepable', exit as Body),
  enterFunction('__bpf_prog_enter_sleepable_recur', enterRecur as Body),
  exitFunction('__bpf_prog_exit_sleepable_recur', exitRecur as Body),
  enterFunction('__bpf_prog_enter_lsm_cgroup', enter as Body),
  exitFunction('__bpf_prog_exit_lsm_cgroup', exit as Body),
  imageFunction('__bpf_tramp_enter', 1n),
  imageFunction('__bpf_tramp_exit', -1n),
];

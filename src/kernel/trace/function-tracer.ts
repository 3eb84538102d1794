/**
 * The function tracer: one ftrace_ops whose callback notes which function was called by whom.
 *
 * Each tracing instance has a buffer and an ops of its own; that of the top instance is `global_ops`, a variable of the kernel's,
 * those of others lie on the heap. Reference: kernel/trace/trace_functions.c (function_trace_call),
 * trace_output.c (trace_fn_trace). Left out: time stamps, ring buffer, stack traces, pids.
 *
 *   kernel.tracing.start(['bpf_fentry_test1']);
 *   kernel.call('bpf_fentry_test1', 1n);
 *   kernel.tracing.lines(); // ['bpf_fentry_test1 <-lab_return']
 */
import { KernelError } from '../../common/errors.js';
import { FTRACE_OPS_FL, type FtraceOps } from '../ftrace/ops.js';
import type { KernelFunction } from '../function.js';
import type { Kernel } from '../kernel.js';

/** A call that was seen. */
interface FunctionEntry {
  readonly ip: bigint;
  readonly parent: bigint;
}

export class FunctionTracer {
  readonly ops: FtraceOps;
  readonly entries: FunctionEntry[] = [];
  readonly #kernel: Kernel;

  constructor(kernel: Kernel, name: string, address: bigint) {
    this.#kernel = kernel;
    this.ops = kernel.ftrace.createOps(name, address, kernel.symbol('function_trace_call'));
    this.ops.flags = FTRACE_OPS_FL.INITIALIZED | FTRACE_OPS_FL.PID;
  }

  /** `set_ftrace_filter` and `current_tracer`: follows these functions, or all when there are none. */
  start(functions: readonly string[] = []): void {
    const { ftrace } = this.#kernel;
    this.ops.filter.clear();
    for (const name of functions) {
      const ip = ftrace.location(this.#kernel.symbol(name));
      if (ip === undefined) throw ftrace.noSite(name);
      ftrace.setFilterIp(this.ops, ip, false);
    }
    ftrace.register(this.ops);
  }

  stop(): void {
    this.#kernel.ftrace.unregister(this.ops);
  }

  /** As tracefs' `trace` shows them, without task, CPU and time. */
  lines(): string[] {
    const nameOf = (address: bigint): string =>
      this.#kernel.symbols.lookup(address)?.name ?? `0x${address.toString(16)}`;
    return this.entries.map(({ ip, parent }) => `${nameOf(ip)} <-${nameOf(parent)}`);
  }
}

/** The top instance (`start`, `stop`, `lines`) and those made beside it. */
export class Tracing extends FunctionTracer {
  readonly #owner: Kernel;
  readonly #instances = new Map<bigint, FunctionTracer>();

  constructor(kernel: Kernel) {
    super(kernel, 'global_ops', kernel.data.define('global_ops', kernel.ftrace.profile.ops.size));
    this.#owner = kernel;
    this.#instances.set(this.ops.address, this);
  }

  /** mkdir in tracefs' `instances`. */
  createInstance(name: string): FunctionTracer {
    const instance = new FunctionTracer(
      this.#owner,
      name,
      this.#owner.kmalloc(this.#owner.ftrace.profile.ops.size),
    );
    this.#instances.set(instance.ops.address, instance);
    return instance;
  }

  /** rmdir. */
  removeInstance({ ops }: FunctionTracer): void {
    if (ops.has(FTRACE_OPS_FL.ENABLED)) {
      throw new KernelError('EBUSY', `tracing instance ${ops.name} is in use`);
    }
    this.#instances.delete(ops.address);
    this.#owner.ftrace.forgetOps(ops);
    this.#owner.kfree(ops.address);
  }

  /** function_trace_call. */
  note(ip: bigint, parent: bigint, ops: bigint): void {
    this.#instances.get(ops)?.entries.push({ ip, parent });
  }
}

/** The callback of all of them; `tracing` is asked late because it is made after it is placed. */
export function functionTraceCall(tracing: () => Tracing): KernelFunction {
  return {
    name: 'function_trace_call',
    prototype:
      'void function_trace_call(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs)',
    parameters: 4,
    notrace: true,
    body: (_kernel, ip: bigint, parent: bigint, op: bigint) => tracing().note(ip, parent, op),
  };
}

/**
 * The direct-call API: a trampoline that a patch site calls instead of an ops callback.
 *
 * Reference: kernel/trace/ftrace.c: register_ftrace_direct, unregister_ftrace_direct,
 * __modify_ftrace_direct (6.4 and later: one target per ops).
 */
import { KernelError } from '../../common/errors.js';
import type { Ftrace } from './ftrace.js';
import { FTRACE_OPS_FL, type FtraceOps } from './ops.js';

export interface DirectParts {
  readonly ftrace: Ftrace;
  readonly callDirectFuncs: bigint;
  readonly ftraceCaller: bigint;
  /** A static STUB ops that stands beside the real one while its target changes. */
  readonly temporary: FtraceOps;
}

export class DirectCalls {
  readonly #parts: DirectParts;

  constructor(parts: DirectParts) {
    this.#parts = parts;
  }

  /** register_ftrace_direct: all sites of the ops' filter call `target`. */
  register(ops: FtraceOps, target: bigint): void {
    const { ftrace } = this.#parts;
    if (ops.func !== 0n || ops.trampoline !== 0n) {
      throw new KernelError('EINVAL', `${ops.name} is in use already`);
    }
    if (!ops.has(FTRACE_OPS_FL.INITIALIZED) || ops.filter.size === 0) {
      throw new KernelError('EINVAL', `${ops.name}: a direct call needs a filter`);
    }
    if (ops.has(FTRACE_OPS_FL.ENABLED)) {
      throw new KernelError('EINVAL', `${ops.name} is enabled already`);
    }
    for (const ip of ops.filter) {
      if (ftrace.directFunctions.has(ip)) {
        const name = ftrace.records.get(ip)?.name ?? `0x${ip.toString(16)}`;
        throw new KernelError('EBUSY', `${name} has a direct call already`);
      }
    }
    for (const ip of ops.filter) ftrace.directFunctions.set(ip, target);
    ops.func = this.#parts.callDirectFuncs;
    ops.flags |= FTRACE_OPS_FL.DIRECT;
    ops.trampoline = this.#parts.ftraceCaller;
    ops.directCall = target;
    try {
      ftrace.register(ops);
    } catch (error) {
      this.#forget(ops);
      throw error;
    }
  }

  /** unregister_ftrace_direct. */
  unregister(ops: FtraceOps): void {
    this.#checkRegistered(ops);
    this.#parts.ftrace.unregister(ops);
    this.#forget(ops);
  }

  /**
   * modify_ftrace_direct: a second ops on the same sites sends them through the list (where the
   * old or the new target is called late) while the target is exchanged.
   */
  modify(ops: FtraceOps, target: bigint): void {
    this.#checkRegistered(ops);
    const { ftrace, temporary } = this.#parts;
    temporary.filter.clear();
    for (const ip of ops.filter) ftrace.setFilterIp(temporary, ip, false);
    temporary.flags = FTRACE_OPS_FL.STUB | FTRACE_OPS_FL.INITIALIZED;
    temporary.directCall = target;
    ftrace.register(temporary);
    for (const ip of ops.filter) ftrace.directFunctions.set(ip, target);
    ops.directCall = target;
    ftrace.unregister(temporary);
  }

  #checkRegistered(ops: FtraceOps): void {
    if (!ops.has(FTRACE_OPS_FL.DIRECT) || !ops.has(FTRACE_OPS_FL.ENABLED)) {
      throw new KernelError('EINVAL', `${ops.name} is no registered direct call`);
    }
  }

  #forget(ops: FtraceOps): void {
    for (const ip of ops.filter) this.#parts.ftrace.directFunctions.delete(ip);
    ops.func = 0n;
    ops.trampoline = 0n;
    ops.directCall = 0n;
    ops.flags &= ~FTRACE_OPS_FL.DIRECT;
  }
}

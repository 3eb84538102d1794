/**
 * The direct-call API by ops: a trampoline that patch sites call instead of an ops callback.
 *
 * Reference: kernel/trace/ftrace.c: register_ftrace_direct, unregister_ftrace_direct,
 * __modify_ftrace_direct (6.4 and later; before that they were called ..._direct_multi and the target was
 * looked up by ip). One ops has one target, and any number of sites. Without
 * CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS each answers -ENODEV.
 */
import { KernelError } from '../../common/errors.js';
import type { Ftrace } from './ftrace.js';
import { FTRACE_OPS_FL, type FtraceOps } from './ops.js';

export interface DirectParts {
  readonly ftrace: Ftrace;
  readonly callDirectFuncs: bigint;
  /** FTRACE_REGS_ADDR: what a direct ops has as its trampoline. */
  readonly ftraceRegsCaller: bigint;
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
    this.#mustExist();
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
    ops.flags |= this.#flags;
    ops.trampoline = this.#parts.ftraceRegsCaller;
    ops.directCall = target;
    try {
      ftrace.register(ops);
    } catch (error) {
      this.#forget(ops);
      throw error;
    }
  }

  /** unregister_ftrace_direct. */
  unregister(ops: FtraceOps, options: { readonly freeFilters?: boolean } = {}): void {
    this.#checkRegistered(ops);
    this.#parts.ftrace.unregister(ops);
    this.#forget(ops);
    if (options.freeFilters) this.#parts.ftrace.freeFilter(ops);
  }

  /**
   * modify_ftrace_direct: a second ops on the same sites sends them through the list (where the
   * old or the new target is called late) while the target is exchanged. modify_ftrace_direct_nolock, for callers
   * that hold direct_mutex, does the same here: nothing else runs.
   */
  modify(ops: FtraceOps, target: bigint): void {
    this.#checkRegistered(ops);
    const { ftrace, temporary } = this.#parts;
    temporary.flags = FTRACE_OPS_FL.STUB | FTRACE_OPS_FL.INITIALIZED;
    temporary.filter.clear();
    for (const ip of ops.filter) temporary.filter.add(ip);
    temporary.directCall = target;
    ftrace.register(temporary);
    try {
      if (ftrace.profile.direct?.modifyAsksIpmodify) ftrace.recheckIpmodify(ops);
      for (const ip of ops.filter) ftrace.directFunctions.set(ip, target);
      ops.directCall = target;
    } finally {
      ftrace.unregister(temporary);
    }
  }

  /** MULTI_FLAGS. */
  get #flags(): number {
    const { frame } = this.#parts.ftrace.profile;
    return frame === 'pt_regs'
      ? FTRACE_OPS_FL.DIRECT | FTRACE_OPS_FL.SAVE_REGS
      : FTRACE_OPS_FL.DIRECT;
  }

  #mustExist(): void {
    const { direct, version } = this.#parts.ftrace.profile;
    if (direct) return;
    throw new KernelError(
      'ENODEV',
      `ftrace: arm64 ${version} has no DYNAMIC_FTRACE_WITH_DIRECT_CALLS`,
    );
  }

  #checkRegistered(ops: FtraceOps): void {
    this.#mustExist();
    if (!ops.has(FTRACE_OPS_FL.DIRECT) || !ops.has(FTRACE_OPS_FL.ENABLED)) {
      throw new KernelError('EINVAL', `${ops.name} is no registered direct call`);
    }
  }

  #forget(ops: FtraceOps): void {
    for (const ip of ops.filter) this.#parts.ftrace.directFunctions.delete(ip);
    ops.func = 0n;
    ops.trampoline = 0n;
    ops.directCall = 0n;
    ops.flags &= ~this.#flags;
  }
}

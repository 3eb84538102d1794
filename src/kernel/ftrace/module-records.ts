/**
 * What ftrace does with the records of a module as it comes and goes.
 *
 * A module's sites are initialised while nobody can reach its text, and DISABLED until that text is read-only.
 * Then each counts the ops that cover it. As upstream that leaves CALL_OPS out: the first call goes through
 * the list even for a single ops, until an ops that covers the site comes or goes.
 *
 * Reference: kernel/trace/ftrace.c: ftrace_module_enable, referenced_filters; ftrace_release_mod,
 * clear_mod_from_hash. Left out: names of freed init functions (ftrace_mod_map).
 */
import { FTRACE_OPS_FL, type FtraceOps } from './ops.js';
import { FTRACE_FL } from './record.js';

/** The flags once the record is not DISABLED any more; counts the registered ops that cover it in. */
export function enableRecord(flags: number, covering: readonly FtraceOps[]): number {
  // never set without being asked to: upstream warns and goes on
  const counted = covering.filter((ops) => !ops.has(FTRACE_OPS_FL.DIRECT | FTRACE_OPS_FL.IPMODIFY));
  let next = (flags & ~FTRACE_FL.DISABLED) + counted.length;
  if (counted.some((ops) => ops.has(FTRACE_OPS_FL.SAVE_REGS))) next |= FTRACE_FL.REGS;
  if (counted.length === 1 && counted[0]?.trampoline) next |= FTRACE_FL.TRAMP;
  return next;
}

/**
 * Takes sites that are gone out of the filters of an ops, as the kernel does for tracers. The entry stays, as
 * one of no address: an ops of which nothing is left traces nothing, not all. Direct calls keep theirs.
 */
export function forgetSites(ops: FtraceOps, gone: readonly bigint[]): void {
  if (ops.has(FTRACE_OPS_FL.DIRECT)) return;
  for (const filter of [ops.filter, ops.notrace]) {
    for (const ip of gone) if (filter.delete(ip)) filter.add(0n);
  }
}

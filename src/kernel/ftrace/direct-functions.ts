/**
 * direct_functions: the target of the direct call at each site that has one.
 *
 * Reference: kernel/trace/ftrace.c: direct_functions, ftrace_find_rec_direct.
 */
export class DirectFunctions extends Map<bigint, bigint> {
  /** Throws RangeError where there is none: a DIRECT record always has one. */
  target(ip: bigint): bigint {
    const target = this.get(ip);
    if (target === undefined) throw new RangeError(`0x${ip.toString(16)}: DIRECT without a target`);
    return target;
  }
}

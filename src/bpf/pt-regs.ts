/**
 * struct pt_regs of arm64 as the context of kprobe programs: x0 to x30, sp, pc, pstate, and what the entry code keeps
 * behind them. Programs read it as it is in memory.
 *
 * Reference: kprobe_prog_is_valid_access of kernel/trace/bpf_trace.c; the size from BTF of booted 6.1, 6.12
 * and 7.2 kernels. Left out: stores, which 7.3 takes from uprobe programs.
 */

export const PT_REGS_SIZE = 336;

/** May a program load `size` bytes there? */
export function isPtRegsAccess(off: number, size: number): boolean {
  return off >= 0 && off % size === 0 && off + size <= PT_REGS_SIZE;
}

/**
 * What a version of arm64 ftrace does its own way: the one place to look.
 *
 * | profile  | compiled with | frame of entry code | literal  | direct calls                                |
 * | -------- | ------------- | ------------------- | -------- | ------------------------------------------- |
 * | v5       | =2            | pt_regs             | -        | by ip; late: pt_regs.orig_x0 (never merged) |
 * | 6.1      | =2            | pt_regs             | -        | none                                        |
 * | sep-2022 | =7,5          | pt_regs             | target   | by ops; far: ldr x16, br x16 (never merged) |
 * | 6.2      | =2            | ftrace_regs         | -        | none                                        |
 * | 6.3      | =4,2          | ftrace_regs         | the ops  | none                                        |
 * | 6.12     | =4,2          | ftrace_regs         | the ops  | by ops; far and late: ops->direct_call      |
 * | 7.3      | =4,2          | ftrace_regs         | the ops  | the same                                    |
 *
 * `v5` stands for 5.19 with the patches of "bpf trampoline for arm64" v5, `sep-2022` for 6.0 with "Add ftrace
 * direct call for arm64" v2, `6.12` for 6.4 and later. Struct offsets are those of booted 6.1.176, 6.12.107 and
 * 7.2.13 kernels; 6.2 and 6.3 have those of 6.1. From the date of their patches follow the flags TOUCHED
 * (6.3) and MODIFIED (6.5) of records.
 *
 * Reference: arch/arm64/kernel/ftrace.c, entry-ftrace.S, include/linux/ftrace.h.
 */
import type { KernelVersion } from '../../jit/profile.js';
import { REACH_PROFILES, type ReachProfile } from './reach.js';

export const FTRACE_VERSIONS = ['v5', '6.1', 'sep-2022', '6.2', '6.3', '6.12', '7.3'] as const;
export type FtraceVersion = (typeof FTRACE_VERSIONS)[number];

/** -fpatchable-function-entry=N,M: N NOPs, M of them before the symbol. */
export type SiteForm = '2' | '4,2' | '7,5';

/** struct ftrace_ops. */
export interface FtraceOpsOffsets {
  readonly trampoline: number;
  /** Since 6.4. */
  readonly direct_call?: number;
  readonly size: number;
}

export interface DirectCallProfile {
  /**
   * What BPF registers with: `ops` is register_ftrace_direct(ops, addr) (register_ftrace_direct_multi up to
   * 6.3), `ip` is register_ftrace_direct(ip, addr) with one shared ops, gone since 6.4.
   */
  readonly api: 'ops' | 'ip';
  /** register_ftrace_direct(ip, addr) exists. */
  readonly byIp: boolean;
  /** How a target out of BL range is reached; `refused`: BPF answers -ENOTSUPP. */
  readonly far: 'refused' | 'literal_call' | 'ftrace_caller';
  /** Where call_direct_funcs leaves the target for the entry code. */
  readonly late: 'orig_x0' | 'direct_tramp';
  /** Before the target changes, an IPMODIFY ops on the site is asked for again (6.18, in stable 6.12). */
  readonly modifyAsksIpmodify: boolean;
}

export interface FtraceProfile {
  readonly version: FtraceVersion;
  /** Folders in `asm/` with the entry code, in the order of the text. */
  readonly asm: readonly string[];
  readonly site: SiteForm;
  /** What the entry code saves: struct pt_regs (WITH_REGS), or struct ftrace_regs (WITH_ARGS). */
  readonly frame: 'pt_regs' | 'ftrace_regs';
  /** DYNAMIC_FTRACE_WITH_CALL_OPS: the literal before a function names its ops. */
  readonly callOps: boolean;
  /** What ftrace_modify_call does: refuse, exchange the literal only, exchange the BL (and the literal). */
  readonly modifyCall: 'refuse' | 'literal' | 'branch';
  /** undefined: no HAVE_DYNAMIC_FTRACE_WITH_DIRECT_CALLS. */
  readonly direct: DirectCallProfile | undefined;
  /** Bits of dyn_ftrace.flags that count ops. */
  readonly refBits: number;
  /** Records remember that they have been enabled, and had DIRECT or IPMODIFY. */
  readonly touched: boolean;
  readonly modified: boolean;
  readonly ops: FtraceOpsOffsets;
  /** How the BL of a site gets to a target that is far, and the PLT entries of modules. */
  readonly reach: ReachProfile;
}

const LINUX_6_1: FtraceProfile = {
  version: '6.1',
  asm: ['6.1', '6.1-6.3'],
  site: '2',
  frame: 'pt_regs',
  callOps: false,
  modifyCall: 'branch',
  direct: undefined,
  refBits: 23,
  touched: false,
  modified: false,
  ops: { trampoline: 144, size: 184 },
  reach: REACH_PROFILES['6.1'],
};

const V5: FtraceProfile = {
  ...LINUX_6_1,
  version: 'v5',
  asm: ['v5', '6.1-6.3'],
  reach: REACH_PROFILES['5.19'],
  direct: { api: 'ip', byIp: true, far: 'refused', late: 'orig_x0', modifyAsksIpmodify: false },
};

const SEP_2022: FtraceProfile = {
  ...V5,
  version: 'sep-2022',
  reach: REACH_PROFILES['6.1'],
  site: '7,5',
  direct: {
    api: 'ops',
    byIp: true,
    far: 'literal_call',
    late: 'orig_x0',
    modifyAsksIpmodify: false,
  },
};

const LINUX_6_2: FtraceProfile = {
  ...LINUX_6_1,
  version: '6.2',
  asm: ['6.2', '6.1-6.3'],
  frame: 'ftrace_regs',
  modifyCall: 'refuse',
  reach: REACH_PROFILES['6.2'],
};

const LINUX_6_3: FtraceProfile = {
  ...LINUX_6_2,
  version: '6.3',
  asm: ['6.3', '6.1-6.3'],
  site: '4,2',
  callOps: true,
  modifyCall: 'literal',
  refBits: 20,
  touched: true,
};

const LINUX_6_12: FtraceProfile = {
  ...LINUX_6_3,
  version: '6.12',
  asm: ['6.12'],
  modifyCall: 'branch',
  direct: {
    api: 'ops',
    byIp: false,
    far: 'ftrace_caller',
    late: 'direct_tramp',
    modifyAsksIpmodify: true,
  },
  refBits: 19,
  modified: true,
  ops: { trampoline: 144, direct_call: 208, size: 216 },
  reach: REACH_PROFILES['6.18'],
};

const LINUX_7_3: FtraceProfile = {
  ...LINUX_6_12,
  version: '7.3',
  ops: { trampoline: 128, direct_call: 192, size: 200 },
};

export const FTRACE_PROFILES: Readonly<Record<FtraceVersion, FtraceProfile>> = {
  v5: V5,
  '6.1': LINUX_6_1,
  'sep-2022': SEP_2022,
  '6.2': LINUX_6_2,
  '6.3': LINUX_6_3,
  '6.12': LINUX_6_12,
  '7.3': LINUX_7_3,
};

/** Whose JIT and trampolines go with an ftrace that is no kernel version of its own here. */
export const KERNEL_OF_FTRACE: Readonly<Record<FtraceVersion, KernelVersion>> = {
  v5: '6.1',
  '6.1': '6.1',
  'sep-2022': '6.1',
  '6.2': '6.1',
  '6.3': '6.1',
  '6.12': '6.12',
  '7.3': '7.3',
};

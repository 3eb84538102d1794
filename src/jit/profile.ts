/**
 * What a kernel version does its own way in the arm64 JIT: the shape of a profile.
 *
 * A profile is data plus a few named functions; `profiles.ts` holds the three of them. Everything the
 * versions share is written once, in the file of its concern (`alu.ts`, `memory.ts`, ...). Struct offsets
 * depend on the kernel's configuration and are inputs, see `StructOffsets`.
 */
import type { Arena } from '../bpf/program.js';
import type { FunctionContext } from './context.js';
import type { ArenaAccess } from './extable.js';

export type KernelVersion = '6.1' | '6.12' | '7.3';

/** bpf2a64[]: where the JIT keeps BPF's registers and its own. */
export interface RegisterMap {
  /** A64 register of each BPF register number that may stand in a slot. */
  readonly bpf: readonly number[];
  readonly tmp1: number;
  readonly tmp2: number;
  readonly tmp3: number;
  /** BPF_REG_AX: scratch of the LL/SC sequences here. */
  readonly ax: number;
  /** The tail-call count (6.1) or a pointer to it. */
  readonly tailCallCount: number;
  /** Base of the arena mapping. */
  readonly arenaBase: number;
  /** FP_BOTTOM (6.1) or the private stack (7.3). */
  readonly x27: number;
}

/** Where an R10-relative access really goes. */
export interface StackAccess {
  readonly base: number;
  readonly offset: number;
}

export interface JitProfile {
  readonly version: KernelVersion;
  readonly registers: RegisterMap;
  /** MOV between general registers: ADD #0, or ORR. */
  readonly move: 'add' | 'orr';
  /** BL to targets in range; otherwise calls always go through x10. */
  readonly directCalls: boolean;
  /** bpf_get_smp_processor_id and bpf_get_current_task(_btf) become MRS. */
  readonly inlinesHelpers: boolean;
  /** The instruction set: sdiv/smod, movsx, bswap, ldsx, gotol, arena (cpu v4). */
  readonly cpuV4: boolean;
  /** load_acq and store_rel, 8- and 16-bit ones included. */
  readonly acquireRelease: boolean;
  /** A nospec instruction is a barrier; else it gives no code. */
  readonly nospecBarrier: boolean;
  /** An atomic's address is made by one ADD or SUB if its offset fits. */
  readonly atomicAddImmediate: boolean;
  /** Base of an arena store of an immediate. tmp2 is overwritten by an offset that has to be loaded. */
  readonly arenaStoreBase: 'tmp2' | 'tmp3';
  /** A faulting fetch clears the register of its result; up to 6.12 nothing. */
  readonly atomicFixupClears: boolean;
  /** R11 addresses stack arguments. */
  readonly stackArguments: boolean;
  /** JA | X: a jump to an address in a register. */
  readonly indirectJumps: boolean;
  /** Sign-extending arena loads (PROBE_MEM32SX). */
  readonly arenaSignedLoad: boolean;
  /** Words from the entry to where tail calls land, without BTI and PAC. */
  readonly tailCallEntry: number;
  /**
   * What check_imm() takes for a branch distance of N bits: what fits N signed bits, or twice as much
   * (before 6.1.176 and 6.12.94).
   */
  readonly branchCheck: 'signed' | 'twice';
  /** What BTI an entry has: `c` was wrong for freplace, which comes by BR (before 6.1.52). */
  readonly entryPad: 'jc' | 'c';
  readonly buildPrologue: (ctx: FunctionContext) => void;
  readonly buildEpilogue: (ctx: FunctionContext) => void;
  readonly buildTailCall: (ctx: FunctionContext) => void;
  /** A MOV that casts an arena pointer for user space. */
  readonly buildCastUser: (ctx: FunctionContext, arena: Arena, dst: number, src: number) => void;
  /** The `fixup` of an exception table entry: `offset` is &fixup minus the next word's address. */
  readonly fixup: (
    ctx: FunctionContext,
    register: number,
    offset: number,
    arena: ArenaAccess | undefined,
  ) => number;
  /** The fixup says where to resume; otherwise that is the next word. */
  readonly fixupHasOffset: boolean;
  readonly stackAccess: (ctx: FunctionContext, offset: number) => StackAccess;
}

/** What the CPU can do, as the kernel's cpucaps see it. */
export interface JitCpu {
  /** ARM64_HAS_LSE_ATOMICS. */
  readonly lse: boolean;
  /** ARM64_HAS_VIRT_HOST_EXTN: per-CPU offsets live in TPIDR_EL2. */
  readonly vhe: boolean;
  /** ARM64_HAS_SB. */
  readonly sb: boolean;
}

export interface JitConfig {
  /** CONFIG_ARM64_PTR_AUTH_KERNEL. */
  readonly pac: boolean;
  /** CONFIG_ARM64_BTI_KERNEL. */
  readonly bti: boolean;
}

/** Offsets of kernel structures that end up in code. */
export interface StructOffsets {
  /** offsetof(struct bpf_array, map.max_entries). */
  readonly maxEntries: number;
  /** offsetof(struct bpf_array, ptrs). */
  readonly ptrs: number;
  /** offsetof(struct bpf_prog, bpf_func). */
  readonly bpfFunc: number;
  /** offsetof(struct bpf_prog, insnsi). */
  readonly insnsi: number;
  /** offsetof(struct thread_info, cpu). */
  readonly threadInfoCpu: number;
}

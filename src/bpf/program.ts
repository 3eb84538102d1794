/**
 * A BPF program in the form the kernel calls xlated, which every engine here runs: interpreter and
 * arm64 JIT (and what tests a JIT from outside).
 *
 * The functions are kept apart, main first, as the kernel hands them to a JIT
 * (kernel/bpf/verifier.c:jit_subprogs): a bpf2bpf call is opcode 0x85 with src_reg 1 and **off = index
 * of the callee** in `functions`; a helper call's imm is target - __bpf_call_base; a tail call is
 * opcode 0xf5; a function pointer is ld_imm64 with src_reg 4 whose second slot's off is the index.
 * Map and global-data references are plain 64-bit constants by now.
 */

import type { Slot } from './instruction.js';

/** What a program is attached to; decides its context and what it may call. */
export type ProgramType = 'xdp' | 'tracing' | 'socket_filter' | 'kprobe' | 'raw';

/** Instructions that stand for a call. Nothing jumps into them. */
export interface InlinedCall {
  /** The first slot, and how many there are. */
  readonly first: number;
  readonly length: number;
  /** The slot that the call takes: a fault of the call is one of this instruction. */
  readonly at: number;
  readonly call: Slot;
}

export interface XlatedFunction {
  readonly name: string;
  /** Slots of 8 bytes, little-endian; ld_imm64 takes two. */
  readonly insns: Uint8Array;
  /** Bytes of stack below R10 that it uses (not rounded). */
  readonly stackDepth: number;
  /** Look-ups that are code in `insns`, in their order; see `inlined-calls.ts`. Default: none. */
  readonly inlined?: readonly InlinedCall[];
  /** aux->exception_boundary: a main program that bpf_throw may unwind to. */
  readonly exceptionBoundary?: boolean;
  /** aux->exception_cb: called by bpf_throw, on the frame of the boundary. */
  readonly exceptionCallback?: boolean;
  /** aux->jits_use_priv_stack (7.3): R10 means a stack per CPU, so that programs may nest. */
  readonly usesPrivateStack?: boolean;
}

/** The arena of a program: its pages by 32-bit offsets, in the kernel and for user space. */
export interface Arena {
  readonly kernVmStart: bigint;
  readonly userVmStart: bigint;
}

export interface XlatedProgram {
  readonly name: string;
  readonly type: ProgramType;
  readonly functions: readonly [XlatedFunction, ...XlatedFunction[]];
  /** aux->arena. Only a JIT image can use it, as in the kernel. */
  readonly arena?: Arena;
}

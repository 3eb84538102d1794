/**
 * The state of one pass over one function (`struct jit_ctx`).
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: struct jit_ctx. Jump offsets of a pass come from the offsets
 * of the pass before it; the first pass has only what it emitted itself, and zeros ahead.
 */
import { KernelError } from '../common/errors.js';
import type { Slot } from '../bpf/instruction.js';
import type { Arena, XlatedFunction } from '../bpf/program.js';
import { CodeBuffer } from './code-buffer.js';
import { addImmediate, orrRegister, SP, ZR } from './emit.js';
import type { JitConfig, JitCpu, JitProfile, RegisterMap, StructOffsets } from './profile.js';

/** A function as the JIT takes it: xlated slots and what the verifier knows about it. */
export interface JitFunctionInput extends XlatedFunction {
  /** 7.3: per-CPU pointer of a private stack, which R10 then means. */
  readonly privateStack?: bigint;
  /** 7.3: 8-byte stack slots for arguments of calls beyond five. */
  readonly outgoingStackArguments?: number;
  /** 7.3: slot indexes that indirect jumps may reach. */
  readonly indirectTargets?: readonly number[];
}

export interface ExtableEntry {
  /** Address of the instruction that may fault, relative to this field. */
  readonly insn: number;
  /** u32. */
  readonly fixup: number;
  /** EX_TYPE_BPF. */
  readonly type: number;
  /** Never written by the JIT: what the fill of fresh images left there. */
  readonly data: number;
}

/** What all functions of a compilation share. */
export interface Environment {
  readonly profile: JitProfile;
  readonly cpu: JitCpu;
  readonly config: JitConfig;
  readonly offsets: StructOffsets;
  readonly callBase: bigint;
  /** arch_bpf_timed_may_goto, which has its argument and result in AX. */
  readonly timedMayGoto: bigint | undefined;
  readonly arena: Arena | undefined;
}

export class FunctionContext {
  readonly env: Environment;
  readonly fn: JitFunctionInput;
  readonly slots: readonly Slot[];
  readonly isMain: boolean;
  /** aux->stack_depth rounded up to 16. */
  readonly stackSize: number;
  readonly indirectTargets: ReadonlySet<number>;
  /** Word offset of each slot, one more for the epilogue; kept from pass to pass. */
  readonly offsets: Int32Array;
  /** Word offset of the epilogue, from the pass before. */
  epilogue = 0;
  code = new CodeBuffer(undefined);
  extable: ExtableEntry[] = [];
  /** Address of the exception table, once there is one. */
  extableAddress: bigint | undefined;
  /** Entry addresses of the program's functions, once they have places. */
  entries: readonly bigint[] | undefined;
  /** The slot being built. */
  index = 0;
  /** Callee-saved registers that the function uses, and whether R10 is one of them. */
  usedCallee: readonly number[] = [];
  fpUsed = false;
  /** 6.1: bytes from R10 down to x27. */
  fpBottom = 0;

  constructor(env: Environment, fn: JitFunctionInput, slots: readonly Slot[], isMain: boolean) {
    this.env = env;
    this.fn = fn;
    this.slots = slots;
    this.isMain = isMain;
    this.stackSize = Math.ceil(fn.stackDepth / 16) * 16;
    this.indirectTargets = new Set(fn.indirectTargets);
    this.offsets = new Int32Array(slots.length + 1);
  }

  get profile(): JitProfile {
    return this.env.profile;
  }

  get registers(): RegisterMap {
    return this.env.profile.registers;
  }

  /** The A64 register of a BPF register. */
  reg(bpf: number): number {
    const a64 = this.registers.bpf[bpf];
    if (a64 === undefined) throw this.refuse(`register R${bpf} does not exist`);
    return a64;
  }

  emit(word: number): void {
    this.code.emit(word);
  }

  /** MOV between registers in the version's form. */
  move(sf: number, rd: number, rn: number): void {
    this.emit(moveRegister(this.profile, sf, rd, rn));
  }

  /** An error of the slot being built. */
  refuse(why: string): KernelError {
    return new KernelError('EINVAL', `${why} (insn ${this.index} of ${this.fn.name})`);
  }

  unsupported(): KernelError {
    const slot = this.slots[this.index];
    const code = (slot?.code ?? 0).toString(16).padStart(2, '0');
    return this.refuse(`opcode 0x${code} not supported`);
  }
}

/** MOV Rd, Rn; the one with SP is always ADD #0. */
export function moveRegister(
  profile: Pick<JitProfile, 'move'>,
  sf: number,
  rd: number,
  rn: number,
): number {
  if (profile.move === 'add' || rd === SP || rn === SP) return addImmediate(sf, rd, rn, 0);
  return orrRegister(sf, rd, ZR, rn);
}

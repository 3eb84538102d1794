/**
 * What a BPF trampoline is made for: the function's model, the flags, the attached programs.
 *
 * Reference: include/linux/bpf.h: struct btf_func_model, BPF_TRAMP_F_*, struct bpf_tramp_links.
 */

/** BPF_TRAMP_F_*. */
export const TRAMP_FLAGS = {
  /** Reload argument registers before leaving: there is neither fexit nor fmod_ret. */
  RESTORE_REGS: 1,
  /** Call the original body from the trampoline. */
  CALL_ORIG: 2,
  /** Leave to the parent, not to the function. */
  SKIP_FRAME: 4,
  /** Store the function's address below the argument count. */
  IP_ARG: 8,
  /** The return value is what the fentry program returned (struct_ops). */
  RET_FENTRY_RET: 16,
  /** The next four change no code on arm64. */
  ORIG_STACK: 32,
  SHARE_IPMODIFY: 64,
  TAIL_CALL_CTX: 128,
  INDIRECT: 256,
} as const;

/** One parameter of the traced function. */
export interface ModelArgument {
  /** Bytes. */
  readonly size: number;
  /** A structure passed by value. */
  readonly struct: boolean;
}

/** struct btf_func_model. */
export interface FunctionModel {
  readonly arguments: readonly ModelArgument[];
  /** Bytes of the return value; more than 8 come in x0 and x1. Default 8. */
  readonly returnSize?: number;
}

export type LinkKind = 'fentry' | 'fmod_ret' | 'fexit';

/** An attached program. */
export interface TrampolineLink {
  readonly kind: LinkKind;
  /** Address of its struct bpf_prog. */
  readonly program: bigint;
  /** prog->bpf_func. */
  readonly entry: bigint;
  /** An interpreted program gets its instructions as second argument. Default true. */
  readonly jited?: boolean;
  /** bpf_get_attach_cookie. Default 0. */
  readonly cookie?: bigint;
  /** bpf_trampoline_enter(prog) and bpf_trampoline_exit(prog). */
  readonly enter: bigint;
  readonly exit: bigint;
  /** BPF_LINK_TYPE_STRUCT_OPS. Default false. */
  readonly structOps?: boolean;
  /** 7.3: the program runs as a session, at entry and at exit. Default false. */
  readonly session?: boolean;
  /** 7.3: the session keeps 8 bytes between the two. Default false. */
  readonly sessionCookie?: boolean;
}

/** 8-byte slots of an argument. */
export function argumentSlots(argument: ModelArgument): number {
  return Math.ceil(argument.size / 8);
}

/** Where arguments arrive: in x0..x7 as long as each fits whole, then all the rest on the stack. */
export interface ArgumentPlacement {
  readonly inRegisters: readonly ModelArgument[];
  readonly onStack: readonly ModelArgument[];
  readonly registers: number;
  readonly stackSlots: number;
}

export function placeArguments(model: FunctionModel): ArgumentPlacement {
  let count = 0;
  let registers = 0;
  for (const argument of model.arguments) {
    if (registers + argumentSlots(argument) > 8) break;
    registers += argumentSlots(argument);
    count += 1;
  }
  const onStack = model.arguments.slice(count);
  return {
    inRegisters: model.arguments.slice(0, count),
    onStack,
    registers,
    stackSlots: onStack.reduce((sum, argument) => sum + argumentSlots(argument), 0),
  };
}

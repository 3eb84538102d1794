/**
 * The stack frame of a trampoline, as offsets from SP after `sub sp`.
 *
 *                    high
 *   parentRecord     x29 of the caller, x9 = address in the parent     not for struct_ops
 *   selfRecord       x29, x30 = address in the traced function
 *   x20, x19
 *   retval           the original's or the program's return value      if one is kept
 *   args             ctx[0] ..: what programs see
 *   nregs            ctx[-1]: the number of argument slots
 *   ip               ctx[-2]: the function's address                   with IP_ARG
 *   sessionCookies   8 bytes each                                      7.3
 *   runCtx           struct bpf_tramp_run_ctx: cookie, saved_run_ctx
 *   outgoing         stack arguments of the original                   7.3, with CALL_ORIG
 *                    low
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: prepare_trampoline.
 */
import { alignUp } from '../common/bytes.js';
import { placeArguments, TRAMP_FLAGS, type FunctionModel } from './trampoline-model.js';

/** sizeof(struct bpf_tramp_run_ctx); bpf_cookie comes first. */
const RUN_CTX_SIZE = 16;

export interface TrampolineFrame {
  /** Bytes of stack arguments for the original, at offset 0. */
  readonly outgoingSize: number;
  readonly runCtx: number;
  readonly sessionCookies: number;
  readonly sessionCookieCount: number;
  readonly ip: number | undefined;
  readonly nregs: number;
  readonly args: number;
  /** 8-byte slots at `args`. */
  readonly argumentSlots: number;
  readonly retval: number | undefined;
  readonly x19: number;
  readonly x20: number;
  /** Bytes that `sub sp` reserves. */
  readonly stackSize: number;
  /** x29 and x30 as the trampoline found them. */
  readonly selfRecord: number;
  /** Where the address in the traced function is. */
  readonly returnAddress: number;
  /** The caller's x29 and x9; undefined for struct_ops, which nobody traces. */
  readonly parentRecord: number | undefined;
}

export interface FrameOptions {
  /** Called through a struct_ops member rather than from a patch site. Default false. */
  readonly structOps?: boolean;
  /** 7.3. Default 0. */
  readonly sessionCookies?: number;
}

export function trampolineFrame(
  model: FunctionModel,
  flags: number,
  options: FrameOptions = {},
): TrampolineFrame {
  const { registers, stackSlots } = placeArguments(model);
  const argumentSlots = registers + stackSlots;
  const sessionCookieCount = options.sessionCookies ?? 0;
  let offset = 0;
  const take = (size: number): number => {
    offset += size;
    return offset - size;
  };
  const outgoingSize = flags & TRAMP_FLAGS.CALL_ORIG ? 8 * stackSlots : 0;
  take(outgoingSize);
  const runCtx = take(RUN_CTX_SIZE);
  const sessionCookies = take(8 * sessionCookieCount);
  const ip = flags & TRAMP_FLAGS.IP_ARG ? take(8) : undefined;
  const nregs = take(8);
  const args = take(8 * argumentSlots);
  const keepsRetval = flags & (TRAMP_FLAGS.CALL_ORIG | TRAMP_FLAGS.RET_FENTRY_RET);
  const retval = keepsRetval ? take(8) : undefined;
  const x19 = take(8);
  const x20 = take(8);
  const stackSize = alignUp(offset, 16);
  return {
    outgoingSize,
    runCtx,
    sessionCookies,
    sessionCookieCount,
    ip,
    nregs,
    args,
    argumentSlots,
    retval,
    x19,
    x20,
    stackSize,
    selfRecord: stackSize,
    returnAddress: stackSize + 8,
    parentRecord: options.structOps ? undefined : stackSize + 16,
  };
}

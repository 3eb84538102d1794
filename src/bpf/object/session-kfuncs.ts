/**
 * Kernel functions of fsession programs that the verifier replaces by instructions (7.3).
 *
 * bpf_session_is_return(ctx): whether the function has returned. bpf_session_cookie(ctx): address of 8 bytes that
 * the entry half leaves to the return half. Reference: bpf_fixup_kfunc_call in kernel/bpf/verifier.c;
 * BPF_TRAMP_IS_RETURN_SHIFT and BPF_TRAMP_COOKIE_INDEX_SHIFT: what a trampoline keeps in ctx[-1] beside the
 * number of arguments. The numbers are this lab's.
 */
import { makeSlot, type Slot } from '../instruction.js';

const IS_RETURN = 2001;
const COOKIE = 2002;

const IS_RETURN_SHIFT = 63;
const COOKIE_INDEX_SHIFT = 8;

const LDX_DW = 0x79;
const RSH64_IMM = 0x77;
const AND64_IMM = 0x57;
const LSH64_IMM = 0x67;
const SUB64_REG = 0x1f;
const MOV64_REG = 0xbf;

/** Numbers under which their calls go through the verifier. */
export const SESSION_KFUNCS: ReadonlyMap<string, number> = new Map([
  ['bpf_session_is_return', IS_RETURN],
  ['bpf_session_cookie', COOKIE],
]);

/** The instructions for the call; undefined for other numbers. */
export function inlineSessionKfunc(id: number): readonly Slot[] | undefined {
  const word = makeSlot(LDX_DW, { dst: 0, src: 1, off: -8 });
  switch (id) {
    case IS_RETURN:
      return [word, makeSlot(RSH64_IMM, { imm: IS_RETURN_SHIFT }), makeSlot(AND64_IMM, { imm: 1 })];
    case COOKIE:
      return [
        word,
        makeSlot(RSH64_IMM, { imm: COOKIE_INDEX_SHIFT }),
        makeSlot(AND64_IMM, { imm: 0xff }),
        makeSlot(LSH64_IMM, { imm: 3 }),
        makeSlot(SUB64_REG, { dst: 1, src: 0 }),
        makeSlot(MOV64_REG, { dst: 0, src: 1 }),
      ];
    default:
      return undefined;
  }
}

/** Does the xlated form ask for a session cookie: the six instructions above. */
export function usesSessionCookie(slots: readonly Slot[]): boolean {
  return slots.some(({ code, src, off }, at) => {
    const shift = slots[at + 1];
    return (
      code === LDX_DW &&
      src === 1 &&
      off === -8 &&
      shift?.code === RSH64_IMM &&
      shift.imm === COOKIE_INDEX_SHIFT
    );
  });
}

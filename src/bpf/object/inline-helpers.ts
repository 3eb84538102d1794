/**
 * Helper calls that the verifier replaces by instructions.
 *
 * Reference: do_misc_fixups in kernel/bpf/verifier.c, checked against the xlated programs of a booted
 * 6.12. A trampoline stores the number of arguments at ctx - 8 and the address of the traced function
 * at ctx - 16; the return value follows the arguments. Left out: map operations and bpf_loop, which
 * the kernel inlines too, with the same results.
 */
import { ERRNO } from '../../common/errno.js';
import { makeSlot, type Slot } from '../instruction.js';
import { inlineSessionKfunc } from './session-kfuncs.js';
import type { SectionKind } from './spec.js';

const LDX_DW = 0x79;
const STX_DW = 0x7b;
const MOV64_IMM = 0xb7;
const MOV64_REG = 0xbf;
const XCHG = makeSlot(0xdb, { dst: 1, imm: 0xe1 });
const LSH64_IMM = 0x67;
const ADD64_REG = 0x0f;
const AND64_IMM = 0x57;
/** if w_dst >= w_src goto */
const JGE32_REG = 0x3e;
const JA = 0x05;

const load = (dst: number, src: number, off: number): Slot => makeSlot(LDX_DW, { dst, src, off });
const store = (dst: number, src: number): Slot => makeSlot(STX_DW, { dst, src });
const move = (dst: number, imm: number): Slot => makeSlot(MOV64_IMM, { dst, imm });

/** Program kinds whose context is the argument array of a trampoline; and those that see a return value. */
const TRACING: readonly SectionKind[] = ['fentry', 'fexit', 'fmod_ret', 'fsession', 'lsm'];
const RETURNING: readonly SectionKind[] = ['fexit', 'fmod_ret', 'fsession'];

const GET_FUNC_IP = 173;
const GET_FUNC_ARG = 183;
const GET_FUNC_RET = 184;
const GET_FUNC_ARG_CNT = 185;
const TAIL_CALL = 12;
const KPTR_XCHG = 194;

/** R0 = the number of arguments. */
function loadCount(mask: number | undefined): readonly Slot[] {
  const all = load(0, 1, -8);
  return mask === undefined ? [all] : [all, makeSlot(AND64_IMM, { imm: mask })];
}

/**
 * The instructions for a call of helper `id` in such a program; undefined when it stays a call.
 * @param countMask bits of ctx[-1] that are the number of arguments; undefined for all
 */
export function inlineHelper(
  kind: SectionKind,
  id: number,
  countMask?: number,
): readonly Slot[] | undefined {
  if (id === TAIL_CALL) return [makeSlot(0xf5)];
  // r0 = r2; r0 = xchg((u64 *)(r1 + 0), r0)
  if (id === KPTR_XCHG) return [makeSlot(MOV64_REG, { src: 2 }), XCHG];
  if (kind === 'fsession') {
    const inlined = inlineSessionKfunc(id);
    if (inlined) return inlined;
  }
  if (!TRACING.includes(kind)) return undefined;
  switch (id) {
    case GET_FUNC_IP:
      return [load(0, 1, -16)];
    case GET_FUNC_ARG_CNT:
      return loadCount(countMask);
    case GET_FUNC_ARG:
      // R1 ctx, R2 n, R3 where to
      return [
        ...loadCount(countMask),
        makeSlot(JGE32_REG, { dst: 2, src: 0, off: 6 }),
        makeSlot(LSH64_IMM, { dst: 2, imm: 3 }),
        makeSlot(ADD64_REG, { dst: 2, src: 1 }),
        load(0, 2, 0),
        store(3, 0),
        move(0, 0),
        makeSlot(JA, { off: 1 }),
        move(0, -ERRNO.EINVAL),
      ];
    case GET_FUNC_RET:
      // R1 ctx, R2 where to
      if (!RETURNING.includes(kind)) return [move(0, -ERRNO.EOPNOTSUPP)];
      return [
        ...loadCount(countMask),
        makeSlot(LSH64_IMM, { dst: 0, imm: 3 }),
        makeSlot(ADD64_REG, { dst: 0, src: 1 }),
        load(3, 0, 0),
        store(2, 3),
        move(0, 0),
      ];
    default:
      return undefined;
  }
}

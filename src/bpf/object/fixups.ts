/**
 * What the verifier rewrites so that no engine has to care: division by zero and overflow, the upper half
 * after a 32-bit cmpxchg, loops with `may_goto`.
 *
 * Reference: do_misc_fixups and opt_subreg_zext_lo32_rnd_hi32 in kernel/bpf/verifier.c, checked against
 * the xlated programs of a booted 6.12. R11 is BPF_REG_AX, which programs cannot name. Left out, because
 * structs of maps are laid out differently here: inlined map look-ups and jiffies.
 *
 *   r0 /= r1       if r1 != 0 goto +2; w0 ^= w0; goto +1; r0 /= r1
 *   r0 %= r1       if r1 == 0 goto +1; r0 %= r1
 */
import { makeSlot, type Slot } from '../instruction.js';
import { OPCODES, type Opcode } from '../opcodes.js';
import { patchSlots, type Patched } from './patch.js';

const AX = 11;
const FP = 10;
/** BPF_MAX_LOOPS: how often a may_goto lets a loop go round. */
const MAX_LOOPS = 8 << 20;

// opcodes; those of 32 bits are one class (ALU 4, JMP32 6) away from those of 64 (ALU64 7, JMP 5)
const JA = makeSlot(0x05, { off: 1 });
const LDX_DW = 0x79;
const ST_DW = 0x7a;
const STX_DW = 0x7b;

type Division = Extract<Opcode, { kind: 'alu' }>;

const alu = (code: number, width: 32 | 64): number => code | (width === 64 ? 7 : 4);
const jump = (code: number, width: 32 | 64): number => code | (width === 64 ? 5 : 6);

/** The instructions for one that needs guarding; undefined for all others. */
export function fixupInstruction(slot: Slot): readonly Slot[] | undefined {
  const opcode = OPCODES[slot.code];
  if (opcode?.kind === 'atomic' && opcode.size === 4 && slot.imm === 0xf1) {
    // w0 = w0, marked as zero-extension by imm 1
    return [slot, makeSlot(0xbc, { imm: 1 })];
  }
  if (opcode?.kind !== 'alu' || (opcode.op !== 'div' && opcode.op !== 'mod')) return undefined;
  const isSigned = slot.off === 1;
  if (opcode.source === 'immediate') {
    if (!isSigned || slot.imm !== -1) return undefined;
    return [opcode.op === 'div' ? negate(slot, opcode.width) : clear(slot, 32)];
  }
  return isSigned ? guardSigned(slot, opcode) : guardUnsigned(slot, opcode);
}

/** mov dst, 0 */
function clear({ dst }: Slot, width: 32 | 64): Slot {
  return makeSlot(alu(0xb0, width), { dst });
}

function negate({ dst }: Slot, width: 32 | 64): Slot {
  return makeSlot(alu(0x80, width), { dst });
}

/** mov32 dst, dst: cuts to 32 bits. */
function truncate({ dst }: Slot): Slot {
  return makeSlot(0xbc, { dst, src: dst });
}

function guardUnsigned(slot: Slot, { op, width }: Division): readonly Slot[] {
  const { dst, src } = slot;
  if (op === 'div') {
    const isNotZero = makeSlot(jump(0x50, width), { dst: src, off: 2 });
    return [isNotZero, makeSlot(0xac, { dst, src: dst }), JA, slot];
  }
  const isZero = makeSlot(jump(0x10, width), { dst: src, off: width === 64 ? 1 : 2 });
  return width === 64 ? [isZero, slot] : [isZero, slot, JA, truncate(slot)];
}

/** R11, the divisor plus 1, is 0 or 1 for the two divisors that a CPU may not have: -1 and 0. */
function guardSigned(slot: Slot, { op, width }: Division): readonly Slot[] {
  const divisor = [
    makeSlot(0xbf, { dst: AX, src: slot.src }),
    makeSlot(alu(0x00, width), { dst: AX, imm: 1 }),
  ];
  const above = (off: number): Slot => makeSlot(jump(0x20, width), { dst: AX, off, imm: 1 });
  const equal = (imm: number, off: number): Slot =>
    makeSlot(jump(0x10, width), { dst: AX, off, imm });
  if (op === 'div') {
    // 0 gives 0; -1 changes the sign
    return [...divisor, above(4), equal(0, 1), clear(slot, width), negate(slot, width), JA, slot];
  }
  // -1 gives 0; 0 leaves the dividend
  const tail = width === 64 ? [] : [JA, truncate(slot)];
  return [...divisor, above(3), equal(1, width === 64 ? 3 : 4), clear(slot, 32), JA, slot, ...tail];
}

/** A function without may_goto: each counts down a number on the stack below `stackDepth`. */
export function expandMayGoto(
  slots: readonly Slot[],
  stackDepth: number,
): (Patched & { readonly stackDepth: number }) | undefined {
  const at = slots.flatMap(({ code }, i) => (OPCODES[code]?.kind === 'may_goto' ? [i] : []));
  if (at.length === 0) return undefined;
  const off = -stackDepth - 8;
  const countDown = [
    makeSlot(LDX_DW, { dst: AX, src: FP, off }),
    // if r11 == 0 goto: distance follows
    makeSlot(0x15, { dst: AX }),
    makeSlot(0x17, { dst: AX, imm: 1 }),
    makeSlot(STX_DW, { dst: FP, src: AX, off }),
  ];
  const patched = patchSlots(slots, new Map(at.map((i) => [i, countDown])));
  const body = patched.slots.slice();
  for (const i of at) {
    const check = (patched.moved[i] ?? 0) + 1;
    const target = patched.moved[i + 1 + (slots[i]?.off ?? 0)] ?? 0;
    body[check] = makeSlot(0x15, { dst: AX, off: target - check - 1 });
  }
  return {
    slots: [makeSlot(ST_DW, { dst: FP, off, imm: MAX_LOOPS }), ...body],
    moved: patched.moved.map((slot) => slot + 1),
    stackDepth: stackDepth + 8,
  };
}

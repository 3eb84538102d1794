/**
 * Instructions that a kernel's verifier does not know yet, by what its JIT translates.
 *
 * Reference: bpf_check of kernel/bpf/verifier.c. ISA version 4 (sdiv, smod, movsx, bswap, ldsx) and may_goto
 * are younger than 6.1, load_acquire and store_release than 6.12. Before, the fields that tell them from
 * others are reserved or their opcodes unknown: -EINVAL. gotol is not here: verifiers up to 6.1 let it pass,
 * and the JIT refuses it.
 */
import type { Slot } from '../../../bpf/instruction.js';
import { OPCODES } from '../../../bpf/opcodes.js';
import type { JitProfile } from '../../../jit/profile.js';

const LOAD_ACQUIRE = 0x100;
const STORE_RELEASE = 0x110;
const MOVE = 0xb0;

/** The first of them, in one line. */
export function newerThan(
  profile: Pick<JitProfile, 'cpuV4' | 'acquireRelease'>,
  slots: readonly Slot[],
): string | undefined {
  for (const [at, slot] of slots.entries()) {
    if (slots[at - 1]?.code === 0x18) continue;
    const known = profile.cpuV4 || !isVersion4(slot);
    if (known && (profile.acquireRelease || !isAcquireRelease(slot))) continue;
    return `insn ${at}: opcode 0x${slot.code.toString(16)} with off ${slot.off} and imm ${slot.imm}`;
  }
  return undefined;
}

function isVersion4({ code, off }: Slot): boolean {
  const opcode = OPCODES[code];
  switch (opcode?.kind) {
    case 'alu':
      return off !== 0 && ((code & 0xf0) === MOVE || opcode.op === 'div' || opcode.op === 'mod');
    case 'load':
      return opcode.signed;
    case 'end':
      return opcode.to === 'swap';
    default:
      return opcode?.kind === 'may_goto';
  }
}

/** Their 8- and 16-bit forms are atomics of a size that has no others. */
function isAcquireRelease({ code, imm }: Slot): boolean {
  return (code & 0xe7) === 0xc3 && (imm === LOAD_ACQUIRE || imm === STORE_RELEASE);
}

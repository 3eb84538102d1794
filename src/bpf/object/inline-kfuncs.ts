/**
 * What becomes of calls of kernel functions that only cast.
 *
 * Reference: fixup_kfunc_call in kernel/bpf/verifier.c.
 */
import type { BpfHost } from '../host.js';
import { makeSlot, type Slot } from '../instruction.js';
import { OPCODES, PSEUDO } from '../opcodes.js';

const MOV64_REG = 0xbf;
const CASTS: readonly string[] = ['bpf_cast_to_kern_ctx', 'bpf_rdonly_cast'];

/** The instructions for a call of a kernel function; undefined when it stays a call. */
export function inlineKfunc(slot: Slot, host: BpfHost): readonly Slot[] | undefined {
  if (OPCODES[slot.code]?.kind !== 'call' || slot.src !== PSEUDO.KFUNC_CALL) return undefined;
  const target = host.callBase + BigInt(slot.imm);
  const isCast = CASTS.some((name) => host.kfuncAddress?.(name) === target);
  return isCast ? [makeSlot(MOV64_REG, { dst: 0, src: 1 })] : undefined;
}

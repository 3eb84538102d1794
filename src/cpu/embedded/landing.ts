/**
 * Branch target identification: where a branch by register may land in guarded text.
 *
 * Reference: Arm ARM D8.4.5, PSTATE.BTYPE, BranchTargetCheck(). The check is made by the branch and not by
 * the next instruction, so that BTYPE is no state: what stops is the branch target, with pc there, but
 * right after the branch. PACIASP is a landing pad for calls only, as Linux sets SCTLR_EL1.BT1.
 */
import { decode } from '../../a64/codec.js';
import type { Code, Core } from './core.js';

/** PSTATE.BTYPE that a branch sets; operand `a` of BR, BLR and RET. */
export const BTYPE = {
  NONE: 0,
  /** BR x16 or x17, or any BR from text that is not guarded. */
  PLT: 1,
  CALL: 2,
  JUMP: 3,
} as const;

/** Bit per BTYPE that a landing pad accepts, by its `targets` (BTI, BTI c, BTI j, BTI jc). */
const ACCEPTED = [0b0000, 0b0110, 0b1010, 0b1110] as const;
const ACCEPTED_BY_PACIASP = 0b0110;
const ACCEPTED_BY_ANY = 0b1110;

function accepts(word: number): number {
  const decoded = decode(word);
  // BRK and HLT have their own exception
  if (decoded?.row.sem.kind === 'trap') return ACCEPTED_BY_ANY;
  switch (decoded?.row.name) {
    case 'BTI':
      return ACCEPTED[decoded.fields['targets'] ?? 0] ?? 0;
    case 'PACIASP':
    case 'PACIBSP':
      return ACCEPTED_BY_PACIASP;
    default:
      return 0;
  }
}

/**
 * Checks the branch that has just left `core.branchFrom` for `code`, where pc is. True when it may not land
 * there: `core.stop` then says so.
 */
export function missesLanding(core: Core, code: Code): boolean {
  const { branchType, branchFrom: from } = core;
  core.branchType = BTYPE.NONE;
  if (!code.region.guarded || branchType === BTYPE.NONE || !from) return false;
  const type = branchType === BTYPE.JUMP && !from.region.guarded ? BTYPE.PLT : branchType;
  const word = core.view.getUint32(code.offset + (core.pcLo - code.lo), true);
  if (((accepts(word) >> type) & 1) === 1) return false;
  const { pc: address } = core;
  core.stop = {
    kind: 'fault',
    fault: { access: 'fetch', address, size: 4, reason: 'landing pad' },
  };
  return true;
}

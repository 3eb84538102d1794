/**
 * Replaces single instructions of a function by several, and mends all jumps across them.
 *
 * Reference: bpf_patch_insn_data and bpf_adj_branches in kernel/bpf/core.c. A jump to a replaced
 * instruction goes to the first of its replacement; jumps inside a replacement are left as they are.
 */
import { KernelError } from '../../common/errors.js';
import type { Slot } from '../instruction.js';
import { OPCODES } from '../opcodes.js';
import { jumpDistance } from '../validate.js';

export interface Patched {
  readonly slots: readonly Slot[];
  /** Where each old slot starts now; one more entry for the end. */
  readonly moved: readonly number[];
}

export function patchSlots(
  slots: readonly Slot[],
  replacements: ReadonlyMap<number, readonly Slot[]>,
): Patched {
  const moved: number[] = [];
  let length = 0;
  for (let i = 0; i < slots.length; i++) {
    moved.push(length);
    length += replacements.get(i)?.length ?? 1;
  }
  moved.push(length);
  const patched = slots.flatMap((slot, i) => replacements.get(i) ?? [mendJump(slot, i, moved)]);
  return { slots: patched, moved };
}

function mendJump(slot: Slot, index: number, moved: readonly number[]): Slot {
  const opcode = OPCODES[slot.code];
  const distance = opcode && jumpDistance(slot, opcode);
  if (opcode === undefined || distance === undefined) return slot;
  const from = moved[index];
  const target = moved[index + 1 + distance];
  if (from === undefined || target === undefined) return slot;
  const mended = target - from - 1;
  if (opcode.kind === 'goto' && opcode.long) return { ...slot, imm: mended };
  if (mended < -0x8000 || mended > 0x7fff) {
    throw new KernelError('ERANGE', `insn ${index}: jump of ${mended} does not fit 16 bits`);
  }
  return { ...slot, off: mended };
}

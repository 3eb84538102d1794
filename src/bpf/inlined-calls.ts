/**
 * Look-ups that the verifier has put into a program as code, for engines that do better with the call.
 *
 * An xlated program is what the kernel makes of it, and a JIT translates all of it. Interpreter and wasm tier look a
 * key up faster in one step than by the eight instructions that stand for it, so each function says where such
 * instructions are and which call they were. These engines see the call and nothing else there; numbers of
 * instructions, and how many a run has executed, stay those of the xlated program.
 *
 * Usage:
 *   const slots = slotsWithCalls(fn); // as many as fn.insns has
 */
import { makeSlot, readSlots, type Slot } from './instruction.js';
import type { XlatedFunction } from './program.js';

/** nospec: nothing for engines that do not speculate. */
const NOTHING = makeSlot(0xc2);

/** The instructions with calls for what was inlined, and with nothing in the other slots there. */
export function slotsWithCalls({ insns, inlined = [] }: XlatedFunction): Slot[] {
  const slots = readSlots(insns);
  for (const { first, length, at, call } of inlined) {
    slots.fill(NOTHING, first, first + length);
    slots[at] = call;
  }
  return slots;
}

/**
 * Our xlated instructions of a program against those of a booted kernel, slot by slot.
 *
 * Not compared, since they are addresses: map references (which map it is and where in its value is), constants
 * that point into the kernel (jiffies), and distances of helpers. The register that the verifier uses for itself has number 11, from 7.x on 12.
 */
import { disassembleSlot } from '../../../bpf/disassemble.js';
import { imm64, type Slot } from '../../../bpf/instruction.js';
import { isMapReference, type CorpusProgram } from './corpus-file.js';

const CALL = 0x85;
const LD_IMM64 = 0x18;
/** BPF_REG_AX, by version. */
const AX: readonly number[] = [11, 12];

/** The first difference, in one line. */
export function compareXlated(
  theirs: CorpusProgram['functions'],
  ours: readonly (readonly Slot[])[],
): string | undefined {
  if (theirs.length !== ours.length) return `${theirs.length} functions, ours ${ours.length}`;
  for (const [i, slots] of theirs.entries()) {
    const own = ours[i] ?? [];
    const where = theirs.length === 1 ? '' : `function ${i} `;
    for (let at = 0; at < Math.max(slots.length, own.length); at++) {
      if (sameSlot(slots, own, at)) continue;
      return `${where}insn ${at} is ${show(slots, at)}, ours ${show(own, at)}`;
    }
  }
  return undefined;
}

function sameSlot(theirs: readonly Slot[], ours: readonly Slot[], at: number): boolean {
  const [slot, own] = [theirs[at], ours[at]];
  if (!slot || !own) return false;
  if (slot.code !== own.code || slot.off !== own.off) return false;
  if (register(slot.dst) !== register(own.dst)) return false;
  if (isMapReference(theirs, at)) return own.code === LD_IMM64 && own.src === 0;
  if (isMapReference(theirs, at - 1)) return true;
  if (isKernelAddress(theirs, at) && isKernelAddress(ours, at)) return true;
  if (isKernelAddress(theirs, at - 1)) return true;
  if (register(slot.src) !== register(own.src)) return false;
  // the callee of a bpf2bpf call is in off
  return slot.code === CALL || slot.imm === own.imm;
}

/** Is slot `at` the first of an ld_imm64 of an address in vmalloc space, where the kernel itself is? */
function isKernelAddress(slots: readonly Slot[], at: number): boolean {
  const [slot, second] = [slots[at], slots[at + 1]];
  if (slot?.code !== LD_IMM64 || slot.src !== 0 || !second) return false;
  return imm64(slot, second) >> 32n === 0xffff_8000n;
}

function register(number: number): number {
  return AX.includes(number) ? 11 : number;
}

function show(slots: readonly Slot[], at: number): string {
  const slot = slots[at];
  return slot ? `'${disassembleSlot(slot, slots[at + 1], at)}'` : 'nothing';
}

/**
 * What the kernel does when an access of a JITed program faults: looks it up in the exception table, clears
 * the register that the load would have written and goes on behind it.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: ex_handler_bpf; arch/arm64/mm/extable.c. Left out: 7.3's report of
 * a faulting arena access to the program's standard error.
 *
 * Usage (at a fault):
 *   const fixup = findFixup(kernel, image, pc);
 *   if (fixup?.clear !== undefined) cpu.setRegister(fixup.clear, 0n);
 *   if (fixup) cpu.pc = fixup.resume;
 */
import { DONT_CLEAR, EXTABLE_ENTRY_SIZE } from './extable.js';
import type { JitImage } from './program.js';
import type { KernelVersion } from './profile.js';
import { PROFILES } from './profiles.js';

export interface Fixup {
  /** The A64 register to clear; undefined for stores. */
  readonly clear: number | undefined;
  /** Where to go on. */
  readonly resume: bigint;
}

/** The fixup for a fault at `pc`; undefined when the access was not expected to fault. */
export function findFixup(
  kernel: KernelVersion,
  image: Pick<JitImage, 'base' | 'extableOffset' | 'extable'>,
  pc: bigint,
): Fixup | undefined {
  for (const [index, { insn, fixup }] of image.extable.entries()) {
    const entry = image.base + BigInt(image.extableOffset + EXTABLE_ENTRY_SIZE * index);
    if (entry + BigInt(insn) !== pc) continue;
    const register = fixup >>> 27;
    // up to 6.12 the low 27 bits are the way back from the fixup field itself
    const resume = PROFILES[kernel].fixupHasOffset
      ? entry + 4n - BigInt(fixup & 0x7ffffff)
      : pc + 4n;
    return { clear: register === DONT_CLEAR ? undefined : register, resume };
  }
  return undefined;
}

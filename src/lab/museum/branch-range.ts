/**
 * Exhibit 2: a branch distance that is up to twice as long as fits.
 *
 * Reference: check_imm of arch/arm64/net/bpf_jit_comp.c; aarch64_insn_gen_cond_branch_imm of
 * arch/arm64/lib/insn.c, which encodes what is out of range as 1 MiB: bit 18, the sign.
 */
import { encodeSlots, makeSlot } from '../../bpf/instruction.js';
import type { Exhibit } from './exhibit.js';
import { describeCall, refusalOf, tryCall, withKernel } from './exhibit.js';
import { loadSlots } from './programs.js';
import type { KernelProgram } from '../../kernel/bpf/program.js';

/** A tail call is the slot with the most words: 20 of them. */
const TAIL_CALL = makeSlot(0xf5);
const TAIL_CALLS = 14_000;

/** `if r1 == 0 goto` over all the tail calls to `r0 = 2`. */
function longJump(): Uint8Array {
  return encodeSlots([
    makeSlot(0xb7, { dst: 0, imm: 1 }),
    makeSlot(0x15, { dst: 1, off: TAIL_CALLS + 1 }),
    ...Array.from({ length: TAIL_CALLS }, () => TAIL_CALL),
    makeSlot(0x95),
    makeSlot(0xb7, { dst: 0, imm: 2 }),
    makeSlot(0x95),
  ]);
}

export const branchRange: Exhibit = {
  number: 2,
  name: 'branch_range',
  wing: 'jit',
  fixedIn: '6.1.176, 6.12.94',
  story:
    'check_imm() shifted by the number of bits instead of one less, so that distances of up to twice the ' +
    'range of a conditional branch passed. The encoder then gave them the wrong sign. Now the JIT refuses.',
  run: (variant, boot) =>
    withKernel(
      boot,
      { codegen: { jit: { branchCheck: variant === 'broken' ? 'twice' : 'signed' } } },
      (kernel) => {
        let program: KernelProgram | undefined;
        const refusal = refusalOf(() => {
          program = loadSlots(kernel, 'long_jump', longJump());
        });
        if (!program) return { lines: [`load: ${refusal}`], right: true };
        const words = (program.images[0]?.jitedLength ?? 0) / 4;
        const outcome = tryCall(kernel, program.entry, 0n);
        return {
          lines: [
            `loaded: ${words} words, a conditional branch over ${20 * TAIL_CALLS} of them`,
            describeCall('long_jump(0), which is to return 2,', outcome),
          ],
          right: outcome.kind === 'returned' && outcome.value === 2n,
        };
      },
    ),
};

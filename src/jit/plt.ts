/**
 * The PLT at the end of every image, through which the entry's poke site reaches far targets, and
 * dummy_tramp, its first target.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: build_plt, struct bpf_plt, dummy_tramp.
 *
 *       [nop]              so that the target is 8-byte aligned
 *   0:  ldr x10, #8
 *   4:  br  x10
 *   8:  .quad target       not counted in jited_len
 */
import type { CodeBuffer } from './code-buffer.js';
import { br, bti, LR, ldrLiteral, nop, orrRegister, ret, ZR } from './emit.js';
import type { JitConfig } from './profile.js';

/** Bytes of the quad. */
export const PLT_TARGET_SIZE = 8;
/** Bytes from the PLT's first word to the quad. */
export const PLT_TARGET_OFFSET = 8;

const SCRATCH = 10;

export function buildPlt(code: CodeBuffer): void {
  if (code.length % 2 !== 0) code.emit(nop());
  code.emit(ldrLiteral(SCRATCH, PLT_TARGET_OFFSET / 4));
  code.emit(br(SCRATCH));
}

/**
 * dummy_tramp: goes back into the program behind its poke site as if nothing were attached. It is
 * assembly text, so its MOVs are ORRs in every version.
 */
export function dummyTramp(config: JitConfig): readonly number[] {
  const words = config.bti ? [bti('j')] : [];
  const move = (rd: number, rn: number): number => orrRegister(1, rd, ZR, rn);
  return [...words, move(SCRATCH, LR), move(LR, 9), ret(SCRATCH)];
}

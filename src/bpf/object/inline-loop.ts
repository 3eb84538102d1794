/**
 * bpf_loop as a loop: what the verifier makes of a call whose callback is always the same and whose flags are 0.
 *
 * Reference: inline_bpf_loop and optimize_bpf_loop in kernel/bpf/verifier.c, checked against xlated programs of
 * a booted 6.18. R6 to R8, which the loop needs, are kept on the stack below what the function uses.
 *
 *   if r1 <= BPF_MAX_LOOPS goto +2; w0 = -E2BIG; goto end
 *   save r6 (bound), r7 (counter), r8 (context)
 *   while r7 < r6: r0 = callback(r7, r8); r7 += 1; if r0 != 0 break
 *   r0 = r7; restore
 */
import { alignUp } from '../../common/bytes.js';
import { ERRNO } from '../../common/errno.js';
import { makeSlot, type Slot } from '../instruction.js';
import { PSEUDO } from '../opcodes.js';

const MAX_LOOPS = 8 << 20;
const MOV64_REG = 0xbf;
const MOV32_IMM = 0xb4;
const ADD64_IMM = 0x07;
const LDX_DW = 0x79;
const STX_DW = 0x7b;
const JA = 0x05;
const JEQ_IMM = 0x15;
const JGE_REG = 0x3d;
const JLE_IMM = 0xb5;
const CALL = 0x85;

const BOUND = 6;
const COUNTER = 7;
const CONTEXT = 8;
const FP = 10;
const REG_SIZE = 8;
const SAVED = [BOUND, COUNTER, CONTEXT] as const;

/** Bytes of stack of a function that uses `stackDepth` itself and has such loops. */
export function stackWithLoops(stackDepth: number): number {
  return alignUp(stackDepth, REG_SIZE) + REG_SIZE * SAVED.length;
}

/**
 * @param callback index of the function that is called
 * @param stackDepth what `stackWithLoops` gave
 */
export function inlineLoop(callback: number, stackDepth: number): readonly Slot[] {
  const move = (dst: number, src: number): Slot => makeSlot(MOV64_REG, { dst, src });
  const saved = (code: number, index: number, fields: Partial<Slot>): Slot =>
    makeSlot(code, { ...fields, off: REG_SIZE * index - stackDepth });
  return [
    makeSlot(JLE_IMM, { dst: 1, imm: MAX_LOOPS, off: 2 }),
    makeSlot(MOV32_IMM, { imm: -ERRNO.E2BIG }),
    makeSlot(JA, { off: 16 }),
    ...SAVED.map((src, i) => saved(STX_DW, i, { dst: FP, src })),
    move(BOUND, 1),
    makeSlot(MOV32_IMM, { dst: COUNTER }),
    move(CONTEXT, 3),
    makeSlot(JGE_REG, { dst: COUNTER, src: BOUND, off: 5 }),
    move(1, COUNTER),
    move(2, CONTEXT),
    makeSlot(CALL, { src: PSEUDO.CALL, off: callback }),
    makeSlot(ADD64_IMM, { dst: COUNTER, imm: 1 }),
    makeSlot(JEQ_IMM, { off: -6 }),
    move(0, COUNTER),
    ...SAVED.map((dst, i) => saved(LDX_DW, i, { dst, src: FP })),
  ];
}

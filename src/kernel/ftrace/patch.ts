/**
 * Writes patch sites: the literal in front of the function, then the one instruction.
 *
 * Reference: arch/arm64/kernel/ftrace.c (ftrace_init_nop, ftrace_make_call, ftrace_modify_call,
 * ftrace_make_nop, ftrace_find_callable_addr; 6.12) and patching.c. The literal is stored first, by an
 * aligned 8-byte store; the word is checked against what should be there, then replaced by a 4-byte
 * store and fetched anew by every CPU. Where a BL has to go `reach.ts` says. Left out: BTI pads.
 */
import { branchWord } from '../../a64/immediates.js';
import { encode } from '../../a64/codec.js';
import { hex32, viewOf } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import type { Memory } from '../../cpu/memory.js';
import { NOP } from '../text.js';
import { reach, type ReachParts } from './reach.js';

/** `mov x9, x30`: keeps the return address of the traced function's caller. */
const MOV_X9_X30 = encode('ORR_shifted', {
  sf: 1,
  shift: 0,
  Rm: 30,
  imm6: 0,
  Rn: 31,
  Rd: 9,
});

export interface PatcherParts {
  readonly memory: Memory;
  /** Makes every CPU fetch [start, end) anew. */
  readonly syncText: (start: bigint, end: bigint) => void;
  readonly reach: ReachParts;
}

export class SitePatcher {
  readonly #parts: PatcherParts;

  constructor(parts: PatcherParts) {
    this.#parts = parts;
  }

  /** Once per site, before anybody can execute it: literal, MOV; the second NOP stays. */
  initNop(ip: bigint, nopOps: bigint): void {
    this.writeLiteral(ip, nopOps);
    this.#replace(ip - 4n, NOP, MOV_X9_X30);
  }

  /** The ops pointer at F-8, which ftrace_caller loads: ALIGN_DOWN(ip - 12, 8). */
  literalAddress(ip: bigint): bigint {
    return (ip - 12n) & ~7n;
  }

  writeLiteral(ip: bigint, ops: bigint): void {
    const bytes = new Uint8Array(8);
    viewOf(bytes).setBigUint64(0, ops, true);
    this.#parts.memory.pokeBytes(this.literalAddress(ip), bytes);
  }

  makeCall(ip: bigint, target: bigint): void {
    this.#replace(ip, NOP, this.#callWord(ip, target));
  }

  modifyCall(ip: bigint, from: bigint, to: bigint): void {
    const old = this.#callWord(ip, from);
    this.#replace(ip, old, this.#callWord(ip, to));
  }

  makeNop(ip: bigint, target: bigint): void {
    this.#replace(ip, this.#callWord(ip, target), NOP);
  }

  #callWord(ip: bigint, target: bigint): number {
    return branchWord(ip, reach(ip, target, this.#parts.reach), true);
  }

  #replace(address: bigint, expected: number, word: number): void {
    const { memory, syncText } = this.#parts;
    const found = memory.read32(address);
    if (found !== expected) {
      throw new KernelError(
        'EINVAL',
        `0x${address.toString(16)} holds ${hex32(found)}, expected ${hex32(expected)}`,
      );
    }
    const bytes = new Uint8Array(4);
    viewOf(bytes).setUint32(0, word, true);
    memory.pokeBytes(address, bytes);
    syncText(address, address + 4n);
  }
}

/**
 * Constants in registers: the shortest MOVZ/MOVN/MOVK sequence, and the fixed-length one for addresses.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: emit_a64_mov_i, emit_a64_mov_i64, emit_addr_mov_i64. Each
 * function gives the words, so that a caller may count them before it emits them. Kernel addresses have
 * 16 ones on top, which one MOVN gives for free: three words always do.
 */
import { high32, low32 } from '../common/bytes.js';
import { movk, movn, movz } from './emit.js';

/** `value` (an Int32, sign-extended when `sf`) in 1 or 2 words. */
export function moveInt32(sf: number, rd: number, value: number): number[] {
  const hi = (value >>> 16) & 0xffff;
  const lo = value & 0xffff;
  if (hi === 0xffff) return [movn(sf, rd, ~lo & 0xffff, 0)];
  if (hi & 0x8000) {
    const words = [movn(sf, rd, ~hi & 0xffff, 16)];
    if (lo !== 0xffff) words.push(movk(sf, rd, lo, 0));
    return words;
  }
  const words = [movz(sf, rd, lo, 0)];
  if (hi !== 0) words.push(movk(sf, rd, hi, 16));
  return words;
}

/** A 64-bit constant in 1 to 4 words; one that fits 32 bits unsigned takes the W form. */
export function moveInt64(rd: number, value: bigint): number[] {
  const lo = low32(value);
  const hi = high32(value);
  if (hi === 0) return moveInt32(0, rd, lo);
  const blocks = [lo & 0xffff, lo >>> 16, hi & 0xffff, hi >>> 16];
  const inverse = countOther(blocks, 0xffff) < countOther(blocks, 0);
  const background = inverse ? 0xffff : 0;
  let top = 3;
  while (top > 0 && blocks[top] === background) top--;
  const words: number[] = [];
  for (let index = top; index >= 0; index--) {
    const block = blocks[index] ?? 0;
    if (index === top) {
      words.push(
        inverse ? movn(1, rd, ~block & 0xffff, 16 * index) : movz(1, rd, block, 16 * index),
      );
    } else if (block !== background) {
      words.push(movk(1, rd, block, 16 * index));
    }
  }
  return words;
}

/** Words that `moveInt64` takes at most. */
export const MOVE_INT64_MAX = 4;

/** A kernel address in exactly 3 words, whatever its value. */
export function moveAddress(rd: number, address: bigint): number[] {
  const block = (shift: bigint): number => Number((address >> shift) & 0xffffn);
  return [
    movn(1, rd, ~block(0n) & 0xffff, 0),
    movk(1, rd, block(16n), 16),
    movk(1, rd, block(32n), 32),
  ];
}

function countOther(blocks: readonly number[], value: number): number {
  let count = 0;
  for (const block of blocks) if (block !== value) count++;
  return count;
}

/**
 * Reading images of booted kernels: words out of hex text, constants and branch targets out of words.
 *
 * Addresses that a file does not give are in its images, as MOVZ, MOVN and MOVK or as a branch:
 *
 *   sf opc 100101 hw imm16 Rd     opc 00 MOVN, 10 MOVZ, 11 MOVK
 *   100101 imm26                  BL
 *   000101 imm26                  B
 *
 * Usage:
 *   const words = wordsOf(program.jited);
 *   constantAt(words, 7); // 0xffff0000c1234000n
 */
import { hexToBytes, viewOf } from '../../../common/bytes.js';

/** A word in memory order is little-endian. */
export function wordsOf(hex: string): number[] {
  const bytes = hexToBytes(hex);
  const view = viewOf(bytes);
  return Array.from({ length: bytes.length >> 2 }, (_, i) => view.getUint32(4 * i, true));
}

/** `count` bits of a word from bit `low` on. */
export function bits(word: number, low: number, count: number): number {
  return (word >>> low) & (2 ** count - 1);
}

const MOVN = 0;
const MOVZ = 2;
const MOVK = 3;

/** opc of a move of a wide immediate; undefined for other words. */
function moveWide(word: number): number | undefined {
  const opc = bits(word, 29, 2);
  return bits(word, 23, 6) === 0b100101 && opc !== 1 ? opc : undefined;
}

/** What a register holds after `word`, when it held `before`. */
function moved(word: number, opc: number, before: bigint): bigint {
  const shift = BigInt(16 * bits(word, 21, 2));
  const part = BigInt(bits(word, 5, 16)) << shift;
  const width = word >>> 31 ? 64 : 32;
  switch (opc) {
    case MOVN:
      return BigInt.asUintN(width, ~part);
    case MOVZ:
      return part;
    default:
      return (before & ~(0xffffn << shift)) | part;
  }
}

/** Constants that registers hold, word after word. */
export class Constants {
  readonly #values = new Map<number, bigint>();

  take(word: number): void {
    const opc = moveWide(word);
    if (opc === undefined) return;
    const register = bits(word, 0, 5);
    this.#values.set(register, moved(word, opc, this.get(register)));
  }

  get(register: number): bigint {
    return this.#values.get(register) ?? 0n;
  }
}

/** The constant that the words from `at` on put into one register; undefined when they put none. */
export function constantAt(words: readonly number[], at: number): bigint | undefined {
  const first = words[at] ?? 0;
  const opc = moveWide(first);
  if (opc === undefined || opc === MOVK) return undefined;
  let value = moved(first, opc, 0n);
  for (const word of words.slice(at + 1)) {
    if (moveWide(word) !== MOVK || bits(word, 0, 5) !== bits(first, 0, 5)) break;
    value = moved(word, MOVK, value);
  }
  return value;
}

/** The constant that the words up to `end` (exclusive) put into the register of the last of them. */
export function constantBefore(words: readonly number[], end: number): bigint | undefined {
  let start = end - 1;
  while (moveWide(words[start] ?? 0) === MOVK) start--;
  return constantAt(words, start);
}

/** Where a BL or B at `pc` goes; undefined for other words. */
export function branchTarget(word: number, pc: bigint, link: boolean): bigint | undefined {
  if (word >>> 26 !== (link ? 0b100101 : 0b000101)) return undefined;
  return pc + 4n * BigInt.asIntN(26, BigInt(word & 0x3ffffff));
}

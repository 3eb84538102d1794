/**
 * Atomic instructions of the interpreter (RFC 9669 section 5.3 and the ISA v4 acquire/release forms).
 *
 * One program runs at a time, so a read and a write behind each other are atomic.
 */
import type { Memory } from '../../cpu/memory.js';

/**
 * Executes the operation `imm` on `size` bytes at (hi:lo). `d` and `s` are indexes of the dst and src
 * registers in `words`. Gives false when memory refuses.
 */
export function atomic(
  memory: Memory,
  words: Int32Array,
  imm: number,
  size: number,
  d: number,
  s: number,
  hi: number,
  lo: number,
): boolean {
  const { view } = memory;
  if (imm === 0x100) {
    const at = memory.offsetRead(hi, lo, size);
    if (at < 0) return false;
    readTo(view, at, size, words, d);
    return true;
  }
  const at = memory.offsetWrite(hi, lo, size);
  if (at < 0) return false;
  const srcLo = words[s] as number;
  const srcHi = words[s + 1] as number;
  if (imm === 0x110) {
    write(view, at, size, srcLo, srcHi);
    return true;
  }
  const oldLo = view.getInt32(at, true);
  const oldHi = size === 8 ? view.getInt32(at + 4, true) : 0;
  switch (imm & 0xf0) {
    case 0x00: {
      const sum = (oldLo + srcLo) | 0;
      const carry = sum >>> 0 < oldLo >>> 0 ? 1 : 0;
      write(view, at, size, sum, (oldHi + srcHi + carry) | 0);
      break;
    }
    case 0x40:
      write(view, at, size, oldLo | srcLo, oldHi | srcHi);
      break;
    case 0x50:
      write(view, at, size, oldLo & srcLo, oldHi & srcHi);
      break;
    case 0xa0:
      write(view, at, size, oldLo ^ srcLo, oldHi ^ srcHi);
      break;
    case 0xe0:
      write(view, at, size, srcLo, srcHi);
      break;
    default: {
      // cmpxchg: R0 is what is expected, and gets what was there
      const same = oldLo === words[0] && (size === 4 || oldHi === words[1]);
      if (same) write(view, at, size, srcLo, srcHi);
      words[0] = oldLo;
      words[1] = oldHi;
      return true;
    }
  }
  if ((imm & 1) === 1) {
    words[s] = oldLo;
    words[s + 1] = oldHi;
  }
  return true;
}

function readTo(view: DataView, at: number, size: number, words: Int32Array, d: number): void {
  words[d + 1] = size === 8 ? view.getInt32(at + 4, true) : 0;
  if (size >= 4) words[d] = view.getInt32(at, true);
  else words[d] = size === 2 ? view.getUint16(at, true) : view.getUint8(at);
}

function write(view: DataView, at: number, size: number, lo: number, hi: number): void {
  if (size === 1) view.setInt8(at, lo);
  else if (size === 2) view.setInt16(at, lo, true);
  else view.setInt32(at, lo, true);
  if (size === 8) view.setInt32(at + 4, hi, true);
}

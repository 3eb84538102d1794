/**
 * Atomic instructions of the interpreter (RFC 9669 section 5.3 and the ISA v4 acquire/release forms).
 *
 * One program runs at a time, so a read and a write behind each other are atomic.
 */
/** BPF_STORE_REL */
const STORE_RELEASE = 0x110;

/**
 * Executes the operation `imm`, load_acquire excepted, on `size` bytes at `at`. `s` is the
 * index of the src register in `words`.
 */
export function atomic(
  view: DataView,
  words: Int32Array,
  imm: number,
  size: number,
  s: number,
  at: number,
): void {
  const srcLo = words[s] as number;
  const srcHi = words[s + 1] as number;
  if (imm === STORE_RELEASE) {
    store(view, at, size, srcLo, srcHi);
    return;
  }
  const oldLo = view.getInt32(at, true);
  const oldHi = size === 8 ? view.getInt32(at + 4, true) : 0;
  switch (imm & 0xf0) {
    case 0x00: {
      const sum = (oldLo + srcLo) | 0;
      const carry = sum >>> 0 < oldLo >>> 0 ? 1 : 0;
      store(view, at, size, sum, (oldHi + srcHi + carry) | 0);
      break;
    }
    case 0x40:
      store(view, at, size, oldLo | srcLo, oldHi | srcHi);
      break;
    case 0x50:
      store(view, at, size, oldLo & srcLo, oldHi & srcHi);
      break;
    case 0xa0:
      store(view, at, size, oldLo ^ srcLo, oldHi ^ srcHi);
      break;
    case 0xe0:
      store(view, at, size, srcLo, srcHi);
      break;
    default: {
      // cmpxchg: R0 is what is expected, and gets what was there
      const same = oldLo === words[0] && (size === 4 || oldHi === words[1]);
      if (same) store(view, at, size, srcLo, srcHi);
      words[0] = oldLo;
      words[1] = oldHi;
      return;
    }
  }
  if ((imm & 1) === 1) {
    words[s] = oldLo;
    words[s + 1] = oldHi;
  }
}

/** Puts the low `size` bytes of (hi, lo) at `at`. */
export function store(view: DataView, at: number, size: number, lo: number, hi: number): void {
  if (size === 1) view.setInt8(at, lo);
  else if (size === 2) view.setInt16(at, lo, true);
  else view.setInt32(at, lo, true);
  if (size === 8) view.setInt32(at + 4, hi, true);
}

/**
 * Fills one record from the word that memory holds now: the embedded CPU's instruction fetch.
 */
import { decode } from '../../a64/codec.js';
import { join64 } from '../../common/bytes.js';
import { SINK_SLOT, type Code, type Core } from './core.js';
import { lower, type Lowered } from './lower.js';
import { OP } from './operations.js';

/** Decodes the instruction at offset `at` of `code`. */
export function decodeRecord(core: Core, code: Code, at: number): void {
  const { records } = code;
  const word = core.view.getInt32(code.offset + at, true);
  const lo = (code.lo + at) | 0;
  const hi = code.hi + (lo >>> 0 < code.lo >>> 0 ? 1 : 0);
  const decoded = decode(word);
  const lowered: Lowered = decoded
    ? lower(decoded, join64(lo, hi), word)
    : { op: OP.UNDEFINED, a: word };
  const { op, d = SINK_SLOT, n = SINK_SLOT, m = SINK_SLOT, a = 0, b = 0 } = lowered;
  records[at] = op | (d << 8) | (n << 16) | (m << 24);
  records[at + 1] = a;
  records[at + 2] = b;
  // a word that has not changed keeps its number
  if (core.words[records[at + 3] as number]?.word !== word || records[at + 3] === 0) {
    records[at + 3] = core.words.push({ lo, hi, word }) - 1;
  }
}

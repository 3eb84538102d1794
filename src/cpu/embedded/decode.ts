/**
 * Fills one record from the word that memory holds now: the embedded CPU's instruction fetch.
 *
 * What a word means does not depend on where it is, ADR and ADRP apart, so a CPU keeps what it has decoded.
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
  if (!core.decoded.copy(word, records, at)) lowerRecord(core, records, at, word, lo, hi);
  numberWord(core, records, at, word, lo, hi);
}

function lowerRecord(
  core: Core,
  records: Int32Array,
  at: number,
  word: number,
  lo: number,
  hi: number,
): void {
  const decoded = decode(word);
  const lowered: Lowered = decoded
    ? lower(decoded, join64(lo, hi), word)
    : { op: OP.UNDEFINED, a: word };
  const { op, d = SINK_SLOT, n = SINK_SLOT, m = SINK_SLOT, a = 0, b = 0 } = lowered;
  records[at] = op | (d << 8) | (n << 16) | (m << 24);
  records[at + 1] = a;
  records[at + 2] = b;
  if (decoded?.row.sem.kind !== 'address') core.decoded.keep(word, records, at);
}

/** A word that has not changed keeps its number; while nothing is recorded a new one takes that of the old. */
function numberWord(
  core: Core,
  records: Int32Array,
  at: number,
  word: number,
  lo: number,
  hi: number,
): void {
  const number = records[at + 3] as number;
  const known = number === 0 ? undefined : core.words[number];
  if (known && core.log === undefined) known.word = word;
  else if (known?.word !== word) records[at + 3] = core.words.push({ lo, hi, word }) - 1;
}

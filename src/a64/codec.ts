/**
 * Encoder and decoder of A64 words, driven by the instruction table.
 *
 *   encode('ADD_immediate', { sf: 1, sh: 0, imm12: 16, Rn: 31, Rd: 31 })   // 0x910043ff
 *   decode(0xd65f03c0)   // { row: RET, fields: { Rn: 30 } }
 *
 * A word is an unsigned 32-bit number; `decode` also takes it as an Int32.
 */
import { hex32 } from '../common/bytes.js';
import type { Fields, Instruction } from './row.js';
import { INSTRUCTIONS } from './table.js';

export interface Decoded {
  readonly row: Instruction;
  readonly fields: Fields;
}

const byName = new Map(INSTRUCTIONS.map((row) => [row.name, row]));

const BUCKET_SHIFT = 21;

/** Rows by bits 31..21, those with more fixed bits first, so that NOP comes before HINT. */
const buckets: readonly (readonly Instruction[])[] = makeBuckets();

function bitCount(mask: number): number {
  let count = 0;
  for (let rest = mask; rest !== 0; rest &= rest - 1) count += 1;
  return count;
}

function makeBuckets(): Instruction[][] {
  const sorted = INSTRUCTIONS.toSorted((a, b) => bitCount(b.mask) - bitCount(a.mask));
  return Array.from({ length: 1 << (32 - BUCKET_SHIFT) }, (_, index) => {
    const high = index << BUCKET_SHIFT;
    return sorted.filter((row) => ((high ^ row.match) & row.mask) >>> BUCKET_SHIFT === 0);
  });
}

/** The row called `name`. Throws RangeError when there is none. */
function instruction(name: string): Instruction {
  const row = byName.get(name);
  if (!row) throw new RangeError(`no A64 instruction ${name}`);
  return row;
}

/** Fields of `word` by the row's pattern. */
function extractFields(row: Instruction, word: number): Fields {
  const fields: Record<string, number> = {};
  for (const { name, lsb, width, signed } of row.fields) {
    const left = word << (32 - lsb - width);
    fields[name] = signed ? left >> (32 - width) : left >>> (32 - width);
  }
  return fields;
}

/**
 * The instruction of `word`, or `undefined` when the table has none or the encoding is reserved.
 */
export function decode(word: number): Decoded | undefined {
  for (const row of buckets[word >>> BUCKET_SHIFT] as readonly Instruction[]) {
    if ((word & row.mask) !== row.match) continue;
    const fields = extractFields(row, word);
    if (!row.valid || row.valid(fields)) return { row, fields };
  }
  return undefined;
}

/**
 * The word of row `name` with these fields; all fields of the row must be given.
 * Throws RangeError, naming row, field and value, when one is missing, unknown or does not fit, and
 * when the combination is not allocated.
 */
export function encode(name: string, fields: Fields): number {
  const row = instruction(name);
  let word = row.match;
  for (const { name: field, lsb, width, signed } of row.fields) {
    const value = fields[field];
    if (value === undefined) throw new RangeError(`${name}: field ${field} is missing`);
    const low = signed ? -(2 ** (width - 1)) : 0;
    if (!Number.isInteger(value) || value < low || value >= low + 2 ** width) {
      throw new RangeError(`${name}: ${field} = ${value} does not fit ${width} bits`);
    }
    word |= (value & (2 ** width - 1)) << lsb;
  }
  const count = Object.keys(fields).length;
  if (count !== row.fields.length) {
    const extra = Object.keys(fields).find((key) => !row.fields.some((f) => f.name === key));
    throw new RangeError(`${name}: no field ${extra}`);
  }
  if (row.valid && !row.valid(fields)) {
    throw new RangeError(`${name}: reserved encoding ${hex32(word)} ${JSON.stringify(fields)}`);
  }
  return word >>> 0;
}

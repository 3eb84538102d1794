/**
 * Encoder and decoder of A64 words, driven by the instruction table.
 *
 *   encode('ADD_immediate', { sf: 1, sh: 0, imm12: 16, Rn: 31, Rd: 31 })   // 0x910043ff
 *   encoder('CBZ', 'sf imm19 Rt')(1, 2, 0)   // the same for who makes many: 0xb4000040
 *   decode(0xd65f03c0)   // { row: RET, fields: { Rn: 30 } }
 *
 * A word is an unsigned 32-bit number; `decode` also takes it as an Int32.
 */
import { hex32 } from '../common/bytes.js';
import type { Field, Fields, Instruction } from './row.js';
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

/** Puts a field's value in its place. Throws RangeError when it does not fit. */
function fieldBits(row: Instruction, field: Field, value: number): number {
  const { lsb, mask, lowest } = field;
  // an integer of up to 26 bits is one Int32
  if ((value | 0) !== value || value < lowest || value > lowest + mask) {
    throw new RangeError(`${row.name}: ${field.name} = ${value} does not fit ${field.width} bits`);
  }
  return (value & mask) << lsb;
}

function checkAllocated(row: Instruction, word: number, fields: Fields): void {
  if (!row.valid || row.valid(fields)) return;
  throw new RangeError(`${row.name}: reserved encoding ${hex32(word)} ${JSON.stringify(fields)}`);
}

/**
 * The word of row `name` with these fields; all fields of the row must be given.
 * Throws RangeError, naming row, field and value, when one is missing, unknown or does not fit, and
 * when the combination is not allocated.
 */
export function encode(name: string, fields: Fields): number {
  const row = instruction(name);
  let word = row.match;
  for (const field of row.fields) {
    const value = fields[field.name];
    if (value === undefined) throw new RangeError(`${name}: field ${field.name} is missing`);
    word |= fieldBits(row, field, value);
  }
  const count = Object.keys(fields).length;
  if (count !== row.fields.length) {
    const extra = Object.keys(fields).find((key) => !row.fields.some((f) => f.name === key));
    throw new RangeError(`${name}: no field ${extra}`);
  }
  checkAllocated(row, word, fields);
  return word >>> 0;
}

/** Gives a word from field values in the order that its maker was told. */
export type Encoder = (...values: readonly number[]) => number;

/**
 * As `encode`, for who makes many words of one row: `fixed` fields always have the same value, the
 * others, in the order of `names`, come with each call.
 */
export function encoder(name: string, names: string, fixed: Fields = {}): Encoder {
  const row = instruction(name);
  const order = names === '' ? [] : names.split(' ');
  const open = order.map((each) => {
    const field = row.fields.find((one) => one.name === each);
    if (!field) throw new RangeError(`${name}: no field ${each}`);
    return field;
  });
  let start = row.match;
  // what the row's condition looks at, filled anew for each word
  const fields: Record<string, number> = {};
  for (const field of row.fields) {
    const value = fixed[field.name];
    fields[field.name] = value ?? 0;
    if (value !== undefined) start |= fieldBits(row, field, value);
    else if (!order.includes(field.name)) throw new RangeError(`${name}: ${field.name} is missing`);
  }
  return (...values) => {
    let word = start;
    for (let i = 0; i < open.length; i++) {
      const field = open[i] as Field;
      const value = values[i] as number;
      word |= fieldBits(row, field, value);
      if (row.valid) fields[field.name] = value;
    }
    checkAllocated(row, word, fields);
    return word >>> 0;
  };
}

/**
 * What a row of the A64 instruction table is, and how its bit pattern is read.
 *
 * `bits` is the encoding diagram of the Arm ARM (DDI 0487, C6.2), most significant bit first: runs
 * of 0 and 1 are fixed, names are fields. A name stands for the width the manual gives it
 * (`FIELDS_BY_WIDTH`). Where the manual fixes all but one bit of a size field, that bit is called
 * `sf` when 1 means 64 bits, and `opc0` where 0 means 64 bits (LDRSB, LDRSH).
 *
 * `asm` is the text in the manual's own notation: `<Xd|SP>` names field Rd as a 64-bit register
 * with 31 meaning SP, `<Rd>` takes the width from the instruction; other `<...>` are operand
 * formats of print.ts. A list puts preferred aliases, each with its condition, before the plain
 * form.
 *
 * `valid` says which combinations of fields are allocated; what it refuses (reserved, or
 * CONSTRAINED UNPREDICTABLE) is no instruction here.
 */
import type { Semantics } from './semantics.js';

/** Field values by name. Signed fields (see `SIGNED_FIELDS`) hold signed numbers. */
export type Fields = Readonly<Record<string, number>>;

export type Predicate = (fields: Fields) => boolean;

/** An alias is preferred where its condition holds. */
export type Alias = readonly [when: Predicate, asm: string];

export interface Row {
  readonly name: string;
  readonly bits: string;
  readonly asm: string | readonly [...Alias[], string];
  readonly sem: Semantics;
  readonly valid?: Predicate;
}

export interface Field {
  readonly name: string;
  readonly lsb: number;
  readonly width: number;
  readonly signed: boolean;
  /** `width` ones. */
  readonly mask: number;
  /** The smallest value. */
  readonly lowest: number;
}

/** A row with its pattern read: `(word & mask) === match` (both Int32) finds candidates. */
export interface Instruction extends Row {
  readonly mask: number;
  readonly match: number;
  readonly fields: readonly Field[];
}

const FIELDS_BY_WIDTH: readonly (readonly [width: number, names: string])[] = [
  [1, 'sf sh S N L A R C o0 b5 opc0'],
  [2, 'immlo hw size sz shift targets'],
  [3, 'imm3 option op1 op2'],
  [4, 'cond nzcv CRn CRm'],
  [5, 'Rd Rn Rm Ra Rt Rt2 Rs b40 imm5 prfop'],
  [6, 'imm6 immr imms'],
  [7, 'imm7'],
  [9, 'imm9'],
  [12, 'imm12'],
  [14, 'imm14'],
  [16, 'imm16'],
  [19, 'imm19 immhi'],
  [26, 'imm26'],
];

const FIELD_WIDTHS: ReadonlyMap<string, number> = new Map(
  FIELDS_BY_WIDTH.flatMap(([width, names]) => names.split(' ').map((name) => [name, width])),
);

/** Fields that are two's complement numbers. */
const SIGNED_FIELDS = new Set(['imm7', 'imm9', 'imm14', 'imm19', 'immhi', 'imm26']);

/** Reads the row's pattern. Throws RangeError when it does not describe 32 bits. */
export function compileRow(source: Row): Instruction {
  const fields: Field[] = [];
  let position = 32;
  let mask = 0;
  let match = 0;
  for (const token of source.bits.split(/\s+/)) {
    if (/^[01]+$/.test(token)) {
      for (const bit of token) {
        position -= 1;
        mask |= 1 << position;
        if (bit === '1') match |= 1 << position;
      }
      continue;
    }
    const width = FIELD_WIDTHS.get(token);
    if (width === undefined) throw new RangeError(`${source.name}: unknown field ${token}`);
    position -= width;
    const signed = SIGNED_FIELDS.has(token);
    const lowest = signed ? -(2 ** (width - 1)) : 0;
    fields.push({ name: token, lsb: position, width, signed, mask: 2 ** width - 1, lowest });
  }
  if (position !== 0) throw new RangeError(`${source.name}: pattern has ${32 - position} bits`);
  return { ...source, mask, match, fields };
}

/** Shorthand of the table files: one call per line of the table. */
export function row(
  name: string,
  bits: string,
  asm: Row['asm'],
  sem: Semantics,
  valid?: Predicate,
): Row {
  return valid ? { name, bits, asm, sem, valid } : { name, bits, asm, sem };
}

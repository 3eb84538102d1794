/**
 * Predicates on fields that several rows of the table share: allocated widths and alias conditions.
 */
import type { Fields, Predicate } from '../row.js';
import { decodeLogical } from '../immediates.js';

/** The value of a field that the row is known to have. */
export function field(fields: Fields, name: string): number {
  const value = fields[name];
  if (value === undefined) throw new RangeError(`no field ${name}`);
  return value;
}

export function is(name: string, value: number): Predicate {
  return (fields) => fields[name] === value;
}

export function all(...predicates: readonly Predicate[]): Predicate {
  return (fields) => predicates.every((holds) => holds(fields));
}

export function same(a: string, b: string): Predicate {
  return (fields) => fields[a] === fields[b];
}

export function not(predicate: Predicate): Predicate {
  return (fields) => !predicate(fields);
}

/** A shift amount below the register width. */
export const amountFits: Predicate = (f) => f['sf'] === 1 || field(f, 'imm6') < 32;

/** Reserved for 32-bit forms: `immr` and `imms` of 32 and more, and N that differs from sf. */
export const bitfieldFits: Predicate = (f) =>
  f['N'] === f['sf'] && (f['sf'] === 1 || (field(f, 'immr') < 32 && field(f, 'imms') < 32));

export function logicalMask(f: Fields): bigint | undefined {
  const width = f['sf'] === 1 ? 64 : 32;
  return decodeLogical(field(f, 'N'), field(f, 'immr'), field(f, 'imms'), width);
}

export const maskFits: Predicate = (f) => logicalMask(f) !== undefined;

/** Whether MOVZ or MOVN could load the logical mask, in which case ORR is not shown as MOV. */
export const moveWidePreferred: Predicate = (f) => {
  const mask = logicalMask(f);
  if (mask === undefined) return false;
  const width = f['sf'] === 1 ? 64 : 32;
  const oneChunk = (value: bigint): boolean => {
    for (let at = 0n; at < BigInt(width); at += 16n) {
      if ((value & ~(0xffffn << at)) === 0n) return true;
    }
    return false;
  };
  return oneChunk(mask) || oneChunk(BigInt.asUintN(width, ~mask));
};

/**
 * Records of `vectors/jit`: a program, trampoline, poke or instruction as a kernel made it, against ours.
 *
 * The record formats are in that folder's README. Nothing is executed. What a record leaves open follows
 * the folder's rules: struct offsets of the kernels that made the files, addresses of the harness
 * unless the record has its own (records read from booted kernels).
 *
 * Usage:
 *   const difference = checkJitRecord(JSON.parse(line));   // undefined: equal
 */
import { InputError } from '../common/errors.js';
import type { StructOffsets } from './profile.js';
import { Fields } from './vectors/fields.js';
import { checkInstruction, checkPoke } from './vectors/poke.js';
import { checkProgram } from './vectors/program.js';
import { checkTrampoline } from './vectors/trampoline.js';

type Check = (record: Fields, offsets?: StructOffsets) => string | undefined;

/** By the record's `cat`. */
const CHECKS: Readonly<Record<string, Check>> = {
  op: checkProgram,
  random: checkProgram,
  multi: checkProgram,
  real: checkProgram,
  tramp: checkTrampoline,
  tramp_real: checkTrampoline,
  poke: checkPoke,
  insn_gen: checkInstruction,
};

function checkOf(record: unknown): Check | undefined {
  const { cat, kernel } = (record ?? {}) as { readonly cat?: unknown; readonly kernel?: unknown };
  return typeof cat === 'string' && typeof kernel === 'string' && Object.hasOwn(CHECKS, cat)
    ? CHECKS[cat]
    : undefined;
}

/** Whether `checkJitRecord` knows this kind of record. */
export function isJitRecord(record: unknown): boolean {
  return checkOf(record) !== undefined;
}

/**
 * The first difference between a record and what we make of its input; `undefined` when there is none.
 * `offsets` replaces the struct offsets of the record's kernel. Throws InputError for a malformed record
 * and KernelError where our JIT refuses a program.
 */
export function checkJitRecord(record: unknown, offsets?: StructOffsets): string | undefined {
  const check = checkOf(record);
  if (check === undefined) throw new InputError('not a JIT record: cat or kernel is unknown');
  const { name } = record as { readonly name?: unknown };
  return check(new Fields(typeof name === 'string' ? name : 'record', record), offsets);
}

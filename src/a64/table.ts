/**
 * The A64 instruction table: the one source of encoder, decoder, printer and executors.
 *
 * Integer, branch, load/store, atomic and system instructions of Armv8.0 with LSE, LDAPR, CRC32,
 * SB and the hint space. Left out: SIMD and floating point, SVE, MTE, authenticated branches.
 * Rows of a class live in `table/`; see row.ts for what a row says.
 */
import { compileRow, type Instruction } from './row.js';
import { atomics } from './table/atomics.js';
import { branches } from './table/branches.js';
import { dataProcessingImmediate } from './table/data-processing-immediate.js';
import { dataProcessingRegister } from './table/data-processing-register.js';
import { loadsStores } from './table/loads-stores.js';
import { system } from './table/system.js';

export const INSTRUCTIONS: readonly Instruction[] = [
  ...dataProcessingImmediate,
  ...dataProcessingRegister,
  ...branches,
  ...loadsStores,
  ...atomics,
  ...system,
].map(compileRow);

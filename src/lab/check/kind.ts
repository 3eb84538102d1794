/**
 * Kinds of vector records and the verdict on one record.
 *
 * A kind recognises its records by their fields and checks them one by one. Kinds that need other
 * floors (JIT images, packets) are defined beside those and handed to `checkFile`.
 */
import type { ExecMachines } from './exec-machines.js';
import type { ObjectEngine } from './object-engine.js';
import type { ProgramRunner } from './runner.js';
import type { Decompressor, VectorRecord } from './record.js';

export type CaseResult =
  | { readonly name: string; readonly status: 'passed' }
  /** `difference` is the first one, one line. */
  | { readonly name: string; readonly status: 'failed'; readonly difference: string }
  | { readonly name: string; readonly status: 'skipped'; readonly reason: string };

export interface CheckOptions {
  readonly runner: ProgramRunner;
  readonly decompressor: Decompressor;
  /** Runs whole objects. Default: none, such records are skipped. */
  readonly objectEngine?: ObjectEngine;
  /** Runs images of JIT records. Default: none, their programs run on `runner`. */
  readonly imageMachines?: ExecMachines;
  /** Bytes of a file beside the vector file, by its relative name. Default: none can be read. */
  readonly readSibling?: (name: string) => Uint8Array;
}

export interface VectorKind {
  readonly name: string;
  matches(record: VectorRecord): boolean;
  /** `file`: all records of the file, for those that refer to each other. */
  check(
    record: VectorRecord,
    options: CheckOptions,
    file: readonly VectorRecord[],
  ): Promise<CaseResult>;
}

export function passed({ name }: VectorRecord): CaseResult {
  return { name, status: 'passed' };
}

export function failed({ name }: VectorRecord, difference: string): CaseResult {
  return { name, status: 'failed', difference };
}

export function skipped({ name }: VectorRecord, reason: string): CaseResult {
  return { name, status: 'skipped', reason };
}

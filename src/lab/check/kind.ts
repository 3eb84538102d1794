/**
 * Kinds of vector records and the verdict on one record.
 *
 * A kind recognises its records by their fields and checks them one by one. Kinds that need other
 * floors (JIT images, packets) are defined beside those and handed to `checkFile`.
 */
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
}

export interface VectorKind {
  readonly name: string;
  matches(record: VectorRecord): boolean;
  check(record: VectorRecord, options: CheckOptions): Promise<CaseResult>;
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

/**
 * `trampolab check`, the part that needs neither files nor an engine: finds out what a vector file
 * holds, checks each record, words the result.
 *
 * Usage:
 *   for await (const result of checkFile('x.jsonl', text, options)) print(describeCase(result));
 *   print(summarize(results));
 */
import { InputError } from '../../common/errors.js';
import type { CaseResult, CheckOptions, VectorKind } from './kind.js';
import { parseRecords, type VectorRecord } from './record.js';
import { REFUSED_KINDS, RUN_KINDS } from './run-vectors.js';

/**
 * Checks the records of one file, in order. Throws InputError when the text is no vector file, a
 * record is of no known kind, or the kind cannot be run.
 */
export async function* checkFile(
  name: string,
  text: string,
  options: CheckOptions,
  kinds: readonly VectorKind[] = RUN_KINDS,
): AsyncGenerator<CaseResult, void, undefined> {
  const file = parseRecords(name, text);
  for (const record of file) {
    yield await kindOf(record, kinds).check(record, options, file);
  }
}

function kindOf(record: VectorRecord, kinds: readonly VectorKind[]): VectorKind {
  const kind = kinds.find((each) => each.matches(record));
  if (kind) return kind;
  const refused = REFUSED_KINDS.find((each) => each.matches(record));
  if (refused)
    throw new InputError(`${record.origin}: ${refused.name}: is a side file of other vectors`);
  const fields = Object.keys(record.fields).slice(0, 6).join(', ');
  throw new InputError(`${record.origin}: no known kind of vector (fields ${fields})`);
}

/** `FAIL add: expected r0 0x3, got 0x4`, `PASS add` or `SKIP alu: why`. */
export function describeCase(result: CaseResult): string {
  switch (result.status) {
    case 'passed':
      return `PASS ${result.name}`;
    case 'failed':
      return `FAIL ${result.name}: ${result.difference}`;
    case 'skipped':
      return `SKIP ${result.name}: ${result.reason}`;
  }
}

/** `313 passed, 0 failed`, and `, 8 skipped` when some were. */
export function summarize(results: Iterable<CaseResult>): string {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const { status } of results) counts[status]++;
  const tail = counts.skipped > 0 ? `, ${counts.skipped} skipped` : '';
  return `${counts.passed} passed, ${counts.failed} failed${tail}`;
}

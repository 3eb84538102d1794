/** Vector files: the copied sample; `test/vectors.list` has the whole set. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/node/files.js';

export const SAMPLE = join(PACKAGE_ROOT, 'test/vectors/jit');

export function vectorFiles(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder).filter((name) => name.endsWith('.jsonl'));
}

export interface NamedRecord extends Readonly<Record<string, unknown>> {
  readonly name: string;
}

export function readRecords(folder: string, file: string): NamedRecord[] {
  const lines = readFileSync(join(folder, file), 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as NamedRecord);
}

/** One record of the sample. */
export function sampleRecord(file: string, name: string): NamedRecord {
  const record = readRecords(SAMPLE, file).find((each) => each.name === name);
  if (record === undefined) throw new Error(`${file} has no record ${name}`);
  return record;
}

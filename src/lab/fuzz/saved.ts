/**
 * Cases on disk: one JSON record, which `trampolab check` runs again.
 *
 * `{ "fuzz": 1, "name", "programs": [[{ "insns_hex", "stack_depth" }]], "mem_hex", "maps": [..],
 * "expected": { "end", "memory", "maps" } }`: programs as lists of functions, see `case.ts`.
 */
import type { MapSpec } from '../../bpf/maps/map.js';
import { bytesToHex } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import { validate } from '../../bpf/validate.js';
import { failed, passed, type CaseResult } from '../check/kind.js';
import type { VectorRecord } from '../check/record.js';
import {
  functionsOf,
  mapLines,
  type FuzzCase,
  type FuzzFunction,
  type FuzzOutcome,
} from './case.js';
import type { FuzzEngine } from './engine.js';

/** An outcome as text. */
interface SavedOutcome {
  readonly end: string;
  readonly memory: string;
  /** `map[key]=value`. */
  readonly maps: readonly string[];
}

function saveOutcome(outcome: FuzzOutcome): SavedOutcome {
  return { end: outcome.end, memory: bytesToHex(outcome.memory), maps: mapLines(outcome) };
}

export function saveCase(name: string, fuzzCase: FuzzCase, expected: FuzzOutcome): string {
  return JSON.stringify({
    fuzz: 1,
    name,
    programs: fuzzCase.programs.map((functions) =>
      functions.map(({ insns, stackDepth }) => ({
        insns_hex: bytesToHex(insns),
        stack_depth: stackDepth,
      })),
    ),
    mem_hex: bytesToHex(fuzzCase.memory),
    maps: fuzzCase.maps,
    expected: saveOutcome(expected),
  });
}

export function isSavedCase(record: VectorRecord): boolean {
  return record.fields['fuzz'] === 1 && record.has('programs');
}

const MAP_TYPES = ['ARRAY', 'HASH', 'PROG_ARRAY'] as const;

function savedMap(record: VectorRecord): MapSpec {
  const text = record.text('type');
  const type = MAP_TYPES.find((each) => each === text);
  if (!type) throw new InputError(`${record.origin}: map type ${text}`);
  return {
    name: record.text('name'),
    type,
    keySize: record.number('keySize'),
    valueSize: record.number('valueSize'),
    maxEntries: record.number('maxEntries'),
    flags: record.number('flags'),
  };
}

function bytesOf(record: VectorRecord, field: string): Uint8Array {
  const bytes = record.bytes(field);
  if (!bytes) throw new InputError(`${record.origin}: ${field} is missing`);
  return bytes;
}

function savedPrograms(record: VectorRecord): FuzzFunction[][] {
  const programs = record.lists('programs').map((functions) =>
    functions.map((fn) => ({
      insns: bytesOf(fn, 'insns_hex'),
      stackDepth: fn.number('stack_depth'),
    })),
  );
  for (const program of programs) {
    const [problem] = validate(functionsOf(program));
    if (problem !== undefined) throw new InputError(`${record.origin}: ${problem}`);
  }
  return programs;
}

/** Throws InputError when the record is no case that can run. */
function savedCase(record: VectorRecord): FuzzCase {
  const programs = savedPrograms(record);
  return {
    programs,
    memory: bytesOf(record, 'mem_hex'),
    maps: record.records('maps').map(savedMap),
  };
}

/** Runs a saved case on an engine and compares with what was saved. */
export function checkSavedCase(record: VectorRecord, engine: FuzzEngine): CaseResult {
  const [outcome] = engine.run([savedCase(record)]);
  if (!outcome) throw new RangeError(`${engine.name}: no outcome`);
  const got = saveOutcome(outcome);
  const saved = record.fields['expected'] as Partial<SavedOutcome> | undefined;
  const expected: SavedOutcome = {
    end: String(saved?.end),
    memory: String(saved?.memory),
    maps: Array.isArray(saved?.maps) ? saved.maps.map(String) : [],
  };
  if (JSON.stringify(got) === JSON.stringify(expected)) return passed(record);
  return failed(record, `expected ${describe(expected)}, got ${describe(got)}`);
}

function describe({ end, memory, maps }: SavedOutcome): string {
  return [end, `memory ${memory}`, ...maps].join(', ');
}

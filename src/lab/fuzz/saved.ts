/**
 * Cases on disk: one JSON record, which `trampolab check` runs again.
 *
 * `{ "fuzz": 1, "name", "insns_hex", "mem_hex", "maps": [..], "expected": { "end", "memory", "maps" } }`
 */
import type { MapSpec } from '../../bpf/maps/map.js';
import { bytesToHex } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import { failed, passed, type CaseResult } from '../check/kind.js';
import type { VectorRecord } from '../check/record.js';
import type { FuzzCase, FuzzEngine, FuzzOutcome } from './engine.js';
import { sameOutcome } from './fuzz.js';

export function saveCase(name: string, fuzzCase: FuzzCase, expected: FuzzOutcome): string {
  return JSON.stringify({
    fuzz: 1,
    name,
    insns_hex: bytesToHex(fuzzCase.insns),
    mem_hex: bytesToHex(fuzzCase.memory),
    maps: fuzzCase.maps,
    expected,
  });
}

export function isSavedCase(record: VectorRecord): boolean {
  return record.fields['fuzz'] === 1;
}

function savedMap(record: VectorRecord): MapSpec {
  const type = record.text('type');
  if (type !== 'ARRAY' && type !== 'HASH')
    throw new InputError(`${record.origin}: map type ${type}`);
  return {
    name: record.text('name'),
    type,
    keySize: record.number('keySize'),
    valueSize: record.number('valueSize'),
    maxEntries: record.number('maxEntries'),
    flags: record.number('flags'),
  };
}

/** Runs a saved case on an engine and compares with what was saved. */
export function checkSavedCase(record: VectorRecord, engine: FuzzEngine): CaseResult {
  const insns = record.bytes('insns_hex');
  const memory = record.bytes('mem_hex');
  if (!insns || !memory) throw new InputError(`${record.origin}: insns_hex or mem_hex is missing`);
  const outcome = engine.run({ insns, memory, maps: record.records('maps').map(savedMap) });
  const saved = record.fields['expected'] as Partial<FuzzOutcome> | undefined;
  const expected: FuzzOutcome = {
    end: String(saved?.end),
    memory: String(saved?.memory),
    maps: Array.isArray(saved?.maps) ? saved.maps.map(String) : [],
  };
  if (sameOutcome(expected, outcome)) return passed(record);
  return failed(record, `expected ${describe(expected)}, got ${describe(outcome)}`);
}

function describe({ end, memory, maps }: FuzzOutcome): string {
  return [end, `memory ${memory}`, ...maps].join(', ');
}

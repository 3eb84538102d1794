/**
 * Prints map contents: one line per entry, integers as numbers, structs by their members where BTF is
 * known, everything else as bytes. The whole dump in the manner of bpftool: `bpf/maps/dump.ts`.
 *
 * Per-CPU values are printed per CPU with their sum. Entries that are zero are left out of arrays, which
 * always have all their entries.
 */
import type { Btf } from '../bpf/btf/btf.js';
import { ArrayMap } from '../bpf/maps/array.js';
import { btfTree } from '../bpf/maps/btf-tree.js';
import type { MapTypes } from '../bpf/maps/dump.js';
import { writeJson } from '../bpf/maps/json-tree.js';
import type { BpfMap } from '../bpf/maps/map.js';
import { PerfEventArray } from '../bpf/maps/perf-event-array.js';
import { RingBuffer } from '../bpf/maps/ringbuf.js';
import type { LoadedObject } from '../bpf/object/load.js';
import { bytesToHex, viewOf } from '../common/bytes.js';

function formatBytes(bytes: Uint8Array): string {
  const view = viewOf(bytes);
  switch (bytes.length) {
    case 1:
      return String(view.getUint8(0));
    case 2:
      return String(view.getUint16(0, true));
    case 4:
      return String(view.getUint32(0, true));
    case 8:
      return String(view.getBigUint64(0, true));
    default:
      return bytesToHex(bytes).replace(/(..)(?=.)/g, '$1 ');
  }
}

function formatValues(values: readonly Uint8Array[]): string {
  const [first] = values;
  if (first === undefined) return '';
  if (values.length === 1) return formatBytes(first);
  const perCpu = values.map((value, cpu) => `cpu${cpu} ${formatBytes(value)}`).join(', ');
  if (values.some((value) => value.length !== 8)) return perCpu;
  const sum = values.reduce((total, value) => total + viewOf(value).getBigUint64(0, true), 0n);
  return `${sum} (${perCpu})`;
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** Types of a map of a loaded object, for its listing and dump. */
export function mapTypes(object: LoadedObject, name: string): MapTypes {
  const definition = object.spec.maps.find((map) => map.name === name);
  if (!definition) return {};
  const { keyType, valueType } = definition;
  return { btf: object.spec.btf, keyType, valueType };
}

/** One key or value: by its type where that is a struct or a name, else as its bytes. */
function formatTyped(bytes: Uint8Array, btf: Btf | undefined, type: number | undefined): string {
  if (!btf || !type) return formatBytes(bytes);
  const { kind } = btf.resolve(type);
  const isPlain = kind === 'int' || kind === 'ptr' || kind === 'array';
  if (isPlain) return formatBytes(bytes);
  return writeJson(btfTree({ btf, plain: true }, type, bytes), false);
}

/** Records that a ring buffer or perf event array holds; taking them empties it. */
function listRecords(map: BpfMap): string[] | undefined {
  if (map instanceof RingBuffer) return map.drain().map(formatBytes);
  if (!(map instanceof PerfEventArray)) return undefined;
  return map.drain().map(({ cpu, data }) => `cpu${cpu} ${formatBytes(data)}`);
}

/** `key: value` lines of a map's entries; with types, structs by their members. */
export function listMap(map: BpfMap, types: MapTypes = {}): string[] {
  const records = listRecords(map);
  if (records) return records;
  const { btf, keyType, valueType } = types;
  const isArray = map.spec.type.endsWith('ARRAY');
  const lines: string[] = [];
  for (const { key, values } of map instanceof ArrayMap ? map.written() : map.entries()) {
    if (isArray && values.every(isZero)) continue;
    const [only] = values;
    const value =
      values.length === 1 && only ? formatTyped(only, btf, valueType) : formatValues(values);
    lines.push(key.length > 0 ? `${formatTyped(key, btf, keyType)}: ${value}` : value);
  }
  return lines;
}

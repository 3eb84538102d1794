/**
 * Map contents as `bpftool map dump` prints them.
 *
 * With BTF the text is JSON-like, typed; without it hex bytes, and the number of elements at the end.
 * As JSON every entry has its bytes, and with BTF `formatted` beside them. Reference:
 * tools/bpf/bpftool/map.c (do_dump, print_entry_plain, print_entry_json, do_dump_btf).
 *
 * Usage:
 *   print(dumpMap(map, { btf, keyType, valueType }));
 *   print(dumpMap(map, {}, { json: true }));
 */
import { alignUp } from '../../common/bytes.js';
import type { Btf } from '../btf/btf.js';
import { btfTree } from './btf-tree.js';
import { arrayOf, literal, objectOf, quoted, writeJson, type JsonTree } from './json-tree.js';
import { isMapOfMaps, isPerCpu, type BpfMap } from './map.js';

/** Types of keys and values; without them the dump shows bytes. */
export interface MapTypes {
  readonly btf?: Btf | undefined;
  /** BTF ids, 0 when unknown (a data section has no key type). */
  readonly keyType?: number;
  readonly valueType?: number;
}

export interface DumpOptions {
  /** Default: text for people. */
  readonly json?: boolean;
  /** Line breaks in JSON. Default: false. */
  readonly pretty?: boolean;
}

interface Entry {
  readonly key: Uint8Array;
  readonly values: readonly Uint8Array[];
}

/** The whole dump, without a line end. */
export function dumpMap(map: BpfMap, types: MapTypes = {}, options: DumpOptions = {}): string {
  const entries = [...map.entries()];
  if (options.json) {
    const trees = entries.map((entry) => jsonEntry(map, entry, types));
    return writeJson(arrayOf(trees), options.pretty ?? false);
  }
  if (hasTypes(map, types)) {
    const trees = entries.map((entry) => typedEntry(map, entry, types, true));
    return writeJson(arrayOf(trees), true);
  }
  const found = `Found ${entries.length} element${entries.length === 1 ? '' : 's'}`;
  return [...entries.map((entry) => plainEntry(map, entry)), found].join('\n');
}

function hasTypes(map: BpfMap, { btf, valueType }: MapTypes): boolean {
  return btf !== undefined && (valueType ?? 0) !== 0 && !isMapOfMaps(map);
}

function hexBytes(bytes: Uint8Array): JsonTree {
  return arrayOf([...bytes].map((byte) => quoted(`0x${byte.toString(16).padStart(2, '0')}`)));
}

function perCpuTree(entry: Entry, show: (value: Uint8Array) => JsonTree): JsonTree {
  return arrayOf(
    entry.values.map((value, cpu) =>
      objectOf([
        ['cpu', literal(`${cpu}`)],
        ['value', show(value)],
      ]),
    ),
  );
}

/** Key and value by their types. */
function typedEntry(map: BpfMap, entry: Entry, types: MapTypes, plain: boolean): JsonTree {
  const { btf, keyType = 0, valueType = 0 } = types;
  const show = (id: number, bytes: Uint8Array): JsonTree =>
    btf && id !== 0 ? btfTree({ btf, plain }, id, bytes) : unsignedKey(bytes);
  const value = (bytes: Uint8Array): JsonTree => show(valueType, bytes);
  const [first = NONE] = entry.values;
  const key: readonly (readonly [string, JsonTree])[] =
    map.spec.keySize > 0 ? [['key', show(keyType, entry.key)]] : [];
  if (isPerCpu(map.spec.type)) return objectOf([...key, ['values', perCpuTree(entry, value)]]);
  // a value of global data is shown as its section
  return objectOf([...key, ['value', value(first)]]);
}

/** A key without a type: array indexes are numbers. */
function unsignedKey(bytes: Uint8Array): JsonTree {
  if (bytes.length !== 4) return hexBytes(bytes);
  return literal(`${new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)}`);
}

function jsonEntry(map: BpfMap, entry: Entry, types: MapTypes): JsonTree {
  const [first = NONE] = entry.values;
  const members: (readonly [string, JsonTree])[] = [];
  if (map.spec.keySize > 0) members.push(['key', hexBytes(entry.key)]);
  if (isPerCpu(map.spec.type)) members.push(['values', perCpuTree(entry, hexBytes)]);
  else members.push(['value', hexBytes(first)]);
  if (hasTypes(map, types)) members.push(['formatted', typedEntry(map, entry, types, false)]);
  return objectOf(members);
}

/** Bytes as bpftool's fprint_hex: two spaces in the middle, 16 in a line. */
function hexLines(bytes: Uint8Array): string {
  let text = '';
  for (const [i, byte] of bytes.entries()) {
    if (i > 0) text += i % 16 === 0 ? '\n' : i % 8 === 0 ? '  ' : ' ';
    text += byte.toString(16).padStart(2, '0');
  }
  return text;
}

function plainEntry(map: BpfMap, { key, values }: Entry): string {
  const { keySize, valueSize, type } = map.spec;
  const shown = isMapOfMaps(map) ? 4 : valueSize;
  if (isPerCpu(type)) {
    const lines = [`key:`, hexLines(key)];
    for (const [cpu, value] of values.entries()) {
      const title = `value (CPU ${String(cpu).padStart(2, '0')}):`;
      lines.push(`${title}${valueSize > 16 ? '\n' : ' '}${hexLines(value)}`);
    }
    return lines.join('\n');
  }
  const isBroken = keySize > 16 || shown > 16;
  const isSingle = keySize + shown <= 24 && !isBroken;
  const gap = isBroken ? '\n' : ' ';
  const [value = NONE] = values;
  const left = keySize > 0 ? `key:${gap}${hexLines(key)}${isSingle ? '  ' : '\n'}` : '';
  if (isMapOfMaps(map)) return `${left}inner_map_id:${gap}${idOf(value)} `;
  return `${left}value:${gap}${hexLines(value)}`;
}

function idOf(value: Uint8Array): number {
  return new DataView(value.buffer, value.byteOffset).getUint32(0, true);
}

/** Bytes of one entry as the kernel hands them to user space: values of all CPUs, rounded up to 8. */
export function entryBytes(map: BpfMap, values: readonly Uint8Array[]): Uint8Array {
  if (!isPerCpu(map.spec.type)) return values[0] ?? NONE;
  const stride = alignUp(map.spec.valueSize, 8);
  const bytes = new Uint8Array(stride * values.length);
  for (const [cpu, value] of values.entries()) bytes.set(value, cpu * stride);
  return bytes;
}

const NONE = new Uint8Array(0);

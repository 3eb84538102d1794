/**
 * Maps of the XDP reference records: set up before the packets, drained between them, compared after.
 *
 * Formats as in the vectors' README: values are those of CPU 0, with `cpu1_hex` where CPU 1 has
 * something; array entries of zeros are left out; queues and stacks come in the order of their pops,
 * ring buffers and perf arrays as the records they gave.
 */
import { bytesToHex, hexToBytes, viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import { isMapOfMaps, isProgArray, isPushPop, type BpfMap } from '../../bpf/maps/map.js';
import { PerfEventArray } from '../../bpf/maps/perf-event-array.js';
import { RingBuffer } from '../../bpf/maps/ringbuf.js';
import type { LoadedObject } from '../../bpf/object/load.js';
import type { VectorRecord } from './record.js';

/** The map of that name, or of the data section of that name. */
export function objectMap(object: LoadedObject, name: string, origin: string): BpfMap {
  const bySection = object.spec.maps.find(({ section }) => section === name);
  const map = object.maps.get(bySection?.name ?? name);
  if (!map) throw new InputError(`${origin}: the object has no map '${name}'`);
  return map;
}

export function setUpMaps(
  record: VectorRecord,
  object: LoadedObject,
  find: (name: string) => BpfMap,
): void {
  for (const setup of record.records('maps_setup')) {
    const map = find(setup.text('map'));
    for (const entry of setup.records('entries')) {
      const result = setUpEntry(map, entry, object, find);
      if (result !== 0) throw new InputError(`${entry.origin}: refused with ${result}`);
    }
  }
}

function setUpEntry(
  map: BpfMap,
  entry: VectorRecord,
  object: LoadedObject,
  find: (name: string) => BpfMap,
): number {
  if (!entry.has('key_hex')) {
    const value = hexToBytes(entry.text('value_hex'));
    if (isPushPop(map)) return map.pushBytes(value);
    throw new InputError(`${entry.origin}: map ${map.spec.name} needs a key`);
  }
  const key = hexToBytes(entry.text('key_hex'));
  if (entry.has('prog') && isProgArray(map)) {
    const index = viewOf(key).getUint32(0, true);
    return map.setProgram(index, object.program(entry.text('prog')).xlated);
  }
  if (entry.has('inner_map') && isMapOfMaps(map))
    return map.setMap(key, find(entry.text('inner_map')));
  return map.set(key, hexToBytes(entry.text('value_hex')));
}

/** What ring buffers and perf arrays gave, in order. */
export class EventLog {
  readonly #records = new Map<BpfMap, string[]>();

  constructor(maps: Iterable<BpfMap>) {
    for (const map of maps) {
      if (map instanceof PerfEventArray) map.openAll();
      if (map instanceof PerfEventArray || map instanceof RingBuffer) this.#records.set(map, []);
    }
  }

  drain(): void {
    for (const [map, records] of this.#records) {
      if (map instanceof RingBuffer) records.push(...map.drain().map(bytesToHex));
      if (map instanceof PerfEventArray) {
        records.push(...map.drain().map(({ data }) => bytesToHex(data)));
      }
    }
  }

  of(map: BpfMap): readonly string[] | undefined {
    return this.#records.get(map);
  }
}

/** The first map that differs, in one line. */
export function compareMaps(
  record: VectorRecord,
  find: (name: string) => BpfMap,
  events: EventLog,
): string | undefined {
  for (const after of record.records('maps_after')) {
    if (after.fields.not_dumped === true) continue;
    const name = after.text('map');
    const map = find(name);
    const theirs = expectedLines(after);
    const ours = events.of(map) ?? mapLines(map);
    for (let i = 0; i < Math.max(ours.length, theirs.length); i++) {
      if (ours[i] === theirs[i]) continue;
      return `map ${name}: entry ${i} ${ours[i] ?? 'absent'}, kernel ${theirs[i] ?? 'absent'}`;
    }
  }
  return undefined;
}

/** One line per entry: `key=value`, ` cpu1=...` behind it; records and pops are values alone. */
function expectedLines(after: VectorRecord): string[] {
  const { records, entries } = after.fields;
  if (Array.isArray(records)) return records.map((entry: unknown) => valueText(entry, after));
  if (!Array.isArray(entries)) return [];
  if (entries.every((entry) => typeof entry === 'string')) return entries;
  return after.records('entries').map((entry) => {
    if (entry.has('inner')) return `${entry.text('key_hex')}=inner ${innerText(entry)}`;
    const value = entry.text('value_hex');
    if (!entry.has('key_hex')) return value;
    const other = entry.has('cpu1_hex') ? ` cpu1=${entry.text('cpu1_hex')}` : '';
    return `${entry.text('key_hex')}=${value}${other}`;
  });
}

function valueText(entry: unknown, after: VectorRecord): string {
  if (typeof entry === 'string') return entry;
  if (typeof entry === 'object' && entry !== null) {
    for (const field of ['data_hex', 'value_hex', 'hex']) {
      const value = (entry as Record<string, unknown>)[field];
      if (typeof value === 'string') return value;
    }
  }
  throw new InputError(`${after.origin}: a record is no bytes`);
}

/** The inner map of an entry: its name, or what it holds when it has none. */
function innerText(entry: VectorRecord): string {
  const { inner } = entry.fields;
  if (typeof inner === 'object' && inner !== null) {
    const { name } = inner as { name?: unknown };
    if (typeof name === 'string') return name;
  }
  throw new InputError(`${entry.origin}: inner has no name`);
}

function mapLines(map: BpfMap): string[] {
  if (isPushPop(map)) return [...map.entries()].map(({ values }) => bytesToHex(values[0] ?? NONE));
  if (isMapOfMaps(map)) {
    const lines = [...map.entries()].map(({ key }) => {
      const inner = map.innerMap(key);
      return `${bytesToHex(key)}=inner ${inner?.spec.name ?? 'none'}`;
    });
    return lines.sort();
  }
  const isArray = map.spec.type.endsWith('ARRAY');
  const lines: string[] = [];
  for (const { key, values } of map.entries()) {
    const [first = NONE, second = NONE] = values;
    if (isArray && values.every((value) => value.every((byte) => byte === 0))) continue;
    const other = second.some((byte) => byte !== 0) ? ` cpu1=${bytesToHex(second)}` : '';
    lines.push(`${bytesToHex(key)}=${bytesToHex(first)}${other}`);
  }
  // the records are sorted by the bytes of their keys
  return lines.sort();
}

const NONE = new Uint8Array(0);

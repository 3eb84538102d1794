/**
 * Maps as `bpftool map list` and `bpftool map dump` show several of them.
 *
 * Reference: tools/bpf/bpftool/map.c (show_map_header_plain, show_map_close_plain and their JSON forms,
 * map_dump). Left out: memlock, the ids of BTF, programs that hold the map. Contents: `bpf/maps/dump.ts`.
 *
 * Usage:
 *   for (const map of object.maps.values()) print(listedMap(map, isFrozen(object, map)).join('\n'));
 */
import { dumpMap } from '../bpf/maps/dump.js';
import type { BpfMap } from '../bpf/maps/map.js';
import type { LoadedObject } from '../bpf/object/load.js';
import { mapTypes } from './map-listing.js';

const BPF_F_RDONLY_PROG = 1 << 7;

/** What bpftool knows of a map, under its JSON names. */
interface MapRecord {
  readonly id: number;
  readonly type: string;
  readonly name: string;
  readonly flags: number;
}

interface ListedMapRecord extends MapRecord {
  readonly bytes_key: number;
  readonly bytes_value: number;
  readonly max_entries: number;
  readonly frozen: 0 | 1;
}

function headerRecord({ id, spec }: BpfMap): MapRecord {
  return { id, type: spec.type.toLowerCase(), name: spec.name, flags: spec.flags };
}

function headerLine(map: BpfMap): string {
  const { id, type, name, flags } = headerRecord(map);
  return `${id}: ${type}  name ${name}  flags 0x${flags.toString(16)}`;
}

/** Constants of an object: the loader freezes them. */
function isFrozen(object: LoadedObject, { spec }: BpfMap): boolean {
  const definition = object.spec.maps.find(({ name }) => name === spec.name);
  return definition?.data !== undefined && (spec.flags & BPF_F_RDONLY_PROG) !== 0;
}

/** The lines of `bpftool map list`. */
export function listMaps(object: LoadedObject, maps: readonly BpfMap[]): string[] {
  return maps.flatMap((map) => {
    const { keySize, valueSize, maxEntries } = map.spec;
    const sizes = `\tkey ${keySize}B  value ${valueSize}B  max_entries ${maxEntries}`;
    return [headerLine(map), sizes, ...(isFrozen(object, map) ? ['\tfrozen'] : [])];
  });
}

/** The records of `bpftool map list --json`. */
export function mapRecords(object: LoadedObject, maps: readonly BpfMap[]): ListedMapRecord[] {
  return maps.map((map) => ({
    ...headerRecord(map),
    bytes_key: map.spec.keySize,
    bytes_value: map.spec.valueSize,
    max_entries: map.spec.maxEntries,
    frozen: isFrozen(object, map) ? 1 : 0,
  }));
}

/** Contents of maps; each under a header when there are several. */
export function dumpMaps(
  object: LoadedObject,
  maps: readonly BpfMap[],
  { json, headers }: { readonly json: boolean; readonly headers: boolean },
): string {
  const contents = (map: BpfMap): string => dumpMap(map, mapTypes(object, map.spec.name), { json });
  if (!json) {
    return maps
      .map((map) => (headers ? `${headerLine(map)}\n${contents(map)}` : contents(map)))
      .join('\n');
  }
  if (!headers) return maps.map(contents).join('');
  const records = maps.map((map) => {
    const header = JSON.stringify(headerRecord(map)).slice(0, -1);
    return `${header},"elements":${contents(map)}}`;
  });
  return `[${records.join(',')}]`;
}

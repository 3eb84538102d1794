/**
 * What a loader sets in an object before it loads it, from text: `nr_cpus=4`, `config.mode=1`, `flows=1024`.
 *
 * Libbpf's users write `skel->rodata->nr_cpus = 4` and call bpf_map__set_max_entries(); a command line has
 * text. A variable is named as in C, members and elements too (`rules[2].port`), which needs the object's BTF.
 * Values are whole numbers, `true` and `false`, names of enumerators, dotted IPv4 addresses (network order), or
 * `hex:` and bytes. Left out: bit-fields.
 *
 * Usage:
 *   spec = withGlobal(spec, 'nr_cpus=4');
 *   spec = withMaxEntries(spec, 'flows=1024');
 */
import type { Btf } from '../bpf/btf/btf.js';
import { encodeValue } from '../bpf/maps/encode.js';
import type { DataVariable, ObjectSpec } from '../bpf/object/spec.js';
import { findVariable, withVariable } from '../bpf/object/variables.js';
import { InputError } from '../common/errors.js';
import { parseBytes } from './map-setting.js';

/** Where in its variable something lies. `type` is 0 without BTF. */
interface Place {
  readonly offset: number;
  readonly size: number;
  readonly type: number;
}

/** The object with the initial value of a global variable, or of a part of it, changed. */
export function withGlobal(spec: ObjectSpec, text: string): ObjectSpec {
  const match = /^([^=]+)=(.+)$/.exec(text);
  if (!match) throw new InputError(`'${text}' is no setting of the form VARIABLE=VALUE`);
  const [, path, value] = match as unknown as [string, string, string];
  const { map, variable } = variableOf(spec, path);
  let place: Place = { offset: 0, size: variable.size, type: variable.type };
  for (const step of path.slice(variable.name.length).match(/[^.[\]]+/g) ?? []) {
    place = partOf(spec.btf, place, step, path);
  }
  const bytes = map.data?.slice(variable.offset, variable.offset + variable.size);
  const changed = bytes ?? new Uint8Array(variable.size);
  changed.set(valueBytes(spec.btf, value, place, path), place.offset);
  return withVariable(spec, variable.name, changed);
}

/** The longest name that the path begins with: names of static variables have dots in them. */
function variableOf(spec: ObjectSpec, path: string): ReturnType<typeof findVariable> {
  const begins = ({ name }: DataVariable): boolean =>
    path.startsWith(name) &&
    (path.length === name.length || '.['.includes(path.charAt(name.length)));
  const [longest] = spec.maps
    .flatMap(({ variables }) => variables?.filter(begins) ?? [])
    .toSorted((a, b) => b.name.length - a.name.length);
  return findVariable(spec, longest?.name ?? path.replace(/[.[].*$/, ''));
}

function partOf(btf: Btf | undefined, place: Place, step: string, path: string): Place {
  if (!btf || place.type === 0) throw new InputError(`${path}: nothing is known of its parts`);
  const type = btf.resolve(place.type);
  if (type.kind === 'array') {
    const index = /^\d+$/.test(step) ? Number(step) : type.count;
    if (index >= type.count) throw new InputError(`${path}: there is no element ${step}`);
    const size = btf.sizeOf(type.type);
    return { offset: place.offset + index * size, size, type: type.type };
  }
  const found = memberOf(btf, place, step);
  if (!found) throw new InputError(`${path}: there is no member '${step}'`);
  return found;
}

/** A member by name, also one of an anonymous struct or union. */
function memberOf(btf: Btf, place: Place, name: string): Place | undefined {
  const type = btf.resolve(place.type);
  if (type.kind !== 'struct' && type.kind !== 'union') return undefined;
  for (const member of type.members) {
    const at = place.offset + Math.floor(member.bitOffset / 8);
    const part = { offset: at, size: btf.sizeOf(member.type), type: member.type };
    if (member.name === '') {
      const inside = memberOf(btf, part, name);
      if (inside) return inside;
    } else if (member.name === name) {
      if (member.bitSize > 0) throw new InputError(`${name} is a bit-field, which cannot be set`);
      return part;
    }
  }
  return undefined;
}

function valueBytes(btf: Btf | undefined, text: string, place: Place, path: string): Uint8Array {
  const type = btf && place.type !== 0 ? btf.resolve(place.type) : undefined;
  const named =
    type?.kind === 'enum' || type?.kind === 'enum64'
      ? type.values.find(({ name }) => name === text)?.value
      : undefined;
  const truth = text === 'true' ? 1n : text === 'false' ? 0n : undefined;
  const negative = /^-\d+$/.test(text) ? BigInt(text) : undefined;
  const number = named ?? truth ?? negative;
  return number === undefined
    ? parseBytes(text, place.size, path)
    : encodeValue(number, place.size);
}

/** The object with another size of a map: `flows=1024`. */
export function withMaxEntries(spec: ObjectSpec, text: string): ObjectSpec {
  const match = /^(\S+)=(\d+)$/.exec(text);
  if (!match) throw new InputError(`'${text}' is no setting of the form MAP=ENTRIES`);
  const [, name, count] = match as unknown as [string, string, string];
  const sized = spec.maps.filter(({ data }) => data === undefined);
  if (!sized.some((map) => map.name === name)) {
    const names = sized.map((map) => map.name).join(', ') || 'none at all';
    throw new InputError(`no map '${name}' to size, but: ${names}`);
  }
  const maxEntries = Number(count);
  if (maxEntries > 0xffff_ffff) throw new InputError(`${text}: more than 4294967295 entries`);
  const maps = spec.maps.map((map) => (map.name === name ? { ...map, maxEntries } : map));
  return { ...spec, maps };
}

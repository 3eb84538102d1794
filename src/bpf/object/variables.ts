/**
 * Global variables of an object by name: set before loading, read while it is loaded.
 *
 * What a libbpf skeleton offers as `skel->rodata->x` and `skel->bss->x`. Values are bytes; with BTF,
 * `decodeValue(spec.btf, variable.type, bytes)` makes numbers and structs of them.
 *
 * Usage:
 *   const spec = withVariable(parseObject(bytes), 'blocked_vlan', Uint8Array.of(100, 0));
 *   const object = load(spec, host);
 *   readVariable(object, host.memory, 'tcp_packets');
 */
import { InputError } from '../../common/errors.js';
import type { Memory } from '../../cpu/memory.js';
import type { LoadedObject } from './load.js';
import type { DataVariable, MapDefinition, ObjectSpec } from './spec.js';

/** The variable called `name` and the map of its section. Throws InputError when there is none. */
export function findVariable(
  spec: ObjectSpec,
  name: string,
): { readonly map: MapDefinition; readonly variable: DataVariable } {
  for (const map of spec.maps) {
    const variable = map.variables?.find((each) => each.name === name);
    if (variable) return { map, variable };
  }
  const names = spec.maps.flatMap(({ variables }) => variables?.map((each) => each.name) ?? []);
  const has = names.length > 0 ? `, but: ${names.join(', ')}` : '';
  throw new InputError(`the object has no global variable '${name}'${has}`);
}

/** The object with the initial value of a variable changed; works for read-only ones too. */
export function withVariable(spec: ObjectSpec, name: string, value: Uint8Array): ObjectSpec {
  const { map, variable } = findVariable(spec, name);
  if (value.length !== variable.size) {
    throw new InputError(`variable '${name}' has ${variable.size} bytes, not ${value.length}`);
  }
  const data = map.data?.slice() ?? new Uint8Array(map.valueSize);
  data.set(value, variable.offset);
  const maps = spec.maps.map((each) => (each === map ? { ...map, data } : each));
  return { ...spec, maps };
}

/** The bytes of a variable as they are now. */
export function readVariable(object: LoadedObject, memory: Memory, name: string): Uint8Array {
  const { map, variable } = findVariable(object.spec, name);
  const address = object.maps.get(map.name)?.valueAddress;
  if (address === undefined) throw new InputError(`map '${map.name}' of '${name}' is freed`);
  return memory.readBytes(address + BigInt(variable.offset), variable.size);
}

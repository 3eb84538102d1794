/**
 * Fills what an object puts into its own maps: `.values` of map-in-map and of prog arrays.
 *
 * Reference: init_map_in_map_slots and init_prog_array_slots of libbpf. A program that is not loaded
 * leaves its slot empty.
 */
import { errnoName } from '../../common/errno.js';
import { InputError, KernelError } from '../../common/errors.js';
import { isMapOfMaps, isProgArray, type BpfMap } from '../maps/map.js';
import type { XlatedProgram } from '../program.js';
import type { ObjectSpec } from './spec.js';

/** A program as far as this file needs it. */
interface Loaded {
  readonly spec: { readonly name: string };
  readonly xlated: XlatedProgram;
}

export function fillInitialValues(
  spec: ObjectSpec,
  maps: ReadonlyMap<string, BpfMap>,
  programs: readonly Loaded[],
): void {
  for (const { name, initialValues } of spec.maps) {
    const map = maps.get(name);
    if (!map) continue;
    for (const { index, symbol } of initialValues) {
      const result = fillSlot(map, index, symbol, maps, programs, spec);
      if (result !== 0) {
        const why = `map '${name}': slot ${index} does not take '${symbol}'`;
        throw new KernelError(errnoName(result) ?? 'EINVAL', why);
      }
    }
  }
}

function fillSlot(
  map: BpfMap,
  index: number,
  symbol: string,
  maps: ReadonlyMap<string, BpfMap>,
  programs: readonly Loaded[],
  spec: ObjectSpec,
): number {
  if (isProgArray(map)) {
    if (!spec.programs.some(({ name }) => name === symbol)) {
      throw new InputError(`map '${map.spec.name}': there is no program '${symbol}'`);
    }
    const program = programs.find((each) => each.spec.name === symbol);
    return program ? map.setProgram(index, program.xlated) : 0;
  }
  const inner = maps.get(symbol);
  if (!inner || !isMapOfMaps(map)) {
    throw new InputError(`map '${map.spec.name}': '${symbol}' cannot be in slot ${index}`);
  }
  const key = new Uint8Array(map.spec.keySize);
  new DataView(key.buffer).setUint32(0, index, true);
  return map.setMap(key, inner);
}

/** Objects of test/vectors/selftests in a kernel, with their global variables. */
import { readFileSync } from 'node:fs';
import { parseObject } from '../../src/bpf/object/parse.js';
import type { ObjectSpec } from '../../src/bpf/object/spec.js';
import { findVariable } from '../../src/bpf/object/variables.js';
import {
  loadObject,
  type KernelObject,
  type LoadObjectOptions,
} from '../../src/kernel/bpf/object.js';
import type { Kernel } from '../../src/kernel/kernel.js';

const FOLDER = new URL('../vectors/selftests/', import.meta.url);

export function selftestSpec(name: string): ObjectSpec {
  return parseObject(readFileSync(new URL(`${name}.o`, FOLDER)), { name });
}

export interface Selftest extends KernelObject {
  /** A global variable, as an unsigned number. */
  get(name: string): bigint;
  set(name: string, value: bigint): void;
  /** Words of a global structure. */
  words(name: string, count: number): bigint[];
}

/** @param only load only these programs */
export function loadSelftest(
  kernel: Kernel,
  name: string,
  options: LoadObjectOptions & { readonly only?: readonly string[] } = {},
): Selftest {
  const { only, ...rest } = options;
  const spec = selftestSpec(name);
  const programs = only && spec.programs.filter((program) => only.includes(program.name));
  const object = loadObject(kernel, spec, { ...rest, ...(programs ? { programs } : {}) });
  const place = (variable: string): { address: bigint; size: number } => {
    const { map, variable: found } = findVariable(spec, variable);
    const address = object.loaded.maps.get(map.name)?.valueAddress;
    if (address === undefined) throw new Error(`no map ${map.name}`);
    return { address: address + BigInt(found.offset), size: found.size };
  };
  return {
    ...object,
    get: (variable) => {
      const { address, size } = place(variable);
      return size === 8 ? kernel.memory.read64(address) : BigInt(kernel.memory.read32(address));
    },
    set: (variable, value) => {
      const { address, size } = place(variable);
      if (size === 8) kernel.memory.write64(address, value);
      else kernel.memory.write32(address, Number(BigInt.asUintN(32, value)));
    },
    words: (variable, count) => {
      const { address } = place(variable);
      return Array.from({ length: count }, (_, i) => kernel.memory.read64(address + BigInt(8 * i)));
    },
  };
}

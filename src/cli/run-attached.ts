/** `trampolab run --attach`: the programs of an object at their places, then the kernel's own test run. */
import {
  InputError,
  listMap,
  loadObject,
  mapTypes,
  parseObject,
  testRunTracing,
  type Kernel,
} from '../index.js';
import { parseInput } from '../node/index.js';
import type { Output } from './command.js';

/** Attaches all, runs what BPF_PROG_TEST_RUN runs for each kind that is there, and prints its result. */
export function runAttached(
  kernel: Kernel,
  path: string,
  output: Output,
  { json, maps }: { readonly json: boolean; readonly maps: boolean },
): void {
  const object = loadObject(
    kernel,
    parseInput(path, (bytes) => parseObject(bytes, { name: path })),
  );
  object.attachAll();
  const kinds = [...new Set(object.loaded.programs.map(({ spec }) => spec.kind))];
  const runs = kinds.includes('fmod_ret')
    ? (['fentry', 'fmod_ret'] as const)
    : (['fentry'] as const);
  if (!kinds.some((kind) => kind === 'fmod_ret' || /^f(entry|exit|session)$/.test(kind))) {
    throw new InputError(`${path} has no fentry, fexit, fmod_ret or fsession program`);
  }
  const results = runs.map((kind) => [kind, testRunTracing(kernel, kind)] as const);
  if (json) output.line(JSON.stringify({ retval: Object.fromEntries(results) }));
  for (const [kind, value] of json ? [] : results) {
    const text =
      kind === 'fentry'
        ? `${value}`
        : `${value} (side effects ${value >>> 16}, sum ${(value << 16) >> 16})`;
    output.line(`Return value of the ${kind} test run: ${text}`);
  }
  if (maps && !json) {
    for (const map of object.loaded.maps.values()) {
      output.line(`map ${map.spec.name} (${map.spec.type}):`);
      for (const line of listMap(map, mapTypes(object.loaded, map.spec.name)))
        output.line(`  ${line}`);
    }
  }
  object.close();
}

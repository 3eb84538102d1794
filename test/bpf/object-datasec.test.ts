import { expect, it } from 'vitest';
import { parseObject } from '../../src/bpf/object/parse.js';
import { PACKAGE_ROOT, readInput } from '../../src/node/files.js';

it('data sections have the offsets and sizes of the file, which clang leaves at 0', () => {
  const spec = parseObject(readInput(`${PACKAGE_ROOT}/examples/tracing/fentry_test2.o`));
  const bss = spec.btf?.types.find((type) => type.kind === 'datasec' && type.name === '.bss');
  if (bss?.kind !== 'datasec') throw new Error('no .bss');
  const places = bss.variables.map(({ type, offset }) => {
    const variable = spec.btf?.at(type);
    return [variable && 'name' in variable ? variable.name : '', offset];
  });
  expect(bss.size).toBe(32);
  expect(places).toEqual([
    ['exit_a', 0],
    ['exit_b', 8],
    ['exit_result', 16],
    ['exit_calls', 24],
  ]);
});

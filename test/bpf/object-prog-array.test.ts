import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { load } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { selectProgram, withTailCallees } from '../../src/bpf/object/select.js';
import { createRunner, xdpContext, type RunEngine } from '../../src/lab/run-program.js';
import { bootLab } from '../../src/node/boot.js';

const bytes = readFileSync(new URL('../vectors/selftests/prog_array.o', import.meta.url));
const spec = parseObject(Uint8Array.from(bytes), { name: 'prog_array' });

test.each([
  ['entry', ['entry', 'low', 'high']],
  ['low', ['low', 'high']],
  ['other', ['other', 'low', 'high']],
])('with %s go the programs of .values', (name, expected) => {
  const names = withTailCallees(spec, selectProgram(spec, name)).map((program) => program.name);
  expect(names).toEqual(expected);
});

test.each<RunEngine>(['interpreter', 'wasm', 'jit'])('tail calls arrive: %s', async (engine) => {
  const kernel = await bootLab({ engine: 'embedded' });
  const entry = selectProgram(spec, 'entry');
  const results = [withTailCallees(spec, entry), [entry]].map((programs) => {
    const object = load(spec, kernel.bpf.host, { programs });
    const runner = createRunner(kernel, engine, object.program('entry').xlated);
    const { xdp } = xdpContext(kernel, new Uint8Array(64));
    const result = runner.run(xdp.address);
    runner.close();
    object.free();
    return result;
  });
  // XDP_PASS from `high`; alone, `entry` falls through to XDP_DROP
  expect(results).toEqual([
    { kind: 'return', r0: 2n },
    { kind: 'return', r0: 1n },
  ]);
  kernel.close();
});

/** Programs with kernel functions, dynptrs and open loops, compiled by clang: the same on every engine. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { viewOf } from '../../src/common/bytes.js';
import { RingBuffer } from '../../src/bpf/maps/ringbuf.js';
import { load, type LoadedObject } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { findVariable, readVariable } from '../../src/bpf/object/variables.js';
import { selectProgram, withTailCallees } from '../../src/bpf/object/select.js';
import type { ObjectSpec } from '../../src/bpf/object/spec.js';
import { createRunner, xdpContext, type RunEngine } from '../../src/lab/run-program.js';
import { bootKernel, type Kernel } from '../../src/kernel/kernel.js';
import { kernelAsm } from '../../src/node/files.js';
import { embeddedFactory, type CpuFactory } from '../../src/cpu/engines.js';
import { unicorn } from '../helpers/cpus.js';

const ENGINES: readonly (readonly [string, RunEngine, CpuFactory])[] = [
  ['interpreter', 'interpreter', embeddedFactory],
  ['wasm', 'wasm', embeddedFactory],
  ['embedded', 'jit', embeddedFactory],
  ...(unicorn ? [['unicorn', 'jit', unicorn] as const] : []),
];

/** Byte N is N. */
const PACKET = Uint8Array.from({ length: 60 }, (_, i) => i);
const PACKET_SUM = PACKET.reduce((sum, byte) => sum + byte, 0);

const XDP_PASS = 2;
const EINVAL = -22;
const E2BIG = -7;
const ERANGE = -34;
const EOPNOTSUPP = -95;

interface Expected {
  readonly result: number;
  /** The numbers at the beginning of its array of results. */
  readonly seen?: readonly number[];
  readonly check?: (object: LoadedObject, packet: Uint8Array) => void;
}

type Programs = Readonly<Record<string, Expected>>;

const OBJECTS: Readonly<Record<string, Programs>> = {
  exceptions: {
    caught: { result: 41 },
    uncaught: { result: 40 },
    through_global: { result: 6 },
    not_thrown: { result: 2 },
    always: { result: 7 },
    from_function: { result: 7 + 1 },
    bits: { result: XDP_PASS, seen: [1, 0, 1 + 131 + 192, 0, 0, EINVAL, 0, E2BIG] },
  },
  iterators: {
    counts: { result: XDP_PASS, seen: [45, 16, 17] },
    nested: { result: 5 ^ 3 },
    in_caller: { result: 5 + 6 + 7 },
    wrong_range: { result: XDP_PASS, seen: [0, 0, 0, EINVAL, 0, E2BIG, 0] },
    packet_sum: { result: PACKET_SUM },
    with_may_goto: { result: 45 + 50 },
  },
  dynptrs: {
    packet: {
      result: XDP_PASS,
      seen: [60, 0x0c0d],
      check: (_, packet) => expect([...packet]).toEqual([0xaa, ...PACKET.subarray(1)]),
    },
    narrowed: {
      result: XDP_PASS,
      // prettier-ignore
      seen: [
        0, 8, 60, 0, 0, 3, 3,
        E2BIG, EINVAL, ERANGE, EINVAL, 1, 2 ** 32 + EINVAL, 0, EINVAL, EINVAL,
      ],
    },
    moved: { result: 4 },
    memory: { result: XDP_PASS, seen: [E2BIG, 0, 0, 99, 98, 99] },
    records: {
      result: XDP_PASS,
      seen: [0, 0, EINVAL],
      check: ({ maps }) => {
        const ring = maps.get('events');
        const records = ring instanceof RingBuffer ? ring.drain() : [];
        expect(records.map((bytes) => [...new BigUint64Array(bytes.slice().buffer)])).toEqual([
          [42n, 43n],
        ]);
      },
    },
    in_loop: { result: 0 + 1 + 2 + 3 },
  },
  kernel_functions: {
    there_or_not: { result: XDP_PASS, seen: [1, 0, 0, 0, 1] },
    sections: { result: XDP_PASS, seen: [1] },
    context: { result: XDP_PASS, seen: [60, 256, 0, 1] },
    cast: { result: XDP_PASS, seen: [4096, 0] },
    metadata: { result: XDP_PASS, seen: [EOPNOTSUPP, 0, 77, 16, EOPNOTSUPP] },
  },
};

function read(name: string): ObjectSpec {
  const url = new URL(`../vectors/objects/${name}.o`, import.meta.url);
  return parseObject(Uint8Array.from(readFileSync(url)), { name });
}

/** The first array of u64 in the object that is all for results. */
function results(object: LoadedObject, kernel: Kernel, count: number): number[] {
  const name = object.spec.name === 'iterators' ? 'sums' : 'seen';
  expect(findVariable(object.spec, name).variable.size).toBeGreaterThanOrEqual(8 * count);
  const view = viewOf(readVariable(object, kernel.memory, name));
  return Array.from({ length: count }, (_, i) => Number(view.getBigInt64(8 * i, true)));
}

describe.each(ENGINES)('on %s', (_, engine, cpu) => {
  const booted = bootKernel({ asm: kernelAsm(), cpu });

  describe.each(Object.entries(OBJECTS))('%s.c', (name, programs) => {
    const spec = read(name);

    it.each(Object.entries(programs))('%s', async (program, { result, seen = [], check }) => {
      const kernel = await booted;
      const { host } = kernel.bpf;
      host.network.rxMetadata = { hash: { value: 77, type: 16 } };
      const loaded = withTailCallees(spec, selectProgram(spec, program));
      const object = load(spec, host, { programs: loaded, deviceBound: true });
      const { xdp } = xdpContext(kernel, PACKET);
      const runner = createRunner(kernel, engine, object.program(program).xlated);
      const ran = runner.run(xdp.address);
      if (ran.kind !== 'return') throw new Error(ran.reason);
      expect(Number(ran.r0 & 0xffff_ffffn)).toBe(result);
      expect(results(object, kernel, seen.length)).toEqual(seen);
      check?.(object, xdp.packet());
      runner.close();
      object.free();
    });
  });
});

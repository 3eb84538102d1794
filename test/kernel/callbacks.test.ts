/**
 * Functions of JIT images that helpers call back, against the interpreter on the same kernel: results and
 * maps are equal, the text runs on the CPU.
 */
import { plainRecord } from '../../src/bpf/btf/record.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { assemble } from '../../src/bpf/assemble.js';
import { createMap } from '../../src/bpf/maps/create.js';
import type { BpfMap } from '../../src/bpf/maps/map.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import type { XlatedProgram } from '../../src/bpf/program.js';
import { bytesToHex } from '../../src/common/bytes.js';
import { KernelOops } from '../../src/kernel/executor.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { createRunner } from '../../src/lab/run-program.js';
import { bootLab } from '../../src/node/boot.js';
import { specOf, u32, u64 } from '../bpf/maps/support.js';
import { factories } from '../helpers/cpus.js';
import { inUse } from '../helpers/tracing.js';

const engines = factories.map(({ name }) => name);
const versions = ['6.1', '6.12', '7.3'] as const;
const HELPERS = {
  delete: 3,
  for_each_map_elem: 164,
  timer_init: 169,
  timer_set_callback: 170,
  timer_start: 171,
  loop: 181,
} as const;

/** Assembly text in which `call NAME` names a helper and `$map` is a map's address. */
function program(kernel: Kernel, text: string, map?: BpfMap): XlatedProgram {
  const { host } = kernel.bpf;
  let source = text.replaceAll('$map', `0x${(map?.address ?? 0n).toString(16)} ll`);
  for (const [name, id] of Object.entries(HELPERS))
    source = source.replaceAll(`call ${name}`, `call ${id}`);
  return rawProgram('main', assemble(source), {
    stackDepth: 64,
    helperImmediate: (id) => Number((host.helperAddress(id) ?? 0n) - host.callBase),
  });
}

/** R0 on the interpreter and in the JIT image, with the map as each left it. */
function both(
  kernel: Kernel,
  text: string,
  fill?: () => BpfMap,
): { interpreter: string; jit: string } {
  const outcome = (engine: 'interpreter' | 'jit'): string => {
    const map = fill?.();
    const runner = createRunner(kernel, engine, program(kernel, text, map));
    const result = runner.run(0n);
    runner.close();
    const entries = map ? [...map.entries()] : [];
    const left = entries.map(({ key, values }) => [key, ...values].map(bytesToHex).join('='));
    return [result.kind === 'return' ? String(result.r0) : result.reason, ...left].join(' ');
  };
  return { interpreter: outcome('interpreter'), jit: outcome('jit') };
}

/** Sums the loop's indexes into a u64 of the caller's stack, 7 times a number in R6 that must stay. */
const SUM = `
  r6 = 700
  *(u64 *)(r10 - 8) = 0
  r1 = 10
  r2 = subprog[add]
  r3 = r10
  r3 += -8
  r4 = 0
  call loop
  r1 = *(u64 *)(r10 - 8)
  r0 *= r6
  r0 += r1
  exit
add:
  r6 = *(u64 *)(r2 + 0)
  r6 += r1
  *(u64 *)(r2 + 0) = r6
  r0 = 0
  if r1 != 6 goto +1
  r0 = 1
  exit`;

/** A loop in a loop: the inner callback counts in the main function's stack. */
const NESTED = `
  *(u64 *)(r10 - 8) = 0
  r1 = 5
  r2 = subprog[outer]
  r3 = r10
  r3 += -8
  r4 = 0
  call loop
  r0 = *(u64 *)(r10 - 8)
  exit
outer:
  r1 += 1
  r3 = r2
  r2 = subprog[inner]
  r4 = 0
  call loop
  r0 = 0
  exit
inner:
  r3 = *(u64 *)(r2 + 0)
  r3 += 1
  *(u64 *)(r2 + 0) = r3
  call leaf
  exit
leaf:
  r0 = 0
  exit`;

/** Doubles each value and sums keys times values; deletes the element with key 2 on the way. */
const EACH = `
  *(u64 *)(r10 - 8) = 0
  r1 = $map
  r2 = subprog[each]
  r3 = r10
  r3 += -8
  r4 = 0
  call for_each_map_elem
  r0 <<= 32
  r1 = *(u64 *)(r10 - 8)
  r0 += r1
  exit
each:
  r6 = r1
  w7 = *(u32 *)(r2 + 0)
  r8 = *(u64 *)(r3 + 0)
  r9 = r8
  r9 <<= 1
  *(u64 *)(r3 + 0) = r9
  r8 *= r7
  r9 = *(u64 *)(r4 + 0)
  r9 += r8
  *(u64 *)(r4 + 0) = r9
  r0 = 0
  if w7 != 2 goto +4
  r1 = r6
  call delete
  r0 = 0
  goto +0
  exit`;

describe.each(engines)('callbacks of JIT images on %s', (engine) => {
  describe.each(versions)('%s', (version) => {
    let kernel: Kernel;
    beforeAll(async () => {
      kernel = await bootLab({ engine, version, cpus: 2 });
    });
    afterAll(() => kernel.close());

    it.each([
      ['bpf_loop', SUM, 7n * 700n + 21n],
      ['bpf_loop in bpf_loop', NESTED, 15n],
      ['too many iterations', SUM.replace('r1 = 10', 'r1 = 0x800001'), -7n * 700n],
      ['a flag', SUM.replace('r4 = 0', 'r4 = 1'), -22n * 700n],
    ])('%s', (_name, text, expected) => {
      const { interpreter, jit } = both(kernel, text);
      expect(jit).toBe(interpreter);
      expect(jit).toBe(String(BigInt.asUintN(64, expected)));
    });

    it.each(['ARRAY', 'HASH', 'PERCPU_ARRAY', 'LRU_HASH'] as const)(
      'each element of %s',
      (type) => {
        const fill = (): BpfMap => {
          const map = createMap(specOf({ type, maxEntries: 5 }), kernel.bpf.host);
          for (let i = 0; i < 5; i++) map.set(u32(i), u64(10 + i));
          return map;
        };
        const { interpreter, jit } = both(kernel, EACH, fill);
        expect(jit).toBe(interpreter);
        const sum = [0, 1, 2, 3, 4].reduce((total, i) => total + i * (10 + i), 0);
        expect(jit).toMatch(new RegExp(`^${(5n << 32n) + BigInt(sum)} `));
      },
    );

    it('timers run their callback as a task of its own', () => {
      const map = createMap(
        specOf({
          type: 'ARRAY',
          valueSize: 32,
          maxEntries: 1,
          record: plainRecord({ bpf_timer: 8 }),
        }),
        kernel.bpf.host,
      );
      const value = map.lookup(kernel.bpf.host.allocate('key', 4).address);
      const loaded = kernel.bpf.load(
        program(
          kernel,
          `r6 = 0x${(value + 8n).toString(16)} ll
           r1 = r6
           r2 = $map
           r3 = 1
           call timer_init
           r1 = r6
           r2 = subprog[tick]
           call timer_set_callback
           r1 = r6
           r2 = 1000000
           r3 = 1
           call timer_start
           exit
         tick:
           r6 = *(u64 *)(r3 + 0)
           r6 += 1
           *(u64 *)(r3 + 0) = r6
           r2 = r6
           r2 *= 1000000
           r2 += 1000000
           r1 = r3
           r1 += 8
           r3 = 1
           call timer_start
           r0 = 0
           exit`,
          map,
        ),
      );
      expect(kernel.call(loaded.entry)).toBe(0n);
      const executed = kernel.cpus[0]?.executed ?? 0;
      expect(kernel.bpf.host.runTimers(999_999n)).toBe(0);
      expect(kernel.bpf.host.runTimers(3_500_000n)).toBe(3);
      expect(kernel.memory.read64(value)).toBe(3n);
      expect((kernel.cpus[0]?.executed ?? 0) - executed).toBeGreaterThan(60);
    });

    it('a callback can be traced, and its faults leave nothing behind', () => {
      const loaded = kernel.bpf.load(program(kernel, SUM));
      const count = kernel.kmalloc(8);
      const tracer = kernel.bpf.load({
        ...rawProgram(
          'tracer',
          assemble(`r2 = 0x${count.toString(16)} ll
            r3 = *(u64 *)(r2 + 0)
            r3 += 1
            *(u64 *)(r2 + 0) = r3
            r0 = 0
            exit`),
        ),
        type: 'tracing',
      });
      const target = { program: loaded, function: loaded.xlated.functions[1]?.name ?? '' };
      const attached = kernel.bpf.attach(tracer, 'fexit', target);
      expect(kernel.call(loaded.entry)).toBe(7n * 700n + 21n);
      expect(kernel.memory.read64(count)).toBe(7n);
      attached.detach();
      expect(kernel.call(loaded.entry)).toBe(7n * 700n + 21n);
      expect(kernel.memory.read64(count)).toBe(7n);
    });

    it('an oops in a callback names it and gives back what the helper held', () => {
      const fill = createMap(specOf({ type: 'ARRAY', maxEntries: 5 }), kernel.bpf.host);
      const text = EACH.replace('r6 = r1', 'r6 = 0\n r6 = *(u64 *)(r6 + 8)');
      const loaded = kernel.bpf.load(program(kernel, text, fill));
      const before = { ...inUse(kernel), regions: kernel.memory.regions.length };
      let oops: unknown;
      try {
        kernel.call(loaded.entry);
      } catch (error) {
        oops = error;
      }
      expect(oops).toBeInstanceOf(KernelOops);
      expect(String(oops)).toMatch(/bpf_prog_main_sub_1(\.\d+)?\+/);
      expect({ ...inUse(kernel), regions: kernel.memory.regions.length }).toEqual(before);
    });

    it('an address that is no function is a fault of its fetch', () => {
      const text = SUM.replace('r2 = subprog[add]', 'r2 = 64');
      expect(() => kernel.call(kernel.bpf.load(program(kernel, text)).entry)).toThrow(
        /fetch of 4 bytes at 0x0*40:/,
      );
    });
  });
});

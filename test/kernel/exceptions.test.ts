/**
 * bpf_throw in raw programs, and private stacks: what the JIT prepares for both has to run.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { assemble } from '../../src/bpf/assemble.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import type { XlatedFunction, XlatedProgram } from '../../src/bpf/program.js';
import { call } from '../../src/kernel/function.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { bootLab } from '../../src/node/boot.js';
import { factories } from '../helpers/cpus.js';

const engines = factories.map(({ name }) => name);

type Flags = Partial<Omit<XlatedFunction, 'name' | 'insns' | 'stackDepth'>>;

/** Text with functions main, then one per label that is called; `call throw` and `call loop`. */
function program(kernel: Kernel, text: string, flags: readonly Flags[]): XlatedProgram {
  const { host } = kernel.bpf;
  const THROW = 1001;
  const xlated = rawProgram(
    'main',
    assemble(text.replaceAll('call throw', `call ${THROW}`).replaceAll('call loop', 'call 181')),
    {
      stackDepth: 32,
      helperImmediate: (id) => {
        const address = id === THROW ? kernel.symbol('bpf_throw') : host.helperAddress(id);
        return Number((address ?? 0n) - host.callBase);
      },
    },
  );
  const [main, ...rest] = xlated.functions.map((fn, i) => ({ ...fn, ...flags[i] }));
  if (!main) throw new Error('no function');
  return { ...xlated, functions: [main, ...rest] };
}

/** main spoils R6 and calls a function that throws R1 if it is not 0; the callback adds 1000. */
const THROWING = `
  r6 = 111
  r7 = r1
  r2 = subprog[caught]
  call outer
  r0 = r6
  exit
outer:
  r6 = 222
  r1 = r7
  *(u64 *)(r10 - 8) = r6
  call inner
  r0 = 0
  exit
inner:
  if r1 == 0 goto +1
  call throw
  r0 = 1
  exit
caught:
  *(u64 *)(r10 - 8) = r1
  r0 = *(u64 *)(r10 - 8)
  r0 += 1000
  exit`;

/** As `rawProgram` orders them: main, outer, inner, caught. */
const BOUNDARY: readonly Flags[] = [
  { exceptionBoundary: true },
  {},
  {},
  { exceptionCallback: true },
];

describe.each(engines)('on %s', (engine) => {
  describe.each(['6.12', '7.3'] as const)('%s', (version) => {
    let kernel: Kernel;
    beforeAll(async () => {
      kernel = await bootLab({ engine, version, cpus: 2 });
    });
    afterAll(() => kernel.close());

    it('a throw ends the program in its callback, and its caller gets its registers back', () => {
      const thrower = kernel.bpf.load(program(kernel, THROWING, BOUNDARY));
      kernel.define({
        name: `lab_catcher`,
        prototype: 'u64 lab_catcher(u64 entry, u64 cookie)',
        parameters: 2,
        *body(_kernel, entry = 0n, cookie = 0n) {
          const before = kernel.cpus[0]?.saveRegisters();
          const r0 = yield* call(entry, cookie);
          const after = kernel.cpus[0]?.saveRegisters();
          const saved = (registers = before): bigint[] => registers?.x.slice(19, 30) ?? [];
          return saved(before).join() === saved(after).join() && before?.sp === after?.sp
            ? r0
            : -1n;
        },
      });
      kernel.executor.everyInstruction = true;
      expect(kernel.call('lab_catcher', thrower.entry, 0n)).toBe(111n);
      expect(kernel.call('lab_catcher', thrower.entry, 5n)).toBe(1005n);
      kernel.executor.everyInstruction = false;
      expect(kernel.call(thrower.entry, 7n)).toBe(1007n);
      expect(kernel.call(thrower.entry, 0n)).toBe(111n);
    });

    it('nobody catches: an oops', () => {
      const loaded = kernel.bpf.load(program(kernel, THROWING, []));
      expect(() => kernel.call(loaded.entry, 1n)).toThrow(/no program on the stack catches/);
      expect(kernel.call(loaded.entry, 0n)).toBe(111n);
    });
  });

  it('private stacks of 7.3: one per function and CPU, with guards', async () => {
    const kernel = await bootLab({ engine, version: '7.3', cpus: 2 });
    const text = `
      *(u64 *)(r10 - 8) = r1
      *(u64 *)(r10 - 32) = 1
      r6 = r10
      call under
      r0 -= r6
      r1 = *(u64 *)(r10 - 8)
      r2 = *(u64 *)(r10 - 32)
      if r2 != 1 goto +3
      if r0 == 0 goto +2
      r0 = r1
      exit
      r0 = -1
      exit
    under:
      *(u64 *)(r10 - 8) = 2
      *(u64 *)(r10 - 32) = 3
      r0 = r10
      exit`;
    const private_ = { usesPrivateStack: true };
    const loaded = kernel.bpf.load(program(kernel, text, [private_, private_]));
    for (const cpu of [0, 1]) {
      const task = kernel.createTask(`cpu ${cpu}`);
      kernel.start(task, loaded.entry, [40n + BigInt(cpu)], cpu);
      expect(task.result).toBe(40n + BigInt(cpu));
    }
    loaded.free();
    expect(kernel.log).toEqual([]);
    const spoiling = kernel.bpf.load(program(kernel, '*(u64 *)(r10 - 40) = 1\nexit', [private_]));
    kernel.call(spoiling.entry);
    spoiling.free();
    kernel.rcu.advance();
    expect(kernel.log.join()).toContain('private stack overflow/underflow detected for prog main');
    kernel.close();
  });
});

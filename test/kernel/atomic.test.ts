/** Atomic bodies: the same with and without tracing, what they may not do, numbers and registers. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KernelOops } from '../../src/kernel/executor.js';
import { atomic, call, type KernelFunction } from '../../src/kernel/function.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { attachScenario } from '../../src/lab/scenario.js';
import { bootLab } from '../../src/node/boot.js';
import { factories } from '../helpers/cpus.js';

const FUNCTIONS: readonly KernelFunction[] = [
  // sums a list of u32 values linked by pointers, one call per node
  atomic({
    prototype: 'unsigned int lab_sum(struct node *first)',
    calls: true,
    body: (kernel, first) => {
      const { ram } = kernel.memory;
      if (first === 0) return 0;
      const rest = kernel.invoke('lab_sum', ram.pointer(first + 8));
      return kernel.invoke('lab_add', ram.u32(first), rest);
    },
  }),
  atomic({
    prototype: 'unsigned int lab_add(unsigned int a, unsigned int b)',
    body: (_k, a, b) => a + b,
  }),
  atomic({ prototype: 'int lab_negate(int value)', body: (_k, value) => -value }),
  atomic({
    prototype: 'void *lab_next(void *pointer, void *distance)',
    numbers: ['distance'],
    body: (_k, pointer, distance) => pointer + distance,
  }),
  atomic({
    prototype: 'u32 lab_read(u32 *pointer)',
    body: ({ memory }, pointer) => memory.ram.u32(memory.ram.pointer(pointer)),
  }),
  atomic({
    prototype: 'u32 lab_outer(u32 *pointer)',
    calls: true,
    body: (kernel, pointer) => kernel.invoke('lab_read', pointer),
  }),
  atomic({
    prototype: 'u64 lab_waits(void)',
    calls: true,
    body: (kernel) => kernel.invoke('lab_then'),
  }),
  atomic({
    prototype: 'u64 lab_then(void)',
    calls: true,
    body: (kernel) =>
      Number((kernel as Kernel).invokeText((kernel as Kernel).symbol('lab_sleeps'))),
  }),
  {
    name: 'lab_sleeps',
    prototype: 'u64 lab_sleeps(void)',
    parameters: 0,
    *body() {
      yield { kind: 'sleep', channel: 1n };
      return 1n;
    },
  },
  {
    name: 'lab_generator',
    prototype: 'u64 lab_generator(struct node *first)',
    parameters: 1,
    *body(_kernel, first = 0n) {
      return (yield* call('lab_sum', first)) + (yield* call('lab_add', 1n, 1n));
    },
  },
];

describe.each(factories.map(({ name }) => name))('on %s', (engine) => {
  let kernel: Kernel;
  let list: number;
  beforeEach(async () => {
    kernel = await bootLab({ engine });
    kernel.define(...FUNCTIONS);
    const { ram } = kernel.memory;
    list = 0;
    for (const value of [3, 4, 5]) {
      const node = kernel.physical.alloc(16);
      ram.set32(node, value);
      ram.setPointer(node + 8, list);
      list = node;
    }
  });
  afterEach(() => kernel.close());

  const executed = (): number => kernel.cpus[0]?.executed ?? 0;

  it('calls nothing on the CPU while nothing is attached', () => {
    const before = executed();
    expect(kernel.invoke('lab_sum', list)).toBe(12);
    expect(executed()).toBe(before);
  });

  it.each([['lab_sum'], ['lab_add'], ['lab_sum', 'lab_add']])(
    'gives the same while %s is traced, from numbers and from registers',
    (...names) => {
      const attached = names.map((name) => attachScenario(kernel, name, { fentry: 1, fexit: 1 }));
      const before = executed();
      const address = kernel.memory.ram.physToVirt(list);
      expect(kernel.invoke('lab_sum', list)).toBe(12);
      expect(executed()).toBeGreaterThan(before + 3 * 34);
      expect(kernel.call('lab_sum', address)).toBe(12n);
      expect(kernel.call('lab_generator', address)).toBe(14n);
      for (const each of attached) each.detach();
    },
  );

  it('gives the same through the text', () => {
    kernel.executor.everyInstruction = true;
    expect(kernel.invoke('lab_sum', list)).toBe(12);
    expect(kernel.call('lab_generator', kernel.memory.ram.physToVirt(list))).toBe(14n);
  });

  it.each([false, true])('converts by C type (through the text: %s)', (everyInstruction) => {
    kernel.executor.everyInstruction = everyInstruction;
    expect(kernel.invoke('lab_negate', -5)).toBe(5);
    expect(kernel.invoke('lab_negate', 5)).toBe(-5);
    expect(kernel.call('lab_negate', 5n)).toBe(BigInt.asUintN(64, -5n));
    const address = kernel.memory.ram.physToVirt(list);
    expect(kernel.call('lab_next', address, 16n)).toBe(address + 16n);
    expect(kernel.invoke('lab_next', list, 16)).toBe(list + 16);
    expect(kernel.call('lab_next', 0n, 0n)).toBe(0n);
  });

  it.each([false, true])('a bad pointer is an oops (through the text: %s)', (everyInstruction) => {
    kernel.executor.everyInstruction = everyInstruction;
    const bad = kernel.physical.alloc(16);
    kernel.memory.ram.set64(bad, 0xdead0000n);
    const oops = (): KernelOops => {
      try {
        kernel.invoke('lab_outer', bad);
      } catch (error) {
        if (error instanceof KernelOops) return error;
        throw error;
      }
      throw new Error('no oops');
    };
    const { oops: report, message } = oops();
    expect(message).toContain('00000000dead0000');
    if (everyInstruction) {
      expect(`${report?.pcSymbol} ${report?.lrSymbol}`).toMatch(
        /^lab_read\+0x8\/\S+ lab_outer\+0x10\//,
      );
    }
    expect(kernel.invoke('lab_sum', list)).toBe(12);
  });

  it.each([false, true])(
    'what it called may not sleep (through the text: %s)',
    (everyInstruction) => {
      kernel.executor.everyInstruction = everyInstruction;
      expect(() => kernel.invoke('lab_waits')).toThrow(
        /^BUG: scheduling while atomic: kworker\/\d/,
      );
      expect(kernel.invoke('lab_sum', list)).toBe(12);
    },
  );

  it('refuses functions that are not atomic', () => {
    expect(() => kernel.invoke('lab_sleeps')).toThrow('lab_sleeps is no atomic function');
    expect(() => kernel.invoke('lab_nothing')).toThrow('no symbol lab_nothing');
  });
});

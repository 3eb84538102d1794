/** TypeScript bodies and tasks: calls both ways, sleeping, what is seen of the text. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KernelOops } from '../../src/kernel/executor.js';
import { call, type KernelFunction } from '../../src/kernel/function.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { attachScenario } from '../../src/lab/scenario.js';
import { tracedCall } from '../../src/lab/traced-call.js';
import { bootLab } from '../../src/node/boot.js';
import { factories } from '../helpers/cpus.js';

/** fib(n) that calls itself through kernel text. */
const fibonacci: KernelFunction = {
  name: 'lab_fib',
  prototype: 'u64 lab_fib(u64 n)',
  parameters: 1,
  *body(_kernel, n = 0n) {
    if (n < 2n) return n;
    const first = yield* call('lab_fib', n - 1n);
    return first + (yield* call('lab_fib', n - 2n));
  },
};

const leaf: KernelFunction = {
  name: 'lab_leaf',
  prototype: 'u64 lab_leaf(u64 a, u64 b)',
  parameters: 2,
  body: (_kernel, a = 0n, b = 0n) => a * 10n + b,
};

/** Sleeps once, then tells its argument. */
const sleeper: KernelFunction = {
  name: 'lab_sleeper',
  prototype: 'u64 lab_sleeper(u64 value)',
  parameters: 1,
  *body(_kernel, value = 0n) {
    yield { kind: 'sleep', channel: 7n };
    return value;
  },
};

describe.each(factories.map(({ name }) => name))('on %s', (engine) => {
  let kernel: Kernel;
  beforeEach(async () => {
    kernel = await bootLab({ engine });
    kernel.define(fibonacci, leaf, sleeper);
  });
  afterEach(() => kernel.close());

  it.each([false, true])('bodies call each other (through the text: %s)', (everyInstruction) => {
    kernel.executor.everyInstruction = everyInstruction;
    expect(kernel.call('lab_fib', 10n)).toBe(55n);
    expect(kernel.call('lab_leaf', 4n, 2n)).toBe(42n);
  });

  it('skips the text of a body only while nothing is attached to it', () => {
    const executed = (): number => {
      const before = kernel.cpus[0]?.executed ?? 0;
      expect(kernel.call('lab_fib', 5n)).toBe(5n);
      return (kernel.cpus[0]?.executed ?? 0) - before;
    };
    expect(executed()).toBe(0);
    const attached = attachScenario(kernel, 'lab_fib', { fentry: 1 });
    expect(executed()).toBeGreaterThan(15 * 34);
    attached.detach();
    expect(executed()).toBe(0);
  });

  it('shows a body in a trace by its entry and return', () => {
    const { counts, result } = tracedCall(kernel, 'lab_leaf', 1n, 2n);
    expect(result).toBe(12n);
    expect(counts.get('lab_leaf')).toBe(3);
  });

  it('a task sleeps in a body and goes on when woken, others run meanwhile', () => {
    const task = kernel.createTask('sleeper');
    kernel.start(task, 'lab_sleeper', [11n]);
    expect(task.state).toBe('sleeping');
    expect(kernel.call('lab_fib', 6n)).toBe(8n);
    kernel.wake(8n);
    expect(task.state).toBe('sleeping');
    kernel.wake(7n);
    expect(task).toMatchObject({ state: 'done', result: 11n });
  });

  it('a traced function sleeps under its trampoline', () => {
    const attached = attachScenario(kernel, 'lab_sleeper', { fentry: 1, fexit: 1 });
    const task = kernel.createTask('sleeper');
    kernel.start(task, 'lab_sleeper', [5n]);
    expect(task.state).toBe('sleeping');
    kernel.wake(7n);
    expect(task).toMatchObject({ state: 'done', result: 5n });
    attached.detach();
  });

  it('an access that memory refuses is an oops of the body: pc there, lr in its caller', () => {
    kernel.define(
      {
        name: 'lab_bad',
        prototype: 'u64 lab_bad(u64 address)',
        parameters: 1,
        body: ({ memory }, address = 0n) => memory.read64(address),
      },
      {
        name: 'lab_outer',
        prototype: 'u64 lab_outer(u64 address)',
        parameters: 1,
        *body(_kernel, address = 0n) {
          return yield* call('lab_bad', address);
        },
      },
    );
    kernel.executor.everyInstruction = true;
    const oops = (): string => {
      try {
        kernel.call('lab_outer', 0xdead0000n);
      } catch (error) {
        if (error instanceof KernelOops) return `${error.oops?.pcSymbol} ${error.oops?.lrSymbol}`;
        throw error;
      }
      return 'no oops';
    };
    expect(oops()).toMatch(/^lab_bad\+0x8\/\S+ lab_outer\+0x10\//);
    expect(kernel.call('lab_leaf', 1n, 1n)).toBe(11n);
  });

  it('a runaway is a soft lockup', () => {
    kernel.text.addWords('lab_spin', [0x14000000]);
    kernel.executor.budget = 100_000;
    expect(() => kernel.call('lab_spin')).toThrow(/soft lockup: 100000 instructions .*lab_spin/);
  });

  it('a stack overflow faults below the stack', () => {
    // stp x29, x30, [sp, #-16]!; b .-4
    kernel.text.addWords('lab_overflow', [0xa9bf7bfd, 0x17ffffff]);
    expect(() => kernel.call('lab_overflow')).toThrow(/lab_overflow/);
  });

  it('refuses too many arguments and unknown functions', () => {
    expect(() => kernel.call('lab_nothing')).toThrow('no symbol lab_nothing');
    kernel.define({
      name: 'lab_calls_with_nine',
      prototype: 'u64 lab_calls_with_nine(void)',
      parameters: 0,
      *body() {
        return yield* call('bpf_fentry_test1', ...Array.from({ length: 9 }, () => 0n));
      },
    });
    kernel.executor.everyInstruction = true;
    expect(() => kernel.call('lab_calls_with_nine')).toThrow('9 arguments do not fit');
  });
});

/** kprobes, kretprobes and fprobes: where they may be, what they see, and beside what else they work. */
import { describe, expect, it } from 'vitest';
import type { Kernel } from '../../src/kernel/kernel.js';
import { attachScenario } from '../../src/lab/scenario.js';
import { bootLab } from '../../src/node/boot.js';
import { factories } from '../helpers/cpus.js';

const TARGET = 'bpf_fentry_test1';
const engines = factories.map(({ name }) => name);
const BRK_4 = 0xd4200080;

function probe(kernel: Kernel, log: string[], offset = 0n): { address: bigint; name: string } {
  const made = {
    name: `at ${offset}`,
    address: kernel.symbol(TARGET) + offset,
    pre: (cpu: { getX(n: number): bigint }): void => void log.push(`pre ${offset} ${cpu.getX(0)}`),
    post: (cpu: { getX(n: number): bigint }): void =>
      void log.push(`post ${offset} ${cpu.getX(0)}`),
  };
  kernel.kprobes.register(made);
  return made;
}

describe.each(engines)('on %s', (engine) => {
  it('executes what the BRK replaced, between the handlers', async () => {
    const kernel = await bootLab({ engine });
    const log: string[] = [];
    const probes = [0n, 8n, 12n].map((offset) => probe(kernel, log, offset));
    expect(kernel.memory.read32(kernel.symbol(TARGET)) >>> 0).toBe(BRK_4);
    expect(kernel.call(TARGET, 1n)).toBe(2n);
    expect(log).toEqual(['pre 0 1', 'post 0 1', 'pre 8 1', 'post 8 2', 'pre 12 2', 'post 12 2']);
    for (const each of probes) kernel.kprobes.unregister(each);
    log.length = 0;
    expect([kernel.call(TARGET, 1n), log]).toEqual([2n, []]);
    kernel.close();
  });

  it.each([
    ['on direct', 'on probe', 'off direct', 'off probe'],
    ['on direct', 'on probe', 'off probe', 'off direct'],
    ['on probe', 'on direct', 'off direct', 'off probe'],
    ['on probe', 'on direct', 'off probe', 'off direct'],
  ])('with a direct call: %s, %s, %s, %s', async (...steps) => {
    const kernel = await bootLab({ engine });
    const log: string[] = [];
    const undo = new Map<string, () => void>();
    for (const step of steps) {
      const [way = '', what = ''] = step.split(' ');
      if (way === 'off') undo.get(what)?.();
      else if (what === 'direct') {
        const { detach } = attachScenario(kernel, TARGET, { fentry: 1 });
        undo.set(what, detach);
      } else {
        const made = probe(kernel, log);
        undo.set(what, () => kernel.kprobes.unregister(made));
      }
      expect(kernel.call(TARGET, 1n)).toBe(2n);
    }
    const calls = steps.indexOf('off probe') - steps.indexOf('on probe');
    expect(log.filter((line) => line === 'pre 0 1')).toHaveLength(calls);
    expect(kernel.siteIsOff(kernel.symbol(TARGET))).toBe(true);
    kernel.close();
  });

  it('exchanges the return address below everything else', async () => {
    const kernel = await bootLab({ engine });
    const log: string[] = [];
    const made = {
      name: 'r',
      address: kernel.symbol(TARGET),
      handler: (cpu: { getX(n: number): bigint }, ret: bigint): void =>
        void log.push(`${cpu.getX(0)} to ${kernel.symbols.format(ret)}`),
    };
    kernel.kretprobes.register(made);
    const attached = attachScenario(kernel, TARGET, { fexit: 1, ops: 1 });
    expect(kernel.call(TARGET, 1n)).toBe(2n);
    attached.detach();
    expect(kernel.call(TARGET, 2n)).toBe(3n);
    expect(log).toEqual(['2 to lab_return+0x4', '3 to lab_return+0x4']);
    kernel.kretprobes.unregister(made);
    expect(kernel.call(TARGET, 3n)).toBe(4n);
    expect(log).toHaveLength(2);
    kernel.close();
  });
});

describe('refusals', () => {
  it.each([
    { name: 'the patch site', place: 'bpf_fentry_test1', offset: 4n, why: 'EINVAL' },
    { name: 'between instructions', place: 'bpf_fentry_test1', offset: 2n, why: 'EINVAL' },
    { name: 'entry code', place: 'ftrace_caller', offset: 8n, why: 'blacklist' },
    { name: 'a TypeScript body', place: 'bpf_security_probe', offset: 0n, why: 'BRK' },
  ])('$name', async ({ place, offset, why }) => {
    const kernel = await bootLab();
    if (!kernel.symbols.find(place)) {
      const prototype = `void ${place}(void)`;
      kernel.define({ name: place, prototype, parameters: 0, body: () => undefined });
    }
    const address = kernel.symbol(place) + offset + (why === 'BRK' ? 8n : 0n);
    expect(() => kernel.kprobes.register({ name: 'p', address })).toThrow(why);
    kernel.close();
  });

  it('a kretprobe inside a function, an fprobe before 6.14', async () => {
    const kernel = await bootLab();
    const inside = { name: 'r', address: kernel.symbol(TARGET) + 8n, handler: () => undefined };
    expect(() => kernel.kretprobes.register(inside)).toThrow('EINVAL');
    expect(() => kernel.fprobes.register({ name: 'f' }, [TARGET])).toThrow('EOPNOTSUPP');
    kernel.close();
  });
});

it('fprobes see entries through one ops, returns through function graph', async () => {
  const kernel = await bootLab({ version: '7.3' });
  const log: string[] = [];
  const nameOf = (address: bigint): string => kernel.symbols.format(address);
  const entry = {
    name: 'e',
    entry: (_k: unknown, e: { address: bigint }) => void log.push(`in ${nameOf(e.address)}`),
  };
  const both = {
    ...entry,
    name: 'x',
    exit: (_k: unknown, e: { address: bigint }) => void log.push(`out ${nameOf(e.address)}`),
  };
  kernel.fprobes.register(entry, [TARGET, 'bpf_fentry_test2']);
  expect(kernel.ftrace.list().map(({ name }) => name)).toEqual(['fprobe_ftrace_ops']);
  kernel.fprobes.register(both, [TARGET]);
  kernel.call(TARGET, 1n);
  kernel.call('bpf_fentry_test2', 1n, 2n);
  kernel.fprobes.unregister(both);
  kernel.fprobes.unregister(entry);
  expect(log.sort()).toEqual([
    `in ${TARGET}+0x0`,
    `in ${TARGET}+0x0`,
    'in bpf_fentry_test2+0x0',
    `out ${TARGET}+0x0`,
  ]);
  expect(kernel.ftrace.list()).toEqual([]);
  kernel.close();
});

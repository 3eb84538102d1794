/**
 * The kernel's own tests of ftrace: the boot selftest's counts, tracer and direct call in four orders, the sample
 * modules with their trampolines (samples/ftrace) as arm64 text.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { embeddedFactory } from '../../../src/cpu/engines.js';
import type { FtraceVersion } from '../../../src/kernel/ftrace/profile.js';
import type { Kernel } from '../../../src/kernel/kernel.js';
import { factories } from '../../helpers/cpus.js';
import { bootFtrace, branchOf, directOps, makeOps, siteOf } from '../../helpers/ftrace.js';

/** Saves what it is told, calls, swaps x9 and x30 on the way back. */
function trampoline(name: string, func: string, saved: readonly string[], argument = ''): string {
  const size = 16 + 16 * saved.length;
  const each = (what: string): string =>
    saved.map((pair, i) => `\t${what} ${pair}, [sp, #${16 + 16 * i}]\n`).join('');
  return `
CODE ${name}
	hint #34
	sub sp, sp, #${size}
	stp x9, x30, [sp]
${each('stp')}${argument}	bl ${func}
${each('ldp')}	ldp x30, x9, [sp]
	add sp, sp, #${size}
	ret x9
`;
}

const SAMPLES = `
FUNCTION int wake_up_process(struct task_struct *p)
	mov w0, #1
	ret

FUNCTION int handle_mm_fault(u64 vma, u64 address, u32 flags, u64 regs)
	add x0, x0, x1
	add x0, x0, x2
	add x0, x0, x3
	ret

CODE my_direct_func
	mov x0, xzr
	mov x1, xzr
	mov x2, xzr
	mov x3, xzr
	ret

CODE my_direct_func2
	mov x0, xzr
	ret
${trampoline('my_tramp', 'my_direct_func', ['x0, x1', 'x2, x3'])}
${trampoline('my_tramp2', 'my_direct_func2', ['x0, x1'])}
${trampoline('my_tramp_ip', 'my_direct_func', ['x0, x1', 'x2, x3'], '\tmov x0, x30\n')}
`;

const VERSIONS: readonly FtraceVersion[] = ['v5', 'sep-2022', '6.12', '7.3'];
const open: Kernel[] = [];
afterAll(() => {
  for (const kernel of open) kernel.close();
});

function bootSamples(version: FtraceVersion, cpu = embeddedFactory): Kernel {
  const kernel = bootFtrace(cpu, version, { texts: { 'samples.s': SAMPLES } });
  open.push(kernel);
  return kernel;
}

/** First arguments of the calls of a function, from here on. */
function watchCalls(kernel: Kernel, name: string): bigint[] {
  const calls: bigint[] = [];
  kernel.executor.watch(kernel.cpus, kernel.symbol(name), (cpu) => calls.push(cpu.getX(0)));
  return calls;
}

const wakeUp = (kernel: Kernel): bigint => kernel.call('wake_up_process', 0x77n);
const fault = (kernel: Kernel): bigint => kernel.call('handle_mm_fault', 1n, 2n, 3n, 4n);

describe.each<{ version: FtraceVersion }>([
  { version: '6.1' },
  { version: '6.2' },
  { version: '6.3' },
  { version: '6.12' },
])('trace_selftest_ops in $version', ({ version }) => {
  it('counts what it is to count', () => {
    const kernel = bootSamples(version);
    const [f1, f2] = ['bpf_fentry_test7', 'wake_up_process'] as const;
    const probes = [[f1], [f2], [f1, f2]].map((targets) =>
      makeOps(kernel, { targets, isStatic: true }),
    );
    for (const { ops } of probes) kernel.ftrace.register(ops);
    const counts = (name: string): string => {
      kernel.call(name, 1n);
      return probes.map(({ count }) => count()).join('/');
    };
    expect([counts(f1), counts(f2)]).toEqual(['1/0/1', '1/1/2']);
    const all = makeOps(kernel);
    kernel.ftrace.register(all.ops);
    expect([counts(f1), counts(f2)]).toEqual(['2/1/3', '2/2/4']);
    expect(all.count()).toBe(2);
    kernel.ftrace.setFilterIp(probes[2]?.ops ?? all.ops, kernel.symbol(f1), true);
    expect([counts(f1), counts(f2)]).toEqual(['3/2/4', '3/3/5']);
    for (const { ops } of [all, ...probes]) kernel.ftrace.unregister(ops);
    expect([counts(f1), counts(f2)]).toEqual(['3/3/5', '3/3/5']);
    expect(branchOf(kernel, f1)).toBe('nop');
  });
});

describe.each(VERSIONS.map((version) => ({ version })))(
  'test.d/direct in $version',
  ({ version }) => {
    const kernel = bootSamples(version);
    it.each([
      { order: ['+tracer', '+direct', '-direct', '-tracer'], second: false },
      { order: ['+tracer', '+direct', '-tracer', '-direct'], second: false },
      { order: ['+direct', '+tracer', '-direct', '-tracer'], second: false },
      { order: ['+direct', '+tracer', '-tracer', '-direct'], second: false },
      { order: ['+tracer', '+direct', '-direct', '-tracer'], second: true },
      { order: ['+direct', '+tracer', '-tracer', '-direct'], second: true },
    ])('$order, a second direct call $second', ({ order, second }) => {
      const tracer = makeOps(kernel);
      const direct = directOps(kernel, 'wake_up_process');
      const other = directOps(kernel, 'handle_mm_fault');
      const calls = watchCalls(kernel, 'my_direct_func');
      const secondCalls = watchCalls(kernel, 'my_direct_func2');
      if (second) kernel.directCalls.register(other, kernel.symbol('my_tramp2'));
      const on = new Set<string>();
      for (const step of order) {
        const what = step.slice(1);
        const isOn = step.startsWith('+');
        if (isOn) on.add(what);
        else on.delete(what);
        if (what === 'direct' && isOn)
          kernel.directCalls.register(direct, kernel.symbol('my_tramp'));
        else if (what === 'direct') kernel.directCalls.unregister(direct);
        else kernel.ftrace[isOn ? 'register' : 'unregister'](tracer.ops);
        const before = [tracer.count(), calls.length, secondCalls.length] as const;
        expect([wakeUp(kernel), fault(kernel)]).toEqual([1n, 10n]);
        expect(calls.length - before[1]).toBe(on.has('direct') ? 1 : 0);
        expect(secondCalls.length - before[2]).toBe(second ? 1 : 0);
        expect(tracer.count() - before[0]).toBe(on.has('tracer') ? 2 : 0);
      }
      if (second) kernel.directCalls.unregister(other);
      expect([branchOf(kernel, 'wake_up_process'), branchOf(kernel, 'handle_mm_fault')]).toEqual([
        'nop',
        'nop',
      ]);
    });
  },
);

describe.each(factories.map((cpu) => ({ engine: cpu.name, cpu })))(
  'samples on $engine',
  ({ cpu }) => {
    describe.each(VERSIONS.map((version) => ({ version })))('$version', ({ version }) => {
      const kernel = bootSamples(version, cpu);
      const { directCalls } = kernel;

      it('ftrace-direct: one call each time', () => {
        const ops = directOps(kernel, 'wake_up_process');
        directCalls.register(ops, kernel.symbol('my_tramp'));
        const calls = watchCalls(kernel, 'my_direct_func');
        expect([wakeUp(kernel), wakeUp(kernel), calls]).toEqual([1n, 1n, [0x77n, 0x77n]]);
        directCalls.unregister(ops);
      });

      it('ftrace-direct-too: four arguments survive', () => {
        const ops = directOps(kernel, 'handle_mm_fault');
        directCalls.register(ops, kernel.symbol('my_tramp'));
        expect(fault(kernel)).toBe(10n);
        directCalls.unregister(ops);
      });

      it('ftrace-direct-modify: alternates, also with a tracer beside it', () => {
        const ops = directOps(kernel, 'wake_up_process');
        const tracer = makeOps(kernel, { targets: ['wake_up_process'] });
        const first = watchCalls(kernel, 'my_direct_func');
        const other = watchCalls(kernel, 'my_direct_func2');
        directCalls.register(ops, kernel.symbol('my_tramp'));
        for (const target of ['my_tramp2', 'my_tramp', 'my_tramp2', 'my_tramp']) {
          if (first.length === 2) kernel.ftrace.register(tracer.ops);
          wakeUp(kernel);
          directCalls.modify(ops, kernel.symbol(target));
        }
        expect([first.length, other.length, tracer.count()]).toEqual([2, 2, 1]);
        directCalls.unregister(ops);
        kernel.ftrace.unregister(tracer.ops);
      });

      it('ftrace-direct-multi and -multi-modify: two functions, told apart by ip', () => {
        const ops = directOps(kernel, 'wake_up_process', 'handle_mm_fault');
        const calls = watchCalls(kernel, 'my_direct_func');
        directCalls.register(ops, kernel.symbol('my_tramp_ip'));
        wakeUp(kernel);
        expect(fault(kernel)).toBe(10n);
        const behind = (name: string): bigint => siteOf(kernel, name) + 4n;
        expect(calls).toEqual([behind('wake_up_process'), behind('handle_mm_fault')]);
        directCalls.modify(ops, kernel.symbol('my_tramp2'));
        expect(branchOf(kernel, 'wake_up_process')).toBe('my_tramp2');
        expect([wakeUp(kernel), fault(kernel)]).toEqual([1n, 10n]);
        expect(calls).toHaveLength(2);
        directCalls.unregister(ops);
      });
    });
  },
);

it.each(['v5', 'sep-2022'] as const)('%s: the same by ip, with one shared ops', (version) => {
  const kernel = bootSamples(version);
  const { directCallsByIp } = kernel;
  const [first, other] = ['my_tramp', 'my_tramp2'].map((name) => kernel.symbol(name)) as [
    bigint,
    bigint,
  ];
  const [ip, ip2] = ['wake_up_process', 'handle_mm_fault'].map((name) => siteOf(kernel, name)) as [
    bigint,
    bigint,
  ];
  directCallsByIp.register(ip, first);
  directCallsByIp.register(ip2, other);
  expect(kernel.ftrace.list().map((ops) => ops.name)).toEqual(['direct_ops']);
  directCallsByIp.modify(ip, first, other);
  expect(branchOf(kernel, 'wake_up_process')).toBe('my_tramp2');
  const tracer = makeOps(kernel, { targets: ['wake_up_process'] });
  kernel.ftrace.register(tracer.ops);
  const calls = watchCalls(kernel, 'my_direct_func');
  directCallsByIp.modify(ip, other, first);
  expect([wakeUp(kernel), fault(kernel), calls.length, tracer.count()]).toEqual([1n, 10n, 1, 1]);
  directCallsByIp.unregister(ip);
  expect([wakeUp(kernel), calls.length, tracer.count()]).toEqual([1n, 1, 2]);
  kernel.ftrace.unregister(tracer.ops);
  directCallsByIp.unregister(ip2);
  expect([branchOf(kernel, 'wake_up_process'), branchOf(kernel, 'handle_mm_fault')]).toEqual([
    'nop',
    'nop',
  ]);
  expect(kernel.ftrace.list()).toEqual([]);
});

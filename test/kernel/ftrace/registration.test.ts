/** Registration, filters, flags and refusals of ops, by version; recursion; what callbacks may read and change. */
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { KernelError } from '../../../src/common/errors.js';
import { embeddedFactory } from '../../../src/cpu/engines.js';
import { listFunctions } from '../../../src/kernel/ftrace/listing.js';
import { FTRACE_OPS_FL, type FtraceOps } from '../../../src/kernel/ftrace/ops.js';
import type { FtraceVersion } from '../../../src/kernel/ftrace/profile.js';
import type { Kernel } from '../../../src/kernel/kernel.js';
import { TASK_STRUCT } from '../../../src/kernel/offsets.js';
import { attachScenario } from '../../../src/lab/scenario.js';
import {
  IPMODIFY,
  PERMANENT,
  RECURSION,
  SAVE_REGS,
  SAVE_REGS_IF_SUPPORTED,
  bootFtrace,
  branchOf,
  directOps,
  makeOps,
  siteOf,
} from '../../helpers/ftrace.js';

const TARGET = 'bpf_fentry_test1';
const kernels = new Map<FtraceVersion, Kernel>();
const kernelOf = (version: FtraceVersion): Kernel => {
  const kernel = kernels.get(version) ?? bootFtrace(embeddedFactory, version);
  kernels.set(version, kernel);
  return kernel;
};
afterEach(() => {
  for (const { ftrace } of kernels.values()) {
    ftrace.setEnabled(true);
    for (const ops of ftrace.list()) ftrace.unregister(ops);
  }
});
afterAll(() => {
  for (const kernel of kernels.values()) kernel.close();
});

function errnoOf(action: () => void): string {
  try {
    action();
  } catch (error) {
    if (error instanceof KernelError) return error.errno;
    throw error;
  }
  return 'done';
}

describe('register_ftrace_function', () => {
  const flagged = (kernel: Kernel, flags: number, targets: string[] = [TARGET]): FtraceOps =>
    makeOps(kernel, { targets, flags }).ops;

  it.each<{ version: FtraceVersion; name: string; flags: number; answer: string }>([
    { version: '6.12', name: 'plain', flags: 0, answer: 'done' },
    { version: '6.12', name: 'DELETED', flags: FTRACE_OPS_FL.DELETED, answer: 'EINVAL' },
    { version: '6.12', name: 'SAVE_REGS', flags: SAVE_REGS, answer: 'EINVAL' },
    { version: '6.3', name: 'SAVE_REGS', flags: SAVE_REGS, answer: 'EINVAL' },
    { version: '6.2', name: 'SAVE_REGS', flags: SAVE_REGS, answer: 'EINVAL' },
    { version: '6.1', name: 'SAVE_REGS', flags: SAVE_REGS, answer: 'done' },
    {
      version: '6.2',
      name: 'SAVE_REGS if supported',
      flags: SAVE_REGS | SAVE_REGS_IF_SUPPORTED,
      answer: 'done',
    },
    { version: '6.12', name: 'PERMANENT', flags: PERMANENT, answer: 'done' },
    { version: '6.12', name: 'IPMODIFY', flags: IPMODIFY, answer: 'done' },
  ])('$version, $name: $answer', ({ version, flags, answer }) => {
    const kernel = kernelOf(version);
    expect(errnoOf(() => kernel.ftrace.register(flagged(kernel, flags)))).toBe(answer);
    if (answer === 'done') expect(branchOf(kernel, TARGET)).toMatch(/^ftrace_/);
    else expect(branchOf(kernel, TARGET)).toBe('nop');
    for (const ops of kernel.ftrace.list()) kernel.ftrace.unregister(ops);
  });

  it('SAVE_REGS_IF_SUPPORTED gets full registers in 6.1', () => {
    const kernel = kernelOf('6.1');
    kernel.ftrace.register(flagged(kernel, SAVE_REGS_IF_SUPPORTED));
    expect(branchOf(kernel, TARGET)).toBe('ftrace_regs_caller');
  });

  it.each<{ name: string; act: (kernel: Kernel) => void; answer: string }>([
    {
      name: 'twice',
      act: (kernel) => {
        const ops = flagged(kernel, 0);
        kernel.ftrace.register(ops);
        kernel.ftrace.register(ops);
      },
      answer: 'EBUSY',
    },
    {
      name: 'unregister what is not',
      act: (k) => k.ftrace.unregister(flagged(k, 0)),
      answer: 'EBUSY',
    },
    {
      name: 'IPMODIFY on all',
      act: (k) => k.ftrace.register(flagged(k, IPMODIFY, [])),
      answer: 'EINVAL',
    },
    {
      name: 'a filter that is no function',
      act: (k) => k.ftrace.setFilterIp(flagged(k, 0), k.symbol('ftrace_caller'), false),
      answer: 'EINVAL',
    },
    {
      name: 'taking out what is not in',
      act: (k) => k.ftrace.setFilterIp(flagged(k, 0), k.symbol('bpf_fentry_test2'), true),
      answer: 'ENOENT',
    },
    {
      name: 'a pattern without match',
      act: (k) => k.ftrace.setFilter(flagged(k, 0), 'nothing_*'),
      answer: 'EINVAL',
    },
    {
      name: 'notrace on registered IPMODIFY',
      act: (k) => {
        const ops = flagged(k, IPMODIFY);
        k.ftrace.register(ops);
        k.ftrace.setFilter(ops, TARGET, { notrace: true });
      },
      answer: 'EINVAL',
    },
    {
      name: 'freeing the filter of registered ops',
      act: (k) => {
        const ops = flagged(k, 0);
        k.ftrace.register(ops);
        k.ftrace.freeFilter(ops);
      },
      answer: 'EBUSY',
    },
    {
      name: 'ftrace_enabled=0 with PERMANENT ops',
      act: (k) => {
        k.ftrace.register(flagged(k, PERMANENT));
        k.ftrace.setEnabled(false);
      },
      answer: 'EBUSY',
    },
    {
      name: 'PERMANENT ops with ftrace_enabled=0',
      act: (k) => {
        k.ftrace.setEnabled(false);
        k.ftrace.register(flagged(k, PERMANENT));
      },
      answer: 'EBUSY',
    },
  ])('$name: $answer', ({ act, answer }) => {
    expect(errnoOf(() => act(kernelOf('6.12')))).toBe(answer);
  });
});

describe('direct calls', () => {
  const TARGET2 = 'bpf_fentry_test2';
  const tramp = (kernel: Kernel): bigint => kernel.symbol('ftrace_stub');

  it.each<{ version: FtraceVersion; byOps: string; byIp: string }>([
    { version: 'v5', byOps: 'done', byIp: 'done' },
    { version: '6.1', byOps: 'ENODEV', byIp: 'ENODEV' },
    { version: 'sep-2022', byOps: 'done', byIp: 'done' },
    { version: '6.2', byOps: 'ENODEV', byIp: 'ENODEV' },
    { version: '6.3', byOps: 'ENODEV', byIp: 'ENODEV' },
    { version: '6.12', byOps: 'done', byIp: 'ENODEV' },
  ])('$version: by ops $byOps, by ip $byIp', ({ version, byOps, byIp }) => {
    const kernel = kernelOf(version);
    const { directCalls, directCallsByIp } = kernel;
    const ops = directOps(kernel, TARGET);
    expect(errnoOf(() => directCalls.register(ops, tramp(kernel)))).toBe(byOps);
    if (byOps === 'done') directCalls.unregister(ops);
    const ip = kernel.symbol(TARGET2);
    expect(errnoOf(() => directCallsByIp.register(ip, tramp(kernel)))).toBe(byIp);
    if (byIp === 'done') directCallsByIp.unregister(ip);
    expect([branchOf(kernel, TARGET), branchOf(kernel, TARGET2)]).toEqual(['nop', 'nop']);
  });

  it.each<{ name: string; act: (kernel: Kernel, used: FtraceOps) => void; answer: string }>([
    {
      name: 'an ops with a func',
      act: (k) => k.directCalls.register(makeOps(k, { targets: [TARGET2] }).ops, tramp(k)),
      answer: 'EINVAL',
    },
    {
      name: 'no filter',
      act: (k) => k.directCalls.register(directOps(k), tramp(k)),
      answer: 'EINVAL',
    },
    {
      name: 'registered already',
      act: (k, used) => k.directCalls.register(used, tramp(k)),
      answer: 'EINVAL',
    },
    {
      name: 'a site that has one, of two',
      act: (k) => k.directCalls.register(directOps(k, TARGET2, TARGET), tramp(k)),
      answer: 'EBUSY',
    },
    {
      name: 'unregister another',
      act: (k) => k.directCalls.unregister(directOps(k, TARGET2)),
      answer: 'EINVAL',
    },
    {
      name: 'modify another',
      act: (k) => k.directCalls.modify(directOps(k, TARGET2), 1n),
      answer: 'EINVAL',
    },
    {
      name: 'SAVE_REGS among its flags',
      act: (k) => {
        const ops = directOps(k, TARGET2);
        ops.flags |= SAVE_REGS;
        k.directCalls.register(ops, tramp(k));
      },
      answer: 'EINVAL',
    },
  ])('$name: $answer, and nothing has changed', ({ act, answer }) => {
    const kernel = kernelOf('6.12');
    const used = directOps(kernel, TARGET);
    const target = kernel.symbol('ftrace_stub_direct_tramp');
    kernel.directCalls.register(used, target);
    expect(errnoOf(() => act(kernel, used))).toBe(answer);
    expect([...kernel.ftrace.directFunctions]).toEqual([[siteOf(kernel, TARGET), target]]);
    expect(branchOf(kernel, TARGET)).toBe('ftrace_stub_direct_tramp');
    expect(branchOf(kernel, TARGET2)).toBe('nop');
    kernel.directCalls.unregister(used);
    // the ops can be registered again
    kernel.directCalls.register(used, target);
    kernel.directCalls.unregister(used, { freeFilters: true });
    expect(used.filter.size).toBe(0);
  });

  it.each<{ name: string; act: (kernel: Kernel, ip: bigint) => void; answer: string }>([
    { name: 'no site', act: (k) => k.directCallsByIp.register(8n, tramp(k)), answer: 'ENODEV' },
    { name: 'twice', act: (k, ip) => k.directCallsByIp.register(ip, tramp(k)), answer: 'EBUSY' },
    {
      name: 'modify what is none',
      act: (k) => k.directCallsByIp.modify(k.symbol(TARGET2), 1n, 2n),
      answer: 'ENODEV',
    },
    {
      name: 'modify from another',
      act: (k, ip) => k.directCallsByIp.modify(ip, 1n, 2n),
      answer: 'EINVAL',
    },
    {
      name: 'unregister what is none',
      act: (k) => k.directCallsByIp.unregister(k.symbol(TARGET2)),
      answer: 'ENODEV',
    },
    { name: 'ftrace_enabled=0', act: (k) => k.ftrace.setEnabled(false), answer: 'EBUSY' },
  ])('by ip, $name: $answer', ({ act, answer }) => {
    const kernel = kernelOf('v5');
    const ip = siteOf(kernel, TARGET);
    const target = kernel.symbol('ftrace_stub_direct_tramp');
    kernel.directCallsByIp.register(ip, target);
    expect(errnoOf(() => act(kernel, ip))).toBe(answer);
    expect(branchOf(kernel, TARGET)).toBe('ftrace_stub_direct_tramp');
    kernel.directCallsByIp.unregister(ip);
  });
});

it('ftrace_enabled=0 makes every site a NOP, and what comes meanwhile counts later', () => {
  for (const version of ['6.1', '6.12'] as const) {
    const kernel = kernelOf(version);
    const before = makeOps(kernel, { targets: [TARGET], isStatic: true });
    const meanwhile = makeOps(kernel, { targets: [TARGET, 'bpf_fentry_test2'], isStatic: true });
    kernel.ftrace.register(before.ops);
    kernel.ftrace.setEnabled(false);
    kernel.ftrace.register(meanwhile.ops);
    kernel.call(TARGET, 1n);
    expect([branchOf(kernel, TARGET), before.count(), meanwhile.count()]).toEqual(['nop', 0, 0]);
    kernel.ftrace.setEnabled(true);
    kernel.call(TARGET, 1n);
    expect([before.count(), meanwhile.count()]).toEqual([1, 1]);
    kernel.ftrace.unregister(before.ops);
    kernel.ftrace.unregister(meanwhile.ops);
  }
});

it('a DYNAMIC ops is unused once those that ran have let go', () => {
  const kernel = kernelOf('6.12');
  const calls: string[] = [];
  const { ops: dynamic } = makeOps(kernel, { targets: [TARGET] });
  const { ops: fixed } = makeOps(kernel, { targets: [TARGET], isStatic: true });
  for (const ops of [dynamic, fixed]) {
    kernel.ftrace.register(ops);
    kernel.ftrace.unregister(ops);
  }
  expect([dynamic, fixed].map((ops) => ops.has(FTRACE_OPS_FL.DYNAMIC))).toEqual([true, false]);
  const { ops: caller } = makeOps(kernel, {
    targets: [TARGET],
    callback: () => {
      for (const ops of [dynamic, fixed]) kernel.ftrace.whenUnused(ops, () => calls.push(ops.name));
      expect(calls).toEqual([fixed.name]);
    },
  });
  kernel.ftrace.register(caller);
  kernel.call(TARGET, 1n);
  expect(calls).toEqual([fixed.name, dynamic.name]);
});

describe('filters', () => {
  it.each<{ patterns: string[]; notrace?: string; covered: string[] }>([
    { patterns: ['bpf_fentry_test1'], covered: ['bpf_fentry_test1'] },
    { patterns: ['bpf_modify*'], covered: ['bpf_modify_return_test', 'bpf_modify_return_test2'] },
    { patterns: ['*return_test'], covered: ['bpf_modify_return_test'] },
    { patterns: ['*fentry_test7*'], covered: ['bpf_fentry_test7'] },
    { patterns: ['bpf_f*7'], covered: ['bpf_fentry_test7'] },
    { patterns: ['bpf_fentry_test[12]'], covered: ['bpf_fentry_test1', 'bpf_fentry_test2'] },
    { patterns: ['bpf_modify*', '!*test2'], covered: ['bpf_modify_return_test'] },
    { patterns: ['bpf_modify*'], notrace: '*test2', covered: ['bpf_modify_return_test'] },
    { patterns: ['bpf_fentry_test?', '!bpf_fentry_test[!9]'], covered: ['bpf_fentry_test9'] },
  ])('$patterns, notrace $notrace', ({ patterns, notrace, covered }) => {
    const kernel = kernelOf('6.12');
    const { ops } = makeOps(kernel);
    for (const pattern of patterns) kernel.ftrace.setFilter(ops, pattern);
    if (notrace !== undefined) kernel.ftrace.setFilter(ops, notrace, { notrace: true });
    kernel.ftrace.register(ops);
    const lines = listFunctions(kernel.ftrace, kernel.symbols, 'enabled');
    expect(lines.map((line) => line.split(' ')[0])).toEqual(covered);
  });

  it('without one every site is covered; a registered ops changes at once', () => {
    const kernel = kernelOf('6.12');
    const { ops, count } = makeOps(kernel, { flags: RECURSION });
    const enabled = (): number => listFunctions(kernel.ftrace, kernel.symbols, 'enabled').length;
    kernel.ftrace.register(ops);
    expect(enabled()).toBe(kernel.ftrace.records.size);
    kernel.ftrace.setFilter(ops, 'bpf_fentry_test[23]', { reset: true });
    expect(enabled()).toBe(2);
    expect(branchOf(kernel, TARGET)).toBe('nop');
    kernel.ftrace.setFilterIp(ops, kernel.symbol(TARGET), false);
    kernel.call(TARGET, 1n);
    expect(count()).toBe(1);
    kernel.ftrace.setFilter(ops, '!bpf_fentry_test1');
    expect(branchOf(kernel, TARGET)).toBe('nop');
  });
});

describe('enabled_functions', () => {
  it.each<{ version: FtraceVersion; scenario: object; lines: RegExp[] }>([
    { version: '6.1', scenario: { ops: 1 }, lines: [/^bpf_fentry_test1 \(1\) {6}$/] },
    {
      version: '6.3',
      scenario: { ops: 1 },
      lines: [/^bpf_fentry_test1 \(1\) {7}O\tops: 0x\w+ \(lab_ops_callback\+0x0\/0x8\)$/],
    },
    { version: '6.12', scenario: { ops: 2 }, lines: [/^bpf_fentry_test1 \(2\) {11}$/] },
    {
      version: '6.12',
      scenario: { fentry: 1 },
      lines: [
        /^bpf_fentry_test1 \(1\) {5}D O M \ttramp: ftrace_caller\+0x0\/0x9c \(call_direct_funcs\+0x0\/0x\w+\)\tops: 0x\w+ \(call_direct_funcs/,
        /^\tdirect-->bpf_trampoline_1\+0x0\//,
      ],
    },
    {
      version: '6.12',
      scenario: { fentry: 1, ops: 1 },
      lines: [/^bpf_fentry_test1 \(2\) {5}D {3}M $/, /^\tdirect-->/],
    },
    {
      version: 'v5',
      scenario: { fentry: 1 },
      lines: [/^bpf_fentry_test1 \(1\) R {3}D\ttramp: ftrace_regs_caller\+0x0/, /^\tdirect-->/],
    },
  ])('$version: $scenario', ({ version, scenario, lines }) => {
    const kernel = bootFtrace(embeddedFactory, version);
    const attached = attachScenario(kernel, TARGET, scenario);
    const shown = listFunctions(kernel.ftrace, kernel.symbols, 'enabled', TARGET);
    expect(shown).toHaveLength(lines.length);
    lines.forEach((line, i) => expect(shown[i]).toMatch(line));
    attached.detach();
    expect(listFunctions(kernel.ftrace, kernel.symbols, 'enabled')).toEqual([]);
    const touched = listFunctions(kernel.ftrace, kernel.symbols, 'touched');
    expect(touched).toHaveLength(['6.1', 'v5'].includes(version) ? 0 : 1);
    kernel.close();
  });
});

describe('recursion', () => {
  /** Contexts by the bits that they set in preempt_count. */
  const CONTEXTS = { normal: 0, softirq: 0x100, irq: 0x10000, nmi: 0x100000 };

  it.each<{ contexts: (keyof typeof CONTEXTS)[]; calls: number }>([
    { contexts: ['normal'], calls: 1 },
    // once more with TRANSITION, then dropped
    { contexts: ['normal', 'normal'], calls: 2 },
    { contexts: ['normal', 'normal', 'normal'], calls: 2 },
    { contexts: ['normal', 'softirq', 'irq', 'nmi'], calls: 4 },
    { contexts: ['normal', 'softirq', 'softirq', 'softirq'], calls: 3 },
    { contexts: ['normal', 'normal', 'irq', 'irq'], calls: 3 },
  ])('$contexts: $calls calls', ({ contexts, calls }) => {
    const kernel = kernelOf('6.12');
    const depth = { value: 0 };
    const word = (): bigint => kernel.current + BigInt(TASK_STRUCT.preempt_count);
    const setContext = (level: number): void => {
      const bits = CONTEXTS[contexts[level] ?? 'normal'];
      kernel.memory.write32(word(), (kernel.memory.read32(word()) & 0xff) | bits);
    };
    kernel.define({
      name: `nesting_${contexts.join('_')}`,
      prototype: `void nesting_${contexts.join('_')}(long ip, long parent, long op, long regs)`,
      parameters: 4,
      notrace: true,
      *body() {
        const level = ++depth.value;
        if (level >= contexts.length) return;
        setContext(level);
        yield { kind: 'call', target: TARGET, args: [1n] };
        setContext(level - 1);
      },
    });
    const { ops } = makeOps(kernel, { targets: [TARGET], flags: RECURSION });
    ops.func = kernel.symbol(`nesting_${contexts.join('_')}`);
    kernel.ftrace.register(ops);
    expect(kernel.call(TARGET, 1n)).toBe(2n);
    expect(depth.value).toBe(calls);
    const task = kernel.tasks[0]?.address ?? 0n;
    expect(kernel.memory.read32(task + BigInt(TASK_STRUCT.trace_recursion))).toBe(0);
    expect(kernel.memory.read32(task + BigInt(TASK_STRUCT.preempt_count)) & 0xff).toBe(0);
  });
});

describe.each<{ version: FtraceVersion; names: Record<string, string> }>([
  { version: '6.1', names: { x0: 'done', x8: 'done', x9: 'done', x28: 'done', x30: 'done' } },
  { version: '6.12', names: { x0: 'done', x8: 'done', x9: 'EINVAL', x28: 'EINVAL', x30: 'done' } },
])('callbacks in $version', ({ version, names }) => {
  it('read registers by name', () => {
    const kernel = kernelOf(version);
    const seen: Record<string, string> = {};
    const values: bigint[] = [];
    const { ops } = makeOps(kernel, {
      targets: ['bpf_fentry_test2'],
      callback: ({ regs, parentIp, ip }) => {
        for (const name of Object.keys(names)) seen[name] = errnoOf(() => regs.read(name));
        for (const name of ['x29', 'lr', 'sp', 'pc']) regs.read(name);
        seen['pstate'] = errnoOf(() => regs.read('pstate'));
        values.push(
          regs.argument(0),
          regs.argument(1),
          regs.argument(8),
          regs.lr - parentIp,
          regs.pc - ip,
        );
      },
    });
    kernel.ftrace.register(ops);
    kernel.call('bpf_fentry_test2', 2n, 3n);
    expect(seen).toEqual({ ...names, pstate: 'EINVAL' });
    expect(values).toEqual([2n, 3n, 0n, 0n, 4n]);
  });

  it.each<{ name: string; change: 'argument' | 'override'; result: bigint }>([
    { name: 'another argument', change: 'argument', result: 103n },
    { name: 'another result, the function is skipped', change: 'override', result: 7n },
  ])('give $name', ({ change, result }) => {
    const kernel = kernelOf(version);
    const { ops } = makeOps(kernel, {
      targets: ['bpf_fentry_test2'],
      callback: ({ regs }) => {
        if (change === 'argument') return regs.setArgument(0, 100n);
        regs.setReturnValue(7n);
        regs.overrideFunction();
      },
    });
    kernel.ftrace.register(ops);
    expect(kernel.call('bpf_fentry_test2', 2n, 3n)).toBe(result);
  });
});

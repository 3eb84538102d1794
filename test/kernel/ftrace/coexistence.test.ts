/**
 * Direct calls, ordinary ops and IPMODIFY ops on one site: where the BL goes, what the literal names, in which
 * order callbacks run, who is refused.
 */
import { afterAll, describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { embeddedFactory } from '../../../src/cpu/engines.js';
import { TRAMP_FLAGS } from '../../../src/jit/trampoline-model.js';
import { FTRACE_FL } from '../../../src/kernel/ftrace/record.js';
import type { FtraceVersion } from '../../../src/kernel/ftrace/profile.js';
import type { Kernel } from '../../../src/kernel/kernel.js';
import { attachScenario } from '../../../src/lab/scenario.js';
import {
  IPMODIFY,
  RCU,
  RECURSION,
  bootFtrace,
  branchOf,
  directOps,
  literalOf,
  makeOps,
  siteOf,
} from '../../helpers/ftrace.js';

const TARGET = 'bpf_fentry_test1';
const FAR = 128 << 20;
const near = bootFtrace(embeddedFactory, '6.12');
const far = bootFtrace(embeddedFactory, '6.12', { vmallocUsed: FAR });
const v5 = bootFtrace(embeddedFactory, 'v5');
afterAll(() => {
  for (const kernel of [near, far, v5]) kernel.close();
});

/** What is on the site, attached or registered: undone by the function that it gives. */
const PARTS = {
  direct: (kernel: Kernel) => {
    const made = attachScenario(kernel, TARGET, { fentry: 1 });
    return () => made.detach();
  },
  plain: (kernel: Kernel) => registered(kernel, 0),
  recursion: (kernel: Kernel) => registered(kernel, RECURSION),
  rcu: (kernel: Kernel) => registered(kernel, RCU),
} as const;
type Part = keyof typeof PARTS;

function registered(kernel: Kernel, flags: number): () => void {
  const { ops } = makeOps(kernel, { targets: [TARGET], flags });
  kernel.ftrace.register(ops);
  return () => kernel.ftrace.unregister(ops);
}

describe.each<{ parts: Part[]; bl: string; literal: string }>([
  { parts: ['direct'], bl: 'image', literal: 'direct ops' },
  { parts: ['direct', 'plain'], bl: 'ftrace_caller', literal: 'ftrace_list_ops' },
  { parts: ['plain', 'direct'], bl: 'ftrace_caller', literal: 'ftrace_list_ops' },
  { parts: ['direct', 'plain', 'recursion'], bl: 'ftrace_caller', literal: 'ftrace_list_ops' },
  { parts: ['plain'], bl: 'ftrace_caller', literal: 'that ops' },
  { parts: ['recursion'], bl: 'ftrace_caller', literal: 'ftrace_list_ops' },
  { parts: ['rcu'], bl: 'ftrace_caller', literal: 'ftrace_list_ops' },
  { parts: ['plain', 'plain'], bl: 'ftrace_caller', literal: 'ftrace_list_ops' },
])('$parts', ({ parts, bl, literal }) => {
  it.each([
    { layout: 'in range', kernel: near },
    { layout: 'out of range', kernel: far },
  ])('image $layout', ({ kernel }) => {
    const undo = parts.map((part) => PARTS[part](kernel));
    expect(kernel.call(TARGET, 1n)).toBe(2n);
    const branch = branchOf(kernel, TARGET).startsWith('bpf_trampoline')
      ? 'image'
      : 'ftrace_caller';
    // a far image is reached through ftrace_caller
    expect(branch).toBe(kernel === far ? 'ftrace_caller' : bl);
    expect(sortOf(literalOf(kernel, TARGET))).toBe(literal);
    for (const each of undo) each();
    expect([branchOf(kernel, TARGET), literalOf(kernel, TARGET)]).toEqual([
      'nop',
      'ftrace_nop_ops',
    ]);
  });
});

function sortOf(name: string): string {
  if (name.endsWith('.fops')) return 'direct ops';
  return name.startsWith('test_ops') ? 'that ops' : name;
}

/** E4: after any sequence the site is what its present ops make of it, and each is called once. */
it('direct and ordinary ops come and go in any order', () => {
  const part = fc.constantFrom<Part>('direct', 'plain', 'recursion');
  const kernel = near;
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 14 }), (steps) => {
      const present = new Map<Part, { undo: () => void; count: () => number }>();
      for (const step of steps) {
        const known = present.get(step);
        if (known) {
          known.undo();
          present.delete(step);
        } else if (step === 'direct') {
          present.set(step, { undo: PARTS.direct(kernel), count: () => 0 });
        } else {
          const flags = step === 'recursion' ? RECURSION : 0;
          const { ops, count } = makeOps(kernel, { targets: [TARGET], flags });
          kernel.ftrace.register(ops);
          present.set(step, { undo: () => kernel.ftrace.unregister(ops), count });
        }
        const before = [...present.values()].map(({ count }) => count());
        expect(kernel.call(TARGET, 1n)).toBe(2n);
        const ordinary = [...present.entries()].map(([name]) => (name === 'direct' ? 0 : 1));
        expect([...present.values()].map(({ count }, i) => count() - (before[i] ?? 0))).toEqual(
          ordinary,
        );
        const onlyDirect = present.size === 1 && present.has('direct');
        const branch = branchOf(kernel, TARGET).replace(/_\d+$/, '');
        const wanted = onlyDirect ? 'bpf_trampoline' : 'ftrace_caller';
        expect(branch).toBe(present.size === 0 ? 'nop' : wanted);
        if (present.size > 1) expect(literalOf(kernel, TARGET)).toBe('ftrace_list_ops');
        if (present.size === 0) expect(literalOf(kernel, TARGET)).toBe('ftrace_nop_ops');
      }
      for (const { undo } of present.values()) undo();
      const flags = kernel.ftrace.records.get(siteOf(kernel, TARGET))?.flags ?? -1;
      expect(flags & ~(FTRACE_FL.TOUCHED | FTRACE_FL.MODIFIED)).toBe(0);
    }),
    { numRuns: 15 },
  );
});

/** E7: upstream asks the ops that leaves whether the one that stays can be called straight. */
it.each([
  { first: 0, second: RECURSION, literal: 'ftrace_list_ops' },
  { first: RECURSION, second: 0, literal: 'that ops' },
])('flags $first stay, $second leave: $literal', ({ first, second, literal }) => {
  const stays = makeOps(near, { targets: [TARGET], flags: first });
  const leaves = makeOps(near, { targets: [TARGET], flags: second });
  near.ftrace.register(stays.ops);
  near.ftrace.register(leaves.ops);
  near.ftrace.unregister(leaves.ops);
  expect(sortOf(literalOf(near, TARGET))).toBe(literal);
  near.call(TARGET, 1n);
  expect(stays.count()).toBe(1);
  near.ftrace.unregister(stays.ops);
});

it('callbacks run newest first, the direct target after all of them', () => {
  const order: string[] = [];
  const named = (name: string): (() => void) => {
    const callback = (): void => void order.push(name);
    const { ops } = makeOps(near, { targets: [TARGET], callback });
    near.ftrace.register(ops);
    return () => near.ftrace.unregister(ops);
  };
  const undo = [named('first'), PARTS.direct(near), named('second')];
  const image = near.symbols.find(
    [...near.symbols].find((s) => s.name.startsWith('bpf_trampoline'))?.name ?? '',
  );
  const end = near.executor.watch(near.cpus, image?.address ?? 0n, () => order.push('image'));
  near.call(TARGET, 1n);
  expect(order).toEqual(['second', 'first', 'image']);
  end();
  for (const each of undo) each();
});

it('v5: with others the direct call goes through ftrace_regs_caller', () => {
  const undo = [PARTS.direct(v5), PARTS.plain(v5)];
  expect(branchOf(v5, TARGET)).toBe('ftrace_regs_caller');
  expect(v5.call(TARGET, 1n)).toBe(2n);
  undo[1]?.();
  expect(branchOf(v5, TARGET)).toMatch(/^bpf_trampoline/);
  undo[0]?.();
  expect(branchOf(v5, TARGET)).toBe('nop');
});

/** E3: out of range v5 refuses what later versions bridge. */
it.each<{ version: FtraceVersion; error: string | undefined }>([
  { version: 'v5', error: '-ENOTSUPP: bpf: the trampoline image is out of BL range' },
  { version: 'sep-2022', error: undefined },
  { version: '6.1', error: '-ENOTSUPP: 6.1 has no direct calls on kernel functions' },
  { version: '6.2', error: '-ENOTSUPP: 6.2 has no direct calls on kernel functions' },
  { version: '6.3', error: '-ENOTSUPP: 6.3 has no direct calls on kernel functions' },
  { version: '6.12', error: undefined },
])('$version: an image out of range, then in range again', ({ version, error }) => {
  const kernel = bootFtrace(embeddedFactory, version, { kaslrSeed: 1n });
  const attach = (): bigint => {
    const made = attachScenario(kernel, TARGET, { fentry: 1 });
    const result = kernel.call(TARGET, 1n);
    made.detach();
    return result;
  };
  if (error === undefined) expect(attach()).toBe(2n);
  else expect(attach).toThrow(error);
  expect(branchOf(kernel, TARGET)).toBe('nop');
  kernel.close();
});

describe('IPMODIFY', () => {
  it('has a site for itself', () => {
    const one = makeOps(near, { targets: [TARGET], flags: IPMODIFY }).ops;
    const two = makeOps(near, { targets: [TARGET], flags: IPMODIFY }).ops;
    near.ftrace.register(one);
    expect(() => near.ftrace.register(two)).toThrow(
      `-EBUSY: ftrace: ${TARGET} has an IPMODIFY ops`,
    );
    const direct = directOps(near, TARGET);
    const target = near.symbol('ftrace_stub_direct_tramp');
    expect(() => near.directCalls.register(direct, target)).toThrow('-EBUSY');
    near.ftrace.unregister(one);
    near.directCalls.register(direct, target);
    expect(() => near.ftrace.register(two)).toThrow('-EBUSY');
    near.directCalls.unregister(direct);
    near.ftrace.register(two);
    near.ftrace.unregister(two);
    expect(branchOf(near, TARGET)).toBe('nop');
  });

  it.each<{ first: 'programs' | 'livepatch'; kind: 'fentry' | 'fexit'; flags: number }>([
    { first: 'programs', kind: 'fexit', flags: TRAMP_FLAGS.ORIG_STACK },
    { first: 'livepatch', kind: 'fexit', flags: TRAMP_FLAGS.ORIG_STACK },
    { first: 'programs', kind: 'fentry', flags: 0 },
    { first: 'livepatch', kind: 'fentry', flags: 0 },
  ])('$first first, then the other: a $kind image agrees', ({ first, kind, flags }) => {
    // a livepatch of test1: adds 1 as bpf_fentry_test7 would return its argument
    const patched = near.symbol('bpf_fentry_test7') + 8n;
    const livepatch = makeOps(near, {
      targets: [TARGET],
      flags: IPMODIFY,
      callback: ({ regs }) => (regs.pc = patched),
    }).ops;
    const attach = (): ReturnType<typeof attachScenario> =>
      attachScenario(near, TARGET, { [kind]: 1 });
    if (first === 'livepatch') near.ftrace.register(livepatch);
    const attached = attach();
    if (first === 'programs') near.ftrace.register(livepatch);
    const { trampoline } = attached.attachments[0] ?? {};
    const imageFlags = (): number => trampoline?.image?.request.flags ?? -1;
    expect(imageFlags() & TRAMP_FLAGS.ORIG_STACK).toBe(flags);
    expect(branchOf(near, TARGET)).toBe('ftrace_caller');
    expect(near.call(TARGET, 41n)).toBe(41n);

    near.ftrace.unregister(livepatch);
    expect(imageFlags() & TRAMP_FLAGS.ORIG_STACK).toBe(0);
    expect(near.call(TARGET, 41n)).toBe(42n);
    attached.detach();
  });
});

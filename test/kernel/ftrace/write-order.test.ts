/** What is stored in which order, by version; what is checked before; what happens when the check fails. */
import { afterAll, describe, expect, it } from 'vitest';
import { embeddedFactory } from '../../../src/cpu/engines.js';
import type { FtraceVersion } from '../../../src/kernel/ftrace/profile.js';
import type { FtraceStore } from '../../../src/kernel/ftrace/store-observer.js';
import type { Kernel } from '../../../src/kernel/kernel.js';
import { SAVE_REGS, bootFtrace, directOps, makeOps, siteOf } from '../../helpers/ftrace.js';

const TARGET = 'bpf_fentry_test1';
const kernels = new Map<FtraceVersion, Kernel>();
afterAll(() => {
  for (const kernel of kernels.values()) kernel.close();
});

function kernelOf(version: FtraceVersion): Kernel {
  const kernel = kernels.get(version) ?? bootFtrace(embeddedFactory, version);
  kernels.set(version, kernel);
  return kernel;
}

/** `site bl ftrace_caller`, `literal ftrace_nop_ops`, `ftrace_call bl ftrace_stub`; test ops are a, b, c. */
function describeStore(kernel: Kernel, { kind, address, value }: FtraceStore): string {
  const opsName = (at: bigint): string => {
    const name = kernel.ftrace.opsAt(at)?.name ?? '?';
    return ops.has(name) ? (ops.get(name) as string) : name;
  };
  if (kind === 'ipi') return 'ipi';
  if (kind === 'function_trace_op') return `function_trace_op ${opsName(value)}`;
  if (kind === 'literal') return `literal ${opsName(value)}`;
  if (kind === 'list')
    return address === kernel.ftrace.listHead ? `list ${opsName(value)}` : 'next';
  const place = address === siteOf(kernel, TARGET) ? 'site' : 'ftrace_call';
  const word = Number(value);
  if (word === 0xd503201f) return `${place} nop`;
  const to = address + BigInt.asIntN(28, BigInt(word & 0x3ff_ffff) << 2n);
  const symbol = kernel.symbols.lookup(to)?.name ?? '?';
  return `${place} bl ${ops.get(symbol.replace(/_func$/, '')) ?? symbol.replace('arch_', '')}`;
}

const ops = new Map<string, string>();

function storesOf(kernel: Kernel, action: () => void): string[] {
  const seen: string[] = [];
  kernel.ftrace.stores.onStore = (store) => seen.push(describeStore(kernel, store));
  action();
  kernel.ftrace.stores.onStore = undefined;
  return seen;
}

describe.each<{ version: FtraceVersion; isStatic: boolean; steps: readonly (readonly string[])[] }>(
  [
    {
      version: '6.12',
      isStatic: false,
      steps: [
        ['+a', 'next', 'list a', 'literal a', 'site bl ftrace_caller'],
        // the BL stays and is stored all the same
        ['+b', 'next', 'list b', 'literal ftrace_list_ops', 'site bl ftrace_caller'],
        ['-a', 'next', 'literal b', 'site bl ftrace_caller'],
        ['-b', 'list ftrace_list_end', 'literal ftrace_nop_ops', 'site nop'],
      ],
    },
    {
      version: '6.3',
      isStatic: false,
      steps: [
        ['+a', 'next', 'list a', 'literal a', 'site bl ftrace_caller'],
        ['+b', 'next', 'list b', 'literal ftrace_list_ops'],
        ['-a', 'next', 'literal b'],
        ['-b', 'list ftrace_list_end', 'literal ftrace_nop_ops', 'site nop'],
      ],
    },
    {
      version: '6.2',
      isStatic: true,
      steps: [
        [
          '+a',
          'next',
          'list a',
          'ftrace_call bl ftrace_ops_list_func',
          'site bl ftrace_caller',
          'function_trace_op a',
          'ipi',
          'ftrace_call bl a',
        ],
        ['+b', 'next', 'list b', 'ftrace_call bl ftrace_ops_list_func'],
        ['-a', 'next', 'function_trace_op b', 'ipi', 'ftrace_call bl b'],
        [
          '-b',
          'list ftrace_list_end',
          'ftrace_call bl ftrace_ops_list_func',
          'site nop',
          'function_trace_op ftrace_list_end',
          'ipi',
          'ftrace_call bl ftrace_stub',
        ],
      ],
    },
    {
      // ops that may be freed are always found by the list function
      version: '6.1',
      isStatic: false,
      steps: [
        ['+a', 'next', 'list a', 'ftrace_call bl ftrace_ops_list_func', 'site bl ftrace_caller'],
        ['+b', 'next', 'list b'],
        ['-a', 'next'],
        [
          '-b',
          'list ftrace_list_end',
          'site nop',
          'function_trace_op ftrace_list_end',
          'ipi',
          'ftrace_call bl ftrace_stub',
        ],
      ],
    },
  ],
)('$version, static ops $isStatic', ({ version, isStatic, steps }) => {
  it('stores in this order', () => {
    const kernel = kernelOf(version);
    const made = new Map(
      ['a', 'b'].map((name) => [name, makeOps(kernel, { targets: [TARGET], isStatic }).ops]),
    );
    for (const [name, each] of made) ops.set(each.name, name);
    for (const [step = '', ...stores] of steps) {
      const each = made.get(step.slice(1));
      if (!each) throw new RangeError(step);
      const action = step.startsWith('+') ? 'register' : 'unregister';
      expect([step, ...storesOf(kernel, () => kernel.ftrace[action](each))]).toEqual([
        step,
        ...stores,
      ]);
    }
  });
});

it('6.1 goes between its two callers', () => {
  const kernel = kernelOf('6.1');
  const plain = makeOps(kernel, { targets: [TARGET] }).ops;
  const regs = makeOps(kernel, { targets: [TARGET], flags: SAVE_REGS }).ops;
  kernel.ftrace.register(plain);
  const sites = (action: () => void): string[] =>
    storesOf(kernel, action).filter((store) => store.startsWith('site'));
  expect(sites(() => kernel.ftrace.register(regs))).toEqual(['site bl ftrace_regs_caller']);
  expect(sites(() => kernel.ftrace.unregister(regs))).toEqual(['site bl ftrace_caller']);
  kernel.ftrace.unregister(plain);
});

it('a direct target changes while a second ops keeps the site on the list', () => {
  const kernel = kernelOf('6.12');
  kernel.text.addWords('target_2', [0xd503245f, 0xaa1e03ea, 0xaa0903fe, 0xd65f0140]);
  const direct = directOps(kernel, TARGET);
  kernel.directCalls.register(direct, kernel.symbol('ftrace_stub_direct_tramp'));
  ops.set(direct.name, 'direct');
  expect(
    storesOf(kernel, () => kernel.directCalls.modify(direct, kernel.symbol('target_2'))),
  ).toEqual([
    'next',
    'list tmp_ops',
    'literal ftrace_list_ops',
    'site bl ftrace_caller',
    'list direct',
    'literal direct',
    'site bl target_2',
  ]);
  kernel.directCalls.unregister(direct);
});

describe('ftrace bug', () => {
  it.each<{ version: FtraceVersion }>([{ version: '6.12' }, { version: '6.1' }])(
    '$version: an unexpected word at the site disables ftrace for good',
    ({ version }) => {
      const kernel = bootFtrace(embeddedFactory, version);
      const other = makeOps(kernel, { targets: ['bpf_fentry_test2'] });
      kernel.ftrace.register(other.ops);
      const ip = siteOf(kernel, TARGET);
      kernel.memory.pokeBytes(ip, new Uint8Array(4));
      const { ops: broken } = makeOps(kernel, { targets: [TARGET] });
      const expected = `-ENODEV: ftrace is disabled after a bug at ${TARGET} (-EINVAL: `;
      expect(() => kernel.ftrace.register(broken)).toThrow(expected);
      expect(kernel.log.join('\n')).toContain('ftrace failed to modify');
      // what was registered before stays as it is
      kernel.call('bpf_fentry_test2', 1n, 2n);
      expect(other.count()).toBe(1);
      expect(kernel.ftrace.list()).toEqual([other.ops]);
      const later = makeOps(kernel).ops;
      expect(() => kernel.ftrace.register(later)).toThrow('-ENODEV');
      expect(() => kernel.ftrace.unregister(other.ops)).toThrow('-ENODEV');
      expect(() => kernel.ftrace.setFilter(later, TARGET)).toThrow('-ENODEV');
      kernel.close();
    },
  );
});

/**
 * Function graph: returns are seen whatever else is on the function, and everybody returns where they came from.
 */
import { describe, expect, it } from 'vitest';
import type { GraphOps } from '../../../src/kernel/ftrace/graph.js';
import { call } from '../../../src/kernel/function.js';
import type { Kernel } from '../../../src/kernel/kernel.js';
import { TASK_STRUCT } from '../../../src/kernel/offsets.js';
import { FunctionGraphTracer } from '../../../src/kernel/trace/function-graph-tracer.js';
import { attachScenario } from '../../../src/lab/scenario.js';
import { tracedCall } from '../../../src/lab/traced-call.js';
import { bootLab } from '../../../src/node/boot.js';
import { factories } from '../../helpers/cpus.js';

const TARGET = 'bpf_fentry_test1';
const engines = factories.map(({ name }) => name);

/** A user that keeps `enter N` and `return N` by its name. */
function recorder(name: string, log: string[], kernel: Kernel, functions: string[]): GraphOps {
  const sites = functions.map((fn) => kernel.symbol(fn) + 4n);
  const nameOf = (ip: bigint): string => kernel.symbols.lookup(ip)?.name ?? '?';
  return {
    name,
    filter: new Set(sites),
    entry: (_kernel, { ip, depth }) => log.push(`${name}: enter ${nameOf(ip)} at ${depth}`) > 0,
    return: (_kernel, { ip, depth }) => void log.push(`${name}: return ${nameOf(ip)} at ${depth}`),
  };
}

describe.each(engines)('on %s', (engine) => {
  it.each([
    { name: 'nothing', scenario: {} },
    { name: 'fentry', scenario: { fentry: 1 } },
    { name: 'fexit', scenario: { fexit: 1 } },
    { name: 'fentry, fmod_ret and fexit', scenario: { fentry: 1, fmod_ret: 1, fexit: 1 } },
    { name: 'an ops', scenario: { ops: 1 } },
  ])('follows a function that has $name', async ({ scenario }) => {
    const kernel = await bootLab({ engine });
    const graph = new FunctionGraphTracer(kernel);
    const attached = attachScenario(kernel, TARGET, scenario);
    graph.start([TARGET]);
    const { result, counts } = tracedCall(kernel, TARGET, 41n);
    graph.stop();
    attached.detach();
    expect(result).toBe(42n);
    expect(counts.get('return_to_handler')).toBe(15);
    expect(graph.records.map(({ kind, depth }) => [kind, depth])).toEqual([
      ['entry', 0],
      ['return', 0],
    ]);
    expect(kernel.ftrace.list()).toEqual([]);
    expect(kernel.siteIsOff(kernel.symbol(TARGET))).toBe(true);
    kernel.close();
  });

  it.each(['6.1', '6.2', '6.3', 'v5'] as const)(
    'returns by the frame pointer in %s',
    async (ftrace) => {
      const kernel = await bootLab({ engine, version: '6.1', ftrace });
      const graph = new FunctionGraphTracer(kernel);
      graph.start([TARGET]);
      const { result, counts } = tracedCall(kernel, TARGET, 1n);
      expect([result, counts.get('return_to_handler')]).toEqual([2n, 14]);
      expect(graph.records).toHaveLength(2);
      kernel.close();
    },
  );

  it('calls a direct trampoline that only returns, and is told of the return', async () => {
    const kernel = await bootLab({ engine });
    const ip = kernel.ftrace.location(kernel.symbol(TARGET)) ?? 0n;
    const address = kernel.kmalloc(kernel.ftrace.profile.ops.size);
    const ops = kernel.ftrace.createOps('direct', address, 0n);
    kernel.ftrace.setFilterIp(ops, ip, false);
    kernel.directCalls.register(ops, kernel.symbol('ftrace_stub_direct_tramp'));
    const graph = new FunctionGraphTracer(kernel);
    graph.start([TARGET]);
    const { result, counts } = tracedCall(kernel, TARGET, 5n);
    expect(result).toBe(6n);
    expect(counts.get('ftrace_stub_direct_tramp')).toBe(4);
    expect(graph.records).toHaveLength(2);
    kernel.close();
  });
});

it('shows calls in one another', async () => {
  const kernel = await bootLab();
  kernel.define({
    name: 'outer',
    prototype: 'u64 outer(u64 a)',
    parameters: 1,
    body: function* (_kernel, a: bigint) {
      return (yield* call(TARGET, a)) + (yield* call('bpf_fentry_test2', a, a));
    },
  });
  const graph = new FunctionGraphTracer(kernel);
  graph.start();
  expect(kernel.call('outer', 3n)).toBe(10n);
  graph.stop();
  const shown = graph.lines().map((line) => line.replace(/\d+ insns/, 'N insns'));
  expect(shown.slice(2).map((line) => line.slice(line.indexOf('|') + 3))).toEqual([
    'outer() {',
    `  ${TARGET}();`,
    '  bpf_fentry_test2();',
    '}',
  ]);
  kernel.close();
});

describe('users', () => {
  it('share graph_ops, whose filter is the union of theirs', async () => {
    const kernel = await bootLab();
    const log: string[] = [];
    const a = recorder('a', log, kernel, [TARGET]);
    const b = recorder('b', log, kernel, [TARGET, 'bpf_fentry_test2']);
    kernel.graph.register(a);
    kernel.graph.register(b);
    expect(kernel.graph.ops.filter.size).toBe(2);
    kernel.call(TARGET, 1n);
    kernel.graph.unregister(b);
    expect(kernel.graph.ops.filter.size).toBe(1);
    kernel.call('bpf_fentry_test2', 1n, 1n);
    kernel.graph.unregister(a);
    expect(log).toEqual([
      `a: enter ${TARGET} at 0`,
      `b: enter ${TARGET} at 0`,
      `a: return ${TARGET} at 0`,
      `b: return ${TARGET} at 0`,
    ]);
    kernel.close();
  });

  it.each([
    { version: '6.1' as const, most: 1, errno: 'EBUSY' },
    { version: '6.12' as const, most: 16, errno: 'ENOSPC' },
  ])('are $most in $version', async ({ version, most, errno }) => {
    const kernel = await bootLab({ version });
    for (let i = 0; i < most; i++) kernel.graph.register(recorder(`${i}`, [], kernel, [TARGET]));
    expect(() => kernel.graph.register(recorder('more', [], kernel, [TARGET]))).toThrow(errno);
    kernel.close();
  });

  it('that do not care for the return leave it alone; a paused task is not followed', async () => {
    const kernel = await bootLab();
    kernel.graph.register({ ...recorder('no', [], kernel, [TARGET]), entry: () => false });
    expect(tracedCall(kernel, TARGET, 1n).counts.has('return_to_handler')).toBe(false);
    const log: string[] = [];
    kernel.graph.register(recorder('paused', log, kernel, [TARGET]));
    kernel.graph.pause(kernel, 1);
    kernel.call(TARGET, 1n);
    kernel.graph.pause(kernel, -1);
    expect(log).toEqual([]);
    kernel.close();
  });
});

it('panics when the frame pointer is another one at the return', async () => {
  const kernel = await bootLab();
  kernel.define({
    name: 'breaker',
    prototype: 'void breaker(void)',
    parameters: 0,
    body: ({ memory, current }) => {
      const stack = memory.read64(current + BigInt(TASK_STRUCT.ret_stack));
      memory.write64(stack + 16n, 0x1234n);
    },
  });
  new FunctionGraphTracer(kernel).start(['breaker']);
  expect(() => kernel.call('breaker')).toThrow('panic');
  expect(kernel.log.join('\n')).toContain('Bad frame pointer: expected 1234');
  kernel.close();
});

/**
 * Tracing programs and ftrace ops on kernel functions, on every engine: results, paths, executed counts,
 * errors. Expected values: the kernel's own selftests (net/bpf/test_run.c, bpf selftests).
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { assemble } from '../../src/bpf/assemble.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import { reachable } from '../../src/a64/immediates.js';
import { KernelOops } from '../../src/kernel/executor.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import type { LinkKind } from '../../src/kernel/bpf/trampoline.js';
import type { KernelProgram } from '../../src/kernel/bpf/program.js';
import { attachScenario } from '../../src/lab/scenario.js';
import { countPath } from '../../src/lab/path-counts.js';
import { tracedCall } from '../../src/lab/traced-call.js';
import { bootLab } from '../../src/node/boot.js';
import { factories } from '../helpers/cpus.js';

const FAR = 128 << 20;

/** A tracing program that stores ctx[0..count-1] at `to` and returns `result`. */
function recorder(kernel: Kernel, to: bigint, count: number, result = 0): KernelProgram {
  const lines = [`r2 = 0x${to.toString(16)} ll`];
  for (let i = 0; i < count; i++) {
    lines.push(`r3 = *(u64 *)(r1 + ${8 * i})`, `*(u64 *)(r2 + ${8 * i}) = r3`);
  }
  lines.push(`r0 = ${result}`, 'exit');
  const insns = assemble(lines.join('\n'));
  return kernel.bpf.load(rawProgram('recorder', insns, { type: 'tracing', stackDepth: 0 }));
}

function siteWords(kernel: Kernel, name: string): string {
  const address = kernel.symbol(name);
  const words = [-8n, -4n, 0n, 4n].map((at) => kernel.memory.read32(address + at).toString(16));
  return words.join(' ');
}

describe.each(factories.map(({ name }) => name))('on %s', (engine) => {
  let near: Kernel;
  let far: Kernel;
  beforeAll(async () => {
    near = await bootLab({ engine });
    far = await bootLab({ engine, vmallocUsed: FAR });
  });
  afterAll(() => {
    near.close();
    far.close();
  });

  it.each<[string, bigint[], bigint]>([
    ['bpf_fentry_test1', [1n], 2n],
    ['bpf_fentry_test2', [2n, 3n], 5n],
    ['bpf_fentry_test3', [4n, 5n, 6n], 15n],
    ['bpf_fentry_test4', [7n, 8n, 9n, 10n], 34n],
    ['bpf_fentry_test5', [11n, 12n, 13n, 14n, 15n], 65n],
    ['bpf_fentry_test6', [16n, 17n, 18n, 19n, 20n, 21n], 111n],
    ['bpf_fentry_test7', [0n], 0n],
  ])('%s returns what test_run.c says, traced or not', (name, args, result) => {
    expect(near.call(name, ...args)).toBe(result);
    for (const kernel of [near, far]) {
      const seen = kernel.kmalloc(128);
      const entry = recorder(kernel, seen, args.length);
      const exit = recorder(kernel, seen + 64n, args.length + 1);
      const first = kernel.bpf.attach(entry, 'fentry', name);
      const second = kernel.bpf.attach(exit, 'fexit', name);
      expect(kernel.call(name, ...args)).toBe(result);
      const values = (at: bigint, count: number): bigint[] =>
        Array.from({ length: count }, (_, i) => kernel.memory.read64(at + BigInt(8 * i)));
      expect(values(seen, args.length)).toEqual(args);
      expect(values(seen + 64n, args.length + 1)).toEqual([...args, result]);
      first.detach();
      second.detach();
      entry.free();
      exit.free();
      kernel.kfree(seen);
    }
  });

  it('bpf_modify_return_test changes *b, unless fmod_ret answers for it', () => {
    const b = near.kmalloc(8);
    const call = (): bigint => {
      near.memory.write32(b, 2);
      return near.call('bpf_modify_return_test', 1n, b);
    };
    expect(call()).toBe(4n);
    expect(near.memory.read32(b)).toBe(3);
    const lets = recorder(near, b, 0, 0);
    const answers = recorder(near, b, 0, -22);
    const letsThrough = near.bpf.attach(lets, 'fmod_ret', 'bpf_modify_return_test');
    expect(call()).toBe(4n);
    letsThrough.detach();
    const replaces = near.bpf.attach(answers, 'fmod_ret', 'bpf_modify_return_test');
    expect(BigInt.asIntN(32, call())).toBe(-22n);
    expect(near.memory.read32(b)).toBe(2);
    replaces.detach();
    lets.free();
    answers.free();
    expect(call()).toBe(4n);
  });

  it('bpf_modify_return_test2(1, &2, 3, 4, 5, 6, 7) returns 29', () => {
    const b = near.kmalloc(8);
    near.memory.write32(b, 2);
    expect(near.call('bpf_modify_return_test2', 1n, b, 3n, 4n, 5n, 6n, 7n)).toBe(29n);
  });

  describe('the way to the program', () => {
    it.each<[string, 'near' | 'far', { fentry?: number; ops?: number }, number]>([
      ['bl image', 'near', { fentry: 1 }, 0],
      ['ftrace_caller, early', 'far', { fentry: 1 }, 6],
      ['ftrace_caller, late, in range', 'near', { fentry: 1, ops: 1 }, 39],
      ['ftrace_caller, late, out of range', 'far', { fentry: 1, ops: 1 }, 39],
      ['an ops alone', 'near', { ops: 1 }, 39],
    ])('%s (%s): %o', (_name, place, scenario, ftraceCaller) => {
      const kernel = place === 'near' ? near : far;
      const attached = attachScenario(kernel, 'bpf_fentry_test1', scenario);
      const { result, counts } = tracedCall(kernel, 'bpf_fentry_test1', 1n);
      const late = counts.get('ftrace_caller_direct_late') ?? 0;
      const direct = counts.get('ftrace_caller_direct') ?? 0;
      expect(result).toBe(2n);
      expect((counts.get('ftrace_caller') ?? 0) + late + direct).toBe(ftraceCaller);
      attached.detach();
    });

    it('saves nothing before an early direct call', () => {
      const attached = attachScenario(far, 'bpf_fentry_test1', { fentry: 1 });
      const { entries } = tracedCall(far, 'bpf_fentry_test1', 1n);
      const inCaller = entries.slice(2, 8);
      expect(
        inCaller.every(({ changes }) =>
          changes.every(({ register }) => register >= 11 && register <= 17),
        ),
      ).toBe(true);
      attached.detach();
    });

    it('counts are those of a booted 6.12: 34 trampoline instructions for one fentry', () => {
      const attached = attachScenario(near, 'bpf_fentry_test1', { fentry: 1 });
      const { entries } = tracedCall(near, 'bpf_fentry_test1', 1n);
      expect(countPath(near, 'bpf_fentry_test1', entries)).toMatchObject({
        function: 4,
        ftrace: 0,
      });
      expect(countPath(near, 'bpf_fentry_test1', entries).trampoline).toBe(34);
      attached.detach();
    });
  });

  it.each(['near', 'far'] as const)('detaching restores the site byte for byte (%s)', (place) => {
    const kernel = place === 'near' ? near : far;
    const before = siteWords(kernel, 'bpf_fentry_test2');
    const images = kernel.bpf.images.liveImages;
    const bytes = kernel.linear.liveBytes;
    const attached = attachScenario(kernel, 'bpf_fentry_test2', { fentry: 2, fexit: 1, ops: 2 });
    expect(siteWords(kernel, 'bpf_fentry_test2')).not.toBe(before);
    attached.detach();
    expect(siteWords(kernel, 'bpf_fentry_test2')).toBe(before);
    expect(kernel.bpf.images.liveImages).toBe(images);
    expect(kernel.linear.liveBytes).toBeGreaterThanOrEqual(bytes);
  });

  it('the sites read as a coexistence table', () => {
    const site = (kernel: Kernel): { bl: string; literal: string } => {
      const address = kernel.symbol('bpf_fentry_test1');
      const word = kernel.memory.read32(address + 4n);
      const offset = BigInt.asIntN(26, BigInt(word & 0x3ffffff)) * 4n;
      const literal = kernel.memory.read64(address - 8n);
      return {
        bl:
          word >>> 26 === 0x25
            ? (kernel.symbols.lookup(address + 4n + offset)?.name ?? '?')
            : 'nop',
        literal: kernel.symbols.lookup(literal)?.name ?? kernel.ftrace.opsAt(literal)?.name ?? '?',
      };
    };
    const look = (kernel: Kernel, scenario: Parameters<typeof attachScenario>[2]): object => {
      const attached = attachScenario(kernel, 'bpf_fentry_test1', scenario);
      const seen = site(kernel);
      attached.detach();
      return { bl: seen.bl.replace(/\d+$/, 'N'), literal: seen.literal.replace(/\d+/, 'N') };
    };
    expect(look(near, { fentry: 1 })).toEqual({
      bl: 'bpf_trampoline_N',
      literal: 'bpf_trampoline_N.fops',
    });
    expect(look(far, { fentry: 1 })).toEqual({
      bl: 'ftrace_caller',
      literal: 'bpf_trampoline_N.fops',
    });
    expect(look(near, { fentry: 1, ops: 1 })).toEqual({
      bl: 'ftrace_caller',
      literal: 'ftrace_list_ops',
    });
    expect(look(near, { ops: 1 })).toEqual({ bl: 'ftrace_caller', literal: 'lab_ops_N' });
    expect(look(near, { ops: 1, assist: true })).toEqual({
      bl: 'ftrace_caller',
      literal: 'ftrace_list_ops',
    });
    expect(look(near, { ops: 2 })).toEqual({ bl: 'ftrace_caller', literal: 'ftrace_list_ops' });
    expect(site(near)).toEqual({ bl: 'nop', literal: 'ftrace_nop_ops' });
  });

  it('the images are in and out of range as asked for', () => {
    for (const [kernel, inRange] of [
      [near, true],
      [far, false],
    ] as const) {
      const attached = attachScenario(kernel, 'bpf_fentry_test1', { fentry: 1 });
      const image = attached.attachments[0]?.trampoline.image;
      const ip = kernel.symbol('bpf_fentry_test1') + 4n;
      expect(reachable(ip, image?.code.base ?? 0n)).toBe(inRange);
      attached.detach();
    }
  });

  describe('is refused', () => {
    const refuse = (
      kernel: Kernel,
      kind: LinkKind,
      target: string,
      twice = false,
    ): (() => void) => {
      const program = recorder(kernel, kernel.kmalloc(8), 0);
      return () => {
        const attached = kernel.bpf.attach(program, kind, target);
        try {
          if (twice) kernel.bpf.attach(program, kind, target);
        } finally {
          attached.detach();
        }
      };
    };
    it.each<[string, string, boolean, string]>([
      ['an unknown function', 'no_such_function', false, 'no symbol no_such_function'],
      ['a function without patch site', '__bpf_prog_enter_recur', false, '-ENOTSUPP'],
      ['code without prototype', 'ftrace_caller', false, '-EINVAL'],
      ['the same program twice', 'bpf_fentry_test1', true, '-EBUSY'],
    ])('%s', (_name, target, twice, message) => {
      const before = siteWords(near, 'bpf_fentry_test1');
      expect(refuse(near, 'fentry', target, twice)).toThrow(message);
      expect(siteWords(near, 'bpf_fentry_test1')).toBe(before);
    });

    it('the 39th program: -E2BIG, and the 38 stay', () => {
      const attached = attachScenario(near, 'bpf_fentry_test1', { fentry: 20, fexit: 18 });
      const one = recorder(near, near.kmalloc(8), 0);
      expect(() => near.bpf.attach(one, 'fentry', 'bpf_fentry_test1')).toThrow('-E2BIG');
      expect(near.call('bpf_fentry_test1', 1n)).toBe(2n);
      attached.detach();
      one.free();
    });

    it('a second direct call on the site: -EBUSY', () => {
      const attached = attachScenario(near, 'bpf_fentry_test1', { fentry: 1 });
      const ip = near.symbol('bpf_fentry_test1') + 4n;
      const ops = near.ftrace.createOps('second', near.kmalloc(216), 0n);
      near.ftrace.setFilterIp(ops, ip, false);
      expect(() => near.directCalls.register(ops, near.symbol('ftrace_stub_direct_tramp'))).toThrow(
        '-EBUSY',
      );
      attached.detach();
    });
  });

  it('a fault in a called function is an oops with the call trace', () => {
    expect(() => near.call('bpf_fentry_test8', 0xdead000000000000n)).toThrow(KernelOops);
    expect(() => near.call('bpf_fentry_test8', 0xdead000000000000n)).toThrow(
      'bpf_fentry_test8+0x8',
    );
  });

  it('counts a recursion miss and goes on', () => {
    const name = 'lab_recursing';
    if (!near.symbols.find(name)) {
      near.define({
        name,
        prototype: `int ${name}(int depth)`,
        parameters: 1,
        body: (_k, depth) => depth,
      });
    }
    const seen = near.kmalloc(8);
    const program = recorder(near, seen, 1);
    const attachment = near.bpf.attach(program, 'fentry', name);
    const active = near.memory.read64(program.address + 40n);
    near.memory.write32(active, 1);
    expect(near.call(name, 7n)).toBe(7n);
    expect(near.memory.read64(seen)).toBe(0n);
    expect(program.misses).toBe(1n);
    near.memory.write32(active, 0);
    expect(near.call(name, 7n)).toBe(7n);
    expect(near.memory.read64(seen)).toBe(7n);
    attachment.detach();
    program.free();
  });
});

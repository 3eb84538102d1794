/**
 * What runs around programs: enter and exit by kind of program, statistics, recursion, cookies, what the
 * tracing helpers see. Expected values: kernel/bpf/trampoline.c and the selftests recursion, get_func_args,
 * get_func_ip, bpf_cookie, modify_return.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { AttachKind } from '../../src/kernel/bpf/attach-check.js';
import type { Attachment } from '../../src/kernel/bpf/bpf.js';
import type { KernelProgram, LoadProgramOptions } from '../../src/kernel/bpf/program.js';
import { call } from '../../src/kernel/function.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { tracedCall } from '../../src/lab/traced-call.js';
import { bootLab } from '../../src/node/boot.js';
import { factories } from '../helpers/cpus.js';
import { counter, inUse, recorder, textProgram } from '../helpers/tracing.js';

describe.each(factories.map(({ name }) => name))('on %s', (engine) => {
  let kernel: Kernel;
  let before: object;
  let seen: bigint;
  let undo: (() => void)[] = [];
  const read = (n: number): bigint => kernel.memory.read64(seen + BigInt(8 * n));
  const attach = (
    program: KernelProgram,
    kind: AttachKind,
    target: string,
    cookie?: bigint,
  ): Attachment => {
    const attachment = kernel.bpf.attach(program, kind, target, cookie);
    undo.push(() => {
      attachment.detach();
      program.free();
    });
    return attachment;
  };

  beforeAll(async () => {
    kernel = await bootLab({ engine });
    kernel.define(
      {
        name: 'bpf_lsm_lab_void',
        prototype: 'void bpf_lsm_lab_void(int a)',
        parameters: 1,
        body: () => undefined,
      },
      {
        name: 'bpf_lsm_lab_int',
        prototype: 'int bpf_lsm_lab_int(int a)',
        parameters: 1,
        body: () => 0n,
      },
      {
        name: 'lab_outer_hook',
        prototype: 'int lab_outer_hook(int a)',
        parameters: 1,
        *body(_kernel, a) {
          return yield* call('bpf_lsm_lab_int', a ?? 0n);
        },
      },
      {
        name: 'lab_outer',
        prototype: 'int lab_outer(int a)',
        parameters: 1,
        *body(_kernel, a) {
          return yield* call('bpf_fentry_test1', a ?? 0n);
        },
      },
    );
    kernel.call('bpf_fentry_test1', 1n);
  });
  afterAll(() => kernel.close());
  beforeEach(() => {
    seen = kernel.kmalloc(256);
    before = inUse(kernel);
  });
  afterEach(() => {
    for (const step of undo.reverse()) step();
    undo = [];
    expect(inUse(kernel)).toEqual(before);
    kernel.kfree(seen);
    kernel.bpf.statsEnabled = false;
  });

  it.each<[AttachKind, LoadProgramOptions, string, string]>([
    ['fentry', {}, 'bpf_fentry_test1', '_recur'],
    ['fexit', { sleepable: true }, 'bpf_fentry_test1', '_sleepable_recur'],
    ['lsm', { lsm: 'mac' }, 'bpf_lsm_task_alloc', ''],
    ['lsm', { lsm: 'mac', sleepable: true }, 'bpf_lsm_task_alloc', '_sleepable'],
    ['lsm', { lsm: 'cgroup' }, 'bpf_lsm_lab_void', '_lsm_cgroup'],
  ])('%s %o on %s: __bpf_prog_enter%s and exit', (kind, options, target, suffix) => {
    const attached = attach(counter(kernel, seen, options), kind, target);
    const { counts } = tracedCall(kernel, target, 1n);
    const called = [...counts.keys()].filter((name) => name.startsWith('__bpf_prog_'));
    expect(called).toEqual([`__bpf_prog_enter${suffix}`, `__bpf_prog_exit${suffix}`]);
    expect(read(0)).toBe(1n);
    const [link] = attached.trampoline.links;
    const hook = target === 'bpf_lsm_lab_void' ? 'fexit' : 'fmod_ret';
    expect(link?.kind).toBe(kind === 'lsm' ? hook : kind);
  });

  it('keeps statistics while kernel.bpf_stats_enabled is set', () => {
    const program = counter(kernel, seen);
    const shim = counter(kernel, seen, { lsm: 'cgroup' });
    attach(program, 'fexit', 'bpf_fentry_test1');
    attach(shim, 'lsm', 'bpf_lsm_lab_void');
    kernel.call('bpf_fentry_test1', 1n);
    expect(program.stats).toEqual({ runs: 0n, nanoseconds: 0n, misses: 0n });
    kernel.bpf.statsEnabled = true;
    for (let i = 0; i < 3; i++) kernel.call('bpf_fentry_test1', 1n);
    kernel.call('bpf_lsm_lab_void', 1n);
    // the clock of the lab goes on 1000 ns from one reading to the next
    expect(program.stats).toEqual({ runs: 3n, nanoseconds: 3000n, misses: 0n });
    expect(shim.stats.runs).toBe(0n);
    kernel.bpf.statsEnabled = false;
    kernel.call('bpf_fentry_test1', 1n);
    expect(program.stats.runs).toBe(3n);
  });

  describe('recursion', () => {
    /** Calls bpf_fentry_test1 from inside: the lab's function is what a helper would be. */
    const calling = (options: LoadProgramOptions = {}, outer = 'lab_outer'): KernelProgram => {
      const target = kernel.symbol(outer) - kernel.bpf.host.callBase;
      const lines = [
        `r6 = 0x${seen.toString(16)} ll`,
        'r1 = *(u64 *)(r6 + 0)\nr1 += 1\n*(u64 *)(r6 + 0) = r1',
        'if r1 > 3 goto out',
        `r1 = 5\ncall ${target}`,
        '*(u64 *)(r6 + 8) = r0',
        'out:\nr0 = 0\nexit',
      ];
      return textProgram(kernel, lines.join('\n'), options);
    };

    it('a program that gets to itself is skipped and counted as a miss', () => {
      const program = calling();
      attach(program, 'fentry', 'bpf_fentry_test1');
      kernel.bpf.statsEnabled = true;
      expect(kernel.call('bpf_fentry_test1', 1n)).toBe(2n);
      expect(kernel.call('bpf_fentry_test1', 2n)).toBe(3n);
      expect([read(0), read(1)]).toEqual([2n, 6n]);
      expect(program.stats).toMatchObject({ runs: 2n, misses: 2n });
    });

    it('in fmod_ret the slot keeps what was there: the skipped one does not answer', () => {
      const program = calling();
      attach(program, 'fmod_ret', 'bpf_fentry_test1');
      expect(kernel.call('bpf_fentry_test1', 1n)).toBe(2n);
      expect([read(0), read(1), program.misses]).toEqual([1n, 6n, 1n]);
    });

    it('an LSM program is not guarded', () => {
      attach(calling({ lsm: 'mac' }, 'lab_outer_hook'), 'lsm', 'bpf_lsm_lab_int');
      expect(kernel.call('bpf_lsm_lab_int', 1n)).toBe(0n);
      expect(read(0)).toBe(4n);
    });

    it('another program on the way is not skipped', () => {
      const outer = calling();
      const inner = counter(kernel, seen + 16n);
      attach(outer, 'fentry', 'bpf_fentry_test1');
      attach(inner, 'fexit', 'bpf_fentry_test1');
      kernel.call('bpf_fentry_test1', 1n);
      expect([read(0), read(2), inner.misses]).toEqual([1n, 2n, 0n]);
    });
  });

  it('each link has its own cookie, and a call inside does not lose it', () => {
    const cookie = (to: number): KernelProgram =>
      textProgram(
        kernel,
        `r6 = 0x${(seen + BigInt(to)).toString(16)} ll\ncall 174\n*(u64 *)(r6 + 0) = r0\nr0 = 0\nexit`,
      );
    attach(cookie(0), 'fentry', 'bpf_fentry_test1', 0x10000000000000n);
    attach(cookie(8), 'fexit', 'bpf_fentry_test1', 0x20000000000000n);
    attach(cookie(16), 'fmod_ret', 'bpf_fentry_test1', 0x3000000000000000n);
    attach(cookie(24), 'fexit', 'bpf_fentry_test1');
    attach(cookie(32), 'fentry', 'lab_outer', 0xfn);
    kernel.call('lab_outer', 1n);
    expect([0, 1, 2, 3, 4].map(read)).toEqual([
      0x10000000000000n,
      0x20000000000000n,
      0x3000000000000000n,
      0n,
      0xfn,
    ]);
  });

  it('the function address is the symbol, in every kind, and only asked for is it stored', () => {
    const ip = (to: number): KernelProgram =>
      textProgram(
        kernel,
        `r0 = *(u64 *)(r1 - 16)\nr6 = 0x${(seen + BigInt(to)).toString(16)} ll\n*(u64 *)(r6 + 0) = r0\nr0 = 0\nexit`,
      );
    const plain = attach(counter(kernel, seen + 64n), 'fentry', 'bpf_fentry_test1');
    expect(plain.trampoline.image?.code.frame.ip).toBeUndefined();
    for (const [i, kind] of (['fentry', 'fmod_ret', 'fexit'] as const).entries()) {
      attach(ip(8 * i), kind, 'bpf_fentry_test1');
    }
    expect(plain.trampoline.image?.code.frame.ip).toBe(16);
    kernel.call('bpf_fentry_test1', 1n, 2n);
    expect([0, 1, 2].map(read)).toEqual([0, 1, 2].map(() => kernel.symbol('bpf_fentry_test1')));
  });

  it('arguments, count and result by helper calls', () => {
    const text = [
      `r6 = 0x${seen.toString(16)} ll`,
      'r7 = r1',
      'call 185\n*(u64 *)(r6 + 0) = r0',
      'r1 = r7\nr2 = 1\nr3 = r6\nr3 += 8\ncall 183\n*(u64 *)(r6 + 16) = r0',
      'r1 = r7\nr2 = 2\nr3 = r6\nr3 += 24\ncall 183\n*(u64 *)(r6 + 32) = r0',
      'r1 = r7\nr2 = r6\nr2 += 40\ncall 184\n*(u64 *)(r6 + 48) = r0',
      'r0 = 0\nexit',
    ];
    attach(textProgram(kernel, text.join('\n')), 'fexit', 'bpf_fentry_test2');
    kernel.call('bpf_fentry_test2', 2n, 3n);
    const einval = BigInt.asUintN(64, -22n);
    expect([0, 1, 2, 3, 4, 5, 6].map(read)).toEqual([2n, 3n, 0n, 0n, einval, 5n, 0n]);
  });

  it('most recent first within each kind; the kinds in their order', () => {
    const order = (n: number): KernelProgram =>
      textProgram(
        kernel,
        [
          `r2 = 0x${seen.toString(16)} ll`,
          'r3 = *(u64 *)(r2 + 0)',
          'r3 <<= 4',
          `r3 |= ${n}`,
          '*(u64 *)(r2 + 0) = r3',
          'r0 = 0',
          'exit',
        ].join('\n'),
      );
    const kinds = ['fexit', 'fentry', 'fmod_ret', 'fentry', 'fexit', 'fmod_ret'] as const;
    for (const [i, kind] of kinds.entries()) attach(order(i + 1), kind, 'bpf_fentry_test1');
    kernel.call('bpf_fentry_test1', 1n);
    expect(read(0)).toBe(0x426351n);
  });

  it('modify_return: fmod_ret sees 0, its answer is what fexit sees and the caller gets', () => {
    const b = kernel.kmalloc(8);
    undo.unshift(() => kernel.kfree(b));
    for (const [input, result, side] of [
      [0, 4n, 3],
      [-22, -22n, 2],
    ] as const) {
      kernel.memory.write32(b, 2);
      const entry = recorder(kernel, seen, 2);
      const modify = recorder(kernel, seen + 16n, 3, { result: input });
      const exit = recorder(kernel, seen + 40n, 3);
      const links = [
        kernel.bpf.attach(entry, 'fentry', 'bpf_modify_return_test'),
        kernel.bpf.attach(modify, 'fmod_ret', 'bpf_modify_return_test'),
        kernel.bpf.attach(exit, 'fexit', 'bpf_modify_return_test'),
      ];
      expect(BigInt.asIntN(32, kernel.call('bpf_modify_return_test', 1n, b))).toBe(result);
      expect(kernel.memory.read32(b)).toBe(side);
      expect([2, 3, 4].map(read)).toEqual([1n, b, 0n]);
      expect([5, 6].map(read)).toEqual([1n, b]);
      expect(BigInt.asIntN(32, read(7))).toBe(result);
      for (const link of links) link.detach();
      for (const program of [entry, modify, exit]) program.free();
    }
  });

  it('38 links over all kinds run; the 39th is refused and leaves all as it was', () => {
    const kinds = ['fentry', 'fmod_ret', 'fexit'] as const;
    let last: Attachment | undefined;
    for (let i = 0; i < 38; i++) {
      last = attach(counter(kernel, seen), kinds[i % 3] ?? 'fentry', 'bpf_fentry_test1');
    }
    const image = last?.trampoline.image;
    const one = counter(kernel, seen);
    for (const kind of kinds) {
      expect(() => kernel.bpf.attach(one, kind, 'bpf_fentry_test1')).toThrow(
        '-E2BIG: bpf_fentry_test1 has 38 programs attached',
      );
    }
    one.free();
    expect(last?.trampoline.image).toBe(image);
    expect(kernel.call('bpf_fentry_test1', 1n)).toBe(2n);
    expect(read(0)).toBe(38n);
  });

  it('refuses kinds that do not fit the program, and leaves nothing behind', () => {
    const xdp = counter(kernel, seen, { type: 'xdp', name: 'xdp' });
    const plain = counter(kernel, seen, { name: 'plain' });
    const lsm = counter(kernel, seen, { lsm: 'mac', name: 'lsm' });
    const tries: [KernelProgram, AttachKind, string][] = [
      [xdp, 'fentry', '-EINVAL: xdp: a program of type xdp cannot be attached as fentry'],
      [plain, 'lsm', '-EINVAL: plain: lsm and a program that is no LSM program'],
      [lsm, 'fexit', '-EINVAL: lsm: fexit and a program that is an LSM program'],
      [xdp, 'freplace', '-EINVAL: xdp: freplace cannot replace kernel functions'],
    ];
    for (const [program, kind, message] of tries) {
      expect(() => kernel.bpf.attach(program, kind, 'bpf_fentry_test1')).toThrow(message);
    }
    for (const program of [xdp, plain, lsm]) program.free();
  });

  it('a program that calls what it replaces is skipped inside, and the slot keeps its zero there', () => {
    const { host } = kernel.bpf;
    const again = Number(kernel.symbol('bpf_fentry_test1') - host.callBase) >>> 0;
    const recursing = textProgram(
      kernel,
      `r6 = 0x${seen.toString(16)} ll
r1 = 40
call ${again}
*(u64 *)(r6 + 0) = r0
r0 = 7
exit`,
    );
    const attachment = attach(recursing, 'fmod_ret', 'bpf_fentry_test1');
    attach(counter(kernel, seen + 8n), 'fexit', 'bpf_fentry_test1');
    expect(kernel.call('bpf_fentry_test1', 1n)).toBe(7n);
    expect(read(0)).toBe(41n);
    // the inner call's original ran and its fexit program too
    expect(read(1)).toBe(2n);
    expect(attachment.program.stats.misses).toBe(1n);
  });
});

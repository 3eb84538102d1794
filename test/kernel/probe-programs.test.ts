/** kprobe programs: what they are given, where they are refused, and what they leave as it was. */
import { afterEach, describe, expect, it } from 'vitest';
import type { KernelProgram } from '../../src/kernel/bpf/program.js';
import type { Link } from '../../src/kernel/bpf/probe-programs.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { attachScenario } from '../../src/lab/scenario.js';
import { bootLab } from '../../src/node/boot.js';
import { factories } from '../helpers/cpus.js';
import { counter, recorder, textProgram, type TextProgramOptions } from '../helpers/tracing.js';

const TARGET = 'bpf_fentry_test6';
const ARGS = [16n, 17n, 18n, 19n, 20n, 21n];
const KPROBE = { type: 'kprobe' } as const;
const MULTI = { ...KPROBE, kprobeMulti: true };
/** x0 to x30, sp, pc, pstate, and what is behind them. */
const PT_REGS_WORDS = 42;
const SP = 31;
const PC = 32;
const PSTATE = 33;

let kernel: Kernel;
afterEach(() => kernel.close());

const words = (at: bigint, count: number): bigint[] =>
  Array.from({ length: count }, (_, i) => kernel.memory.read64(at + BigInt(8 * i)));

const nothing = (options: TextProgramOptions): KernelProgram =>
  textProgram(kernel, 'r0 = 0\nexit', options);

describe.each(factories.map(({ name }) => name))('on %s', (engine) => {
  it('reads the registers of the probed place, inside and at the return', async () => {
    kernel = await bootLab({ engine });
    const seen = kernel.kmalloc(8 * PT_REGS_WORDS);
    const program = recorder(kernel, seen, PT_REGS_WORDS, KPROBE);
    const address = kernel.symbol(TARGET);
    const cpuSp = { at: 0n };
    const look = { name: 'sp', address, pre: (cpu: { sp: bigint }) => void (cpuSp.at = cpu.sp) };
    kernel.kprobes.register(look);
    const lr = kernel.symbol('lab_return') + 4n;
    for (const [options, expected] of [
      [{}, { x0: 16n, lr, pc: address }],
      [{ offset: 8 }, { x0: 16n, lr, pc: address + 8n }],
      [{ retprobe: true }, { x0: 111n, lr: kernel.kretprobes.trampoline, pc: lr }],
    ] as const) {
      const link = kernel.bpf.attachKprobe(program, { function: TARGET, ...options });
      expect(kernel.call(TARGET, ...ARGS)).toBe(111n);
      const regs = words(seen, PT_REGS_WORDS);
      expect({ x0: regs[0], lr: regs[30], pc: regs[PC] }).toEqual(expected);
      expect([regs[SP], (regs[PSTATE] ?? 0n) & 0xfn]).toEqual([cpuSp.at, 5n]);
      expect(regs.slice(PSTATE + 1)).toEqual(Array.from({ length: 8 }, () => 0n));
      link.detach();
    }
    expect(kernel.call(TARGET, ...ARGS)).toBe(111n);
  });

  it('leaves all registers as they were', async () => {
    kernel = await bootLab({ engine });
    const address = kernel.symbol(TARGET) + 12n;
    const states: unknown[] = [];
    const look = {
      name: 'look',
      address,
      pre: (cpu: { saveRegisters(): unknown }) => void states.push(cpu.saveRegisters()),
    };
    kernel.kprobes.register(look);
    const clobber = [1, 2, 3, 4, 5].map((n) => `r${n} = -1`).join('\n');
    const program = textProgram(kernel, `${clobber}\nr0 = -1\nexit`, KPROBE);
    kernel.call(TARGET, ...ARGS);
    const link = kernel.bpf.attachKprobe(program, { function: TARGET, offset: 8 });
    kernel.call(TARGET, ...ARGS);
    expect(states[1]).toEqual(states[0]);
    link.detach();
  });

  it('goes with trampolines on the same function', async () => {
    kernel = await bootLab({ engine });
    const counts = kernel.kmalloc(16);
    const links = [false, true].map((retprobe, i) =>
      kernel.bpf.attachKprobe(counter(kernel, counts + BigInt(8 * i), KPROBE), {
        function: TARGET,
        retprobe,
      }),
    );
    const attached = attachScenario(kernel, TARGET, { fentry: 1, fexit: 1, ops: 1 });
    expect(kernel.call(TARGET, ...ARGS)).toBe(111n);
    attached.detach();
    for (const link of links) link.detach();
    expect(kernel.call(TARGET, ...ARGS)).toBe(111n);
    expect(words(counts, 2)).toEqual([1n, 1n]);
  });
});

describe('one at a time on a CPU', () => {
  // bpf_get_current_pid_tgid
  const CALLS_HELPER = 'call 14\nr0 = 0\nexit';
  const HELPER = 'bpf_get_current_pid_tgid';

  it('a kprobe that is hit by a handler is missed', async () => {
    kernel = await bootLab();
    const seen = kernel.kmalloc(8);
    kernel.bpf.attachKprobe(counter(kernel, seen, KPROBE), { function: HELPER });
    kernel.bpf.attachKprobe(textProgram(kernel, CALLS_HELPER, KPROBE), { function: TARGET });
    kernel.bpf.attachKprobe(textProgram(kernel, CALLS_HELPER, KPROBE), {
      function: TARGET,
      retprobe: true,
    });
    kernel.call(TARGET, ...ARGS);
    expect([kernel.memory.read64(seen), kernel.kprobes.missed]).toEqual([0n, 2]);
    kernel.call(HELPER);
    expect(kernel.memory.read64(seen)).toBe(1n);
  });

  const attach = (program: KernelProgram, name: string): Link =>
    program.kprobeMulti
      ? kernel.bpf.attachKprobeMulti(program, { functions: [name] })
      : kernel.bpf.attachKprobe(program, { function: name });

  it.each([
    ['kprobe_multi', 'kprobe', KPROBE, MULTI],
    ['kprobe', 'kprobe_multi', MULTI, KPROBE],
    ['kprobe_multi', 'kprobe_multi', MULTI, MULTI],
  ])('%s inside of %s is a miss', async (_inner, _outer, outer, inner) => {
    kernel = await bootLab({ version: '7.3' });
    const seen = kernel.kmalloc(8);
    const program = counter(kernel, seen, inner);
    attach(program, HELPER);
    attach(textProgram(kernel, CALLS_HELPER, outer), TARGET);
    kernel.call(TARGET, ...ARGS);
    expect([kernel.memory.read64(seen), program.stats.misses]).toEqual([0n, 1n]);
    kernel.call(HELPER);
    expect([kernel.memory.read64(seen), program.stats.misses]).toEqual([1n, 1n]);
  });
});

it('counts runs and time while statistics are on', async () => {
  kernel = await bootLab();
  const program = nothing(KPROBE);
  kernel.bpf.attachKprobe(program, { function: TARGET });
  kernel.call(TARGET, ...ARGS);
  expect(program.stats.runs).toBe(0n);
  kernel.bpf.statsEnabled = true;
  kernel.call(TARGET, ...ARGS);
  expect(program.stats).toEqual({ runs: 1n, nanoseconds: 1000n, misses: 0n });
});

describe('refused', () => {
  const on = (name: string, more: object = {}) => ({ function: name, ...more });
  it.each([
    ['no such function', KPROBE, on('no_such'), '-ENOENT: program: there is no function no_such'],
    [
      'another type',
      { type: 'tracing' },
      on(TARGET),
      '-EINVAL: program: a program of type tracing',
    ],
    ['a kprobe_multi program', MULTI, on(TARGET), '-EINVAL: program: its expected attach type is'],
    [
      'a sleepable one',
      { ...KPROBE, sleepable: true },
      on(TARGET),
      '-EINVAL: program: programs of',
    ],
    ['a return inside', KPROBE, on(TARGET, { offset: 8, retprobe: true }), '-EINVAL: kretprobe'],
    ['the patch site', KPROBE, on(TARGET, { offset: 4 }), '-EINVAL: kprobe program at'],
    ['notrace', KPROBE, on('ftrace_caller'), '-EINVAL: kprobe program at ftrace_caller+0x0'],
  ] as const)('%s', async (_name, options, where, message) => {
    kernel = await bootLab();
    expect(() => kernel.bpf.attachKprobe(nothing(options), where)).toThrow(message);
    expect(kernel.kprobes.list()).toEqual([]);
  });

  it.each([
    ['a kprobe program', KPROBE, { functions: [TARGET] }, '-EINVAL: program: its expected attach'],
    ['no functions', MULTI, { functions: [] }, '-EINVAL: program: no functions'],
    ['a pattern without match', MULTI, { functions: 'no_*' }, '-ENOENT: program: no function'],
    ['what is not there', MULTI, { functions: [TARGET, 'no_such'] }, '-ESRCH: program: no_such'],
    ['notrace', MULTI, { functions: ['ftrace_caller'] }, '-ESRCH: program: ftrace_caller cannot'],
    ['twice', MULTI, { functions: [TARGET, TARGET] }, '-ESRCH: program: a function is named twice'],
    ['cookies', MULTI, { functions: [TARGET], cookies: [] }, '-EINVAL: program: not one cookie'],
  ] as const)('kprobe_multi: %s', async (_name, options, where, message) => {
    kernel = await bootLab({ version: '7.3' });
    expect(() => kernel.bpf.attachKprobeMulti(nothing(options), where)).toThrow(message);
    expect(kernel.ftrace.list()).toEqual([]);
  });

  it.each(['fentry', 'fmod_ret'] as const)('a kprobe program as %s', async (kind) => {
    kernel = await bootLab();
    expect(() => kernel.bpf.attach(nothing(KPROBE), kind, 'bpf_modify_return_test')).toThrow(
      `-EINVAL: program: a program of type kprobe cannot be attached as ${kind}`,
    );
  });
});

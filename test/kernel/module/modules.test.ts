/** Modules in a booted kernel: placed, traced, called, refused, gone; on every engine that is here. */
import { describe, expect, it } from 'vitest';
import { print } from '../../../src/a64/print.js';
import { KernelError } from '../../../src/common/errors.js';
import { AARCH64_BREAK_FAULT } from '../../../src/a64/immediates.js';
import { kernelBooter, type Kernel, type KernelOptions } from '../../../src/kernel/kernel.js';
import { KernelOops } from '../../../src/kernel/executor.js';
import { FTRACE_OPS_FL, type FtraceOps } from '../../../src/kernel/ftrace/ops.js';
import { FTRACE_FL } from '../../../src/kernel/ftrace/record.js';
import { REACH_PROFILES } from '../../../src/kernel/ftrace/reach.js';
import { NOP } from '../../../src/kernel/text.js';
import { FTRACE_OPS } from '../../../src/kernel/offsets.js';
import { tracedRun } from '../../../src/lab/traced-call.js';
import { attachScenario } from '../../../src/lab/scenario.js';
import { kernelAsm } from '../../../src/node/files.js';
import { factories } from '../../helpers/cpus.js';

const MiB = 1 << 20;
const booter = await kernelBooter();
const asm = kernelAsm();

/** A callback that does nothing: `ret`. */
const boot = (cpu: (typeof factories)[number], options: Partial<KernelOptions> = {}): Kernel =>
  booter({ asm, cpu, ...options });

const TEXT = `
FUNCTION int greet(int a)
	add w0, w0, #1
	ret

FUNCTION int greet_twice(int a)
	stp x29, x30, [sp, #-16]!
	mov x29, sp
	bl greet
	bl bpf_fentry_test1
	ldp x29, x30, [sp], #16
	ret
`;
const INIT = `
FUNCTION int greet_init(void)
	stp x29, x30, [sp, #-16]!
	mov x29, sp
	mov w0, #7
	bl greet
	mov w0, #0
	ldp x29, x30, [sp], #16
	ret
`;
const FAIL_INIT = `
FUNCTION int greet_init(void)
	mov w0, #-12
	ret
`;

const GREET = { name: 'greet_mod', text: TEXT };

/** An ops whose callback is ftrace_stub, on all functions or on some. */
function registerOps(kernel: Kernel, ...names: string[]): FtraceOps {
  const address = kernel.kmalloc(FTRACE_OPS.size);
  const ops = kernel.ftrace.createOps('test_ops', address, kernel.symbol('ftrace_stub'));
  for (const name of names) kernel.ftrace.setFilterIp(ops, kernel.symbol(name) + 4n, false);
  ops.flags |= FTRACE_OPS_FL.INITIALIZED;
  kernel.ftrace.register(ops);
  return ops;
}

/** All 98 MiB of the first window that the image leaves are in use: modules come 1.9 GiB below it. */
const FAR: Partial<KernelOptions> = { modulesUsed: 98 * MiB };

/** Words at the site of a function: MOV and NOP or BL. */
const siteWords = (kernel: Kernel, name: string): number[] =>
  [0n, 4n].map((at) => kernel.memory.read32(kernel.symbol(name) + at));

/** What the BL at the site of a function goes to. */
function calleeOf(kernel: Kernel, name: string): string {
  const ip = kernel.symbol(name) + 4n;
  const text = print(kernel.memory.read32(ip), ip, (address) => kernel.symbols.format(address));
  return /<(.*)>/.exec(text)?.[1] ?? text;
}

/** Executed instructions of a call by the name of what they belong to. */
function countedCall(kernel: Kernel, name: string, ...args: bigint[]): Record<string, number> {
  const { entries } = tracedRun(kernel, () => kernel.call(name, ...args));
  const counts: Record<string, number> = {};
  for (const { pc } of entries) {
    const symbol = kernel.symbols.lookup(pc)?.name ?? '?';
    counts[symbol] = (counts[symbol] ?? 0) + 1;
  }
  return counts;
}

describe.each(factories.map((cpu) => [cpu.name, cpu] as const))('on %s', (_engine, cpu) => {
  it('places, calls and frees a module', () => {
    const kernel = boot(cpu);
    const regions = kernel.memory.regions.length;
    const module = kernel.loadModule({ ...GREET, init: INIT, initFunction: 'greet_init' });
    expect(module.state).toBe('live');
    // 6.12 without KASLR: the 128 MiB that end at _end
    expect(module.text.address).toBe(kernel.layout.end - 128n * BigInt(MiB));
    expect(kernel.call('greet_twice', 1n)).toBe(3n);
    expect(kernel.symbols.format(kernel.symbol('greet') + 8n)).toBe('greet+0x8 [greet_mod]');
    expect(kernel.symbols.find('greet_init')).toBeUndefined();
    const names = (): string[] => kernel.ftrace.available().filter((name) => /greet/.test(name));
    expect(names()).toEqual(['greet', 'greet_twice']);
    kernel.unloadModule('greet_mod');
    expect(kernel.symbols.find('greet')).toBeUndefined();
    expect(kernel.memory.regions.length).toBe(regions + 1); // the stack of the task that called
    expect(names()).toEqual([]);
    expect(kernel.loadModule(GREET).text.address).toBe(module.text.address);
  });

  it.each<[string, Partial<KernelOptions>, string]>([
    ['near', {}, 'ftrace_caller+0x0'],
    ['far', FAR, 'ftrace_caller@plt.greet_mod+0x0 [greet_mod]'],
  ])(
    '%s: a site calls ftrace_caller, 3 instructions more through the PLT',
    (place, options, to) => {
      const kernel = boot(cpu, options);
      kernel.loadModule(GREET);
      const before = countedCall(kernel, 'greet', 1n);
      expect(before).toEqual({ greet: 4 }); // mov, nop, add, ret
      const attached = attachScenario(kernel, 'greet', { ops: 1 });
      expect(calleeOf(kernel, 'greet')).toBe(to);
      const counts = countedCall(kernel, 'greet', 1n);
      const plt = place === 'far' ? { 'ftrace_caller@plt.greet_mod': 3 } : {};
      expect(counts).toEqual({ greet: 4, ftrace_caller: 35, ...counts, ...plt });
      const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
      expect(total).toBe(NEAR_TOTAL + (place === 'far' ? 3 : 0));
      attached.detach();
      expect(siteWords(kernel, 'greet')[1]).toBe(NOP);
    },
  );
});

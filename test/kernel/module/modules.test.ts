/** Modules in a booted kernel: placed, traced, called, refused, gone; on every engine that is here. */
import { describe, expect, it } from 'vitest';
import { print } from '../../../src/a64/print.js';
import { AARCH64_BREAK_FAULT } from '../../../src/a64/immediates.js';
import { kernelBooter, type Kernel, type KernelOptions } from '../../../src/kernel/kernel.js';
import { KernelOops } from '../../../src/kernel/executor.js';
import { FTRACE_OPS_FL, type FtraceOps } from '../../../src/kernel/ftrace/ops.js';
import { FTRACE_FL } from '../../../src/kernel/ftrace/record.js';
import { REACH_PROFILES } from '../../../src/kernel/ftrace/reach.js';
import type { ModuleSpec } from '../../../src/kernel/module/modules.js';
import { FTRACE_OPS } from '../../../src/kernel/offsets.js';
import { tracedRun } from '../../../src/lab/traced-call.js';
import { attachScenario } from '../../../src/lab/scenario.js';
import { kernelAsm } from '../../../src/node/files.js';
import { factories } from '../../helpers/cpus.js';

const MiB = 1 << 20;
const booter = await kernelBooter();

/** A callback that does nothing: `ret`. */
const boot = (cpu: (typeof factories)[number], options: Partial<KernelOptions> = {}): Kernel =>
  booter({ asm: kernelAsm(options.ftrace ?? options.version), cpu, ...options });

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
const FAILING_INIT = `
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

/** Room for one page of text in the first window: `.init.text` is 1.9 GiB away from `.text`. */
const INIT_FAR: Partial<KernelOptions> = { modulesUsed: 98 * MiB - 8192 };

const wordAt = (kernel: Kernel, at: bigint): number => kernel.memory.read32(at);

/** What the BL at the site of a function goes to, or what else stands there. */
function calleeOf(kernel: Kernel, name: string): string {
  const ip = kernel.symbol(name) + 4n;
  const text = print(wordAt(kernel, ip), ip, (address) => kernel.symbols.format(address));
  return /<(.*)>/.exec(text)?.[1] ?? text;
}

/** Executed instructions of a call by the symbol that they belong to. */
function countedCall(kernel: Kernel, name: string, ...args: bigint[]): Record<string, number> {
  const { entries } = tracedRun(kernel, () => kernel.call(name, ...args));
  const counts: Record<string, number> = {};
  for (const { pc } of entries) {
    const symbol = kernel.symbols.lookup(pc)?.name ?? '?';
    counts[symbol] = (counts[symbol] ?? 0) + 1;
  }
  return counts;
}

const PLT = 'ftrace_caller@plt.greet_mod';
/** ops->direct_call is set: bti, bic, ldr, ldr, cbnz; br. */
const EARLY = { ftrace_caller: 5, ftrace_caller_direct: 1 };
/** mov, bl, add, ret; ftrace_caller without a direct call; bti, ret. */
const ORDINARY = { greet: 4, ftrace_caller: 39, ftrace_stub: 2 };

describe.each(factories.map((cpu) => [cpu.name, cpu] as const))('on %s', (_engine, cpu) => {
  it('a module is placed, called, freed', () => {
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

  it.each<[string, Partial<KernelOptions>, string, object, object]>([
    ['near, images near', { modulesUsed: 64 * MiB }, 'ftrace_caller+0x0', {}, {}],
    ['near, images far', {}, 'ftrace_caller+0x0', {}, EARLY],
    ['far', FAR, `${PLT}+0x0 [greet_mod]`, { [PLT]: 3 }, { ...EARLY, [PLT]: 3 }],
  ])('a module %s: an ops, then fentry', (_place, options, callee, way, wayToImage) => {
    const kernel = boot(cpu, options);
    kernel.loadModule(GREET);
    expect(countedCall(kernel, 'greet', 1n)).toEqual({ greet: 4 });
    const ops = registerOps(kernel, 'greet');
    expect(calleeOf(kernel, 'greet')).toBe(callee);
    expect(countedCall(kernel, 'greet', 1n)).toEqual({ ...ORDINARY, ...way });
    kernel.ftrace.unregister(ops);
    expect(calleeOf(kernel, 'greet')).toBe('nop');

    const { detach } = attachScenario(kernel, 'greet', { fentry: 1 });
    const counts = Object.entries(countedCall(kernel, 'greet', 1n));
    const ftrace = counts.filter(([name]) => name.startsWith('ftrace'));
    expect(Object.fromEntries(ftrace)).toEqual(wayToImage);
    expect(counts.some(([name]) => name.startsWith('bpf_prog_'))).toBe(true);
    expect(() => kernel.unloadModule('greet_mod')).toThrow(
      '-EAGAIN: module greet_mod is in use (1 references)',
    );
    detach();
    expect(countedCall(kernel, 'greet', 1n)).toEqual({ greet: 4 });
    kernel.unloadModule('greet_mod');
  });

  it('a module far above the kernel, as 6.1 places it when the first window is full', () => {
    const kernel = boot(cpu, { version: '6.1', modulesUsed: 254 * MiB });
    const { address } = kernel.loadModule(GREET).text;
    expect(address - kernel.layout.end).toBe(140n * BigInt(MiB));
    registerOps(kernel, 'greet');
    // 32 of the entry code; an ops in memory that can go away is called by the list function
    const entry = { ftrace_caller: 16, ftrace_common: 5, ftrace_call: 11 };
    const counts = { ...ORDINARY, ...entry, arch_ftrace_ops_list_func: 4, [PLT]: 3 };
    expect(countedCall(kernel, 'greet', 1n)).toEqual(counts);
    expect(kernel.call('greet_twice', 1n)).toBe(3n);
  });

  it('calls of the kernel go through .plt where BL does not reach, and only there', () => {
    for (const [options, plt] of [
      [{}, undefined],
      [FAR, 3],
    ] as const) {
      const kernel = boot(cpu, options);
      kernel.loadModule(GREET);
      expect(kernel.call('greet_twice', 40n)).toBe(42n);
      const counts = countedCall(kernel, 'greet_twice', 40n);
      expect(counts['bpf_fentry_test1@plt.greet_mod']).toBe(plt);
      expect(counts['bpf_fentry_test1']).toBe(4);
    }
  });

  it('a module that is loaded while all functions are traced is traced from the first call on', () => {
    const kernel = boot(cpu);
    const ops = registerOps(kernel);
    kernel.loadModule(GREET);
    expect(calleeOf(kernel, 'greet')).toBe('ftrace_caller+0x0');
    const record = kernel.ftrace.records.get(kernel.symbol('greet') + 4n);
    // ftrace_module_enable counts, but does not set CALL_OPS: the list is called for the one ops
    expect((record?.flags ?? 0) & (FTRACE_FL.CALL_OPS | FTRACE_FL.DISABLED)).toBe(0);
    const literal = (): bigint => kernel.memory.read64(kernel.symbol('greet') - 8n);
    expect(literal()).toBe(kernel.ftrace.listOps.address);
    expect(kernel.call('greet', 1n)).toBe(2n);
    kernel.ftrace.unregister(ops);
    expect([calleeOf(kernel, 'greet'), literal()]).toEqual(['nop', kernel.ftrace.nopOps.address]);
  });

  it('init text far from the text, traced: a BRK up to the fix, an entry of its own since', () => {
    const traced = (version: '6.4' | '6.18'): Kernel => {
      const kernel = boot(cpu, { ...INIT_FAR, reach: REACH_PROFILES[version] });
      registerOps(kernel);
      return kernel;
    };
    const spec = { ...GREET, init: INIT, initFunction: 'greet_init' };
    const broken = traced('6.4');
    expect(() => broken.loadModule(spec)).toThrow(KernelOops);
    const site = broken.symbol('greet_init') + 4n;
    expect(wordAt(broken, site)).toBe(AARCH64_BREAK_FAULT);
    expect(() => broken.unloadModule('greet_mod')).toThrow(
      '-EBUSY: module greet_mod is coming, its init did not end',
    );
    const fixed = traced('6.18');
    expect(fixed.loadModule(spec).state).toBe('live');
    expect(fixed.call('greet', 1n)).toBe(2n);
  });

  it('trampolines at the ends of the range of a BL run, those beyond through ftrace_caller', () => {
    const kernel = boot(cpu);
    const stub = kernel.memory.readBytes(kernel.symbol('ftrace_stub_direct_tramp'), 16);
    const side = 128n * BigInt(MiB);
    for (const [name, distance, way] of [
      ['bpf_fentry_test1', -side - 4n, EARLY],
      ['bpf_fentry_test2', -side, {}],
      ['bpf_fentry_test3', side - 4n, {}],
      ['bpf_fentry_test4', side, EARLY],
    ] as const) {
      const ip = kernel.symbol(name) + 4n;
      const trampoline = `trampoline_of_${name}`;
      const address = ip + distance;
      kernel.memory.map({ name: trampoline, address, size: 16, permissions: 'rx' });
      kernel.memory.pokeBytes(address, stub);
      kernel.symbols.add(trampoline, address, 16);
      const ops = kernel.ftrace.createOps('direct', kernel.kmalloc(FTRACE_OPS.size), 0n);
      kernel.ftrace.setFilterIp(ops, ip, false);
      kernel.directCalls.register(ops, address);
      const callee = way === EARLY ? 'ftrace_caller' : trampoline;
      expect(calleeOf(kernel, name)).toBe(`${callee}+0x0`);
      const { [name]: body, ...counts } = countedCall(kernel, name, 1n);
      expect(body).toBeGreaterThanOrEqual(4);
      expect(counts).toEqual({ [trampoline]: 4, ...way });
      // the next one may lie in the same page
      kernel.directCalls.unregister(ops);
      const region = kernel.memory.regionAt(address);
      if (region) kernel.memory.unmap(region);
    }
  });

  it.each<[string, Partial<KernelOptions>]>([
    ['6.1', { version: '6.1', kaslrSeed: 0x1234_5678_9abc_def0n }],
    ['6.12, FULL', { kaslrSeed: 0xffff_ffff_ffff_ffffn, fullModuleRegion: true }],
    ['7.3, 39-bit VA', { version: '7.3', vaBits: 39, kaslrSeed: 0x8000_0000_0000_0001n }],
    ['6.12, 16 TiB in use', { kaslrSeed: 1n, vmallocUsed: 16 * 2 ** 40 }],
  ])('maps and runs %s with KASLR', (_name, options) => {
    const kernel = boot(cpu, options);
    kernel.loadModule({ ...GREET, init: INIT, initFunction: 'greet_init' });
    const ops = registerOps(kernel, 'greet', 'bpf_fentry_test1');
    expect(kernel.call('greet_twice', 1n)).toBe(3n);
    kernel.ftrace.unregister(ops);
    if (options.version === '6.1') return;
    attachScenario(kernel, 'greet', { fentry: 1, fexit: 1 });
    attachScenario(kernel, 'bpf_fentry_test1', { fentry: 1, fexit: 1 });
    const image = kernel.bpf.trampolineAt('bpf_fentry_test1')?.image?.code.base ?? 0n;
    expect(kernel.symbol('bpf_fentry_test1') - image).toBeGreaterThan(1n << 35n);
    expect(kernel.call('greet_twice', 1n)).toBe(3n);
  });
});

const [embedded] = factories;
const bootEmbedded = (options: Partial<KernelOptions> = {}): Kernel => {
  if (!embedded) throw new Error('there is no engine');
  return boot(embedded, options);
};

it('BTI: ftrace_caller takes the BR of a PLT entry from x16, from another register it does not', () => {
  const kernel = bootEmbedded({ ...FAR, guarded: true });
  const module = kernel.loadModule(GREET);
  registerOps(kernel, 'greet');
  expect(kernel.call('greet', 1n)).toBe(2n);
  const plt = module.plts.ftrace_caller ?? 0n;
  const words = [0n, 4n, 8n].map((at) => print(wordAt(kernel, plt + at), plt + at));
  const caller = kernel.symbol('ftrace_caller');
  expect(words).toEqual([
    `adrp x16, #0x${(caller & ~0xfffn).toString(16)}`,
    `add x16, x16, #0x${(caller & 0xfffn).toString(16)}`,
    'br x16',
  ]);
  const [adrp, add] = [wordAt(kernel, plt), wordAt(kernel, plt + 4n)];
  const x10 = [(adrp & ~31) | 10, (add & ~0x3ff) | (10 << 5) | 10, 0xd61f0140];
  const bytes = new Uint8Array(12);
  x10.forEach((word, i) => new DataView(bytes.buffer).setUint32(4 * i, word >>> 0, true));
  kernel.memory.pokeBytes(plt, bytes);
  kernel.syncText(plt, plt + 12n);
  expect(() => kernel.call('greet', 1n)).toThrow(/BTI|Branch Target/i);
});

it('an ops that loses the module loses its site, and does not trace what comes there later', () => {
  const kernel = bootEmbedded();
  kernel.loadModule(GREET);
  const ops = registerOps(kernel, 'greet');
  kernel.unloadModule('greet_mod');
  expect([...ops.filter]).toEqual([0n]);
  kernel.loadModule(GREET);
  expect(calleeOf(kernel, 'greet')).toBe('nop');
  kernel.ftrace.unregister(ops);
});

it('a module that another calls cannot be unloaded before it', () => {
  const kernel = bootEmbedded();
  kernel.loadModule(GREET);
  kernel.loadModule({ name: 'user', text: 'FUNCTION int user(int a)\n\tb greet\n' });
  expect(kernel.call('user', 1n)).toBe(2n);
  expect(() => kernel.unloadModule('greet_mod')).toThrow('-EAGAIN');
  kernel.unloadModule('user');
  kernel.unloadModule('greet_mod');
});

it('an init function that fails takes the module with it', () => {
  const kernel = bootEmbedded();
  const before = kernel.ftrace.available();
  expect(() =>
    kernel.loadModule({ ...GREET, init: FAILING_INIT, initFunction: 'greet_init' }),
  ).toThrow('-ENOMEM: greet_init() of the module returned -12');
  expect(kernel.ftrace.available()).toEqual(before);
  expect(kernel.modules.list()).toEqual([]);
  kernel.loadModule(GREET);
});

let shared: Kernel | undefined;
/** A kernel with a module, for what changes nothing. */
function refusing(): Kernel {
  if (!shared) {
    shared = bootEmbedded();
    shared.loadModule(GREET);
  }
  return shared;
}

it.each<[string, ModuleSpec, string]>([
  ['loaded twice', GREET, '-EEXIST: module greet_mod is loaded already'],
  ['a name that is none', { ...GREET, name: 'a b' }, "'a b' is no name of a module"],
  [
    'a symbol that the kernel has',
    { name: 'm', text: 'CODE ftrace_caller\n\tret\n' },
    'module m: symbol ftrace_caller is defined already',
  ],
  ['an unknown callee', { name: 'm', text: 'CODE f\n\tbl nobody\n' }, 'no symbol nobody'],
  ['no text', { name: 'm', text: '\tret\n' }, 'm: no FUNCTION or CODE in it'],
  ['no room', { ...GREET, name: 'm', size: 2 ** 31 }, '-ENOMEM: no 2147487744 bytes left where'],
])('refuses %s', (_name, spec, message) => {
  const kernel = refusing();
  const state = (): unknown => [kernel.memory.regions.length, kernel.ftrace.available()];
  const before = state();
  expect(() => kernel.loadModule(spec)).toThrow(message);
  expect(state()).toEqual(before);
});

it('refuses to unload what is not there', () => {
  expect(() => refusing().unloadModule('m')).toThrow('-ENOENT: there is no module m');
});

/**
 * What the kernel versions do differently when programs are loaded and attached: 6.1 has no kernel functions as
 * targets and an image per page; 7.3 passes arguments on the stack and has sessions; struct layouts move.
 */
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createMap } from '../../src/bpf/maps/create.js';
import { ProgArray } from '../../src/bpf/maps/prog-array.js';
import { assemble } from '../../src/bpf/assemble.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import { hex32 } from '../../src/common/bytes.js';
import { cpuFactory } from '../../src/cpu/engines.js';
import type { KernelVersion } from '../../src/jit/profile.js';
import { loadObject } from '../../src/kernel/bpf/object.js';
import { bootKernel, type Kernel } from '../../src/kernel/kernel.js';
import { bootLab } from '../../src/node/boot.js';
import { PACKAGE_ROOT, kernelAsm, readInput } from '../../src/node/files.js';
import { factories } from '../helpers/cpus.js';
import { counter, inUse, recorder, textProgram } from '../helpers/tracing.js';

const VERSIONS: readonly KernelVersion[] = ['6.1', '6.12', '7.3'];

/** sum(1, .., 12) = 78 with four arguments on the stack, and a caller that passes them. */
const MANY_ARGUMENTS = `
FUNCTION long lab_many(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, u64 h, u64 i, u8 j, u16 k, u64 l)
	add x0, x0, x1
	add x0, x0, x2
	add x0, x0, x3
	add x0, x0, x4
	add x0, x0, x5
	add x0, x0, x6
	add x0, x0, x7
	ldp x9, x10, [sp]
	and x10, x10, #0xff
	ldp x11, x12, [sp, #16]
	and x11, x11, #0xffff
	add x0, x0, x9
	add x0, x0, x10
	add x0, x0, x11
	add x0, x0, x12
	ret

CODE lab_call_many
	stp x29, x30, [sp, #-16]!
	mov x29, sp
	sub sp, sp, #32
	mov x0, #9
	movn x1, #0xff00
	sub x1, x1, #0xf5
	stp x0, x1, [sp]
	movz x0, #11
	movk x0, #1, lsl #16
	mov x1, #12
	stp x0, x1, [sp, #16]
	mov x0, #1
	mov x1, #2
	mov x2, #3
	mov x3, #4
	mov x4, #5
	mov x5, #6
	mov x6, #7
	mov x7, #8
	bl lab_many
	mov sp, x29
	ldp x29, x30, [sp], #16
	ret
`;

describe.each(factories.map(({ name }) => name))('on %s', (engine) => {
  let kernel: Kernel;
  afterEach(() => kernel.close());

  it.each(VERSIONS)('%s: an image per page, or packs', async (version) => {
    kernel = await bootLab({ engine, version });
    const seen = kernel.kmalloc(8);
    const [one, two] = [counter(kernel, seen), counter(kernel, seen)];
    const distance = two.entry - one.entry;
    // struct bpf_prog and guard pages lie between
    if (version === '6.1') expect(distance % 4096n).toBe(0n);
    else expect(distance).toBeLessThan(1024n);
    kernel.call(one.entry, 0n);
    expect(kernel.memory.read64(seen)).toBe(1n);
    one.free();
    two.free();
    expect(kernel.bpf.images.liveImages).toBe(0);
  });

  it.each<[KernelVersion, string[]]>([
    ['6.1', []],
    // mrs x10, sp_el0; ldr w7, [x10, #thread_info.cpu]
    ['6.12', ['d538410a', 'b9401147']],
    // the same with R0 in x8
    ['7.3', ['d538410a', 'b9401148']],
  ])('%s: a loaded program reads its CPU by a call, or in place', async (version, expected) => {
    kernel = await bootLab({ engine, version, cpus: 2 });
    const spec = parseObject(readInput(join(PACKAGE_ROOT, 'test/vectors/objects/processor.o')));
    const object = loadObject(kernel, spec);
    const program = object.program('processor');
    const words = [...(program.images[0]?.words ?? [])].map((word) => hex32(word));
    const at = words.indexOf('d538410a');
    expect(at < 0 ? [] : words.slice(at, at + 2)).toEqual(expected);
    const task = kernel.createTask('napi');
    for (const cpu of [0, 1]) {
      kernel.start(task, program.entry, [0n], cpu);
      expect(task.result).toBe(1n + BigInt(cpu));
    }
    const interpreter = createInterpreter(program.xlated, kernel.bpf.host);
    expect(interpreter.run(0n)).toMatchObject({ r0: 1n });
    interpreter.close();
    object.close();
  });

  it('6.1: a kernel function is refused, and nothing is left of the try', async () => {
    kernel = await bootLab({ engine, version: '6.1' });
    const program = counter(kernel, kernel.kmalloc(8));
    kernel.call('bpf_fentry_test1', 1n);
    const before = inUse(kernel);
    for (const kind of ['fentry', 'fmod_ret', 'fexit'] as const) {
      expect(() => kernel.bpf.attach(program, kind, 'bpf_fentry_test1')).toThrow(
        '-ENOTSUPP: 6.1 has no direct calls on kernel functions',
      );
    }
    expect(inUse(kernel)).toEqual(before);
    expect(kernel.call('bpf_fentry_test1', 1n)).toBe(2n);
  });

  it.each<[KernelVersion, number, string]>([
    ['6.1', 9, '-ENOTSUPP: trampoline for a function with 9 arguments'],
    ['6.12', 9, '-ENOTSUPP: trampoline for a function with 9 arguments'],
    ['7.3', 13, '-ENOTSUPP: trampoline for a function with 13 arguments'],
  ])('%s: %i arguments are too many', async (version, count, message) => {
    kernel = await bootLab({ engine, version });
    const list = Array.from({ length: count }, (_, i) => `u64 a${i}`).join(', ');
    const target = textProgram(kernel, 'r0 = 1\nexit', {
      name: 'target',
      type: 'xdp',
      prototypes: [`int target(${list})`],
    });
    const program = counter(kernel, kernel.kmalloc(8));
    expect(() => kernel.bpf.attach(program, 'fexit', { program: target })).toThrow(message);
    expect(kernel.bpf.liveTrampolineImages).toBe(0);
  });

  it('7.3: fentry and fexit see twelve arguments, and the original gets its own', async () => {
    const asm = { ...kernelAsm(), 'many.s': MANY_ARGUMENTS };
    kernel = await bootKernel({ asm, cpu: await cpuFactory(engine), version: '7.3' });
    const sum = 78n;
    expect(kernel.call('lab_call_many')).toBe(sum);
    const seen = kernel.kmalloc(256);
    const before = inUse(kernel);
    const entry = recorder(kernel, seen, 12);
    const exit = recorder(kernel, seen + 96n, 13);
    const links = [
      kernel.bpf.attach(entry, 'fentry', 'lab_many'),
      kernel.bpf.attach(exit, 'fexit', 'lab_many'),
    ];
    expect(kernel.call('lab_call_many')).toBe(sum);
    const values = Array.from({ length: 25 }, (_, i) => kernel.memory.read64(seen + BigInt(8 * i)));
    // the bytes of j and k that are not theirs are cleared for programs
    const given = [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n, 9n, 10n, 11n, 12n];
    expect(values).toEqual([...given, ...given, sum]);
    for (const link of links) link.detach();
    entry.free();
    exit.free();
    expect(inUse(kernel)).toEqual(before);
  });

  it('7.3: an fsession runs at entry and at exit; others have none', async () => {
    kernel = await bootLab({ engine, version: '7.3' });
    const seen = kernel.kmalloc(8);
    const session = counter(kernel, seen);
    const link = kernel.bpf.attach(session, 'fsession', 'bpf_fentry_test1');
    expect(kernel.call('bpf_fentry_test1', 1n)).toBe(2n);
    expect(kernel.memory.read64(seen)).toBe(2n);
    expect(() => kernel.bpf.attach(session, 'fexit', 'bpf_fentry_test1')).toThrow('-EBUSY');
    link.detach();
    session.free();
    expect(kernel.bpf.images.liveImages).toBe(0);
    kernel.close();
    kernel = await bootLab({ engine });
    const program = counter(kernel, seen);
    expect(() => kernel.bpf.attach(program, 'fsession', 'bpf_fentry_test1')).toThrow(
      '-EINVAL: 6.12 has no fsession programs',
    );
  });

  it.each(VERSIONS)('%s: a tail call finds the program in the map', async (version) => {
    kernel = await bootLab({ engine, version });
    const { host } = kernel.bpf;
    const map = createMap(
      { name: 'jumps', type: 'PROG_ARRAY', keySize: 4, valueSize: 4, maxEntries: 3, flags: 0 },
      host,
    );
    if (!(map instanceof ProgArray)) throw new Error('no prog array');
    const target = textProgram(kernel, 'r0 = 77\nexit', { name: 'target', type: 'xdp' });
    const insns = assemble(
      `r2 = 0x${map.address.toString(16)} ll\nr3 = r1\nr1 = 0\nr0 = 5\ncall 12\nr0 = 6\nexit`,
    );
    for (let at = 0; at < insns.length; at += 8) {
      // the verifier's form of the call: opcode 0xf5
      if (insns[at] === 0x85) insns.set([0xf5, 0, 0, 0, 0, 0, 0, 0], at);
    }
    const caller = kernel.bpf.load(rawProgram('caller', insns, { type: 'xdp', stackDepth: 0 }));
    expect(kernel.call(caller.entry, 2n)).toBe(6n);
    map.setProgram(2, target.xlated, target.address);
    expect(kernel.call(caller.entry, 2n)).toBe(77n);
    expect(kernel.call(caller.entry, 3n)).toBe(6n);
    map.free();
  });
});

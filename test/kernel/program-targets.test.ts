/**
 * BPF programs as targets: fentry, fexit and freplace on main functions and subprograms, the text pokes behind
 * them, what is refused. Shapes and results after the kernel's selftests fexit_bpf2bpf and xdp_bpf2bpf.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createMap } from '../../src/bpf/maps/create.js';
import { ProgArray } from '../../src/bpf/maps/prog-array.js';
import type { KernelVersion } from '../../src/jit/profile.js';
import type { AttachKind } from '../../src/kernel/bpf/attach-check.js';
import type { KernelProgram } from '../../src/kernel/bpf/program.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { tracedRun } from '../../src/lab/traced-call.js';
import { bootLab } from '../../src/node/boot.js';
import { factories } from '../helpers/cpus.js';
import { counter, inUse, recorder, textProgram } from '../helpers/tracing.js';

const PACK = 2 << 20;

/** Everything allocated from here on is more than 128 MiB away from what is there. */
function fillUp(kernel: Kernel): void {
  const { images } = kernel.bpf;
  kernel.vmalloc.take(128n << 20n, 4096n);
  if (kernel.bpf.profile.images === 'pages') return;
  const first = images.alloc(PACK - (64 << 10));
  while (images.alloc(64) - first < PACK);
}

/** main(ctx) = 1 + sub(3); sub(x) = 10 * x. As scenario 24 of the booted kernels. */
function loadTarget(kernel: Kernel, prototypes = true): KernelProgram {
  const text = ['r6 = r1\nr1 = 3\ncall sub\nr0 += 1\nexit', 'sub:\nr0 = r1\nr0 *= 10\nexit'].join(
    '\n',
  );
  return textProgram(kernel, text, {
    name: 'target',
    type: 'xdp',
    prototypes: prototypes ? ['int target(struct xdp_md *ctx)', 'int target_sub_1(long x)'] : [],
  });
}

function bytesOf(kernel: Kernel, program: KernelProgram): string {
  return program.images
    .map(({ base, jitedLength }) => kernel.memory.readBytes(base, jitedLength + 8).join())
    .join('|');
}

describe.each(factories.map(({ name }) => name))('on %s', (engine) => {
  describe.each<[KernelVersion, 'near' | 'far']>([
    ['6.1', 'near'],
    ['6.1', 'far'],
    ['6.12', 'near'],
    ['6.12', 'far'],
    ['7.3', 'near'],
    ['7.3', 'far'],
  ])('%s, %s images', (version, place) => {
    let kernel: Kernel;
    let target: KernelProgram;
    let seen: bigint;
    let image: string;
    let before: object;
    const read = (n: number): bigint => kernel.memory.read64(seen + BigInt(8 * n));
    const run = (): bigint => kernel.call(target.entry, 0xc0n);

    beforeEach(async () => {
      kernel = await bootLab({ engine, version });
      target = loadTarget(kernel);
      if (place === 'far') fillUp(kernel);
      seen = kernel.kmalloc(256);
      expect(run()).toBe(31n);
      image = bytesOf(kernel, target);
      before = inUse(kernel);
    });
    afterEach(() => {
      expect(run()).toBe(31n);
      expect(bytesOf(kernel, target)).toBe(image);
      expect(inUse(kernel)).toEqual(before);
      kernel.close();
    });

    it('fentry and fexit on the main function see ctx and result', () => {
      const entry = recorder(kernel, seen, 1);
      const exit = recorder(kernel, seen + 16n, 2);
      const links = [
        kernel.bpf.attach(entry, 'fentry', { program: target }),
        kernel.bpf.attach(exit, 'fexit', { program: target }),
      ];
      expect(run()).toBe(31n);
      expect([read(0), read(2), read(3)]).toEqual([0xc0n, 0xc0n, 31n]);
      links[0]?.detach();
      expect(run()).toBe(31n);
      links[1]?.detach();
      entry.free();
      exit.free();
    });

    it('fexit on a subprogram sees its argument and result', () => {
      const exit = recorder(kernel, seen, 2);
      const link = kernel.bpf.attach(exit, 'fexit', { program: target, function: 'target_sub_1' });
      const { counts } = tracedRun(kernel, run);
      expect([read(0), read(1)]).toEqual([3n, 30n]);
      expect([...counts.keys()]).toContain('bpf_trampoline_1');
      link.detach();
      exit.free();
    });

    it('freplace takes the place of a subprogram, and of the main function', () => {
      const sub = textProgram(kernel, 'r0 = r1\nr0 *= 100\nexit', { name: 'ext', type: 'raw' });
      const main = textProgram(kernel, 'r0 = r1\nexit', { name: 'ext_main', type: 'raw' });
      const one = kernel.bpf.attach(sub, 'freplace', { program: target, function: 'target_sub_1' });
      expect(run()).toBe(301n);
      const two = kernel.bpf.attach(main, 'freplace', { program: target });
      expect(run()).toBe(0xc0n);
      two.detach();
      expect(run()).toBe(301n);
      one.detach();
      sub.free();
      main.free();
    });

    it('the site is a branch to the image, or to the PLT whose target is the image', () => {
      const entry = counter(kernel, seen);
      const link = kernel.bpf.attach(entry, 'fentry', { program: target });
      const [main] = target.images;
      if (!main) throw new Error('no image');
      const site = main.base + 4n;
      const word = kernel.memory.read32(site);
      expect(word >>> 26).toBe(0x25);
      const to = site + 4n * BigInt.asIntN(26, BigInt(word & 0x3ffffff));
      const plt = main.base + BigInt(main.pltOffset);
      const quad = kernel.memory.read64(plt + 8n);
      const at = link.trampoline.image?.code.base;
      const dummy = kernel.symbol('dummy_tramp');
      expect([to, quad]).toEqual(place === 'far' ? [plt, at] : [at, dummy]);
      link.detach();
      expect(kernel.memory.read64(plt + 8n)).toBe(dummy);
      entry.free();
    });
  });

  describe('6.12', () => {
    let kernel: Kernel;
    let target: KernelProgram;
    let seen: bigint;
    let before: object;
    let programs: KernelProgram[];
    const read = (n: number): bigint => kernel.memory.read64(seen + BigInt(8 * n));
    const keep = (program: KernelProgram): KernelProgram => {
      programs.push(program);
      return program;
    };
    beforeEach(async () => {
      kernel = await bootLab({ engine });
      seen = kernel.kmalloc(256);
      kernel.call('bpf_fentry_test1', 1n);
      before = inUse(kernel);
      programs = [];
      target = keep(loadTarget(kernel, false));
    });
    afterEach(() => {
      for (const program of programs) program.free();
      expect(inUse(kernel)).toEqual(before);
      kernel.close();
    });

    it('without BTF five registers are saved, and the result comes after them', () => {
      const link = kernel.bpf.attach(keep(recorder(kernel, seen, 6)), 'fexit', { program: target });
      kernel.call(target.entry, 1n, 2n, 3n, 4n, 5n);
      expect([0, 1, 2, 3, 4, 5].map(read)).toEqual([1n, 2n, 3n, 4n, 5n, 31n]);
      link.detach();
    });

    it('a site that goes by the PLT to dummy_tramp runs the program as if nothing were there', () => {
      const [main] = target.images;
      if (!main) throw new Error('no image');
      const plt = main.base + BigInt(main.pltOffset);
      const site = main.base + 4n;
      const distance = Number(plt - site) / 4;
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(0, 0x94000000 | distance, true);
      kernel.memory.pokeBytes(site, bytes);
      kernel.syncText(site, site + 4n);
      const { result, counts } = tracedRun(kernel, () => kernel.call(target.entry, 1n));
      expect(result).toBe(31n);
      expect(counts.get('dummy_tramp')).toBe(3);
    });

    it('attachments hold the target and the program', () => {
      const exit = recorder(kernel, seen, 6);
      const link = kernel.bpf.attach(exit, 'fexit', { program: target });
      const { entry } = target;
      target.free();
      exit.free();
      expect(kernel.call(entry, 9n)).toBe(31n);
      expect(read(0)).toBe(9n);
      link.detach();
      expect(kernel.bpf.images.liveImages).toBe(0);
    });

    it('a poke that does not find what it expects is -EFAULT and changes nothing', () => {
      const image = bytesOf(kernel, target);
      expect(() => kernel.bpf.text.poke(target.entry, 'call', target.entry, 0n)).toThrow('-EFAULT');
      expect(() => kernel.bpf.text.poke(kernel.symbol('bpf_fentry_test1'), 'call', 0n, 4n)).toThrow(
        '-ENOTSUPP: text poke at bpf_fentry_test1+0x0, expected a NOP',
      );
      expect(bytesOf(kernel, target)).toBe(image);
    });

    it('a tracing program can be traced once, not in a chain', () => {
      const one = keep(counter(kernel, seen, { name: 'one' }));
      const two = keep(counter(kernel, seen + 8n, { name: 'two' }));
      const three = keep(counter(kernel, seen + 16n, { name: 'three' }));
      const links = [
        kernel.bpf.attach(one, 'fentry', 'bpf_fentry_test1'),
        kernel.bpf.attach(two, 'fentry', { program: one }),
      ];
      expect(() => kernel.bpf.attach(three, 'fentry', { program: two })).toThrow('-EINVAL: three');
      kernel.call('bpf_fentry_test1', 1n);
      expect([0, 1, 2].map(read)).toEqual([1n, 1n, 0n]);
      for (const link of links.reverse()) link.detach();
    });

    describe('-EBUSY and -EINVAL', () => {
      const other = (kind: AttachKind): KernelProgram =>
        keep(
          kind === 'freplace'
            ? textProgram(kernel, 'r0 = 5\nexit', { name: 'second', type: 'raw' })
            : counter(kernel, seen, { name: 'second' }),
        );
      it.each<[AttachKind, AttachKind, string]>([
        ['freplace', 'fentry', '-EBUSY: target is replaced by first (freplace)'],
        ['freplace', 'fexit', '-EBUSY: target is replaced by first (freplace)'],
        ['freplace', 'freplace', '-EBUSY: target is replaced by first already'],
        ['fentry', 'freplace', '-EBUSY: target is traced, freplace cannot replace it'],
        ['fexit', 'freplace', '-EBUSY: target is traced, freplace cannot replace it'],
        ['fentry', 'fmod_ret', '-EINVAL: second: fmod_ret cannot modify return codes'],
      ])('%s, then %s', (first, second, message) => {
        const type = first === 'freplace' ? 'raw' : 'tracing';
        const program = keep(counter(kernel, seen, { name: 'first', type }));
        const link = kernel.bpf.attach(program, first, { program: target });
        const site = kernel.memory.read32(target.entry + 4n);
        expect(() => kernel.bpf.attach(other(second), second, { program: target })).toThrow(
          message,
        );
        expect(kernel.memory.read32(target.entry + 4n)).toBe(site);
        link.detach();
        const again = kernel.bpf.attach(
          programs.at(-1) ?? program,
          second === 'fmod_ret' ? 'fexit' : second,
          {
            program: target,
          },
        );
        again.detach();
      });

      it('freplace of a program in a prog array, and of a tracing program', () => {
        const map = createMap(
          { name: 'jumps', type: 'PROG_ARRAY', keySize: 4, valueSize: 4, maxEntries: 2, flags: 0 },
          kernel.bpf.host,
        );
        if (!(map instanceof ProgArray)) throw new Error('no prog array');
        map.setProgram(1, target.xlated, target.address);
        const ext = other('freplace');
        expect(() => kernel.bpf.attach(ext, 'freplace', { program: target })).toThrow(
          '-EBUSY: target is in a prog array',
        );
        map.setProgram(1, undefined);
        const link = kernel.bpf.attach(ext, 'freplace', { program: target });
        expect(map.setProgram(0, target.xlated, target.address)).toBe(-16);
        link.detach();
        expect(map.setProgram(0, target.xlated, target.address)).toBe(0);
        map.free();
        const tracing = keep(counter(kernel, seen, { name: 'tracing' }));
        expect(() => kernel.bpf.attach(ext, 'freplace', { program: tracing })).toThrow('-EINVAL');
      });

      it('a function that the program does not have', () => {
        const program = other('fentry');
        expect(() =>
          kernel.bpf.attach(program, 'fentry', { program: target, function: 'no' }),
        ).toThrow('-EINVAL: target has no function no (it has: target, target_sub_1)');
      });
    });
  });
});

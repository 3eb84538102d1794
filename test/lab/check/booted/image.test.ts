import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assemble } from '../../../../src/bpf/assemble.js';
import { encodeSlots, makeSlot, readSlots } from '../../../../src/bpf/instruction.js';
import { moveAddress, moveInt32, moveInt64 } from '../../../../src/jit/constants.js';
import { compile } from '../../../../src/jit/program.js';
import type { KernelVersion } from '../../../../src/jit/profile.js';
import { compileTrampoline } from '../../../../src/jit/trampoline.js';
import { TRAMP_FLAGS, type TrampolineLink } from '../../../../src/jit/trampoline-model.js';
import { VECTOR_OFFSETS } from '../../../../src/jit/vectors/harness.js';
import { findCallBase } from '../../../../src/lab/check/booted/corpus-images.js';
import { constantAt, constantBefore } from '../../../../src/lab/check/booted/image.js';
import {
  bootedKernel,
  releaseOfPrologue,
  trampolineProfile,
} from '../../../../src/lab/check/booted/kernel.js';
import { readImage } from '../../../../src/lab/check/booted/scenario-image.js';
import type { ScenarioProgram } from '../../../../src/lab/check/booted/scenario-file.js';
import { readTraits } from '../../../../src/lab/check/booted/traits.js';

const NOP = 0xd503201f;
const KERNELS: readonly KernelVersion[] = ['6.1', '6.12', '7.3'];
const NEAR = 0xffff800082000000n;
const FAR = 0xffff8000b0000000n;
const CALL_BASE = 0xffff800081000000n;

describe('constants in images', () => {
  it('are what the JIT put in', () => {
    const value = fc.oneof(fc.bigInt(0n, 2n ** 64n - 1n), fc.nat().map(BigInt));
    fc.assert(
      fc.property(value, fc.integer(), (wide, narrow) => {
        const cases = [
          [moveInt64(7, wide), wide],
          [moveInt32(1, 7, narrow), BigInt.asUintN(64, BigInt(narrow))],
          [moveInt32(0, 7, narrow), BigInt(narrow >>> 0)],
          [moveAddress(7, wide | (0xffffn << 48n)), wide | (0xffffn << 48n)],
        ] as const;
        for (const [words, expected] of cases) {
          expect(constantAt([NOP, ...words, NOP], 1)).toBe(expected);
          expect(constantBefore([NOP, ...words, NOP], words.length + 1)).toBe(expected);
        }
      }),
    );
  });

  it('are none where another word stands', () => {
    expect(constantAt([NOP], 0)).toBeUndefined();
    expect(constantBefore([NOP], 1)).toBeUndefined();
  });
});

/** Tail call, helper call, 64-bit atomic, the inlined processor id, this CPU's copy of an object. */
const TEXT = `
  call 8
  lock *(u64 *)(r10 - 8) += r1
  exit`;

function image(
  kernel: KernelVersion,
  options: { lse: boolean; vhe: boolean; pac: boolean; bti: boolean; base?: bigint },
): number[] {
  const { lse, vhe, pac, bti, base = NEAR } = options;
  const percpu = kernel === '6.1' ? [] : [makeSlot(0xbf, { dst: 1, src: 1, off: -1 })];
  const slots = [makeSlot(0xf5), ...percpu, ...readSlots(assemble(TEXT))];
  const { functions } = compile(
    { functions: [{ name: 'f', insns: encodeSlots(slots), stackDepth: 8 }] },
    {
      kernel,
      cpu: { lse, vhe, sb: false },
      config: { pac, bti },
      offsets: { ...VECTOR_OFFSETS[kernel], maxEntries: 76, ptrs: 304, threadInfoCpu: 24 },
      callBase: CALL_BASE,
      dummyTramp: 0n,
      place: () => base,
    },
  );
  return [...(functions[0]?.words ?? [])];
}

describe('traits', () => {
  const anyTraits = fc.record({
    lse: fc.boolean(),
    vhe: fc.boolean(),
    pac: fc.boolean(),
    bti: fc.boolean(),
  });

  it.each(KERNELS)('of images of %s', (kernel) => {
    fc.assert(
      fc.property(anyTraits, (options) => {
        const traits = readTraits([image(kernel, options)]);
        const { lse, vhe, pac, bti } = options;
        const hasCopies = kernel !== '6.1';
        expect(traits).toEqual({
          cpu: { lse, vhe: vhe && hasCopies, sb: false },
          config: { pac, bti },
          move: kernel === '7.3' ? 'orr' : 'add',
          r0: kernel === '7.3' ? 8 : 7,
          offsets: {
            maxEntries: 76,
            ptrs: 304,
            bpfFunc: VECTOR_OFFSETS[kernel].bpfFunc,
            ...(hasCopies ? { threadInfoCpu: 24 } : {}),
          },
        });
      }),
    );
    const options = { lse: true, vhe: false, pac: true, bti: true };
    expect(releaseOfPrologue(image(kernel, options))).toBe(kernel);
  });

  it('of no image are undefined', () => {
    expect(readTraits([])).toMatchObject({ move: undefined, r0: undefined, offsets: {} });
    expect(releaseOfPrologue(undefined)).toBeUndefined();
  });
});

describe('a kernel between the profiles', () => {
  it('takes from its images what they show', () => {
    const kernel = bootedKernel('Linux 6.18.15+deb13-arm64', { move: 'orr', r0: 8 });
    expect(kernel.jit).toMatchObject({ move: 'orr', acquireRelease: true, indirectJumps: false });
    expect(kernel.jit.registers.bpf).toEqual([8, 0, 1, 2, 3, 4, 19, 20, 21, 22, 25, 9, 9]);
    const after = [0xd65f0140, 0xf90017e0, NOP, 0x5280002a];
    expect(trampolineProfile(kernel, after)).toMatchObject({
      nopAfterCall: true,
      nopBeforeProgram: false,
      countWidth: 32,
    });
    expect(trampolineProfile(kernel, [NOP, 0xd280002a])).toMatchObject({
      nopAfterCall: false,
      nopBeforeProgram: true,
      countWidth: 64,
    });
  });
});

describe.each([
  ['near', NEAR],
  ['far', FAR],
])('images %s the kernel', (_, base) => {
  it('show the call base', () => {
    const insns = assemble('call 768\ncall 1280\nexit');
    const { functions } = compile(
      { functions: [{ name: 'f', insns, stackDepth: 0 }] },
      {
        cpu: { lse: true, vhe: false, sb: false },
        config: { pac: true, bti: false },
        offsets: VECTOR_OFFSETS['6.12'],
        callBase: CALL_BASE,
        dummyTramp: 0n,
        place: () => base,
      },
    );
    const images = [[...(functions[0]?.words ?? [])]];
    const program = { name: 'f', functions: [readSlots(insns)], images, addresses: [base] };
    expect(findCallBase([program])).toBe(CALL_BASE);
  });

  it('show what trampolines call', () => {
    const anyLink = fc.record({
      kind: fc.constantFrom<('fentry' | 'fmod_ret' | 'fexit')[]>('fentry', 'fmod_ret', 'fexit'),
      cookie: fc.oneof(fc.constant(0n), fc.bigInt(1n, 2n ** 64n - 1n)),
    });
    const links = fc.array(anyLink, { minLength: 1, maxLength: 5 });
    const kernels = fc.constantFrom<KernelVersion[]>('6.1', '6.12', '7.3');
    fc.assert(
      fc.property(kernels, links, fc.nat(8), (kernel, kinds, count) => {
        const made = kinds.map(({ kind, cookie }, i): TrampolineLink => ({
          kind,
          cookie,
          program: 0xffff800084000000n + BigInt(i * 0x1000),
          entry: base + 0x10000n + BigInt(i * 0x100),
          enter: CALL_BASE + 0x1000n,
          exit: CALL_BASE + 0x2000n,
        }));
        const original = kinds.some(({ kind }) => kind !== 'fentry');
        const flags = original
          ? TRAMP_FLAGS.CALL_ORIG | TRAMP_FLAGS.SKIP_FRAME
          : TRAMP_FLAGS.RESTORE_REGS;
        const model = {
          arguments: Array.from({ length: count }, () => ({ size: 8, struct: false })),
        };
        const { words } = compileTrampoline(model, flags, made, {
          kernel,
          config: { pac: true, bti: false },
          offsets: VECTOR_OFFSETS[kernel],
          functionAddress: CALL_BASE,
          im: 0xffff000003123400n,
          enter: CALL_BASE + 0x3000n,
          exit: CALL_BASE + 0x4000n,
          place: () => base,
        });
        const programs = made.map(({ entry }, i): ScenarioProgram => {
          const functions = [[]];
          const [images, addresses] = [[[]], [entry]];
          return { name: `p${i}`, functions, images, addresses, attachType: 24, target: 'f' };
        });
        const trampoline = { name: 't', base, words: [...words], disassembly: [] };
        const reading = readImage(trampoline, programs);
        const order = ['fentry', 'fmod_ret', 'fexit'] as const;
        const expected = order.flatMap((kind) => made.filter((link) => link.kind === kind));
        expect(
          reading?.calls.map(({ program, entry, cookie, enter, exit }) => ({
            program,
            entry,
            cookie,
            enter: enter.address,
            exit: exit.address,
          })),
        ).toEqual(
          expected.map(({ program, entry, cookie, enter, exit }) => ({
            program,
            entry,
            cookie,
            enter,
            exit,
          })),
        );
        expect(reading?.im).toBe(original ? 0xffff000003123400n : 0n);
        expect(reading?.trampExit).toBe(original ? CALL_BASE + 0x4000n : 0n);
        expect(readImage(trampoline, [])).toBeUndefined();
      }),
      { numRuns: 60 },
    );
  });
});

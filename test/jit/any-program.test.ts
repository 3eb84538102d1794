import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeSlots, makeSlot, type Slot } from '../../src/bpf/instruction.js';
import { KernelError } from '../../src/common/errors.js';
import type { JitFunctionInput } from '../../src/jit/context.js';
import { compile, type JitImage } from '../../src/jit/program.js';
import type { KernelVersion } from '../../src/jit/profile.js';
import { VECTOR_OFFSETS } from '../../src/jit/vectors/harness.js';

const RUNS = Number(process.env['TRAMPOLAB_FUZZ_RUNS'] ?? 3000);

const anySlot: fc.Arbitrary<Slot> = fc.record({
  code: fc.nat(255),
  dst: fc.nat(15),
  src: fc.nat(15),
  off: fc.oneof(fc.integer({ min: -6, max: 6 }), fc.integer({ min: -32768, max: 32767 })),
  imm: fc.oneof(
    fc.constantFrom(0x00, 0x01, 0x40, 0x51, 0xe1, 0xf1, 0x100, 0x110, 16, 32, 64),
    fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
  ),
});

const anyKernel = fc.constantFrom<KernelVersion[]>('6.1', '6.12', '7.3');

/** The image of a one-function program, or why there is none. */
function compileAny(
  kernel: KernelVersion,
  slots: readonly Slot[],
  stackDepth: number,
  flags: { lse: boolean; pac: boolean; bti: boolean; arena: boolean; privateStack: boolean },
): JitImage | KernelError {
  const { lse, pac, bti } = flags;
  const main: JitFunctionInput = {
    name: 'main',
    insns: encodeSlots(slots),
    stackDepth,
    outgoingStackArguments: stackDepth,
    ...(flags.privateStack && kernel === '7.3' ? { privateStack: 0xffff800082a00100n } : {}),
  };
  const program = { functions: [main] };
  const arena = { kernVmStart: 0xffff800120000000n, userVmStart: 0x7f1200000000n };
  try {
    const { functions } = compile(flags.arena ? { ...program, arena } : program, {
      kernel,
      cpu: { lse, vhe: false, sb: false },
      config: { pac, bti },
      offsets: VECTOR_OFFSETS[kernel],
      callBase: 0xffff800081000000n,
      dummyTramp: 0xffff800080030000n,
      place: () => 0xffff800082000000n,
    });
    return functions[0] as JitImage;
  } catch (error) {
    if (error instanceof KernelError) return error;
    throw error;
  }
}

describe('any bytes', () => {
  const anyFlags = fc.record({
    lse: fc.boolean(),
    pac: fc.boolean(),
    bti: fc.boolean(),
    arena: fc.boolean(),
    privateStack: fc.boolean(),
  });

  it('give a consistent image or one refusal', () => {
    let images = 0;
    fc.assert(
      fc.property(
        anyKernel,
        fc.array(anySlot, { minLength: 1, maxLength: 4 }),
        fc.oneof(fc.nat(512), fc.nat(100_000)),
        anyFlags,
        (kernel, body, stackDepth, flags) => {
          const slots = [...body, makeSlot(0x95)];
          const image = compileAny(kernel, slots, stackDepth, flags);
          if (image instanceof KernelError) {
            expect(image.message).toMatch(/^-EINVAL: .* \(insn \d+ of main\)$/);
            return;
          }
          images += 1;
          expect(image.insnOffsets).toHaveLength(slots.length + 1);
          const offsets = [...image.insnOffsets];
          expect(offsets).toEqual(offsets.toSorted((a, b) => a - b));
          expect(image.pltOffset % 8).toBe(0);
          expect(4 * image.words.length).toBe(image.jitedLength);
          expect(image.jitedLength + 8).toBeLessThanOrEqual(image.extableOffset);
        },
      ),
      { numRuns: RUNS },
    );
    expect(images).toBeGreaterThan(50);
  });
});

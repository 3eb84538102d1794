import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KernelError } from '../../src/common/errors.js';
import {
  compileTrampoline,
  type Trampoline,
  type TrampolineOptions,
} from '../../src/jit/trampoline.js';
import type { KernelVersion } from '../../src/jit/profile.js';
import { trampolineFrame } from '../../src/jit/trampoline-frame.js';
import {
  type FunctionModel,
  TRAMP_FLAGS,
  type TrampolineLink,
} from '../../src/jit/trampoline-model.js';

const { CALL_ORIG, IP_ARG, RESTORE_REGS, RET_FENTRY_RET, SKIP_FRAME } = TRAMP_FLAGS;
const NEAR = 0xffff800083000000n;

const OPTIONS: TrampolineOptions = {
  config: { pac: true, bti: false },
  offsets: { insnsi: 72 },
  functionAddress: 0xffff800080100000n,
  im: 0xffff000012345600n,
  enter: 0xffff800080040000n,
  exit: 0xffff800080040100n,
  place: () => NEAR,
};

function link(kind: TrampolineLink['kind'], more: Partial<TrampolineLink> = {}): TrampolineLink {
  return {
    kind,
    program: 0xffff800084000000n,
    entry: 0xffff800082100000n,
    enter: 0xffff800080041200n,
    exit: 0xffff800080041300n,
    ...more,
  };
}

function integers(count: number): FunctionModel {
  return { arguments: Array.from({ length: count }, () => ({ size: 8, struct: false })) };
}

function make(
  count: number,
  flags: number,
  links: readonly TrampolineLink[],
  options: Partial<TrampolineOptions> = {},
): Trampoline {
  return compileTrampoline(integers(count), flags, links, { ...OPTIONS, ...options });
}

describe('frame', () => {
  it.each([
    // arguments, flags, nregs, args, retval, x19, stack size
    [1, RESTORE_REGS, 16, 24, undefined, 32, 48],
    [1, CALL_ORIG | SKIP_FRAME, 16, 24, 32, 40, 64],
    [2, CALL_ORIG | SKIP_FRAME, 16, 24, 40, 48, 64],
    [2, RET_FENTRY_RET, 16, 24, 40, 48, 64],
    [1, RESTORE_REGS | IP_ARG, 24, 32, undefined, 40, 64],
  ])('%i arguments, flags %i', (count, flags, nregs, args, retval, x19, stackSize) => {
    const frame = trampolineFrame(integers(count), flags);
    expect(frame).toMatchObject({ runCtx: 0, nregs, args, retval, x19, x20: x19 + 8, stackSize });
    expect(frame.returnAddress).toBe(stackSize + 8);
    expect(frame.parentRecord).toBe(stackSize + 16);
    expect(frame.ip).toBe(flags & IP_ARG ? 16 : undefined);
  });

  it('of struct_ops has one record', () => {
    const frame = trampolineFrame(integers(1), RET_FENTRY_RET, { structOps: true });
    expect(frame.parentRecord).toBeUndefined();
  });

  it('of a structure counts its registers', () => {
    const model = {
      arguments: [
        { size: 16, struct: true },
        { size: 4, struct: false },
      ],
    };
    expect(trampolineFrame(model, RESTORE_REGS)).toMatchObject({ argumentSlots: 3, x19: 48 });
  });
});

describe('static instruction counts', () => {
  it.each([
    // fentry: 17 + 2n + k(12 + 3c); fexit: 22 + 2m + 2n + 2c + k(12 + 3c)
    ['fentry near', [link('fentry')], RESTORE_REGS, NEAR, 34],
    ['fentry far', [link('fentry')], RESTORE_REGS, 0xffff8000b0000000n, 43],
    ['fexit near', [link('fexit')], CALL_ORIG | SKIP_FRAME, NEAR, 22 + 6 + 2 + 2 + 15],
    [
      'fexit far',
      [link('fexit')],
      CALL_ORIG | SKIP_FRAME,
      0xffff8000b0000000n,
      22 + 6 + 2 + 8 + 24,
    ],
    ['no program', [], CALL_ORIG | SKIP_FRAME, NEAR, 22 + 6 + 2 + 2],
  ])('%s: %#', (_, links, flags, base, count) => {
    expect(make(1, flags, links, { place: () => base }).words).toHaveLength(count);
  });
});

describe('listing', () => {
  const trampoline = make(2, CALL_ORIG | SKIP_FRAME | IP_ARG, [
    link('fentry', { cookie: 7n }),
    link('fmod_ret'),
    link('fexit'),
  ]);

  it('covers every word once', () => {
    let next = 0;
    for (const { start, end } of trampoline.listing) {
      expect(start).toBe(next);
      expect(end).toBeGreaterThan(start);
      next = end;
    }
    expect(next).toBe(trampoline.words.length);
  });

  it('names the steps in order', () => {
    const texts = trampoline.listing.map(({ text }) => text);
    const steps = [
      'frame record of the parent',
      'save function address',
      'save argument 0',
      'save argument 1',
      'call __bpf_tramp_enter',
      'fentry 0: attach cookie',
      'fentry 0: run',
      'fmod_ret 0: skip the original',
      'call original',
      'fexit 0: exit',
      'call __bpf_tramp_exit',
      'return to the parent',
    ];
    const positions = steps.map((step) => texts.indexOf(step));
    expect(positions).not.toContain(-1);
    expect(positions).toEqual(positions.toSorted((a, b) => a - b));
  });

  it('marks the branch over the fexit programs and its target', () => {
    const { ipAfterCall = -4, ipEpilogue = -4, listing, words } = trampoline;
    expect(words[ipAfterCall / 4]).toBe(0xd503201f);
    const epilogue = listing.find(({ text }) => text === 'call __bpf_tramp_exit');
    expect(epilogue?.start).toBe(ipEpilogue / 4);
  });
});

describe('the branch over fexit programs in 7.3', () => {
  const flags = CALL_ORIG | SKIP_FRAME;

  it('is the pad of the first of them', () => {
    const links = [link('fentry'), link('fexit'), link('fexit')];
    const { ipAfterCall, ipEpilogue, listing } = make(1, flags, links, { kernel: '7.3' });
    const start = (text: string): number | undefined => {
      const entry = listing.find((each) => each.text === text);
      return entry && 4 * entry.start;
    };
    expect(ipAfterCall).toBe(start('fexit 0: pad'));
    expect(ipEpilogue).toBe(start('call __bpf_tramp_exit'));
  });

  it('is missing without any', () => {
    const { ipAfterCall, ipEpilogue } = make(1, flags, [link('fmod_ret')], { kernel: '7.3' });
    expect([ipAfterCall, ipEpilogue]).toEqual([undefined, undefined]);
  });
});

it('any model, flags and links give a listed trampoline or one refusal', () => {
  const anyLink = fc.record({
    kind: fc.constantFrom<TrampolineLink['kind'][]>('fentry', 'fmod_ret', 'fexit'),
    jited: fc.boolean(),
    cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    structOps: fc.boolean(),
    session: fc.boolean(),
    sessionCookie: fc.boolean(),
  });
  const anyArgument = fc.record({ size: fc.integer({ min: 1, max: 16 }), struct: fc.boolean() });
  const kernels = fc.constantFrom<KernelVersion[]>('6.1', '6.12', '7.3');
  fc.assert(
    fc.property(
      fc.array(anyArgument, { maxLength: 13 }),
      fc.nat(511),
      fc.array(anyLink, { maxLength: 38 }),
      kernels,
      (parameters, flags, links, kernel) => {
        const all = links.map(({ kind, ...more }) => link(kind, more));
        try {
          const model = { arguments: parameters };
          const { listing, words } = compileTrampoline(model, flags, all, { ...OPTIONS, kernel });
          expect(listing.at(-1)?.end).toBe(words.length);
        } catch (error) {
          expect(error).toBeInstanceOf(KernelError);
        }
      },
    ),
    { numRuns: 500 },
  );
});

describe('refusals', () => {
  const struct: FunctionModel = { arguments: [{ size: 8, struct: true }] };
  const many = Array.from({ length: 38 }, () => link('fmod_ret', { cookie: 2n ** 63n + 5n }));

  it.each([
    ['nine arguments', '6.12', integers(9), [link('fentry')], 'ENOTSUPP'],
    ['nine arguments', '6.1', integers(9), [link('fentry')], 'ENOTSUPP'],
    ['a structure', '6.1', struct, [link('fentry')], 'ENOTSUPP'],
    ['thirteen arguments', '7.3', integers(13), [link('fentry')], 'ENOTSUPP'],
    ['more than a page', '6.12', integers(8), many, 'E2BIG'],
    ['more than a page', '6.1', integers(8), many, 'EFBIG'],
  ] as const)('%s in %s', (_, kernel, model, links, errno) => {
    const making = (): unknown =>
      compileTrampoline(model, CALL_ORIG | SKIP_FRAME, links, { ...OPTIONS, kernel });
    expect(making).toThrow(KernelError);
    expect(making).toThrow(`-${errno}: `);
  });

  it.each([0, 17])('an argument of %i bytes', (size) => {
    const model = { arguments: [{ size, struct: true }] };
    const making = (): unknown => compileTrampoline(model, RESTORE_REGS, [link('fentry')], OPTIONS);
    expect(making).toThrow(/-EINVAL: .* argument of \d+ bytes/);
  });

  it('fmod_ret needs the original', () => {
    expect(() => make(1, RESTORE_REGS, [link('fmod_ret')])).toThrow(/-EINVAL: fmod_ret without/);
  });
});

import { describe, expect, it } from 'vitest';
import { encodeSlots, makeSlot, type Slot } from '../../src/bpf/instruction.js';
import { KernelError } from '../../src/common/errors.js';
import { compile, type JitInput, type JitOptions, type JitProgram } from '../../src/jit/program.js';
import { VECTOR_OFFSETS } from '../../src/jit/vectors/harness.js';

const NEAR = 0xffff800082000000n;
const FAR = 0xffff8000a0000000n;
const EXIT = makeSlot(0x95);

const OPTIONS: JitOptions = {
  cpu: { lse: true, vhe: false, sb: false },
  config: { pac: false, bti: false },
  offsets: VECTOR_OFFSETS['6.12'],
  callBase: 0xffff800081000000n,
  dummyTramp: 0xffff800080030000n,
  place: (index) => NEAR + BigInt(index * 0x10000),
};

function input(...functions: readonly (readonly Slot[])[]): JitInput {
  return {
    functions: functions.map((slots, index) => {
      return { name: `f${index}`, insns: encodeSlots(slots), stackDepth: 0 };
    }),
  };
}

function run(slots: readonly Slot[], options: Partial<JitOptions> = {}): JitProgram {
  return compile(input([...slots, EXIT]), { ...OPTIONS, ...options });
}

describe('refusals name opcode and instruction', () => {
  it.each<[string, Slot, Partial<JitOptions>, RegExp]>([
    ['callx', makeSlot(0x8d), {}, /opcode 0x8d not supported \(insn 1 of f0\)/],
    ['packet load', makeSlot(0x30), {}, /opcode 0x30 not supported/],
    ['32-bit call', makeSlot(0x86), {}, /opcode 0x86 not supported/],
    ['ldsx of 8 bytes', makeSlot(0x99), {}, /opcode 0x99 not supported/],
    ['neg of a register', makeSlot(0x8f), {}, /opcode 0x8f not supported/],
    ['gotol in 6.1', makeSlot(0x06), { kernel: '6.1' }, /opcode 0x06 not supported/],
    ['bswap in 6.1', makeSlot(0xd7, { imm: 16 }), { kernel: '6.1' }, /opcode 0xd7/],
    ['indirect jump in 6.12', makeSlot(0x0d), {}, /opcode 0x0d not supported/],
    ['indirect call', makeSlot(0x8d), { kernel: '7.3' }, /opcode 0x8d/],
    ['acquire in 6.12', makeSlot(0xdb, { imm: 0x100 }), {}, /atomic operation 0x100 not/],
    ['acquire of a byte', makeSlot(0xd3, { imm: 0x100 }), {}, /opcode 0xd3 not supported/],
    ['atomic', makeSlot(0xdb, { imm: 0x20 }), {}, /atomic operation 0x20 not supported/],
    ['shift', makeSlot(0x64, { imm: 32 }), {}, /shift by 32 \(insn 1 of f0\)/],
    ['byte swap', makeSlot(0xdc, { imm: 8 }), {}, /byte swap of 8 bits/],
    ['jump out', makeSlot(0x05, { off: 7 }), {}, /jump to insn 9/],
    ['half an ld_imm64', makeSlot(0x18), {}, /.*/],
    ['cast', makeSlot(0xbf, { off: 1, imm: 0x10000 }), {}, /program without an arena/],
    ['odd call', makeSlot(0x85, { imm: 0x102 }), {}, /call of unaligned address 0xffff8000810001/],
    ['register', makeSlot(0xbf, { dst: 13 }), {}, /register R13 does not exist/],
  ])('%s', (name, slot, options, message) => {
    const slots = name === 'half an ld_imm64' ? [slot] : [makeSlot(0xb7), slot, EXIT];
    const compiling = (): unknown => compile(input(slots), { ...OPTIONS, ...options });
    expect(compiling).toThrow(KernelError);
    expect(compiling).toThrow(/^-EINVAL: /);
    expect(compiling).toThrow(message);
  });

  it('arena atomics need LSE', () => {
    const cpu = { lse: false, vhe: false, sb: false };
    const arena = { kernVmStart: 0xffff800120000000n, userVmStart: 0x7f1200000000n };
    const program = { ...input([makeSlot(0xfb), EXIT]), arena };
    expect(() => compile(program, { ...OPTIONS, cpu })).toThrow(/arena atomics need LSE/);
    expect(compile(program, OPTIONS).functions[0]?.extable).toHaveLength(1);
  });

  // r0 %= 0x12345678 takes 4 words, a compare-and-exchange loop 9
  const modulo = Array.from({ length: 32_766 }, () => makeSlot(0x97, { imm: 0x12345678 }));
  const exchange = makeSlot(0xdb, { dst: 1, src: 2, off: 8, imm: 0xf1 });
  const exchanges = Array.from({ length: 32_766 }, () => exchange);
  const cpu = { lse: false, vhe: false, sb: false };
  const back = makeSlot(0x15, { off: -32_767 });

  it('a conditional jump beyond 1 MiB', () => {
    expect(() => run([...modulo, back])).not.toThrow();
    expect(() => run([...exchanges, back], { cpu })).toThrow(
      /branch of -?\d+ instructions does not fit imm19 \(insn 32766 of f0\)/,
    );
  });

  it('a jump back to code behind the first MiB, whose distance the first pass does not know', () => {
    expect(() => run([...modulo, ...modulo, ...modulo, ...modulo, back])).toThrow(
      /branch of 393\d\d\d instructions does not fit imm19/,
    );
  });
});

describe('images', () => {
  it('shrink when calls turn out to be in reach, and keep their first allocation', () => {
    const call = makeSlot(0x85, { imm: 0x100 });
    const near = run([call]).functions[0];
    const far = run([call], { place: () => FAR }).functions[0];
    expect(near?.allocSize).toBe(far?.allocSize);
    expect(far?.jitedLength).toBe((near?.jitedLength ?? 0) + 16);
  });

  it('are placed one after the other in order, with their sizes', () => {
    const asked: [number, number][] = [];
    const callee = makeSlot(0x85, { src: 1, off: 1 });
    const { functions } = compile(input([callee, EXIT], [EXIT]), {
      ...OPTIONS,
      place: (index, size) => {
        asked.push([index, size]);
        return OPTIONS.place(index, size);
      },
    });
    expect(asked).toEqual(functions.map(({ allocSize }, index) => [index, allocSize]));
    // bl f1, with f0's prologue of 6 words before it
    expect(functions[0]?.words[6]).toBe(0x94000000 + (0x10000 >> 2) - 6);
  });

  it('of 7.3 keep R0 over arch_bpf_timed_may_goto, whose result is in AX', () => {
    const call = [makeSlot(0x85, { imm: 0x100 })];
    const plain = run(call, { kernel: '7.3' }).functions[0];
    const timed = run(call, { kernel: '7.3', timedMayGoto: OPTIONS.callBase + 0x100n });
    expect(timed.functions[0]?.epilogueOffset).toBe((plain?.epilogueOffset ?? 0) - 4);
  });

  it('of a giant program take seconds at most', () => {
    const slots = Array.from({ length: 199_586 }, (_, i) =>
      makeSlot(0x57, { dst: i % 10, imm: i }),
    );
    const started = performance.now();
    expect(run(slots).functions[0]?.insnOffsets).toHaveLength(199_588);
    expect(performance.now() - started).toBeLessThan(10_000);
  });
});

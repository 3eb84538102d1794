import { describe, expect, it } from 'vitest';
import { bytesToHex } from '../../src/common/bytes.js';
import { KernelError } from '../../src/common/errors.js';
import { encodeSlots, makeSlot, type Slot } from '../../src/bpf/instruction.js';
import { analyze } from '../../src/bpf/object/data-flow.js';
import { load } from '../../src/bpf/object/load.js';
import type {
  FunctionSpec,
  ObjectSpec,
  Relocation,
  SectionKind,
} from '../../src/bpf/object/spec.js';
import { PlainHost } from '../../src/bpf/plain-host.js';

// the few instructions that these programs need
const move = (dst: number, src: number): Slot => makeSlot(0xbf, { dst, src });
const set = (dst: number, imm: number): Slot => makeSlot(0xb7, { dst, imm });
const addImm = (dst: number, imm: number): Slot => makeSlot(0x07, { dst, imm });
const addReg = (dst: number, src: number): Slot => makeSlot(0x0f, { dst, src });
const andImm = (dst: number, imm: number): Slot => makeSlot(0x57, { dst, imm });
const loadW = (dst: number, src: number, off: number): Slot => makeSlot(0x61, { dst, src, off });
const loadDw = (dst: number, src: number, off: number): Slot => makeSlot(0x79, { dst, src, off });
const storeDw = (dst: number, off: number, src: number): Slot => makeSlot(0x7b, { dst, src, off });
const storeB = (dst: number, off: number, src: number): Slot => makeSlot(0x73, { dst, src, off });
const jumpIfZero = (dst: number, off: number): Slot => makeSlot(0x15, { dst, off });
const jump = (off: number): Slot => makeSlot(0x05, { off });
const helper = (id: number): Slot => makeSlot(0x85, { imm: id });
const call = makeSlot(0x85, { src: 1 });
const exit = makeSlot(0x95);

function functionOf(
  name: string,
  slots: readonly Slot[],
  callees: readonly number[],
): FunctionSpec {
  const calls = slots.flatMap((slot, at) => (slot.code === 0x85 && slot.src === 1 ? [at] : []));
  return {
    name,
    section: name === 'main' ? 'xdp' : '.text',
    offset: 0,
    insns: encodeSlots(slots),
    relocations: calls.map((slot, i): Relocation => ({
      kind: 'call',
      slot,
      callee: callees[i] ?? 1,
    })),
    lines: [],
    coreRelocations: [],
    isStatic: name !== 'main',
    btfId: 0,
  };
}

function objectOf(functions: readonly (readonly Slot[])[], kind: SectionKind = 'xdp'): ObjectSpec {
  return {
    name: 'flow',
    license: 'GPL',
    programs: [
      {
        name: 'main',
        section: kind,
        kind,
        frags: false,
        sleepable: false,
        xdpAttach: 'device',
        functionIndex: 0,
      },
    ],
    functions: functions.map((slots, i) =>
      functionOf(i === 0 ? 'main' : `sub${i}`, slots, [i + 1]),
    ),
    maps: [],
    externs: [],
    notes: [],
  };
}

const helpers = new Map([1, 2, 44].map((id) => [id, () => {}] as const));
const host = new PlainHost({ helpers, memorySize: 1 << 16 });

function loaded(functions: readonly (readonly Slot[])[], kind: SectionKind = 'xdp') {
  return load(objectOf(functions, kind), host).program('main').xlated.functions;
}

function refusal(functions: readonly (readonly Slot[])[], kind: SectionKind = 'xdp'): string {
  try {
    loaded(functions, kind);
  } catch (error) {
    if (error instanceof KernelError) return error.message;
    throw error;
  }
  return 'accepted';
}

describe('context accesses', () => {
  it.each<[string, number, readonly Slot[]]>([
    ['data', 0, [loadDw(2, 6, 0)]],
    ['data_end', 4, [loadDw(2, 6, 8)]],
    ['data_meta', 8, [loadDw(2, 6, 16)]],
    ['ingress_ifindex', 12, [loadDw(2, 6, 32), loadDw(2, 2, 0), loadW(2, 2, 224)]],
    ['rx_queue_index', 16, [loadDw(2, 6, 32), loadW(2, 2, 8)]],
  ])('%s becomes loads of struct xdp_buff', (_, offset, expected) => {
    const [main] = loaded([[move(6, 1), loadW(2, 6, offset), set(0, 2), exit]]);
    expect(bytesToHex(main.insns)).toBe(
      bytesToHex(encodeSlots([move(6, 1), ...expected, set(0, 2), exit])),
    );
  });

  it('mends jumps over an instruction that grew', () => {
    const [main] = loaded([
      [set(0, 2), jumpIfZero(1, 2), loadW(2, 1, 12), jumpIfZero(2, -3), exit],
    ]);
    expect(bytesToHex(main.insns)).toBe(
      bytesToHex(
        encodeSlots([
          set(0, 2),
          jumpIfZero(1, 4),
          loadDw(2, 1, 32),
          loadDw(2, 2, 0),
          loadW(2, 2, 224),
          jumpIfZero(2, -5),
          exit,
        ]),
      ),
    );
  });

  it.each<[string, readonly (readonly Slot[])[]]>([
    ['a register', [[move(9, 1), loadW(2, 9, 0), set(0, 2), exit]]],
    ['a stack slot', [[storeDw(10, -8, 1), loadDw(3, 10, -8), loadW(2, 3, 0), set(0, 2), exit]]],
    [
      'a stack slot through another register',
      [[move(4, 10), addImm(4, -24), storeDw(4, 8, 1), loadDw(3, 10, -16), loadW(2, 3, 0), exit]],
    ],
    ['both ways of a branch', [[move(6, 1), jumpIfZero(2, 1), set(3, 1), loadW(2, 6, 0), exit]]],
    ['a helper call', [[move(6, 1), helper(44), loadW(2, 6, 0), exit]]],
    [
      'a subprogram',
      [
        [call, set(0, 2), exit],
        [loadW(2, 1, 0), set(0, 1), exit],
      ],
    ],
    [
      'a return value',
      [
        [call, loadW(2, 0, 0), exit],
        [move(0, 1), exit],
      ],
    ],
    [
      "the caller's stack",
      [
        [storeDw(10, -8, 1), move(1, 10), addImm(1, -16), call, set(0, 2), exit],
        [loadDw(3, 1, 8), loadW(2, 3, 0), set(0, 0), exit],
      ],
    ],
    [
      'a subprogram of a subprogram',
      [
        [call, exit],
        [set(2, 7), call, exit],
        [loadW(2, 1, 0), set(0, 1), exit],
      ],
    ],
  ])('follows the context pointer through %s', (_, functions) => {
    const all = loaded(functions).map(({ insns }) => bytesToHex(insns));
    // the u32 load of data has become a u64 load
    expect(all.join('')).not.toMatch(/^(.{16})*61.20000/);
    expect(all.join('')).toMatch(/^(.{16})*79.2000000000000/);
  });

  it('leaves other loads alone', () => {
    const program = [set(3, 0), move(4, 10), loadW(2, 3, 0), loadW(2, 4, -4), set(0, 2), exit];
    expect(bytesToHex(loaded([program])[0].insns)).toBe(bytesToHex(encodeSlots(program)));
    // a slot that was overwritten holds the context no more
    const spilled = [
      storeDw(10, -8, 1),
      storeB(10, -5, 2),
      loadDw(3, 10, -8),
      loadW(2, 3, 0),
      exit,
    ];
    expect(bytesToHex(loaded([spilled])[0].insns)).toBe(bytesToHex(encodeSlots(spilled)));
  });

  it.each<[string, readonly Slot[], string]>([
    ['odd offset', [loadW(2, 1, 2), exit], '-EACCES: invalid bpf_context access off=2 size=4: '],
    [
      'past the end',
      [loadW(2, 1, 24), exit],
      '-EACCES: invalid bpf_context access off=24 size=4: ',
    ],
    ['u64', [loadDw(2, 1, 0), exit], '-EACCES: invalid bpf_context access off=0 size=8: '],
    ['store', [storeDw(1, 0, 2), exit], '-EACCES: invalid bpf_context access off=0 size=8: '],
    [
      'egress on a device',
      [loadW(2, 1, 20), exit],
      '-EACCES: invalid bpf_context access off=20 size=4: ',
    ],
    [
      'moved',
      [addImm(1, 4), loadW(2, 1, 0), exit],
      '-EACCES: dereference of modified ctx ptr disallowed: ',
    ],
    [
      'two kinds of pointer',
      [jumpIfZero(2, 1), move(1, 10), loadW(2, 1, 0), exit],
      '-EINVAL: same insn cannot be used with different pointers: ',
    ],
  ])('refuses: %s', (_, program, expected) => {
    expect(refusal([program])).toMatch(new RegExp(`^${expected}program 'main' insn \\d`));
  });

  it('leaves the argument array of tracing programs as it is', () => {
    const program = [loadDw(2, 1, 0), loadW(3, 1, 8), loadDw(4, 1, 24), set(0, 0), exit];
    const object = load(objectOf([program], 'fentry'), host).program('main');
    expect(bytesToHex(object.xlated.functions[0].insns)).toBe(bytesToHex(encodeSlots(program)));
    expect(object.contextBytes).toBe(32);
    expect(refusal([[loadW(2, 1, 4), exit]], 'fexit')).toMatch(/access off=4 size=4/);
    expect(refusal([[loadDw(2, 1, 96), exit]], 'fexit')).toMatch(/access off=96 size=8/);
    expect(refusal([[loadW(2, 1, 0), exit]], 'tc')).toMatch(/struct __sk_buff is not supported/);
  });

  it('turns tail calls into their own opcode', () => {
    const [main] = loaded([[set(3, 0), helper(12), set(0, 1), exit]]);
    expect(main.insns[8]).toBe(0xf5);
  });

  it('refuses endless recursion and unknown helpers', () => {
    const spec = objectOf([
      [call, exit],
      [call, exit],
    ]);
    const recursive = {
      ...spec,
      functions: spec.functions.map((each) => ({
        ...each,
        relocations: each.relocations.map((r) => ({ ...r, callee: 1 }) as Relocation),
      })),
    };
    expect(() => load(recursive, host)).toThrow('-E2BIG: the call stack of 9 frames is too deep');
    expect(refusal([[helper(200), exit]])).toBe(
      "-EINVAL: unknown func bpf_ringbuf_discard_dynptr#200: program 'main' insn 0",
    );
  });
});

describe('stack depth', () => {
  it.each<[string, number, readonly Slot[]]>([
    ['none', 0, [set(0, 0), exit]],
    ['a store', 8, [storeDw(10, -8, 0), exit]],
    ['the lowest of several', 24, [storeDw(10, -8, 0), storeB(10, -24, 0), exit]],
    ['through a copy', 40, [move(2, 10), addImm(2, -32), storeDw(2, -8, 0), exit]],
    ['an argument of a helper', 16, [move(2, 10), addImm(2, -16), helper(1), exit]],
    ['a pointer that is never used', 0, [move(2, 10), addImm(2, -16), exit]],
    [
      'an index that cannot be negative',
      64,
      [andImm(3, 7), move(2, 10), addImm(2, -64), addReg(2, 3), storeB(2, 0, 0), exit],
    ],
    ['an index that may be', 512, [move(2, 10), addReg(2, 3), storeB(2, -64, 0), exit]],
    [
      'a pointer that grows in a loop',
      64,
      [move(2, 10), addImm(2, -64), storeB(2, 0, 0), addImm(2, 8), jumpIfZero(3, -3), exit],
    ],
    [
      'a pointer that falls in a loop',
      512,
      [move(2, 10), addImm(2, -8), storeB(2, 0, 0), addImm(2, -8), jumpIfZero(3, -3), exit],
    ],
    ['a pointer put where it is not followed', 512, [move(2, 10), storeDw(6, 0, 2), exit]],
    ['code that is not reached', 0, [set(0, 0), jump(1), storeDw(10, -8, 0), exit]],
  ])('%s: %i bytes', (_, depth, program) => {
    const main = { spec: functionOf('main', program, []), slots: program };
    expect(analyze([main])[0]?.stackDepth).toBe(depth);
  });

  it("counts what a callee uses of its caller's stack there", () => {
    const [main, sub] = loaded([
      [move(2, 10), addImm(2, -32), call, set(0, 0), exit],
      [storeDw(2, -16, 1), storeDw(10, -8, 1), set(0, 0), exit],
    ]);
    expect([main.stackDepth, sub?.stackDepth]).toEqual([48, 8]);
  });
});

import { describe, expect, it } from 'vitest';
import { encodeSlots, makeSlot, type Slot } from '../../src/bpf/instruction.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { removeDeadCode } from '../../src/bpf/object/dead-code.js';
import { expandMayGoto, fixupInstruction } from '../../src/bpf/object/fixups.js';
import { createWasmProgram } from '../../src/bpf/wasm.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { EDGES, referenceAlu } from './reference.js';

const exit = makeSlot(0x95);

/** Runs with R1 and R2 given, on both tiers. Verifier output may use R11. */
function runner(slots: readonly Slot[], stackDepth = 0): (r1?: bigint, r2?: bigint) => bigint {
  const insns = encodeSlots(slots);
  const program = {
    name: 'main',
    type: 'socket_filter' as const,
    functions: [{ name: 'main', insns, stackDepth }] as const,
  };
  const host = new PlainHost({ memorySize: 1 << 16 });
  const engines = [createInterpreter(program, host), createWasmProgram(program, host)];
  return (r1 = 0n, r2 = 0n) => {
    const results = engines.map((engine) => engine.run(r1, { r2, budget: 1e9 }));
    const [first] = results;
    expect(results[1]).toEqual(first);
    if (first?.kind !== 'return') throw new Error(first?.kind);
    return first.r0;
  };
}

describe('guarded divisions give what the ISA says', () => {
  const cases = (['div', 'mod'] as const).flatMap((op) =>
    ([32, 64] as const).flatMap((width) =>
      ([0, 1] as const).map((off) => [`${off ? 's' : ''}${op}${width}`, op, width, off] as const),
    ),
  );
  it.each(cases)('%s', (_name, op, width, off) => {
    const code = (op === 'div' ? 0x30 : 0x90) | 0x08 | (width === 64 ? 7 : 4);
    const guarded = fixupInstruction(makeSlot(code, { dst: 0, src: 2, off }));
    if (!guarded) throw new Error('not guarded');
    // what follows must be reached from every way through
    const run = runner([makeSlot(0xbf, { dst: 0, src: 1 }), ...guarded, exit]);
    for (const a of EDGES) {
      for (const b of EDGES) {
        expect(run(a, b), `${a} ${op} ${b}`).toBe(referenceAlu(op, width, off, a, b));
      }
    }
  });

  it.each(['div', 'mod'] as const)('s%s by the number -1', (op) => {
    for (const width of [32, 64] as const) {
      const code = (op === 'div' ? 0x30 : 0x90) | (width === 64 ? 7 : 4);
      const guarded = fixupInstruction(makeSlot(code, { off: 1, imm: -1 }));
      if (!guarded) throw new Error('not guarded');
      const run = runner([makeSlot(0xbf, { dst: 0, src: 1 }), ...guarded, exit]);
      for (const a of EDGES) {
        expect(run(a)).toBe(referenceAlu(op, width, 1, a, -1n));
      }
    }
  });

  it('other instructions stay', () => {
    for (const slot of [makeSlot(0x37, { imm: 3 }), makeSlot(0x0f), makeSlot(0x85, { imm: 5 })]) {
      expect(fixupInstruction(slot)).toBeUndefined();
    }
  });
});

describe('may_goto', () => {
  it('ends a loop after 8 Mi rounds, in slots below the stack', () => {
    // r0 = 0; again: may_goto out; r0 += 1; goto again; out: exit
    const slots = [
      makeSlot(0xb7),
      makeSlot(0xe5, { off: 2 }),
      makeSlot(0x07, { imm: 1 }),
      makeSlot(0x05, { off: -3 }),
      exit,
    ];
    const expanded = expandMayGoto(slots, 16);
    if (!expanded) throw new Error('nothing expanded');
    expect(expanded.stackDepth).toBe(24);
    expect(expanded.slots[0]).toEqual(makeSlot(0x7a, { dst: 10, off: -24, imm: 0x800000 }));
    expect(expanded.slots[2]).toEqual(makeSlot(0x79, { dst: 11, src: 10, off: -24 }));
    expect(expanded.slots[3]).toEqual(makeSlot(0x15, { dst: 11, off: 4 }));
    expect(runner(expanded.slots, 24)()).toBe(0x800000n);
    expect(expandMayGoto([exit], 0)).toBeUndefined();
  });
});

describe('dead code', () => {
  const move = (dst: number, imm: number): Slot => makeSlot(0xb7, { dst, imm });
  it.each<[string, readonly Slot[], readonly Slot[]]>([
    [
      'a branch never taken',
      [move(1, 1), makeSlot(0x15, { dst: 1, off: 1 }), move(0, 1), exit],
      [move(1, 1), move(0, 1), exit],
    ],
    [
      'what a taken branch jumps over',
      [
        move(1, 0),
        makeSlot(0x15, { dst: 1, off: 1 }),
        makeSlot(0x85, { imm: 9 }),
        move(0, 1),
        exit,
      ],
      [move(1, 0), move(0, 1), exit],
    ],
    [
      'nothing where two ways bring different numbers',
      [
        move(1, 0),
        makeSlot(0x15, { dst: 2, off: 1 }),
        move(1, 1),
        makeSlot(0x15, { dst: 1 }),
        exit,
      ],
      [
        move(1, 0),
        makeSlot(0x15, { dst: 2, off: 1 }),
        move(1, 1),
        makeSlot(0x15, { dst: 1 }),
        exit,
      ],
    ],
    [
      'nothing in a loop that counts',
      [
        move(1, 0),
        makeSlot(0x07, { dst: 1, imm: 1 }),
        makeSlot(0x55, { dst: 1, off: -2, imm: 9 }),
        exit,
      ],
      [
        move(1, 0),
        makeSlot(0x07, { dst: 1, imm: 1 }),
        makeSlot(0x55, { dst: 1, off: -2, imm: 9 }),
        exit,
      ],
    ],
  ])('%s', (_name, slots, expected) => {
    expect(removeDeadCode(slots).slots).toEqual(expected);
  });

  it('takes the findings of another', () => {
    const slots = [
      makeSlot(0x15, { dst: 1, off: 2 }),
      makeSlot(0x18, { dst: 2 }),
      makeSlot(0),
      move(0, 1),
      exit,
    ];
    expect(removeDeadCode(slots, new Set([1])).slots).toEqual([move(0, 1), exit]);
    expect(removeDeadCode(slots, new Set([])).slots).toEqual(slots);
    expect(removeDeadCode(slots, new Set([1])).moved).toEqual([0, 0, 0, 0, 1, 2]);
  });
});

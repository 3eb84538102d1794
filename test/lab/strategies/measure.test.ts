import { describe, expect, it } from 'vitest';
import { decode, encode } from '../../../src/a64/codec.js';
import { SP, type TraceEntry } from '../../../src/cpu/cpu.js';
import { kindsOf, measurePath, type PartMeasure } from '../../../src/lab/strategies/measure.js';

describe('what an instruction is', () => {
  it.each([
    ['mov x9, x30', 0xaa1e03e9, []],
    ['nop', 0xd503201f, []],
    ['prfm', 0xf9800000, []],
    ['ldr x17, [x11, #208]', 0xf9406971, ['load']],
    ['ldr x10, .+8', 0x5800004a, ['load']],
    ['ldp x29, x30, [sp], #16', 0xa8c17bfd, ['load']],
    ['ldxr x0, [x1]', 0xc85f7c20, ['load']],
    ['stp x29, x9, [sp, #-16]!', 0xa9bf27fd, ['store']],
    ['stlxr w2, x0, [x1]', 0xc802fc20, ['store']],
    ['ldadd x0, x1, [x2]', 0xf8200041, ['load', 'store']],
    ['cas x0, x1, [x2]', 0xc8a07c41, ['load', 'store']],
    ['b +8', 0x14000002, ['branch']],
    ['bl +0', 0x94000000, ['branch', 'call']],
    ['cbnz x17', 0xb50004d1, ['branch']],
    ['tbz w9, #0', 0x36000049, ['branch']],
    ['b.eq', 0x54000040, ['branch']],
    ['br x17', 0xd61f0220, ['branch', 'indirect']],
    ['blr x4', 0xd63f0080, ['branch', 'indirect', 'call']],
    ['ret x10', 0xd65f0140, ['branch', 'return']],
  ] as const)('%s', (_text, word, kinds) => {
    const decoded = decode(word);
    expect(decoded && kindsOf(decoded)).toEqual(kinds);
  });
});

type TraceRow = readonly [word: number, changes?: Readonly<Record<number, bigint>>];

/** Instructions one behind the other, each with what it changes. */
function trace(...rows: readonly TraceRow[]): TraceEntry[] {
  return rows.map(([word, changes = {}], i) => ({
    pc: BigInt(0x1000 + 4 * i),
    word,
    changes: Object.entries(changes).map(([register, value]) => ({
      register: Number(register),
      value,
    })),
  }));
}

const ARGS = [0xaaaan, 0xbbbbn];
const start = {
  x: Array.from({ length: 31 }, (_, i) => ARGS[i] ?? BigInt(i)),
  sp: 0x8000n,
};
const STP_X0_X1 = encode('STP_offset', { sf: 1, imm7: 0, Rt2: 1, Rn: 31, Rt: 0 });
const STR_X0 = encode('STR_unsigned', { sf: 1, imm12: 0, Rn: 31, Rt: 0 });
const LDR_X5 = encode('LDR_unsigned', { sf: 1, imm12: 0, Rn: 31, Rt: 5 });
const NOP = encode('NOP', {});

function measured(...rows: readonly TraceRow[]): PartMeasure | undefined {
  return measurePath(trace(...rows), start, ARGS, () => 'all').get('all');
}

describe('arguments', () => {
  it('are saved where a register with their value is stored', () => {
    expect(measured([STP_X0_X1], [STR_X0])?.saved).toEqual([2, 1]);
  });
  it('are not when the register holds something else by then', () => {
    expect(measured([NOP, { 0: 7n }], [STR_X0])?.saved).toEqual([0, 0]);
  });
  it('are restored into any register', () => {
    expect(measured([LDR_X5, { 5: 0xbbbbn }])?.restored).toEqual([0, 1]);
  });
});

describe('stack and text', () => {
  it('is the deepest below the start', () => {
    const rows = [
      [NOP, { [SP]: 0x7f00n }],
      [NOP, { [SP]: 0x8000n }],
    ] as const;
    expect(measured(...rows)?.stack).toBe(0x100);
  });
  it('counts an instruction once, however often it runs', () => {
    const twice = [...trace([NOP], [NOP]), ...trace([NOP])];
    const measure = measurePath(twice, start, ARGS, () => 'all').get('all');
    expect([measure?.instructions, measure?.text]).toEqual([3, 8]);
  });
});

const BL = 0x94000000;
const RET_X30 = 0xd65f03c0;
const RET_X10 = 0xd65f0140;

describe('returns that are predicted wrongly', () => {
  const rows: readonly (readonly [string, readonly TraceRow[], number])[] = [
    ['a return to where the caller is', [[RET_X30]], 0],
    ['a return behind the BL', [[BL, { 30: 0x1004n }], [RET_X30]], 0],
    ['RET as a jump', [[RET_X10]], 1],
    ['a call that nobody returns from', [[BL, { 30: 0x1004n }], [RET_X10]], 1],
    [
      'the same, and the return to its caller',
      [[BL, { 30: 0x1004n }], [NOP, { 30: 30n }], [RET_X30]],
      1,
    ],
  ];
  it.each(rows)('%s', (_what, executed, misses) => {
    expect(measured(...executed)?.returnMisses).toBe(misses);
  });
});

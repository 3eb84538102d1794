import { plainRecord } from '../../../src/bpf/btf/record.js';
import { describe, expect, it } from 'vitest';
import { bytesToHex } from '../../../src/common/bytes.js';
import { encodeSlots, makeSlot, type Slot } from '../../../src/bpf/instruction.js';
import { createInterpreter, describeResult } from '../../../src/bpf/interpreter.js';
import { createMap } from '../../../src/bpf/maps/create.js';
import type { BpfMap } from '../../../src/bpf/maps/map.js';
import type { PlainHost } from '../../../src/bpf/plain-host.js';
import { rawProgram } from '../../../src/bpf/raw-program.js';
import { specOf, u32, u64 } from '../maps/support.js';
import { HelperBench } from './support.js';

const [FOR_EACH, LOOP] = [164, 181];

const set = (dst: number, imm: number): Slot => makeSlot(0xb7, { dst, imm });
const move = (dst: number, src: number): Slot => makeSlot(0xbf, { dst, src });
const call = (imm: number): Slot => makeSlot(0x85, { imm });
const EXIT = makeSlot(0x95);
const address = (dst: number, value: bigint): Slot[] => [
  makeSlot(0x18, { dst, imm: Number(BigInt.asIntN(32, value)) }),
  makeSlot(0, { imm: Number(BigInt.asIntN(32, value >> 32n)) }),
];

/** main: R6 = 77; helper(R1.., function at R2, R3 = fp - 8); R0 += R6 - 77, then the sum at fp - 8. */
function program(first: readonly Slot[], helper: number, callback: readonly Slot[]): Uint8Array {
  const head: Slot[] = [
    set(6, 77),
    makeSlot(0x7a, { dst: 10, off: -8, imm: 0 }),
    ...first,
    makeSlot(0x18, { dst: 2, src: 4 }),
    makeSlot(0),
    move(3, 10),
    makeSlot(0x07, { dst: 3, imm: -8 }),
    set(4, 0),
    call(helper),
    move(7, 0),
    makeSlot(0x79, { dst: 0, src: 10, off: -8 }),
    makeSlot(0x67, { dst: 7, imm: 32 }),
    makeSlot(0x0f, { dst: 0, src: 7 }),
    makeSlot(0x0f, { dst: 0, src: 6 }),
    makeSlot(0x17, { dst: 0, imm: 77 }),
    EXIT,
  ];
  const at = head.findIndex(({ code, src }) => code === 0x18 && src === 4);
  head[at] = { ...(head[at] as Slot), imm: head.length - at - 1 };
  return encodeSlots([...head, ...callback]);
}

function run(host: PlainHost, insns: Uint8Array, budget = 1e6): string {
  const interpreter = createInterpreter(rawProgram('p', insns), host);
  const result = interpreter.run(0n, { budget });
  interpreter.close();
  return describeResult(result);
}

/** *(u64 *)R2 += R1; return R1 == 9. R6 and R7 are spoilt on the way. */
const SUM: readonly Slot[] = [
  set(6, 1),
  set(7, 2),
  makeSlot(0x79, { dst: 3, src: 2 }),
  makeSlot(0x0f, { dst: 3, src: 1 }),
  makeSlot(0x7b, { dst: 2, src: 3 }),
  set(0, 0),
  makeSlot(0x55, { dst: 1, off: 1, imm: 9 }),
  set(0, 1),
  EXIT,
];

/** bpf_loop passes its context as the callback's second argument. */
const loopProgram = (count: number, callback: readonly Slot[] = SUM): Uint8Array =>
  program([set(1, count)], LOOP, callback);

describe('bpf_loop', () => {
  it.each([
    [0, 0, 0],
    [5, 5, 10],
    [10, 10, 45],
    // the callback ends the loop at 9
    [100, 10, 45],
  ])('%i times', (count, done, sum) => {
    const { host } = new HelperBench();
    expect(run(host, loopProgram(count))).toBe(
      `returned 0x${done.toString(16).padStart(8, '0')}${sum.toString(16).padStart(8, '0')}`,
    );
  });

  it('refuses flags and too many rounds', () => {
    const bench = new HelperBench();
    expect(bench.call(LOOP, 1, 0, 0, 1)).toBe(-22n);
    expect(bench.call(LOOP, (8 << 20) + 1, 0, 0, 0)).toBe(-7n);
  });

  it('stops a callback that does not end, with the budget of the run', () => {
    const { host } = new HelperBench();
    const endless = [makeSlot(0x05, { off: -1 })];
    expect(run(host, loopProgram(1, endless), 1000)).toMatch(
      /the budget of instructions is used up/,
    );
  });

  it('reports a fault of the callback at its place', () => {
    const { host } = new HelperBench();
    const bad = [set(1, 16), makeSlot(0x79, { dst: 0, src: 1 }), EXIT];
    expect(run(host, loopProgram(1, bad))).toMatch(/^p_sub_1 insn 1: read of 8 bytes/);
  });

  it('faults on an address where no function is', () => {
    const bench = new HelperBench();
    expect(() => bench.call(LOOP, 1, 0x1234, 0, 0)).toThrow('0x0000000000001234');
  });
});

describe('bpf_for_each_map_elem', () => {
  /** *(u64 *)R4 += *(u32 *)R2 + *(u64 *)R3; return 0 */
  const callback: readonly Slot[] = [
    makeSlot(0x61, { dst: 1, src: 2 }),
    makeSlot(0x79, { dst: 2, src: 3 }),
    makeSlot(0x0f, { dst: 1, src: 2 }),
    makeSlot(0x79, { dst: 5, src: 4 }),
    makeSlot(0x0f, { dst: 5, src: 1 }),
    makeSlot(0x7b, { dst: 4, src: 5 }),
    set(0, 0),
    EXIT,
  ];

  it.each(['ARRAY', 'HASH', 'PERCPU_ARRAY', 'LRU_HASH'] as const)('%s', (type) => {
    const { host } = new HelperBench();
    const map: BpfMap = createMap(specOf({ type, maxEntries: 3 }), host);
    for (const key of [0, 1, 2]) map.set(u32(key), u64(100 * key));
    expect(run(host, program(address(1, map.address), FOR_EACH, callback))).toBe(
      `returned 0x00000003${(303).toString(16).padStart(8, '0')}`,
    );
  });

  it('refuses flags', () => {
    const bench = new HelperBench();
    const map = createMap(specOf({ type: 'ARRAY' }), bench.host);
    expect(bench.call(FOR_EACH, map.address, 0, 0, 1)).toBe(-22n);
  });
});

describe('timers', () => {
  const [INIT, SET_CALLBACK, START, CANCEL] = [169, 170, 171, 172];

  it('run in order of their time, with map, key and value', () => {
    const bench = new HelperBench();
    const { host } = bench;
    const map = createMap(specOf({ valueSize: 24, record: plainRecord({ bpf_timer: 8 }) }), host);
    const seen: string[] = [];
    const callback = host.addCallbacks([
      (registers) => {
        const at = (n: number): bigint =>
          (BigInt((registers[2 * n + 1] ?? 0) >>> 0) << 32n) |
          BigInt((registers[2 * n] ?? 0) >>> 0);
        expect(at(1)).toBe(map.address);
        seen.push(bytesToHex(host.memory.readBytes(at(2), 4)));
        expect(bench.call(CANCEL, at(3) + 8n)).toBe(-35n);
      },
    ]);
    const timers = [1, 2, 3].map((key) => {
      map.set(u32(key), new Uint8Array(24));
      return map.lookup(bench.put(u32(key))) + 8n;
    });
    const [first = 0n, second = 0n, third = 0n] = timers;
    expect(bench.call(SET_CALLBACK, first, callback)).toBe(-22n);
    for (const timer of timers) {
      expect(bench.call(INIT, timer, map.address, 1)).toBe(0n);
      expect(bench.call(START, timer, 0, 0)).toBe(-22n);
      expect(bench.call(SET_CALLBACK, timer, callback)).toBe(0n);
    }
    expect(bench.call(INIT, first, map.address, 1)).toBe(-16n);
    expect(bench.call(INIT, first, map.address, 3)).toBe(-22n);
    expect(bench.call(START, first, 5_000_000, 0)).toBe(0n);
    expect(bench.call(START, second, 1_000_000, 1)).toBe(0n);
    expect(bench.call(START, third, 2_000_000, 4)).toBe(-22n);
    expect(bench.call(START, third, 2_000_000, 0)).toBe(0n);
    expect(bench.call(CANCEL, third)).toBe(1n);
    expect(host.runTimers(999_999n)).toBe(0);
    expect(host.runTimers(1_000_000n)).toBe(1);
    expect(host.runTimers(100_000_000n)).toBe(1);
    expect(seen).toEqual(['02000000', '01000000']);
    expect(map.remove(u32(1))).toBe(0);
    expect(bench.call(CANCEL, first)).toBe(-22n);
  });
});

/** Helpers that call functions of programs in the wasm tier: as in the interpreter. */
import { plainRecord } from '../../src/bpf/btf/record.js';
import { describe, expect, it } from 'vitest';
import { assemble } from '../../src/bpf/assemble.js';
import { helperBodies } from '../../src/bpf/helpers/table.js';
import { ProgramExit, type BpfHost } from '../../src/bpf/host.js';
import { encodeSlots, makeSlot, readSlots } from '../../src/bpf/instruction.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { createMap } from '../../src/bpf/maps/create.js';
import type { BpfMap, ProgArrayMap } from '../../src/bpf/maps/map.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import type { XlatedFunction, XlatedProgram } from '../../src/bpf/program.js';
import { describeResult, type InterpreterResult } from '../../src/bpf/result.js';
import { createWasmBatch, createWasmProgram } from '../../src/bpf/wasm.js';
import { specOf, u32, u64 } from './maps/support.js';

const THROW = 900;
const DATA = 64;

class Lab {
  readonly host: PlainHost;
  /** 64 zeroes; the program's R1. */
  readonly data: bigint;

  constructor() {
    const helpers = new Map(helperBodies());
    helpers.set(THROW, () => {
      throw new ProgramExit(0x77n);
    });
    this.host = new PlainHost({ helpers, helperStride: 1, memorySize: 4 << 20, cpuCount: 2 });
    this.host.setCurrentCpu(1);
    this.data = this.host.allocate('data', DATA).address;
  }

  /** Array, hash... of 3 elements under keys 0..2: 100, 200, 300. */
  map(type: 'ARRAY' | 'HASH' | 'PERCPU_ARRAY' | 'LRU_HASH'): BpfMap {
    const map = createMap(specOf({ type, maxEntries: 3 }), this.host);
    for (const key of [0, 1, 2]) map.set(u32(key), u64(100 * (key + 1)));
    return map;
  }

  /** All bytes but those of stacks and of what the engines keep for themselves. */
  bytes(): string[] {
    const { bytes, regions } = this.host.memory;
    return regions
      .filter(({ name }) => !/^bpf_(stack|wasm)/.test(name))
      .map(({ name, offset, size }) => `${name} ${bytes.slice(offset, offset + size).join()}`);
  }
}

type Make = (lab: Lab) => readonly string[];

/** Functions main, f1, f2...; `subprog[+N]` and `call pc+N` name function N. */
function link(texts: readonly string[], name = 'main'): XlatedProgram {
  const [main, ...rest] = texts.map((text, index): XlatedFunction => {
    const slots = readSlots(assemble(text));
    for (const [at, slot] of slots.entries()) {
      const second = slots[at + 1];
      if (slot.code === 0x18 && slot.src === 4 && second) {
        slots[at + 1] = makeSlot(0, { off: slot.imm });
      }
      if (slot.code === 0x85 && slot.src === 1) {
        slots[at] = makeSlot(0x85, { src: 1, off: slot.imm, imm: 1 });
      }
    }
    const own = index === 0 ? name : `f${index}`;
    return { name: own, insns: encodeSlots(slots), stackDepth: 512 };
  });
  if (!main) throw new Error('no function');
  return { name, type: 'raw', functions: [main, ...rest] };
}

interface Engine {
  run(context: bigint, options: { readonly budget: number }): InterpreterResult;
  close(): void;
}
type Create = (program: XlatedProgram, host: BpfHost) => Engine;

const ENGINES: readonly Create[] = [
  createInterpreter,
  createWasmProgram,
  // left and resumed in every loop
  (program, host) => createWasmProgram(program, host, { slice: 1 }),
  inBatch,
];

/** The program in the middle of others, which are closed before it runs. */
function inBatch(program: XlatedProgram, host: BpfHost): Engine {
  // what takes addresses of functions comes later: the program's own are as without the others
  const before = link(['call pc+1\nexit', 'r0 = 1\nexit'], 'before');
  const behind = link(['r1 = subprog[+0]\nexit'], 'behind');
  const [first, wasm, last] = createWasmBatch([before, program, behind], host);
  if (!first || !wasm || !last) throw new Error('programs are missing');
  first.close();
  last.close();
  return wasm;
}

/** What engines say, each twice on a lab of its own, and the memory afterwards; all have to agree. */
function same(make: Make, budget = 1e6): string {
  const [expected, ...others] = ENGINES.map((create) => {
    const lab = new Lab();
    const engine = create(link(make(lab)), lab.host);
    const results = [1, 2].map(() => describeResult(engine.run(lab.data, { budget })));
    engine.close();
    return { results, bytes: lab.bytes() };
  });
  for (const other of others) expect(other).toEqual(expected);
  return expected?.results[0] ?? '';
}

const ll = (value: bigint): string => `0x${value.toString(16)} ll`;

/** bpf_loop of `count` rounds over function `callee` with R3 = R6. */
const loop = (count: number, callee: number): string => `
  r1 = ${count}
  r2 = subprog[+${callee}]
  r3 = r6
  r4 = 0
  call 181`;

/** main: the data in R6, R7..R9 set, bpf_loop; R0 = rounds + R7 + R8 + R9. */
const main = (count: number, callee = 1): string => `
  r6 = r1
  r7 = 0x1000000
  r8 = 0x2000000
  r9 = 0x4000000
  ${loop(count, callee)}
  r0 += r7
  r0 += r8
  r0 += r9
  exit`;

/** *(u64 *)R2 += R1; R6..R9 are spoilt; returns R1 == 9. */
const SUM = `
  r6 = 1
  r7 = 2
  r8 = 3
  r9 = 4
  r3 = *(u64 *)(r2 +0)
  r3 += r1
  *(u64 *)(r2 +0) = r3
  r0 = 0
  if r1 != 9 goto +1
  r0 = 1
  exit`;

describe('bpf_loop in wasm', () => {
  it.each([
    [0, 0],
    [5, 5],
    [100, 10],
  ])('%i times', (count, done) => {
    const r0 = 0x7000000 + done;
    expect(same(() => [main(count), SUM])).toBe(`returned 0x${r0.toString(16).padStart(16, '0')}`);
  });

  it('calls back from callbacks', () => {
    const outer = `
      r6 = r2
      r7 = r1
      *(u64 *)(r10 -8) = r1
      ${loop(3, 2)}
      r1 = *(u64 *)(r10 -8)
      if r1 != r7 goto +2
      r0 = 0
      exit
      r0 = 1
      exit`;
    // each frame is the function's own
    const inner = `*(u64 *)(r10 -8) = 4919\n${SUM}`;
    expect(same(() => [main(4), outer, inner])).toBe('returned 0x0000000007000004');
  });

  it('is left alone by loops around it and in the callback', () => {
    const around = `
      r6 = r1
      r7 = 0
      again:
      ${loop(3, 1)}
      r7 += r0
      if r7 < 60 goto again
      r0 = r7
      exit`;
    const callback = `
      r3 = 5
      again:
      r4 = *(u64 *)(r2 +8)
      r4 += r1
      *(u64 *)(r2 +8) = r4
      r3 += -1
      if r3 != 0 goto again
      r0 = 0
      exit`;
    expect(same(() => [around, callback])).toBe('returned 0x000000000000003c');
  });

  it('calls from a function that is small enough to be written in place', () => {
    const small = `
      r6 = r1
      *(u64 *)(r10 -8) = 5
      ${loop(2, 2)}
      r0 = *(u64 *)(r10 -8)
      exit`;
    const callback = '*(u64 *)(r10 -8) = 9\nr0 = 0\nexit';
    expect(same(() => ['call pc+1\nexit', small, callback])).toBe('returned 0x0000000000000005');
  });

  it('calls functions that call others', () => {
    const callback = 'r6 = 1\ncall pc+2\nr0 = 0\nexit';
    expect(same(() => [main(7), callback, SUM])).toBe('returned 0x0000000007000007');
  });

  it('calls from functions with irreducible flow', () => {
    const tangled = `
      r6 = r1
      r7 = 0
      r8 = *(u64 *)(r6 +16)
      if r8 == 0 goto second
      first:
      r7 += 1
      second:
      ${loop(2, 1)}
      r7 += 1
      if r7 < 9 goto first
      r0 = r7
      exit`;
    expect(same(() => [tangled, SUM])).toBe('returned 0x0000000000000009');
  });

  it('lets a callback read what its caller had in R6', () => {
    const reads = 'r0 = *(u64 *)(r6 +24)\nr0 += 1\n*(u64 *)(r6 +24) = r0\nr0 = 0\nr6 = 3\nexit';
    expect(same(() => [main(6), reads])).toBe('returned 0x0000000007000006');
  });

  it('calls the first function', () => {
    const text = `
      r6 = r1
      if r1 < 100 goto +7
      ${loop(8, 0)}
      exit
      r6 = r2
      r0 = 0
      exit`;
    expect(same(() => [text])).toBe('returned 0x0000000000000008');
  });
});

describe('what stops a callback', () => {
  const BAD = 'r1 = 16\nr0 = *(u64 *)(r1 +0)\nexit';

  it('a fault', () => {
    expect(same(() => [main(3), BAD])).toMatch(/^f1 insn 1: read of 8 bytes/);
  });

  it('a fault in a callback of a callback', () => {
    expect(same(() => [main(3), main(3, 2), BAD])).toMatch(/^f2 insn 1: read of 8 bytes/);
  });

  it('a fault of a helper, in it and behind it', () => {
    const wrong = 'r1 = 1\nr2 = 4660\nr3 = 0\nr4 = 0\ncall 181\nexit';
    expect(same(() => [main(3), wrong])).toMatch(/^f1 insn 4: .*1234/);
    const behind = `r6 = r1\n${loop(3, 1)}\n${wrong}`;
    expect(same(() => [behind, SUM])).toMatch(/^main insn 11: .*1234/);
  });

  it('a fault of a helper, after callbacks that called helpers', () => {
    const text = (lab: Lab): string[] => [
      `r6 = r1\n${loop(2, 1)}\nr1 = 1\nr2 = 16\nr3 = 0\nr4 = 0\ncall 181\nexit`,
      `r1 = ${ll(lab.data)}\ncall 5\nr0 = 0\nexit`,
    ];
    expect(same(text)).toMatch(/^main insn 11: /);
  });

  it('the end of the program', () => {
    expect(same(() => [main(3), `call ${THROW}\nexit`])).toBe('returned 0x0000000000000077');
  });

  it('too many frames', () => {
    const again = `r6 = r2\n${loop(1, 1)}\nr0 = 0\nexit`;
    expect(same(() => [main(1), again])).toBe('f1 insn 6: more than 8 nested calls');
  });

  it('the budget', () => {
    expect(same(() => [main(1), 'goto -1'], 1000)).toMatch(/^f1 .*budget of instructions/);
  });

  it('the budget, used up by rounds', () => {
    const lab = new Lab();
    const wasm = createWasmProgram(link([main(1000), 'r0 = 0\nexit']), lab.host);
    const run = (budget: number) => wasm.run(lab.data, { budget });
    expect(run(1900)).toMatchObject({ kind: 'budget', function: 'f1' });
    expect(run(2100)).toEqual({ kind: 'return', r0: 0x7000000n + 1000n });
  });
});

describe('bpf_for_each_map_elem in wasm', () => {
  const over = (map: BpfMap): string => `
    r6 = r1
    r1 = ${ll(map.address)}
    r2 = subprog[+1]
    r3 = r6
    r4 = 0
    call 164
    r1 = *(u64 *)(r6 +0)
    r1 <<= 32
    r0 += r1
    exit`;
  /** *(u64 *)R4 += key + value; value++ */
  const callback = (last: number): string => `
    r1 = *(u32 *)(r2 +0)
    r2 = *(u64 *)(r3 +0)
    r1 += r2
    r2 += 1
    *(u64 *)(r3 +0) = r2
    r5 = *(u64 *)(r4 +0)
    r5 += r1
    *(u64 *)(r4 +0) = r5
    r0 = 0
    if r5 != ${last} goto +1
    r0 = 1
    exit`;

  it.each(['ARRAY', 'HASH', 'PERCPU_ARRAY', 'LRU_HASH'] as const)('%s', (type) => {
    const sum = (603).toString(16).padStart(8, '0');
    expect(same((lab) => [over(lab.map(type)), callback(0)])).toBe(`returned 0x${sum}00000003`);
  });

  it('ends when the callback says so', () => {
    const sum = (100 + 201).toString(16).padStart(8, '0');
    expect(same((lab) => [over(lab.map('ARRAY')), callback(301)])).toBe(
      `returned 0x${sum}00000002`,
    );
  });

  it('faults in the callback', () => {
    const bad = 'r0 = *(u64 *)(r3 +4)\nexit';
    expect(same((lab) => [over(lab.map('ARRAY')), bad])).toMatch(/^returned/);
    const worse = '*(u64 *)(r5 +8) = 1\nexit';
    expect(same((lab) => [over(lab.map('HASH')), worse])).toMatch(/^f1 insn 0: write of 8 bytes/);
  });
});

describe('addresses of functions', () => {
  it('can be called through a register, as can helpers that call back', () => {
    const text = (lab: Lab): string[] => {
      const helper = lab.host.helperAddress(181) ?? 0n;
      return [
        `r6 = r1\nr5 = subprog[+1]\nr1 = 7\nr2 = r6\ncallx r5
         r1 = 4\nr2 = subprog[+1]\nr3 = r6\nr4 = 0\nr8 = ${ll(helper)}\ncallx r8
         r1 = *(u64 *)(r6 +0)\nr1 <<= 8\nr0 += r1\nexit`,
        SUM,
      ];
    };
    expect(same(text)).toBe(`returned 0x${(((7 + 6) << 8) + 4).toString(16).padStart(16, '0')}`);
    expect(same(() => ['r1 = subprog[+1]\nr1 += 8\ncallx r1\nexit', SUM])).toMatch(/main insn 3/);
  });

  it('belong to one program each, and go with it', () => {
    const { host, data } = new Lab();
    const give = (value: number): XlatedProgram =>
      link(['r0 = subprog[+1]\nexit', `r0 = ${value}\nexit`]);
    const programs = [11, 22].map((value) => createWasmProgram(give(value), host));
    const addresses = programs.map((each) => {
      const result = each.run(data);
      return result.kind === 'return' ? result.r0 : 0n;
    });
    const registers = new Int32Array(22);
    for (const [index, address] of addresses.entries()) {
      host.callbackAt(address)?.(registers);
      expect(registers[0]).toBe(11 * (index + 1));
      programs[index]?.close();
      expect(host.callbackAt(address)).toBeUndefined();
    }
  });

  it('are used again', () => {
    const lab = new Lab();
    createWasmProgram(link([main(1), 'exit']), lab.host).close();
    const base = lab.host.addCallbacks([() => undefined]);
    lab.host.removeCallbacks(base);
    const again = createWasmProgram(link(['r0 = subprog[+0]\nexit']), lab.host);
    expect(again.run(0n)).toEqual({ kind: 'return', r0: base });
  });
});

describe('tail calls', () => {
  const jump = (map: BpfMap): string =>
    `r1 = r6\nr2 = ${ll(map.address)}\nr3 = 0\ntail_call\nr0 = 99\nexit`;
  const withTarget = (lab: Lab, ...target: readonly string[]): ProgArrayMap => {
    const map = createMap(specOf({ type: 'PROG_ARRAY', valueSize: 4 }), lab.host) as ProgArrayMap;
    map.setProgram(0, link(target, 'target'));
    return map;
  };

  it('reach programs with callbacks', () => {
    const make = (lab: Lab): string[] => [`r6 = r1\n${jump(withTarget(lab, main(5), SUM))}`];
    expect(same(make)).toBe('returned 0x0000000007000005');
    const faulty = (lab: Lab): string[] => [
      `r6 = r1\n${jump(withTarget(lab, main(5), 'r0 = *(u8 *)(r1 +0)\nexit'))}`,
    ];
    expect(same(faulty)).toMatch(/^f1 insn 0: read of 1 byte/);
  });

  it('leave a callback for another program', () => {
    const make = (lab: Lab): string[] => {
      const map = withTarget(lab, 'r6 = 9\nr7 = 8\nr0 = 0\nexit');
      return [main(5), `r6 = r1\n${jump(map)}`];
    };
    expect(same(make)).toBe('returned 0x0000000007000005');
  });
});

describe('timers', () => {
  it('call functions when no program runs', () => {
    const text = (map: BpfMap): readonly string[] => [
      `r1 = ${ll(map.address)}
       *(u32 *)(r10 -4) = 1
       r2 = r10
       r2 += -4
       call 1
       if r0 == 0 goto fail
       r6 = r0
       r6 += 8
       r1 = r6
       r2 = ${ll(map.address)}
       r3 = 1
       call 169
       r1 = r6
       r2 = subprog[+1]
       call 170
       r1 = r6
       r2 = 1000
       r3 = 0
       call 171
       exit
       fail:
       r0 = 1
       exit`,
      'r1 = *(u32 *)(r2 +0)\nr1 += 40\n*(u64 *)(r3 +0) = r1\nr0 = 0\nexit',
    ];
    for (const create of ENGINES) {
      const { host, data } = new Lab();
      const map = createMap(specOf({ valueSize: 24, record: plainRecord({ bpf_timer: 8 }) }), host);
      map.set(u32(1), new Uint8Array(24));
      const engine = create(link(text(map)), host);
      expect(engine.run(data, { budget: 1000 })).toEqual({ kind: 'return', r0: 0n });
      expect(host.runTimers(1_000_000n)).toBe(1);
      expect(map.get(u32(1))?.[0]?.[0]).toBe(41);
      // and the program runs as before
      expect(engine.run(data, { budget: 1000 }).kind).toBe('return');
      engine.close();
    }
  });
});

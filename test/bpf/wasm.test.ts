import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { assemble } from '../../src/bpf/assemble.js';
import { helperBodies } from '../../src/bpf/helpers/table.js';
import { ProgramExit, withIntrinsic, type HelperBody } from '../../src/bpf/host.js';
import { encodeSlots, makeSlot } from '../../src/bpf/instruction.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { createMap } from '../../src/bpf/maps/create.js';
import type { ProgArrayMap } from '../../src/bpf/maps/map.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import type { XlatedProgram } from '../../src/bpf/program.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import {
  describeResult,
  type InterpreterOptions,
  type InterpreterResult,
} from '../../src/bpf/result.js';
import { createWasmBatch, createWasmProgram, type WasmProgram } from '../../src/bpf/wasm.js';
import { CodeWriter, I64, ModuleWriter } from '../../src/bpf/wasm/emitter.js';
import { hexToBytes } from '../../src/common/bytes.js';
import { BENCH_HELPERS } from '../../src/lab/check/run-helpers.js';
import { EDGES } from './reference.js';
import { Differential } from './wasm-differential.js';

const HELPERS: ReadonlyMap<number, HelperBody> = new Map<number, HelperBody>([
  [1, (words) => void ((words[0] = words[2] + 100), (words[1] = 0))],
  [
    2,
    () => {
      throw new ProgramExit(77n);
    },
  ],
  [3, (words, { memory }) => void memory.write8((BigInt(words[3]) << 32n) | BigInt(words[2]), 1)],
  [
    4,
    (_, { memory }) => {
      for (const region of memory.regions) if (region.name === 'doomed') memory.unmap(region);
    },
  ],
]);

function newHost(helpers = HELPERS): PlainHost {
  return new PlainHost({ helpers, callBase: 0n, helperStride: 1, memorySize: 2 << 20 });
}

const program = (text: string): XlatedProgram => rawProgram('test', assemble(text));

function runWasm(text: string, context = 0n, options: InterpreterOptions = {}): InterpreterResult {
  const wasm = createWasmProgram(program(text), newHost());
  return wasm.run(context, options);
}

/** What both engines say, each on a host of its own with `data` of 16 bytes in R1. */
function both(text: string, dataName = 'data'): [string, string] {
  const one = newHost();
  const context = one.allocate(dataName, 16).address;
  const expected = createInterpreter(program(text), one).run(context);
  const other = newHost();
  expect(other.allocate(dataName, 16).address).toBe(context);
  return [
    describeResult(createWasmProgram(program(text), other).run(context)),
    describeResult(expected),
  ];
}

describe('emitter', () => {
  it('writes constants as wasm reads them', () => {
    const values = [...EDGES, ...EDGES.map((value) => -value)];
    const module = new ModuleWriter();
    const type = module.type([], [I64]);
    for (const [index, value] of values.entries()) {
      const at = module.declare(type);
      module.define(at, [], new CodeWriter(1).i64Big(value));
      module.export(`value ${index}`, at);
    }
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.bytes(1)), {
      env: { memory },
    });
    for (const [index, value] of values.entries()) {
      const get = exports[`value ${index}`] as () => bigint;
      expect(get()).toBe(BigInt.asIntN(64, value));
    }
  });
});

describe('faults and errors are those of the interpreter', () => {
  it.each([
    ['load behind the end', 'r0 = 1\nr0 = *(u32 *)(r1 + 13)\nexit'],
    ['load in front', 'r0 = *(u8 *)(r1 - 1)\nexit'],
    ['straddling load', 'r0 = *(u64 *)(r1 + 9)\nexit'],
    ['store behind the end', '*(u64 *)(r1 + 16) = 1\nexit'],
    ['atomic at NULL', 'r1 = 0\nlock *(u64 *)(r1 + 0) += r1\nexit'],
    ['address that wraps', 'r1 = -8\nr0 = *(u64 *)(r1 + 16)\nexit'],
    ['top of the stack', '*(u8 *)(r10 + 0) = 1\nexit'],
    ['straddling the top of the stack', '*(u64 *)(r10 - 4) = 1\nexit'],
    ['below the stack', 'r0 = *(u64 *)(r10 - 520)\nexit'],
    ['in a function', 'call sub\nexit\nsub: r0 = 0\nr0 = *(u8 *)(r0 + 3)\nexit'],
    ['in a loop', 'r2 = 20\nl: r0 = *(u8 *)(r1 + 0)\nr1 += 1\nr2 += -1\nif r2 != 0 goto l\nexit'],
    ['in a helper', 'r1 = 5\ncall 3\nexit'],
    ['end by a helper', 'call 2\nr0 = 1\nexit'],
    ['callx of nothing', 'r3 = 99\ncallx r3\nexit'],
    ['callx of a helper', 'r1 = 5\nr3 = 1\ncallx r3\nexit'],
    [
      'too many frames',
      'r1 = 9\ncall sub\nexit\nsub: if r1 == 0 goto e\nr1 += -1\ncall sub\ne: exit',
    ],
    [
      'registers of the caller',
      'r6 = 3\nr0 = 4\ncall sub\nr0 += r3\nexit\nsub: r3 = r6\nr3 += r0\nexit',
    ],
    ['probe of nothing', 'r1 = 8\nr0 = 5\nr0 = probe *(u32 *)(r1 + 0)\nexit'],
  ])('%s', (_, text) => {
    const [wasm, interpreter] = both(text);
    expect(wasm).toBe(interpreter);
  });

  it('when a helper unmaps what a loop reads', () => {
    const text = 'r6 = r1\nl: r0 = *(u8 *)(r6 + 0)\ncall 4\ngoto l\nexit';
    const [wasm, interpreter] = both(text, 'doomed');
    expect(wasm).toBe(interpreter);
    expect(wasm).toMatch(/^test insn 1: read of 1 bytes at 0x[0-9a-f]+: no memory there$/);
  });

  it('when a program cannot be run', () => {
    for (const text of ['call 9\nexit', 'r0 = 1']) {
      const host = newHost();
      const before = host.memory.regions.length;
      let message = '';
      try {
        createInterpreter(program(text), host);
      } catch (error) {
        message = String(error);
      }
      expect(message).not.toBe('');
      expect(() => createWasmProgram(program(text), host)).toThrow(
        message.replace('InputError: ', ''),
      );
      expect(host.memory.regions.length).toBe(before);
    }
  });
});

describe('limits', () => {
  it.each([
    ['a loop', 'r0 = 0\nloop: r0 += 1\ngoto loop\nexit'],
    ['a jump to itself', 'l: goto l\nexit'],
    [
      'calls that double with each frame',
      'l: r1 = 6\ncall sub\ngoto l\nsub: if r1 == 0 goto e\nr1 += -1\nr6 = r1\ncall sub\nr1 = r6\ncall sub\ne: exit',
    ],
  ])('stops %s', (_, text) => {
    expect(runWasm(text, 0n, { budget: 100_000 })).toMatchObject({ kind: 'budget' });
  });

  it('lets a program use its budget', () => {
    const text = 'r1 = 1000\nloop: r1 += -1\nif r1 != 0 goto loop\nr0 = 3\nexit';
    expect(runWasm(text, 0n, { budget: 2100 })).toEqual({ kind: 'return', r0: 3n });
    expect(runWasm(text, 0n, { budget: 1900 }).kind).toBe('budget');
  });

  it('runs streams without a result object', () => {
    const host = newHost();
    const before = host.memory.regions.length;
    const text =
      'r0 = r6\nr0 += r5\nr6 = 1\nr5 = 2\nr0 += r1\nif r1 > 5 goto bad\nexit\nbad: r0 = *(u8 *)(r1 + 0)\nexit';
    const wasm = createWasmProgram(program(text), host);
    for (let i = 0; i <= 5; i++) {
      expect(wasm.execute(0, i)).toBe(true);
      expect(wasm.r0).toBe(i);
    }
    expect(wasm.execute(0, 6)).toBe(false);
    expect(wasm.run(6n).kind).toBe('fault');
    wasm.close();
    expect(host.memory.regions.length).toBe(before);
  });
});

describe('batch', () => {
  it('is many programs, each with its own result, fault and place', () => {
    const host = newHost();
    const before = host.memory.regions.length;
    const texts = [
      'r0 = 1\nexit',
      'r1 = 0\nr0 = *(u8 *)(r1 + 9)\nexit',
      'call s\nexit\ns: r0 = 3\nexit',
    ];
    const named = texts.map((text, index) => rawProgram(`p${index}`, assemble(text)));
    const batch = createWasmBatch(named, host);
    // in any order, and more than once
    for (const index of [2, 0, 1, 0, 2]) {
      const expected = createInterpreter(named[index] as XlatedProgram, newHost()).run(0n);
      expect(batch[index]?.run(0n)).toEqual(expected);
    }
    batch[0]?.close();
    batch[1]?.close();
    expect(batch[2]?.run(0n)).toEqual({ kind: 'return', r0: 3n });
    batch[2]?.close();
    expect(host.memory.regions.length).toBe(before);
    expect(createWasmBatch([], host)).toEqual([]);
  });

  it('names the program that cannot be run', () => {
    const host = newHost();
    const before = host.memory.regions.length;
    const bad = rawProgram('bad', assemble('call 9\nexit'));
    expect(() => createWasmBatch([program('r0 = 1\nexit'), bad], host)).toThrow(
      'program bad: bad insn 0: call of unknown helper 9',
    );
    expect(host.memory.regions.length).toBe(before);
  });

  it('refuses to run one program inside another', () => {
    let batch: readonly WasmProgram[] = [];
    const host = newHost(new Map([[1, () => void batch[1]?.run(0n)]]));
    batch = createWasmBatch([program('call 1\nexit'), program('r0 = 1\nexit')], host);
    expect(() => batch[0]?.run(0n)).toThrow('a program runs already');
    expect(batch[1]?.run(0n)).toEqual({ kind: 'return', r0: 1n });
  });
});

describe('memory', () => {
  it('tells listeners of stores to text', () => {
    const host = newHost();
    const region = host.memory.protect(host.allocate('text', 16), 'rwx');
    const stored: number[] = [];
    host.memory.listen({
      mapped: () => undefined,
      unmapped: () => undefined,
      textStored: (_, offset, size) => stored.push(offset, size),
    });
    const text = '*(u32 *)(r1 + 4) = 1\n*(u32 *)(r1 + 8) = 1\nr0 = *(u32 *)(r1 + 8)\nexit';
    const wasm = createWasmProgram(program(text), host);
    expect(wasm.run(region.address)).toEqual({ kind: 'return', r0: 1n });
    expect(stored).toEqual([4, 4, 8, 4]);
  });

  it('looks arrays up without calling the helper', () => {
    const lookup = withIntrinsic({ kind: 'map_lookup' }, () => {
      throw new Error('called');
    });
    const host = new PlainHost({
      helpers: new Map([[1, lookup]]),
      callBase: 0n,
      helperStride: 1,
      cpuCount: 3,
    });
    const spec = { name: 'm', keySize: 4, valueSize: 12, maxEntries: 4, flags: 0 };
    const array = createMap({ ...spec, type: 'ARRAY' }, host);
    const perCpu = createMap({ ...spec, type: 'PERCPU_ARRAY' }, host);
    host.setCurrentCpu(1);
    for (const map of [array, perCpu]) {
      for (const key of [0, 3, 4, -1]) {
        const text = `*(u32 *)(r10 - 4) = ${key}\nr2 = r10\nr2 += -4\nr1 = 0x${map.address.toString(16)} ll\ncall 1\nexit`;
        const keyRegion = host.allocate('key', 4);
        host.memory.write32(keyRegion.address, key >>> 0);
        const wasm = createWasmProgram(program(text), host);
        expect(wasm.run(0n)).toEqual({ kind: 'return', r0: map.lookup(keyRegion.address) });
        wasm.close();
      }
    }
  });
});

describe('tail calls', () => {
  it.each([
    ['through the main function', 'r2 = MAP ll\nr3 = 0\nr0 = 5\nr7 += 1\ntail\nr0 = r7\nexit'],
    [
      'in a function',
      'r6 = 4\ncall sub\nr0 += r6\nexit\nsub: r2 = MAP ll\nr3 = 1\ntail\nr0 = 9\nexit',
    ],
    ['of an empty slot', 'r2 = MAP ll\nr3 = 2\nr0 = 8\ntail\nr0 += 1\nexit'],
  ])('%s', (_, text) => {
    const results = [createInterpreter, createWasmProgram].map((create) => {
      const host = newHost(helperBodies());
      const map = createMap(
        { name: 'progs', type: 'PROG_ARRAY', keySize: 4, valueSize: 4, maxEntries: 3, flags: 0 },
        host,
      ) as ProgArrayMap;
      const lines = text.replace('MAP', `0x${map.address.toString(16)}`);
      // tail is no statement of the assembler: a call is turned into it
      const insns = assemble(lines.replace('tail', 'call 12'));
      for (let at = 0; at < insns.length; at += 8) {
        if (insns[at] === 0x85 && insns[at + 1] === 0) insns.set([0xf5, 0, 0, 0, 0, 0, 0, 0], at);
      }
      const main = rawProgram('main', insns);
      map.setProgram(0, main);
      map.setProgram(1, program('*(u64 *)(r10 - 8) = 30\nr0 = *(u64 *)(r10 - 8)\nexit'));
      return create(main, host).run(0n);
    });
    expect(results[1]).toEqual(results[0]);
    expect(results[1]?.kind).toBe('return');
  });
});

describe('control flow', () => {
  it('large functions', () => {
    const slots = [makeSlot(0xb7, { dst: 0 }), makeSlot(0xb7, { dst: 1, imm: 3 })];
    // jumps over one, two and three, all over the place; the whole three times
    for (let at = 0; at < 14_000; at++) {
      slots.push(
        at % 3 === 0
          ? makeSlot(0x55, { dst: 0, off: at % 4, imm: at })
          : makeSlot(0x07, { dst: 0, imm: at * 7 }),
      );
    }
    slots.push(
      makeSlot(0xbf, { dst: 0, src: 0 }),
      makeSlot(0xbf, { dst: 0, src: 0 }),
      makeSlot(0xbf, { dst: 0, src: 0 }),
      makeSlot(0x07, { dst: 1, imm: -1 }),
      makeSlot(0x15, { dst: 1, off: 1 }),
    );
    slots.push(makeSlot(0x06, { imm: 2 - slots.length - 1 }), makeSlot(0x95));
    const large = rawProgram('large', encodeSlots(slots));
    const host = newHost();
    const expected = createInterpreter(large, host).run(0n);
    expect(expected.kind).toBe('return');
    expect(createWasmProgram(large, host).run(0n)).toEqual(expected);
  });

  const file = new URL('../vectors/bpf/bench-programs.jsonl', import.meta.url);
  const records = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Readonly<Record<string, string | number | null>>)
    .filter(({ name }) => String(name).endsWith('-small'));

  it.each(records)('$name, in one go and resumed', (record) => {
    for (const slice of [1000, 1 << 20]) {
      const host = new PlainHost({ helpers: BENCH_HELPERS, callBase: 0n, helperStride: 1 });
      const memory = hexToBytes(String(record.mem_hex ?? ''));
      const context = memory.length > 0 ? host.allocate('mem', memory.length).address : 0n;
      host.memory.writeBytes(context, memory);
      const bench = rawProgram('bench', hexToBytes(String(record.insns_hex)));
      const wasm = createWasmProgram(bench, host, { slice });
      expect(wasm.run(context, { r2: BigInt(memory.length) })).toEqual({
        kind: 'return',
        r0: BigInt(`0x${record.expected_r0}`),
      });
    }
  });
});

describe('interpreter and wasm tier', () => {
  it('agree on random programs', () => {
    const first = Number(process.env['TRAMPOLAB_WASM_SEED'] ?? 1);
    const count = Number(process.env['TRAMPOLAB_WASM_PROGRAMS'] ?? 1000);
    const differential = new Differential();
    const kinds = { return: 0, fault: 0, budget: 0, error: 0 };
    for (let seed = first; seed < first + count; seed++) {
      const { result, difference } = differential.run(seed);
      expect(difference, `seed ${seed}`).toBeUndefined();
      kinds[result.kind]++;
    }
    // all kinds of ends are met, and hardly any run is not compared
    expect(kinds.return).toBeGreaterThan(count / 10);
    expect(kinds.fault).toBeGreaterThan(count / 10);
    expect(kinds.error).toBeGreaterThan(0);
    expect(kinds.budget).toBeLessThan(count / 20);
  }, 600_000);
});

import * as fc from 'fast-check';
import { readFileSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import { assemble } from '../../src/bpf/assemble.js';
import { ProgramExit } from '../../src/bpf/host.js';
import { encodeSlots, makeSlot } from '../../src/bpf/instruction.js';
import {
  createInterpreter,
  describeResult,
  type InterpreterOptions,
  type InterpreterResult,
} from '../../src/bpf/interpreter.js';
import { ATOMIC, atomicOperation, type Size } from '../../src/bpf/opcodes.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { rawProgram } from '../../src/bpf/raw-program.js';

const helpers = new Map([
  [1, (words: Int32Array): void => void ((words[0] = words[2] + 100), (words[1] = 0))],
  [
    2,
    (): void => {
      throw new ProgramExit(77n);
    },
  ],
]);
let host: PlainHost;

beforeEach(() => {
  host = new PlainHost({ helpers, callBase: 0n, helperStride: 1 });
});

function run(text: string, context = 0n, options: InterpreterOptions = {}): InterpreterResult {
  return createInterpreter(rawProgram('test', assemble(text)), host).run(context, options);
}

function returned(text: string, context = 0n): bigint {
  const result = run(text, context);
  if (result.kind !== 'return') throw new Error(describeResult(result));
  return result.r0;
}

describe('memory', () => {
  it.each([
    ['u8', 0x88n, 0x88n],
    ['u16', 0x7788n, 0x7788n],
    ['u32', 0x5566_7788n, 0x5566_7788n],
    ['u64', 0x1122_3344_5566_7788n, 0x1122_3344_5566_7788n],
    ['s8', 0x88n, 0xffff_ffff_ffff_ff88n],
    ['s16', 0x7788n, 0x7788n],
    ['s32', 0xf566_7788n, 0xffff_ffff_f566_7788n],
  ])('load %s', (type, stored, expected) => {
    const { address } = host.allocate('data', 16);
    host.memory.write64(address + 8n, stored);
    expect(returned(`r0 = *(${type} *)(r1 + 8)\nexit`, address)).toBe(expected);
    expect(returned(`r1 += 12\nr0 = *(${type} *)(r1 - 4)\nexit`, address)).toBe(expected);
    expect(returned(`r0 = probe *(${type} *)(r1 + 8)\nexit`, address)).toBe(expected);
  });

  it.each(['u8', 'u16', 'u32', 'u64'])('store %s', (type) => {
    const { address } = host.allocate('data', 24);
    const filled = new Uint8Array(24).fill(0xee);
    host.memory.writeBytes(address, filled);
    run(`r2 = 0x1122334455667788 ll\n*(${type} *)(r1 + 8) = r2\nr0 = 0\nexit`, address);
    const size = Number(type.slice(1)) / 8;
    const expected = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11].slice(0, size);
    filled.set(expected, 8);
    expect(host.memory.readBytes(address, 24)).toEqual(filled);
    run(`*(${type} *)(r1 + 8) = -2\nr0 = 0\nexit`, address);
    filled.set([0xfe, ...Array.from({ length: size - 1 }, () => 0xff)], 8);
    expect(host.memory.readBytes(address, 24)).toEqual(filled);
  });

  it('keeps to the byte', () => {
    const { address } = host.allocate('data', 10);
    expect(run('r0 = *(u16 *)(r1 + 8)\nexit', address).kind).toBe('return');
    const text = 'r0 = 1\nr0 = *(u32 *)(r1 + 7)\nexit';
    expect(describeResult(run(text, address))).toBe(
      `test insn 1: read of 4 bytes at 0x${(address + 7n).toString(16)}: no memory there`,
    );
    expect(run('*(u8 *)(r1 - 1) = 1\nexit', address)).toMatchObject({
      kind: 'fault',
      insn: 0,
      function: 'test',
      fault: { access: 'write', size: 1, address: address - 1n, reason: 'unmapped' },
    });
  });

  it('faults above and below the stack, at NULL, and where an address wraps', () => {
    for (const text of [
      '*(u8 *)(r10 + 0) = 1\nexit',
      '*(u64 *)(r10 - 520) = 1\nexit',
      'r0 = *(u64 *)(r1 + 0)\nexit',
      'r1 = -8\nr0 = *(u64 *)(r1 + 16)\nexit',
      'r1 = 4\nr0 = *(u64 *)(r1 - 16)\nexit',
      'lock *(u64 *)(r1 + 0) += r1\nexit',
    ]) {
      expect(run(text).kind).toBe('fault');
    }
    expect(returned('*(u64 *)(r10 - 512) = 7\nr0 = *(u64 *)(r10 - 512)\nexit')).toBe(7n);
  });

  it('gives 0 for probing loads that fault', () => {
    for (const type of ['u8', 'u16', 'u32', 'u64', 's8', 's16', 's32']) {
      expect(returned(`r0 = 5\nr0 = probe *(${type} *)(r1 + 0)\nexit`, 0x1000n)).toBe(0n);
    }
  });
});

describe('atomics', () => {
  const cases = ATOMIC.flatMap((row) =>
    ([1, 2, 4, 8] as const).flatMap((size: Size) =>
      atomicOperation(row.imm, size) ? [{ ...row, size }] : [],
    ),
  );

  it.each(cases)('$op of $size bytes', ({ imm, op, size }) => {
    const bits = size * 8;
    const code = 0xc3 | { 1: 0x10, 2: 0x08, 4: 0, 8: 0x18 }[size];
    const isLoad = op === 'load_acquire';
    const slot = makeSlot(code, { dst: isLoad ? 2 : 1, src: isLoad ? 1 : 2, off: 8, imm });
    // R0 expects R3 and R2 holds the operand; R2 and R0 are stored for inspection
    const insns = encodeSlots([
      makeSlot(0x79, { dst: 2, src: 1, off: 16 }),
      makeSlot(0x79, { dst: 0, src: 1, off: 24 }),
      slot,
      makeSlot(0x7b, { dst: 1, src: 2, off: 16 }),
      makeSlot(0x7b, { dst: 1, src: 0, off: 24 }),
      makeSlot(0x95),
    ]);
    const interpreter = createInterpreter(rawProgram('atomic', insns), host);
    const { address } = host.allocate('data', 32);
    const { memory } = host;
    const any64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    fc.assert(
      fc.property(any64, any64, any64, fc.boolean(), (old, operand, other, isEqual) => {
        const expected = isEqual ? BigInt.asUintN(bits, old) : other;
        memory.write64(address + 8n, old);
        memory.write64(address + 16n, operand);
        memory.write64(address + 24n, expected);
        expect(interpreter.run(address).kind).toBe('return');
        const before = BigInt.asUintN(bits, old);
        const narrow = BigInt.asUintN(bits, operand);
        const matches = before === BigInt.asUintN(bits, expected);
        const after = {
          add: before + narrow,
          or: before | narrow,
          and: before & narrow,
          xor: before ^ narrow,
          xchg: narrow,
          cmpxchg: matches ? narrow : before,
          load_acquire: before,
          store_release: narrow,
        }[op.replace('fetch_', '')];
        const untouched = old - before;
        expect(memory.read64(address + 8n)).toBe(untouched + BigInt.asUintN(bits, after ?? -1n));
        const fetches = /fetch|xchg|load/.test(op) && op !== 'cmpxchg';
        expect(memory.read64(address + 16n)).toBe(fetches ? before : operand);
        // a 32-bit cmpxchg that changes R0 clears its upper half
        expect(memory.read64(address + 24n)).toBe(op === 'cmpxchg' ? before : expected);
      }),
      { numRuns: 60 },
    );
  });
});

describe('calls', () => {
  it('keeps R6 to R9 and gives each call a stack of its own', () => {
    const text = `
            r6 = 1
            r7 = 2
            *(u64 *)(r10 - 8) = 40
            r1 = r10
            call sub
            r0 += r6
            r0 += r7
            r2 = *(u64 *)(r10 - 8)
            r0 += r2
            exit
      sub:  r6 = 1000
            r7 = 1000
            *(u64 *)(r10 - 8) = 5
            r0 = 0
            if r1 == r10 goto done
            r0 = 100
      done: exit`;
    expect(returned(text)).toBe(143n);
  });

  it('nests 8 deep and no deeper', () => {
    const nested = (depth: number): string => `
      r1 = ${depth}
      call sub
      exit
      sub: r0 = 9
      if r1 == 1 goto end
      r1 += -1
      call sub
      end: exit`;
    expect(returned(nested(7))).toBe(9n);
    expect(describeResult(run(nested(8)))).toBe('test_sub_1 insn 3: more than 8 nested calls');
    expect(returned(nested(7))).toBe(9n);
  });

  it('calls helpers by number and through registers', () => {
    expect(returned('r1 = 5\ncall 1\nexit')).toBe(105n);
    expect(returned('r1 = 5\nr3 = 1\ncallx r3\nexit')).toBe(105n);
    expect(returned('call 2\nr0 = 1\nexit')).toBe(77n);
    expect(describeResult(run('r3 = 99\ncallx r3\nexit'))).toBe(
      'test insn 1: call of 0x0000000000000063, where no function is',
    );
    expect(() => run('call 9\nexit')).toThrow(
      'program test: test insn 0: call of unknown helper 9',
    );
  });

  it('calls a function through its address', () => {
    const text = 'r1 = subprog[+5]\nr6 = 30\ncallx r1\nr0 += r6\nexit\nr6 = 0\nr0 = 12\nexit';
    // subprog counts from the slot after the first one of ld_imm64
    expect(returned(text)).toBe(42n);
  });
});

describe('limits', () => {
  it('stops a program that does not end', () => {
    const result = run('r0 = 0\nloop: r0 += 1\ngoto loop\nexit', 0n, { budget: 10_000 });
    expect(result).toMatchObject({ kind: 'budget', function: 'test' });
  });

  it('counts instructions, ld_imm64 as one', () => {
    const program = rawProgram('test', assemble('r1 = 0x1 ll\ncall sub\nexit\nsub: r0 = 0\nexit'));
    const interpreter = createInterpreter(program, host);
    interpreter.run(0n);
    expect(interpreter.executed).toBe(5);
  });

  it('runs again and again from a clean start', () => {
    const text = 'r0 = r6\nr0 += r5\nr0 += r2\nr6 = 1\nr5 = 2\nr0 += r1\nexit';
    const interpreter = createInterpreter(rawProgram('test', assemble(text)), host);
    for (let i = 0n; i < 10n; i++) expect(interpreter.run(i)).toEqual({ kind: 'return', r0: i });
    expect(interpreter.execute(0, 7)).toBe(true);
    expect(interpreter.r0).toBe(7);
    expect(interpreter.result).toEqual({ kind: 'return', r0: 7n });
    const faulting = createInterpreter(
      rawProgram('f', assemble('r0 = *(u8 *)(r1 + 0)\nexit')),
      host,
    );
    expect(faulting.execute(0, 0)).toBe(false);
    expect(faulting.result).toMatchObject({ kind: 'fault', insn: 0 });
  });
});

describe('benchmark programs', () => {
  const file = new URL('../vectors/bpf/bench-programs.jsonl', import.meta.url);
  const records = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Readonly<Record<string, string | number | null>>)
    .filter(({ name }) => String(name).endsWith('-small'));

  it.each(records)('$name returns its result in its number of instructions', (record) => {
    const bench = new PlainHost({
      callBase: 0n,
      helperStride: 1,
      helpers: new Map([[2, (words: Int32Array): void => void words.fill(0, 0, 2)]]),
    });
    const hex = String(record.mem_hex ?? '');
    const memory = Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16));
    const context = memory.length > 0 ? bench.allocate('mem', memory.length).address : 0n;
    bench.memory.writeBytes(context, memory);
    const insns = Uint8Array.from(String(record.insns_hex).match(/../g) ?? [], (byte) =>
      parseInt(byte, 16),
    );
    const interpreter = createInterpreter(rawProgram('bench', insns), bench);
    expect(interpreter.run(context, { r2: BigInt(memory.length) })).toEqual({
      kind: 'return',
      r0: BigInt(`0x${record.expected_r0}`),
    });
    expect(interpreter.executed).toBe(record.dynamic_insns);
  });
});

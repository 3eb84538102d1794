/**
 * The wasm tier on the nine large benchmark programs: millions of eBPF instructions per second, with
 * bounds checks and instruction budget.
 *
 * As in `bench/interpreter.ts` each program runs about 100 million instructions and its result is
 * compared with the record's. The row of a program is the best of three runs after a first one, in which
 * the engine's optimising compiler works in the background; `first run` is the mean of those. Further
 * rows: nanoseconds per helper call, in place and through an import, and compile time.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { assemble } from '../src/bpf/assemble.js';
import { withIntrinsic, type HelperBody } from '../src/bpf/host.js';
import { encodeSlots, makeSlot } from '../src/bpf/instruction.js';
import { createInterpreter } from '../src/bpf/interpreter.js';
import { PlainHost } from '../src/bpf/plain-host.js';
import { rawProgram } from '../src/bpf/raw-program.js';
import { describeResult } from '../src/bpf/result.js';
import { createWasmProgram } from '../src/bpf/wasm.js';
import { BENCH_HELPERS } from '../src/lab/check/run-helpers.js';
import { parseRecords, type VectorRecord } from '../src/lab/check/record.js';
import { PACKAGE_ROOT } from '../src/node/files.js';
import type { BenchRow } from './row.js';

const UNIT = 'M instructions/s';

/** @param text the lines of bench-programs.jsonl; default: the project's copy. */
export function benchWasm(text: string = readVectors()): BenchRow[] {
  const records = parseRecords('bench-programs.jsonl', text).filter(
    (record) => record.has('expected_r0') && !record.name.endsWith('-small'),
  );
  const measured = records.map((record) => ({ record, ...measure(record) }));
  const mean = (values: readonly number[]): number =>
    Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
  const warm = mean(measured.map(({ speed }) => speed));
  const interpreted = mean(measured.map(({ interpreter }) => interpreter));
  return [
    ...measured.map(({ record, speed }) => ({
      name: `wasm ${record.name}`,
      value: speed,
      unit: UNIT,
    })),
    { name: 'wasm geometric mean', value: warm, unit: UNIT },
    {
      name: 'wasm first run geometric mean',
      value: mean(measured.map(({ first }) => first)),
      unit: UNIT,
    },
    { name: 'interpreter geometric mean in the same run', value: interpreted, unit: UNIT },
    { name: 'wasm against interpreter', value: warm / interpreted, unit: 'times' },
    ...helperRows(),
    compileRow(),
  ];
}

function readVectors(): string {
  const file = join(PACKAGE_ROOT, 'test', 'vectors', 'bpf', 'bench-programs.jsonl');
  return readFileSync(file, 'utf8');
}

interface Measured {
  readonly speed: number;
  readonly first: number;
  readonly interpreter: number;
}

function measure(record: VectorRecord): Measured {
  const host = new PlainHost({ helpers: BENCH_HELPERS, callBase: 0n, helperStride: 1 });
  const program = rawProgram(record.name, record.bytes('insns_hex') ?? new Uint8Array());
  const memory = record.bytes('mem_hex');
  const context = memory ? host.allocate('mem', memory.length).address : 0n;
  const expected = record.hexNumber('expected_r0');
  const count = record.number('dynamic_insns');
  const time = (engine: Pick<ReturnType<typeof createWasmProgram>, 'run'>): number => {
    if (memory) host.memory.writeBytes(context, memory);
    const start = performance.now();
    const result = engine.run(context, { r2: BigInt(memory?.length ?? 0) });
    const seconds = (performance.now() - start) / 1000;
    if (result.kind !== 'return' || result.r0 !== expected) {
      throw new Error(`${record.name}: ${describeResult(result)}`);
    }
    return count / seconds / 1e6;
  };
  const wasm = createWasmProgram(program, host);
  const first = time(wasm);
  const speed = Math.max(time(wasm), time(wasm), time(wasm));
  const interpreter = time(createInterpreter(program, host));
  wasm.close();
  return { speed, first, interpreter };
}

const CALLS = 10_000_000;

/** A loop with a helper call, less the same loop without. */
function helperRows(): BenchRow[] {
  const returnOne: HelperBody = (registers) => {
    registers[0] = 1;
    registers[1] = 0;
  };
  const helpers = new Map([
    [1, returnOne],
    [
      2,
      withIntrinsic({ kind: 'constant', value: 1 }, (registers, host) =>
        returnOne(registers, host),
      ),
    ],
  ]);
  const host = new PlainHost({ helpers, callBase: 0n, helperStride: 1 });
  const nanoseconds = (body: string): number => {
    const text = `r6 = ${CALLS}\nr7 = 0\nloop: ${body}\nr7 += r0\nr6 += -1\nif r6 != 0 goto loop\nr0 = r7\nexit`;
    const wasm = createWasmProgram(rawProgram('helper', assemble(text)), host);
    wasm.run(0n);
    let best = Infinity;
    for (let i = 0; i < 3; i++) {
      const start = performance.now();
      const result = wasm.run(0n);
      best = Math.min(best, performance.now() - start);
      if (result.kind !== 'return' || result.r0 !== BigInt(CALLS)) {
        throw new Error(describeResult(result));
      }
    }
    wasm.close();
    return (best * 1e6) / CALLS;
  };
  const empty = nanoseconds('r0 = 1');
  return [
    {
      name: 'wasm helper call through an import',
      value: nanoseconds('call 1') - empty,
      unit: 'ns',
    },
    { name: 'wasm helper call in place', value: nanoseconds('call 2') - empty, unit: 'ns' },
  ];
}

const COMPILED = 1000;

/** Compile time of 1,000 instructions of arithmetic, memory and jumps: the median of many. */
function compileRow(): BenchRow {
  const host = new PlainHost({});
  const times: number[] = [];
  for (let run = 0; run < 101; run++) {
    const slots = [];
    for (let at = 0; slots.length < COMPILED - 1; at++) {
      slots.push(
        makeSlot(0x07, { dst: 2 + (at % 3), imm: at + run }),
        makeSlot(0x79, { dst: 0, src: 1, off: 8 * (at % 8) }),
        makeSlot(0x0f, { dst: 2, src: 0 }),
        makeSlot(0x7b, { dst: 10, src: 2, off: -8 - 8 * (at % 8) }),
        makeSlot(0x25, { dst: 2, off: Math.min(3, COMPILED - 6 - slots.length), imm: at }),
      );
    }
    const insns = encodeSlots([...slots.slice(0, COMPILED - 1), makeSlot(0x95)]);
    const program = rawProgram('compiled', insns);
    const start = performance.now();
    const wasm = createWasmProgram(program, host);
    times.push(performance.now() - start);
    wasm.close();
  }
  times.sort((a, b) => a - b);
  return { name: 'wasm compile of 1,000 instructions', value: times[50] ?? NaN, unit: 'ms' };
}

/**
 * The wasm tier on the nine large benchmark programs: millions of eBPF instructions per second, with
 * bounds checks and instruction budget.
 *
 * As in `bench/interpreter.ts` each program runs about 100 million instructions and its result is
 * compared with the record's. The row of a program is the best of three runs after a first one, in which
 * the engine's optimising compiler works in the background; `first run` is the mean of those. Further
 * rows: nanoseconds per helper call and map look-up, in place and through an import, beside an empty call from
 * wasm to TypeScript; compile time; small programs per second, compiled one by one and in batches. What takes
 * nanoseconds is the best of many short runs, so that other load on the machine hardly shows.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { assemble } from '../src/bpf/assemble.js';
import { helperBodies } from '../src/bpf/helpers/table.js';
import { withIntrinsic, withSignature, type HelperBody } from '../src/bpf/host.js';
import { encodeSlots, makeSlot, readSlots } from '../src/bpf/instruction.js';
import { createInterpreter } from '../src/bpf/interpreter.js';
import { createMap } from '../src/bpf/maps/create.js';
import { PlainHost } from '../src/bpf/plain-host.js';
import type { XlatedProgram } from '../src/bpf/program.js';
import { rawProgram } from '../src/bpf/raw-program.js';
import { describeResult } from '../src/bpf/result.js';
import { createWasmBatch, createWasmProgram } from '../src/bpf/wasm.js';
import { compilePrograms } from '../src/bpf/wasm/compile.js';
import { I32, ModuleWriter, OP } from '../src/bpf/wasm/emitter.js';
import { STATE } from '../src/bpf/wasm/state.js';
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
    ...compileRows(),
    ...batchRows(),
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

const CALLS = 20_000;
const WARM_UP = 300;
const RUNS = 1500;

/** Nanoseconds of each of `CALLS` rounds: the best of many runs. */
function bestRound(run: () => void): number {
  for (let i = 0; i < WARM_UP; i++) run();
  let best = Infinity;
  for (let i = 0; i < RUNS; i++) {
    const start = performance.now();
    run();
    best = Math.min(best, performance.now() - start);
  }
  return (best * 1e6) / CALLS;
}

/** Loops with a helper call, less the same loop without. */
function helperRows(): BenchRow[] {
  const returnOne = (): HelperBody => (registers, _host) => {
    registers[0] = 1;
    registers[1] = 0;
  };
  const signature = { arguments: 0, result: true };
  const bodies = helperBodies();
  const lookup = bodies.get(LOOKUP);
  if (!lookup) throw new Error('no map_lookup_elem');
  const helpers = new Map<number, HelperBody>([
    ...bodies,
    [ONE, returnOne()],
    [ONE_WITHOUT_ARGUMENTS, withSignature(signature, returnOne())],
    [ONE_IN_PLACE, withIntrinsic({ kind: 'constant', value: 1 }, returnOne())],
    // the same body without an intrinsic
    [LOOKUP_BODY, (registers, host) => lookup(registers, host)],
  ]);
  const host = new PlainHost({ helpers, callBase: 0n, helperStride: 1 });
  const nanoseconds = (body: string): number => {
    const text = `r6 = ${CALLS}\nr7 = 0\nloop: ${body}\nr7 += r0\nr6 += -1\nif r6 != 0 goto loop\nr0 = r7\nexit`;
    const wasm = createWasmProgram(rawProgram('helper', assemble(text)), host);
    const result = wasm.run(0n);
    if (result.kind !== 'return' || result.r0 !== BigInt(CALLS)) {
      throw new Error(describeResult(result));
    }
    const best = bestRound(() => void wasm.run(0n));
    wasm.close();
    return best;
  };
  const empty = nanoseconds('r0 = 1');
  const row = (name: string, body: string): BenchRow => ({
    name: `wasm ${name}`,
    value: nanoseconds(body) - empty,
    unit: 'ns',
  });
  const found = 'if r0 == 0 goto out\nr0 = *(u64 *)(r0 + 0)\nout:';
  const lookups = (['ARRAY', 'HASH', 'LRU_HASH'] as const).flatMap((type) => {
    const spec = { name: type, type, keySize: 4, valueSize: 8, maxEntries: 1024, flags: 0 };
    const map = createMap(spec, host);
    for (let key = 0; key < 1000; key++) {
      map.set(Uint8Array.of(key, key >> 8, 0, 0), Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
    }
    const call = (id: number): string =>
      `r1 = r6\nr1 &= 511\n*(u32 *)(r10 - 4) = r1\nr2 = r10\nr2 += -4\nr1 = 0x${map.address.toString(16)} ll\ncall ${id}\n${found}`;
    return [
      row(`${type} look-up in place`, call(LOOKUP).replaceAll('out', `${type}1`)),
      row(`${type} look-up through an import`, call(LOOKUP_BODY).replaceAll('out', `${type}2`)),
    ];
  });
  return [
    { name: 'empty call from wasm to TypeScript', value: emptyCall(), unit: 'ns' },
    row('helper call through an import', `call ${ONE}`),
    row('helper call without arguments, through an import', `call ${ONE_WITHOUT_ARGUMENTS}`),
    row('helper call in place', `call ${ONE_IN_PLACE}`),
    ...lookups,
  ];
}

const LOOKUP = 1;
const ONE = 901;
const ONE_WITHOUT_ARGUMENTS = 902;
const ONE_IN_PLACE = 903;
const LOOKUP_BODY = 904;

/** What no helper call through an import can be faster than. */
function emptyCall(): number {
  const module = new ModuleWriter();
  const callee = module.import('callee', module.type([], []));
  const loop = (called: boolean): void => {
    const code = module.writer();
    const again = code.open(OP.loop);
    if (called) code.call(callee);
    code.get(0).i32(1).op(OP.i32_sub).tee(0).branch(again, OP.br_if).end();
    const index = module.declare(module.type([I32], []));
    module.define(index, [], code);
    module.export(called ? 'calls' : 'empty', index);
  };
  loop(true);
  loop(false);
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.bytes(1)), {
    env: { memory, callee: () => undefined },
  });
  const time = (name: string): number => {
    const run = instance.exports[name];
    if (typeof run !== 'function') throw new Error(`no ${name}`);
    return bestRound(() => void run(CALLS));
  };
  return time('calls') - time('empty');
}

const PROGRAMS = 200;
const PROGRAM_SLOTS = 100;

/** Programs of 100 instructions per second of CPU time, compiled, run once and closed. */
function batchRows(): BenchRow[] {
  const host = new PlainHost({});
  const context = host.allocate('context', 64).address;
  const programs = Array.from({ length: PROGRAMS }, (_, index) =>
    rawProgram(`p${index}`, mixedCode(PROGRAM_SLOTS, index)),
  );
  const run = (wasm: ReturnType<typeof createWasmProgram>): void => {
    const result = wasm.run(context);
    if (result.kind !== 'return') throw new Error(describeResult(result));
    wasm.close();
  };
  const perSecond = (all: () => void): number => {
    let best = Infinity;
    for (let i = 0; i < 8; i++) {
      const before = process.cpuUsage();
      all();
      const { user, system } = process.cpuUsage(before);
      best = Math.min(best, user + system);
    }
    return (PROGRAMS * 1e6) / best;
  };
  const single = perSecond(() => {
    for (const program of programs) run(createWasmProgram(program, host));
  });
  const batch = perSecond(() => {
    for (const wasm of createWasmBatch(programs, host)) run(wasm);
  });
  const interpreter = perSecond(() => {
    for (const program of programs) {
      const engine = createInterpreter(program, host);
      engine.run(context);
      engine.close();
    }
  });
  const unit = 'programs/s';
  return [
    { name: 'wasm programs one by one', value: single, unit },
    { name: `wasm programs in batches of ${PROGRAMS}`, value: batch, unit },
    { name: 'interpreter programs in the same run', value: interpreter, unit },
  ];
}

const COMPILED = 1000;

/** Instructions of arithmetic, memory and jumps. */
function mixedCode(count: number, seed: number): Uint8Array {
  const slots = [];
  for (let at = 0; slots.length < count - 1; at++) {
    slots.push(
      makeSlot(0x07, { dst: 2 + (at % 3), imm: at + seed }),
      makeSlot(0x79, { dst: 0, src: 1, off: 8 * (at % 8) }),
      makeSlot(0x0f, { dst: 2, src: 0 }),
      makeSlot(0x7b, { dst: 10, src: 2, off: -8 - 8 * (at % 8) }),
      makeSlot(0x25, { dst: 2, off: Math.min(3, Math.max(count - 6 - slots.length, 0)), imm: at }),
    );
  }
  return encodeSlots([...slots.slice(0, count - 1), makeSlot(0x95)]);
}

/**
 * Milliseconds for 1,000 instructions, all in all and of it writing the module and V8's reading it: of many
 * runs the one that a tenth are faster than, since other load on the machine only adds.
 */
function compileRows(): BenchRow[] {
  const host = new PlainHost({});
  const quick = (run: (program: XlatedProgram) => number): number => {
    const times = Array.from({ length: 201 }, (_, seed) =>
      run(rawProgram('compiled', mixedCode(COMPILED, seed))),
    );
    return times.sort((a, b) => a - b)[20] ?? NaN;
  };
  const whole = quick((program) => {
    const start = performance.now();
    const wasm = createWasmProgram(program, host);
    const time = performance.now() - start;
    wasm.close();
    return time;
  });
  const write = (program: XlatedProgram): Uint8Array<ArrayBuffer> => {
    const slots = program.functions.map(({ insns }) => readSlots(insns));
    const allocateSlots = (): number => STATE.size;
    return compilePrograms([{ program, slots, callbackBase: undefined, isTarget: false }], host, {
      state: 0,
      allocateSlots,
      firstSite: 0,
      isResumable: true,
    }).bytes;
  };
  const writing = quick((program) => {
    const start = performance.now();
    write(program);
    return performance.now() - start;
  });
  const reading = quick((program) => {
    const bytes = write(program);
    const start = performance.now();
    void new WebAssembly.Module(bytes);
    return performance.now() - start;
  });
  const name = `wasm compile of ${COMPILED.toLocaleString('en')} instructions`;
  return [
    { name, value: whole, unit: 'ms' },
    { name: `${name}: writing the module`, value: writing, unit: 'ms' },
    { name: `${name}: WebAssembly.Module`, value: reading, unit: 'ms' },
  ];
}

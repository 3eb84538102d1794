/**
 * The interpreter on the nine large benchmark programs: millions of eBPF instructions per second.
 *
 * Each program runs once, about 100 million instructions; results and instruction counts are compared
 * with those of the record, so a fast wrong run cannot pass. The last row is the geometric mean.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterpreter, describeResult } from '../src/bpf/interpreter.js';
import { PlainHost } from '../src/bpf/plain-host.js';
import { rawProgram } from '../src/bpf/raw-program.js';
import { parseRecords, type VectorRecord } from '../src/lab/check/record.js';
import { PACKAGE_ROOT } from '../src/node/files.js';
import { BENCH_HELPERS } from '../src/lab/check/run-helpers.js';
import type { BenchRow } from './row.js';

const UNIT = 'M instructions/s';

/** @param text the lines of bench-programs.jsonl; default: the project's copy. */
export function benchInterpreter(text: string = readVectors()): BenchRow[] {
  const records = parseRecords('bench-programs.jsonl', text).filter(
    (record) => record.has('expected_r0') && !record.name.endsWith('-small'),
  );
  const rows = records.map((record) => ({
    name: `interpreter ${record.name}`,
    value: measure(record),
    unit: UNIT,
  }));
  const logarithms = rows.reduce((sum, { value }) => sum + Math.log(value), 0);
  const mean = Math.exp(logarithms / rows.length);
  return [...rows, { name: 'interpreter geometric mean', value: mean, unit: UNIT }];
}

function readVectors(): string {
  const file = join(PACKAGE_ROOT, 'test', 'vectors', 'bpf', 'bench-programs.jsonl');
  return readFileSync(file, 'utf8');
}

function measure(record: VectorRecord): number {
  const host = new PlainHost({ helpers: BENCH_HELPERS, callBase: 0n, helperStride: 1 });
  const insns = record.bytes('insns_hex') ?? new Uint8Array();
  const interpreter = createInterpreter(rawProgram(record.name, insns), host);
  const memory = record.bytes('mem_hex');
  const context = memory ? host.allocate('mem', memory.length).address : 0n;
  if (memory) host.memory.writeBytes(context, memory);
  const start = performance.now();
  const result = interpreter.run(context, { r2: BigInt(memory?.length ?? 0) });
  const seconds = (performance.now() - start) / 1000;
  const isRight =
    result.kind === 'return' &&
    result.r0 === record.hexNumber('expected_r0') &&
    interpreter.executed === record.number('dynamic_insns');
  if (!isRight) throw new Error(`${record.name}: ${describeResult(result)}`);
  return interpreter.executed / seconds / 1e6;
}

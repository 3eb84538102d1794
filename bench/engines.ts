/**
 * The embedded engine against libunicorn, on the same programs in the same run: plain, with a full trace
 * (pc, changed registers, values), and the cost of a short `run`.
 *
 *   const rows = await run();   // [{ name: 'embedded loop plain', value: 180, unit, ratio: 1.7 }, ...]
 *
 * libunicorn runs counted, as the lab always runs it; its trace is a code hook that reads all
 * registers and keeps the changed ones. Without libunicorn only the embedded rows come, without ratio.
 */
import type { Cpu } from '../src/cpu/cpu.js';
import { embeddedFactory, type CpuFactory } from '../src/cpu/engines.js';
import { unicornFactory } from '../src/cpu/unicorn/factory.js';
import {
  DATA,
  RETURN,
  STACK,
  TEXT,
  benchMemory,
  measure,
  runProgram,
} from './reference-programs.js';
import type { BenchRow } from './row.js';

type Measurement = 'loop plain' | 'calls plain' | 'loop traced' | 'calls traced' | 'short runs';

const UNITS: Readonly<Record<Measurement, string>> = {
  'loop plain': 'M instructions/s',
  'calls plain': 'M instructions/s',
  'loop traced': 'M instructions/s',
  'calls traced': 'M instructions/s',
  'short runs': 'M runs/s',
};

/**
 * A program for exactly `instructions` instructions, without a stop address: that needs one more hook in
 * libunicorn, which costs it a quarter of its speed.
 */
function plain(cpu: Cpu, program: 'loop' | 'calls', instructions: number): number {
  cpu.sp = STACK + 16384n;
  cpu.setX(0, 1n << 40n);
  cpu.setX(1, DATA);
  cpu.setX(19, 1n << 40n);
  cpu.pc = program === 'loop' ? TEXT : TEXT + 0x1000n;
  const stop = cpu.run({ budget: instructions });
  if (stop.kind !== 'budget') throw new Error(`benchmark stopped: ${stop.kind}`);
  return instructions;
}

function traced(cpu: Cpu, program: 'loop' | 'calls', instructions: number): number {
  cpu.startTrace();
  return runProgram(cpu, program, instructions);
}

/** Calls of an 8-instruction function, each from setting its arguments to reading its result. */
function shortRuns(cpu: Cpu, count: number): number {
  for (let i = 0; i < count; i++) {
    cpu.setX(0, BigInt(i));
    cpu.setX(1, 7n);
    cpu.setX(30, RETURN);
    cpu.sp = STACK + 16384n;
    cpu.pc = TEXT + 0x1010n;
    const stop = cpu.run({ until: RETURN });
    if (stop.kind !== 'until') throw new Error(`benchmark stopped: ${stop.kind}`);
    if (cpu.getX(0) !== BigInt(i) + 7n) throw new Error('benchmark computed something else');
  }
  return count;
}

function measureEngine(factory: CpuFactory): Map<Measurement, number> {
  const cpu = factory.create(benchMemory());
  const slow = factory.name === 'unicorn';
  const values = new Map<Measurement, number>();
  const traceLength = slow ? 40_000 : 1_000_000;
  try {
    for (const program of ['loop', 'calls'] as const) {
      values.set(
        `${program} plain`,
        measure(() => plain(cpu, program, 10_000_000)),
      );
    }
    for (const program of ['loop', 'calls'] as const) {
      values.set(
        `${program} traced`,
        measure(() => traced(cpu, program, traceLength)),
      );
      cpu.stopTrace();
    }
    values.set(
      'short runs',
      measure(() => shortRuns(cpu, 20_000)),
    );
  } finally {
    cpu.close();
  }
  return values;
}

export async function run(): Promise<BenchRow[]> {
  const { factory } = await unicornFactory();
  const engines = [embeddedFactory, ...(factory ? [factory] : [])];
  const results = engines.map((each) => [each.name, measureEngine(each)] as const);
  return results.flatMap(([name, values]) => {
    const other = results.find(([otherName]) => otherName !== name)?.[1];
    return [...values].map(([what, value]): BenchRow => {
      const row = { name: `${name} ${what}`, value, unit: UNITS[what] };
      const reference = other?.get(what);
      return reference === undefined ? row : { ...row, ratio: value / reference };
    });
  });
}

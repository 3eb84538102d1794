/**
 * Calls a kernel function with every executed instruction recorded, and counts them by symbol.
 *
 * What runs in TypeScript bodies is not A64 code and does not count; their text (entry, return) does.
 */
import type { TraceEntry } from '../cpu/cpu.js';
import type { Kernel } from '../kernel/kernel.js';

export interface TracedCall<T> {
  readonly result: T;
  readonly entries: readonly TraceEntry[];
  /** Executed instructions by symbol, in order of first execution. */
  readonly counts: ReadonlyMap<string, number>;
}

export function tracedCall(kernel: Kernel, target: string, ...args: bigint[]): TracedCall<bigint> {
  return tracedRun(kernel, () => kernel.call(target, ...args));
}

/** Runs anything that calls into the kernel, recording what CPU 0 executes. */
export function tracedRun<T>(kernel: Kernel, run: () => T): TracedCall<T> {
  const cpu = kernel.cpus[0];
  if (!cpu) throw new RangeError('the kernel has no CPU');
  const before = kernel.executor.everyInstruction;
  kernel.executor.everyInstruction = true;
  cpu.startTrace();
  try {
    const result = run();
    const entries = cpu.stopTrace();
    return { result, entries, counts: countBySymbol(kernel, entries) };
  } catch (error) {
    cpu.stopTrace();
    throw error;
  } finally {
    kernel.executor.everyInstruction = before;
  }
}

function countBySymbol(kernel: Kernel, entries: readonly TraceEntry[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { pc } of entries) {
    const name = kernel.symbols.lookup(pc)?.name ?? '?';
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}

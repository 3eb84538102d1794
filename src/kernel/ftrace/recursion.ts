/**
 * The guard that keeps a callback from tracing itself: one bit of task_struct.trace_recursion for each
 * context that can interrupt another, and one more for the moment in which an interrupt has come and
 * preempt_count does not say so yet.
 *
 * | context    | preempt_count   | bit of its range |
 * | ---------- | --------------- | ---------------- |
 * | NORMAL     | none of these   | 3                |
 * | SOFTIRQ    | bits 8 to 15    | 2                |
 * | IRQ        | bits 16 to 19   | 1                |
 * | NMI        | bits 20 to 23   | 0                |
 * | TRANSITION | -               | 4                |
 *
 * Two ranges: FTRACE for callbacks that protect themselves, INTERNAL for the list and assist functions. While
 * a bit is held preemption is off. Reference: include/linux/trace_recursion.h. Nothing here raises interrupts:
 * another context is one whose bits somebody has set in preempt_count.
 */
import { TASK_STRUCT } from '../offsets.js';
import type { KernelContext } from '../function.js';

const RANGE_START = { ftrace: 0, internal: 5 } as const;
export type RecursionRange = keyof typeof RANGE_START;

const TRANSITION = 4;
/** Mask of preempt_count for each context, the one that interrupts all others first. */
const CONTEXT_MASKS = [0xf0_0000, 0xf_0000, 0xff00];
const NORMAL = 3;

/** trace_test_and_set_recursion: the bit that was taken, or -1 when the event has to be dropped. */
export function tryRecursion(kernel: KernelContext, range: RecursionRange): number {
  const word = kernel.current + BigInt(TASK_STRUCT.trace_recursion);
  const count = kernel.current + BigInt(TASK_STRUCT.preempt_count);
  const value = kernel.memory.read32(word);
  const preempt = kernel.memory.read32(count);
  const level = CONTEXT_MASKS.findIndex((mask) => (preempt & mask) !== 0);
  const start = RANGE_START[range];
  let bit = start + (level < 0 ? NORMAL : level);
  if (value & (1 << bit)) bit = start + TRANSITION;
  if (value & (1 << bit)) return -1;
  kernel.memory.write32(word, value | (1 << bit));
  kernel.memory.write32(count, preempt + 1);
  return bit;
}

/** trace_clear_recursion. */
export function clearRecursion(kernel: KernelContext, bit: number): void {
  const word = kernel.current + BigInt(TASK_STRUCT.trace_recursion);
  const count = kernel.current + BigInt(TASK_STRUCT.preempt_count);
  kernel.memory.write32(count, kernel.memory.read32(count) - 1);
  kernel.memory.write32(word, kernel.memory.read32(word) & ~(1 << bit));
}

/**
 * What a function has to preserve by the procedure call standard: x19..x29 and sp. A caller that fills them
 * sees which ones are lost.
 */
import { hex64 } from '../../common/bytes.js';
import type { Kernel } from '../../kernel/kernel.js';
import { TASK_STRUCT } from '../../kernel/offsets.js';

/** What x0..x30 hold before a call (`Executor.freshRegisters`): none is zero, no two are equal. */
export const FRESH: readonly bigint[] = Array.from(
  { length: 31 },
  (_, register) => 0x5eed_0000_0bad_cafen + (BigInt(register) << 32n),
);
const PRESERVED = [19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29] as const;

/** Bytes below the top of a stack that hold no zeros, nor what was there before, when a run begins. */
const DIRTY = 4096;

/**
 * Makes what a call finds on the stack and beside the CPU's number the same each time, and nothing that could
 * pass for a result.
 */
export function dirtyTasks(kernel: Kernel): void {
  const { bytes } = kernel.memory;
  for (const { stack, address } of kernel.tasks) {
    const end = stack.offset + stack.size;
    bytes.fill(0xa5, end - DIRTY, end);
    for (const beside of [TASK_STRUCT.cpu - 4, TASK_STRUCT.cpu + 4]) {
      kernel.memory.write32(address + BigInt(beside), 0xa5a5a5a5);
    }
  }
}

/** Text for the registers that a call did not leave as they were. */
export function lostRegisters(kernel: Kernel, stackArguments = 0): string {
  const [cpu] = kernel.cpus;
  if (!cpu) return '';
  let text = '';
  for (const register of PRESERVED) {
    const value = cpu.getX(register);
    if (value !== FRESH[register]) text += `, x${register} lost: ${hex64(value)}`;
  }
  const sp = cpu.sp + BigInt(16 * Math.ceil(stackArguments / 2));
  if (kernel.tasks.some(({ stackTop }) => stackTop === sp)) return text;
  return `${text}, sp lost: ${hex64(cpu.sp)}`;
}

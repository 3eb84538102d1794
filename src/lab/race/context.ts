/**
 * The kernel as a body sees it that runs on an executing CPU of the explorer: the current task is that CPU's.
 *
 * Left out: calls, which would leave the body's state on the JavaScript stack.
 */
import { InputError } from '../../common/errors.js';
import type { Memory } from '../../cpu/memory.js';
import type { Callee, KernelContext, PhysicalAllocator } from '../../kernel/function.js';
import type { Kernel } from '../../kernel/kernel.js';

export class ExecutorContext implements KernelContext {
  readonly memory: Memory;
  readonly physical: PhysicalAllocator;
  readonly current: bigint;
  readonly currentCpu = 0;
  readonly #kernel: Kernel;

  /** @param current address of the task's task_struct */
  constructor(kernel: Kernel, current: bigint) {
    this.#kernel = kernel;
    this.memory = kernel.memory;
    this.physical = kernel.physical;
    this.current = current;
  }

  invoke(callee: string | Callee): number {
    const name = typeof callee === 'string' ? callee : callee.name;
    throw new InputError(`${name} is called from TypeScript: it cannot be interleaved`);
  }

  symbol(name: string): bigint {
    return this.#kernel.symbol(name);
  }

  kmalloc(): bigint {
    throw new InputError('a body that allocates cannot be interleaved');
  }

  kfree(): void {
    throw new InputError('a body that frees cannot be interleaved');
  }

  allocPages(): bigint {
    return this.kmalloc();
  }

  freePages(): void {
    this.kfree();
  }

  printk(): void {
    throw new InputError('a body that prints cannot be interleaved');
  }
}

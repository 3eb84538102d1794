/**
 * A task: a kernel stack, a task_struct, and TypeScript bodies in progress.
 *
 * Reference: struct task_struct and THREAD_SIZE (16 KiB) of arm64; the stack is vmalloc'ed with
 * nothing mapped below it (VMAP_STACK), so an overflow faults. `sp_el0` holds the task_struct
 * address while the task runs.
 */
import type { Registers } from '../cpu/cpu.js';
import type { Region } from '../cpu/memory.js';
import type { BodyGenerator, KernelFunction } from './function.js';

/** A TypeScript body that has begun and not ended. */
export interface BodyFrame {
  readonly fn: KernelFunction;
  readonly generator: BodyGenerator<bigint | void>;
  /**
   * Where its text stands: address of the BRK and sp there. Absent for a body that a TypeScript
   * caller entered without going through the text.
   */
  readonly at?: { readonly address: bigint; readonly sp: bigint };
}

export type TaskState = 'ready' | 'running' | 'sleeping' | 'done';

export class Task {
  readonly name: string;
  readonly pid: number;
  /** Address of its task_struct. */
  readonly address: bigint;
  readonly stack: Region;
  state: TaskState = 'ready';
  /** Registers while it does not run. */
  registers: Registers | undefined;
  /** Innermost last. */
  readonly frames: BodyFrame[] = [];
  /** What it sleeps on. */
  channel: bigint | undefined;
  /** x0 of the function it was started with, once done. */
  result = 0n;

  constructor(name: string, pid: number, address: bigint, stack: Region) {
    this.name = name;
    this.pid = pid;
    this.address = address;
    this.stack = stack;
  }

  /** Ends the bodies from number `first` on without going on with them, innermost first. */
  leaveFrames(first: number): void {
    for (const { generator } of this.frames.splice(first).reverse()) generator.return(0n);
  }

  /** First address above the stack. */
  get stackTop(): bigint {
    return this.stack.address + BigInt(this.stack.size);
  }
}

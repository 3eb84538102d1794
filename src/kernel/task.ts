/**
 * A task: a kernel stack, a task_struct, and TypeScript bodies in progress.
 *
 * Reference: struct task_struct and THREAD_SIZE (16 KiB) of arm64; the stack is vmalloc'ed with
 * nothing mapped below it (VMAP_STACK), so an overflow faults. `sp_el0` holds the task_struct
 * address while the task runs.
 */
import type { Registers } from '../cpu/cpu.js';
import type { Region } from '../cpu/memory.js';
import type { BodyGenerator } from './function.js';

/** Where text stands that waits for a callee: address of the BRK and the halves of sp there. */
export interface TextPlace {
  readonly address: bigint;
  readonly spLo: number;
  readonly spHi: number;
}

/** An atomic body waits here for the callee that returns to `at`; its x0 in halves. */
export interface InvokeFrame {
  readonly kind: 'invoke';
  at: TextPlace;
  lo: number;
  hi: number;
}

/** What is on a task's stack besides text: TypeScript bodies that have begun and not ended. */
export type BodyFrame =
  /** `at` is absent for a body that a TypeScript caller entered without going through the text. */
  | {
      readonly kind: 'generator';
      readonly generator: BodyGenerator<bigint | void>;
      readonly at?: TextPlace;
    }
  /** An atomic body that was entered through its text. */
  | { readonly kind: 'atomic'; readonly at: TextPlace }
  | InvokeFrame;

export type TaskState = 'ready' | 'running' | 'sleeping' | 'done';

export class Task {
  readonly name: string;
  readonly pid: number;
  /** Address of its task_struct. */
  readonly address: bigint;
  /** Physical address of task_struct.cpu. */
  readonly cpuWord: number;
  readonly stack: Region;
  /** First address above the stack. */
  readonly stackTop: bigint;
  state: TaskState = 'ready';
  /** Registers while it does not run. */
  registers: Registers | undefined;
  /** Innermost last. */
  readonly frames: BodyFrame[] = [];
  /** What it sleeps on. */
  channel: bigint | undefined;
  /** x0 of the function it was started with, once done. */
  result = 0n;

  constructor(name: string, pid: number, address: bigint, cpuWord: number, stack: Region) {
    this.name = name;
    this.pid = pid;
    this.address = address;
    this.cpuWord = cpuWord;
    this.stack = stack;
    this.stackTop = stack.address + BigInt(stack.size);
  }

  /** Ends the bodies from number `first` on without going on with them, innermost first. */
  leaveFrames(first: number): void {
    for (const frame of this.frames.splice(first).reverse()) {
      if (frame.kind === 'generator') frame.generator.return(0n);
    }
  }
}

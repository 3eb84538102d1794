/**
 * The tasks of a kernel: task_struct in the linear map, stack in vmalloc space with a guard page below it.
 *
 * Reference: copy_process and CONFIG_VMAP_STACK, as far as it shows; a task that has ended is used again for the
 * next call. Left out: parents, signals, everything that schedules; who runs is the kernel's matter.
 */
import type { Memory, Region } from '../cpu/memory.js';
import type { LinearMap } from './linear-map.js';
import { TASK_STRUCT } from './offsets.js';
import { MAPPABLE, type RangeAllocator } from './range-allocator.js';
import { Task } from './task.js';

const THREAD_SIZE = 16384;

export class TaskList {
  readonly all: Task[] = [];
  readonly #memory: Memory;
  readonly #linear: LinearMap;
  readonly #vmalloc: RangeAllocator;
  #nextPid = 1;

  constructor(memory: Memory, linear: LinearMap, vmalloc: RangeAllocator) {
    this.#memory = memory;
    this.#linear = linear;
    this.#vmalloc = vmalloc;
  }

  create(name: string): Task {
    const address = this.#linear.kmalloc(TASK_STRUCT.size);
    const cpuWord = this.#memory.ram.virtToPhys(address) + TASK_STRUCT.cpu;
    const task = new Task(name, this.#nextPid++, address, cpuWord, this.#allocStack(name));
    this.#memory.write32(address + BigInt(TASK_STRUCT.pid), task.pid);
    this.all.push(task);
    return task;
  }

  /** A task that does nothing now: what a call borrows. */
  idle(): Task {
    const idle = this.all.find((task) => task.state === 'ready' || task.state === 'done');
    return idle ?? this.create(`kworker/${this.all.length}`);
  }

  at(address: bigint): Task {
    const task = this.all.find((each) => each.address === address);
    if (!task) throw new RangeError(`0x${address.toString(16)} is no task`);
    return task;
  }

  /** After an oops nothing of the task is left that others could wait for. */
  kill(task: Task): void {
    task.leaveFrames(0);
    task.state = 'done';
    const { preempt_count, rcu_read_lock_nesting: first, size } = TASK_STRUCT;
    this.#memory.write32(task.address + BigInt(preempt_count), 0);
    this.#memory.writeBytes(task.address + BigInt(first), new Uint8Array(size - first));
  }

  #allocStack(name: string): Region {
    // one unmapped page below catches overflows (VMAP_STACK)
    const start = this.#vmalloc.take(BigInt(THREAD_SIZE + 4096), 4096n, MAPPABLE);
    return this.#memory.map({
      name: `stack of ${name}`,
      address: start + 4096n,
      size: THREAD_SIZE,
      permissions: 'rw',
    });
  }
}

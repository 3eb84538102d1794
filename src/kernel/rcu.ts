/**
 * Grace periods: what is to be done once every task that may still use something has let go of it.
 *
 * | flavour       | a task holds it up                                   | Linux                       |
 * | ------------- | ---------------------------------------------------- | --------------------------- |
 * | `rcu`         | between rcu_read_lock and unlock                     | call_rcu                    |
 * | `tasks`       | from when it runs until it sleeps or ends            | call_rcu_tasks              |
 * | `tasks_rude`  | the same: its CPU has not switched since             | call_rcu_tasks_rude         |
 * | `tasks_trace` | between rcu_read_lock_trace and unlock, also asleep  | call_rcu_tasks_trace        |
 *
 * A grace period waits for those tasks that held it up when it began. Whether they still do is looked at
 * when a task stops running; without any the callback runs at once. Left out: callbacks in batches,
 * expedited grace periods, CPUs that idle.
 */
import type { Memory } from '../cpu/memory.js';
import { TASK_STRUCT } from './offsets.js';
import type { PatchObserver, RcuFlavour } from './patch-observer.js';
import type { Task } from './task.js';

interface Pending {
  readonly flavour: RcuFlavour;
  readonly callback: () => void;
  readonly holders: Set<Task>;
}

export class Rcu {
  readonly #memory: Memory;
  readonly #tasks: () => readonly Task[];
  readonly #observer: () => PatchObserver | undefined;
  readonly #pending: Pending[] = [];

  constructor(
    memory: Memory,
    tasks: () => readonly Task[],
    observer: () => PatchObserver | undefined = () => undefined,
  ) {
    this.#memory = memory;
    this.#tasks = tasks;
    this.#observer = observer;
  }

  /** Linux waits here for a grace period: told to whoever observes. See `afterSynchronize`. */
  synchronize(flavour: RcuFlavour): void {
    this.#observer()?.waited(flavour);
  }

  /** Calls `callback` after a grace period that begins now. */
  call(flavour: RcuFlavour, callback: () => void): void {
    const observer = this.#observer();
    if (observer) {
      observer.deferred(flavour, callback);
      return;
    }
    const holders = new Set(this.#tasks().filter((task) => this.#holds(task, flavour)));
    if (holders.size === 0) callback();
    else this.#pending.push({ flavour, callback, holders });
  }

  /**
   * What Linux does once `synchronize` has waited for these flavours, one after the other. Here `callback` waits in
   * its place; whoever observes has been told of the waits already.
   */
  afterSynchronize(flavours: readonly RcuFlavour[], callback: () => void): void {
    const [first, ...rest] = flavours;
    if (first === undefined || this.#observer()) callback();
    else this.call(first, () => this.afterSynchronize(rest, callback));
  }

  /** Callbacks that wait: a leak, or a task that sleeps, shows here. */
  get pending(): number {
    return this.#pending.length;
  }

  /** Looks which tasks have let go, and calls what waited for them only. */
  advance(): void {
    for (let i = 0; i < this.#pending.length;) {
      const { flavour, callback, holders } = this.#pending[i] as Pending;
      for (const task of holders) if (!this.#holds(task, flavour)) holders.delete(task);
      if (holders.size > 0) {
        i++;
        continue;
      }
      this.#pending.splice(i, 1);
      callback();
    }
  }

  #holds(task: Task, flavour: RcuFlavour): boolean {
    switch (flavour) {
      case 'tasks':
      case 'tasks_rude':
        return task.state === 'running';
      case 'rcu':
        return this.#nesting(task, TASK_STRUCT.rcu_read_lock_nesting) > 0;
      case 'tasks_trace':
        return this.#nesting(task, TASK_STRUCT.trc_reader_nesting) > 0;
    }
  }

  #nesting(task: Task, offset: number): number {
    return this.#memory.read32(task.address + BigInt(offset));
  }
}

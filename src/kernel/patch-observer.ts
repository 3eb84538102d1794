/**
 * What the kernel tells of its own patching while it patches: the points at which another CPU can notice.
 *
 * In the lab an operation (attach, unregister, text poke) runs to its end before any CPU goes on. Who wants to
 * know what a CPU would have seen in the middle of it listens here and has the steps in their order: stores,
 * cache maintenance, interrupts to all CPUs, waits. The lab never has to wait, so waits are told only.
 *
 * Usage:
 *   const stop = kernel.observePatching({ stored: (address, bytes) => ..., synced: ..., ... });
 *   kernel.ftrace.register(ops);
 *   stop();
 */
export type RcuFlavour = 'rcu' | 'tasks' | 'tasks_rude' | 'tasks_trace';

export interface PatchObserver {
  /** `bytes` are about to be stored at `address`. */
  stored(address: bigint, bytes: Uint8Array): void;
  /** [start, end) of text was cleaned and invalidated to the point of unification, dsb ish, isb here. */
  synced(start: bigint, end: bigint): void;
  /** Every CPU has taken an interrupt: kick_all_cpus_sync. */
  interrupted(): void;
  /** What follows happens after a grace period that begins now. */
  waited(flavour: RcuFlavour): void;
  /** `callback` is to run after a grace period, beside what follows: call_rcu. The observer runs it. */
  deferred(flavour: RcuFlavour, callback: () => void): void;
  /** What follows happens once the u64 at `address` is 0. */
  drained(address: bigint): void;
  /** [address, address + size) may be given to others from here on. */
  freed(address: bigint, size: number): void;
}

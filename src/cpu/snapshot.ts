/**
 * One moment of a machine: its memory and all its CPUs.
 *
 * Restoring brings back regions, bytes and registers, and makes every CPU see the restored text. What
 * a CPU fetched before (its view of text that memory no longer holds) and an open exclusive monitor
 * are not part of it.
 *
 * Usage:
 *   const moment = takeSnapshot(memory, cpus);
 *   ...
 *   restoreSnapshot(moment, memory, cpus);
 */
import type { Cpu, Registers } from './cpu.js';
import type { Memory, MemorySnapshot } from './memory.js';

export interface MachineSnapshot {
  readonly memory: MemorySnapshot;
  /** Registers of each CPU, in order. */
  readonly cpus: readonly Registers[];
}

/** @param cpus CPUs on `memory`. */
export function takeSnapshot(memory: Memory, cpus: readonly Cpu[]): MachineSnapshot {
  return { memory: memory.snapshot(), cpus: cpus.map((cpu) => cpu.saveRegisters()) };
}

/** Throws RangeError when there are not as many CPUs as in the snapshot. */
export function restoreSnapshot(
  snapshot: MachineSnapshot,
  memory: Memory,
  cpus: readonly Cpu[],
): void {
  if (cpus.length !== snapshot.cpus.length) {
    throw new RangeError(`snapshot of ${snapshot.cpus.length} CPUs, not ${cpus.length}`);
  }
  memory.restore(snapshot.memory);
  cpus.forEach((cpu, index) => {
    for (const { address, size, permissions } of memory.regions) {
      if (permissions.includes('x')) cpu.sync(address, address + BigInt(size));
    }
    cpu.loadRegisters(snapshot.cpus[index] as Registers);
  });
}

/**
 * Which engines there are, and how code gets a CPU without knowing which.
 *
 * What needs CPUs takes a `CpuFactory`. The embedded engine is always there; libunicorn is loaded
 * when it is asked for, so that this floor stays loadable in a browser.
 *
 * Usage:
 *   const factory = await cpuFactory('auto');
 *   const cpu = factory.create(memory);
 */
import type { Cpu } from './cpu.js';
import type { Memory } from './memory.js';

export const ENGINES = ['embedded', 'unicorn', 'auto'] as const;

/** `auto`: libunicorn where it can be loaded, else embedded. */
export type EngineName = (typeof ENGINES)[number];

export interface CpuFactory {
  readonly name: Exclude<EngineName, 'auto'>;
  /** A CPU with all registers 0 that sees `memory`. */
  create(memory: Memory): Cpu;
}

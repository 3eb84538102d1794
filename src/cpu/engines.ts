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
import { InputError } from '../common/errors.js';
import type { Cpu } from './cpu.js';
import { EmbeddedCpu } from './embedded/cpu.js';
import type { Memory } from './memory.js';

export const ENGINES = ['embedded', 'unicorn', 'auto'] as const;

/** `auto`: libunicorn where it can be loaded, else embedded. */
export type EngineName = (typeof ENGINES)[number];

export interface CpuFactory {
  readonly name: Exclude<EngineName, 'auto'>;
  /** A CPU with all registers 0 that sees `memory`. */
  create(memory: Memory): Cpu;
}

export const embeddedFactory: CpuFactory = {
  name: 'embedded',
  create: (memory) => new EmbeddedCpu(memory),
};

/** The factory of `engine`. Throws InputError when libunicorn is asked for and cannot be loaded. */
export async function cpuFactory(engine: EngineName): Promise<CpuFactory> {
  if (engine === 'embedded') return embeddedFactory;
  const { unicornFactory } = await import('./unicorn/factory.js');
  const { factory, reason } = await unicornFactory();
  if (factory) return factory;
  if (engine === 'auto') return embeddedFactory;
  throw new InputError(reason);
}

/** Boots a lab kernel from the package's own files, on a CPU engine chosen by name. */
import { InputError } from '../common/errors.js';
import { embeddedFactory } from '../cpu/embedded/factory.js';
import type { CpuFactory, EngineName } from '../cpu/engines.js';
import { unicornFactory } from '../cpu/unicorn/factory.js';
import { bootKernel, type Kernel, type KernelOptions } from '../kernel/kernel.js';
import { readAsm } from './files.js';

export interface LabOptions extends Omit<KernelOptions, 'asm' | 'cpu'> {
  /** Default `embedded`. `auto`: Unicorn where it can be loaded. */
  readonly engine?: EngineName;
}

/** Throws InputError with the reason when libunicorn is asked for and cannot be loaded. */
async function cpuFactory(engine: EngineName): Promise<CpuFactory> {
  if (engine === 'embedded') return embeddedFactory;
  const { factory, reason } = await unicornFactory();
  if (factory) return factory;
  if (engine === 'auto') return embeddedFactory;
  throw new InputError(`engine unicorn: ${reason}`);
}

export async function bootLab(options: LabOptions = {}): Promise<Kernel> {
  const { engine = 'embedded', ...rest } = options;
  return bootKernel({ ...rest, asm: readAsm('6.12'), cpu: await cpuFactory(engine) });
}

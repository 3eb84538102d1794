/** Boots a lab kernel from the package's own files, on a CPU engine chosen by name. */
import { cpuFactory, type EngineName } from '../cpu/engines.js';
import { kernelBooter, type Kernel, type KernelOptions } from '../kernel/kernel.js';
import { declareVirtioNetTypes } from '../virtio/net-types.js';
import { readAsm } from './files.js';

export interface LabOptions extends Omit<KernelOptions, 'asm' | 'cpu'> {
  /** Default `embedded`. `auto`: Unicorn where it can be loaded. */
  readonly engine?: EngineName;
}

/** Boots a kernel: what an engine needs is loaded already. */
export type LabBooter = (options?: Omit<LabOptions, 'engine'>) => Kernel;

/** Throws InputError with the reason when libunicorn is asked for and cannot be loaded. */
export async function labBooter(engine: EngineName = 'embedded'): Promise<LabBooter> {
  const boot = await kernelBooter();
  const cpu = await cpuFactory(engine);
  const asm = readAsm('6.12');
  return (options = {}) => {
    const kernel = boot({ ...options, asm, cpu });
    kernel.bpf.host.types.declare(declareVirtioNetTypes);
    return kernel;
  };
}

/** One kernel; as `labBooter`. */
export async function bootLab({ engine, ...options }: LabOptions = {}): Promise<Kernel> {
  const boot = await labBooter(engine);
  return boot(options);
}

/** Boots a lab kernel from the package's own files, on a CPU engine chosen by name. */
import { cpuFactory, type EngineName } from '../cpu/engines.js';
import {
  kernelBooter,
  type AsmSources,
  type Kernel,
  type KernelOptions,
} from '../kernel/kernel.js';
import { declareShadowVirtqueueTypes } from '../vhost/types.js';
import { declareVirtioNetTypes } from '../virtio/driver/types.js';
import { kernelAsm, readAsm } from './files.js';

export interface LabOptions extends Omit<KernelOptions, 'asm' | 'cpu'> {
  /** Default `embedded`. `auto`: Unicorn where it can be loaded. */
  readonly engine?: EngineName;
  /** Texts beside the package's own, by file name (see assembler.ts). Default none. */
  readonly texts?: AsmSources;
}

/** Boots a kernel: what an engine needs is loaded already. */
export type LabBooter = (options?: Omit<LabOptions, 'engine'>) => Kernel;

/** Throws InputError with the reason when libunicorn is asked for and cannot be loaded. */
export async function labBooter(engine: EngineName = 'embedded'): Promise<LabBooter> {
  const boot = await kernelBooter();
  const cpu = await cpuFactory(engine);
  const modules = readAsm('modules');
  return ({ texts = {}, ...options } = {}) => {
    const asm = kernelAsm(options.ftrace ?? options.version);
    const kernel = boot({ modules, ...options, asm: { ...asm, ...texts }, cpu });
    kernel.bpf.host.types.declare(declareVirtioNetTypes);
    kernel.bpf.host.types.declare(declareShadowVirtqueueTypes);
    return kernel;
  };
}

/** One kernel; as `labBooter`. */
export async function bootLab({ engine, ...options }: LabOptions = {}): Promise<Kernel> {
  const boot = await labBooter(engine);
  return boot(options);
}

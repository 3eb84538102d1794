/** Boots a lab kernel from the package's own files, on a CPU engine chosen by name. */
import { cpuFactory, type EngineName } from '../cpu/engines.js';
import { bootKernel, type AsmSources, type Kernel, type KernelOptions } from '../kernel/kernel.js';
import { declareVirtioNetTypes } from '../virtio/net-types.js';
import { readAsm } from './files.js';

export interface LabOptions extends Omit<KernelOptions, 'asm' | 'cpu'> {
  /** Default `embedded`. `auto`: Unicorn where it can be loaded. */
  readonly engine?: EngineName;
  /** Texts beside the package's own, by file name (see assembler.ts). Default none. */
  readonly texts?: AsmSources;
}

/** Throws InputError with the reason when libunicorn is asked for and cannot be loaded. */
export async function bootLab(options: LabOptions = {}): Promise<Kernel> {
  const { engine = 'embedded', texts = {}, ...rest } = options;
  const kernel = await bootKernel({
    modules: readAsm('modules'),
    ...rest,
    asm: { ...readAsm('6.12'), ...texts },
    cpu: await cpuFactory(engine),
  });
  kernel.bpf.host.types.declare(declareVirtioNetTypes);
  return kernel;
}

/**
 * Runs whole objects as arm64 JIT images: each object in a kernel that is booted for it.
 *
 * Tail calls, callbacks and maps are the kernel's: programs in prog arrays are compiled when they are put
 * there. What the JIT refuses is a KernelError with its own words.
 */
import { ProgramExit } from '../../bpf/host.js';
import type { HelperVersion } from '../../bpf/helpers/checksum.js';
import { KernelOops } from '../../kernel/executor.js';
import type { KernelProgram } from '../../kernel/bpf/program.js';
import type { Kernel } from '../../kernel/kernel.js';
import type { ObjectEngine } from './object-engine.js';
import type { RunOutcome } from './runner.js';

/** @param boot boots a kernel with the JIT and the CPU engine that is meant */
export function jitObjects(
  name: string,
  boot: (options: { readonly cpus: number; readonly helpers: HelperVersion }) => Kernel,
): ObjectEngine {
  return {
    name,
    open: ({ helpers = '6.12', cpuCount }) => {
      const kernel = boot({ cpus: cpuCount, helpers });
      return {
        host: kernel.bpf.host,
        instantiate: (program) => {
          const loaded = kernel.bpf.load(program);
          return {
            run: (context) => runImage(kernel, loaded, context),
            close: () => loaded.free(),
          };
        },
        close: () => kernel.close(),
      };
    },
  };
}

/** Calls the image with x0 and x1. */
export function runImage(
  kernel: Kernel,
  loaded: KernelProgram,
  context: bigint,
  r2 = 0n,
): RunOutcome {
  try {
    return { kind: 'return', r0: kernel.call(loaded.entry, context, r2) };
  } catch (error) {
    if (error instanceof ProgramExit) return { kind: 'return', r0: error.r0 };
    if (error instanceof KernelOops) return { kind: 'fault', reason: error.message };
    throw error;
  }
}

/** Small programs for tests of attachment, from assembly text. */
import { assemble } from '../../src/bpf/assemble.js';
import type { ProgramType } from '../../src/bpf/program.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import type { KernelProgram, LoadProgramOptions } from '../../src/kernel/bpf/program.js';
import type { Kernel } from '../../src/kernel/kernel.js';

export interface TextProgramOptions extends LoadProgramOptions {
  readonly name?: string;
  readonly type?: ProgramType;
}

/** Loads a program; `call N` is helper N, or the function N bytes behind __bpf_call_base. */
export function textProgram(
  kernel: Kernel,
  text: string,
  options: TextProgramOptions = {},
): KernelProgram {
  const { name = 'program', type = 'tracing', ...rest } = options;
  const { host } = kernel.bpf;
  const xlated = rawProgram(name, assemble(text), {
    type,
    stackDepth: 0,
    helperImmediate: (id) => {
      const address = host.helperAddress(id);
      return address === undefined ? id : Number(address - host.callBase);
    },
  });
  return kernel.bpf.load(xlated, rest);
}

const at = (address: bigint): string => `r2 = 0x${address.toString(16)} ll`;

/** Adds one to the u64 at `to` and returns `result`. */
export function counter(
  kernel: Kernel,
  to: bigint,
  options: TextProgramOptions & { readonly result?: number } = {},
): KernelProgram {
  const lines = [at(to), 'r3 = *(u64 *)(r2 + 0)', 'r3 += 1', '*(u64 *)(r2 + 0) = r3'];
  return textProgram(kernel, [...lines, `r0 = ${options.result ?? 0}`, 'exit'].join('\n'), options);
}

/** Stores ctx[0..count-1] at `to` and returns `result`. */
export function recorder(
  kernel: Kernel,
  to: bigint,
  count: number,
  options: TextProgramOptions & { readonly result?: number } = {},
): KernelProgram {
  const lines = [at(to)];
  for (let i = 0; i < count; i++) {
    lines.push(`r3 = *(u64 *)(r1 + ${8 * i})`, `*(u64 *)(r2 + ${8 * i}) = r3`);
  }
  return textProgram(kernel, [...lines, `r0 = ${options.result ?? 0}`, 'exit'].join('\n'), options);
}

/** What a kernel has in use; equal before and after means that nothing was leaked. */
export function inUse(kernel: Kernel): object {
  return {
    images: kernel.bpf.images.liveImages,
    trampolines: kernel.bpf.liveTrampolineImages,
    slab: kernel.linear.liveBytes,
    gracePeriods: kernel.rcu.pending,
    symbols: [...kernel.symbols].length,
  };
}

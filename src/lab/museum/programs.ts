/** The small programs that exhibits attach: assembly text, loaded into a kernel. */
import { assemble } from '../../bpf/assemble.js';
import { callImmediate } from '../../bpf/call-immediate.js';
import { rawProgram } from '../../bpf/raw-program.js';
import { KernelError } from '../../common/errors.js';
import type { KernelProgram } from '../../kernel/bpf/program.js';
import type { Kernel } from '../../kernel/kernel.js';

/** Loads a tracing program; helpers are called by their numbers. */
export function loadText(kernel: Kernel, name: string, text: string): KernelProgram {
  return loadSlots(kernel, name, assemble(text));
}

export function loadSlots(kernel: Kernel, name: string, insns: Uint8Array): KernelProgram {
  const { host } = kernel.bpf;
  const helperImmediate = (id: number): number => {
    const immediate = callImmediate(host, id);
    if (immediate === undefined) throw new KernelError('EINVAL', `no helper ${id}`);
    return immediate;
  };
  return kernel.bpf.load(
    rawProgram(name, insns, { type: 'tracing', stackDepth: 0, helperImmediate }),
  );
}

/** A program that does nothing. */
export function loadNothing(kernel: Kernel, name: string): KernelProgram {
  return loadText(kernel, name, 'r0 = 0\nexit');
}

/**
 * bpf_throw(cookie): leaves all frames up to the program's main function and ends the program in its
 * exception callback, whose result is the program's.
 *
 *   main (exception boundary)    saved x19 to x28 below its frame record
 *     subprogram ...             walked over by their frame records
 *       bpf_throw                calls exception_cb(cookie, sp, fp of main)
 *         exception callback     takes main's frame and returns to main's caller
 *
 * Reference: kernel/bpf/helpers.c: bpf_throw, bpf_stack_walker; arch/arm64/kernel/stacktrace.c:
 * arch_bpf_stack_walk, which knows no sp (6.12). Left out: what the verifier allows to throw.
 */
import { KernelOops } from '../executor.js';
import { call, type KernelFunction } from '../function.js';
import type { Kernel } from '../kernel.js';
import type { BpfText } from './text.js';

/** The main function's frame pointer and what takes over; undefined when no program catches. */
function walk(
  kernel: Kernel,
  text: BpfText,
  framePointer: bigint,
): { readonly fp: bigint; readonly callback: bigint } | undefined {
  const { memory } = kernel;
  let record = framePointer;
  let functions = 0;
  while (record !== 0n) {
    const fp = memory.read64(record);
    const image = text.find(memory.read64(record + 8n))?.function;
    if (!image && functions > 0) return undefined;
    if (image) functions++;
    if (image?.isMain) {
      const { exceptionCallback } = image;
      return exceptionCallback === undefined ? undefined : { fp, callback: exceptionCallback };
    }
    record = fp;
  }
  return undefined;
}

export function throwFunction(kernel: Kernel, text: BpfText): KernelFunction {
  return {
    name: 'bpf_throw',
    prototype: 'void bpf_throw(u64 cookie)',
    parameters: 1,
    *body(_kernel, cookie = 0n) {
      const found = walk(kernel, text, kernel.cpus[kernel.currentCpu]?.getX(29) ?? 0n);
      if (!found) throw new KernelOops('bpf_throw: no program on the stack catches exceptions');
      yield* call(found.callback, cookie, 0n, found.fp, 0n, 0n);
      throw new KernelOops('bpf_throw: the exception callback came back');
    },
  };
}

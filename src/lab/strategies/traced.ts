/**
 * Functions for strategies to be measured on: of the kernel's own, of a module, of a BPF program.
 *
 * All do nothing. Those of the kernel are in `asm/strategies/targets.s`.
 */
import { assemble } from '../../bpf/assemble.js';
import { rawProgram } from '../../bpf/raw-program.js';
import { PLT_TARGET_SIZE } from '../../jit/plt.js';
import { SITE_SHAPES } from '../../kernel/ftrace/site-form.js';
import type { Kernel } from '../../kernel/kernel.js';
import { moveImagesAway } from '../far-images.js';
import type { Situation } from './situation.js';
import type { TracedFunction } from './strategy.js';

/** MOV and NOP. */
const SITE_WORDS = 2;

/** `u64 a0, u64 a1`. */
export function parameterList(args: number): string {
  const parameters = Array.from({ length: args }, (_, i) => `u64 a${i}`);
  return args === 0 ? 'void' : parameters.join(', ');
}

export function kernelFunction(kernel: Kernel, { args }: Situation): TracedFunction {
  return ftraceFunction(kernel, `lab_traced_${args}`);
}

/** A function of a module that is loaded for it. */
export function moduleFunction(kernel: Kernel, { args }: Situation): TracedFunction {
  const name = `lab_module_traced_${args}`;
  if (!kernel.symbols.find(name)) {
    const text = `FUNCTION u64 ${name}(${parameterList(args)})\n\tret\n`;
    kernel.loadModule({ name: `lab_module_${args}`, text });
  }
  return ftraceFunction(kernel, name);
}

function ftraceFunction(kernel: Kernel, name: string): TracedFunction {
  const { address, size } = kernel.symbols.get(name);
  const ip = kernel.ftrace.location(address);
  if (ip === undefined) throw kernel.ftrace.noSite(name);
  return {
    name,
    attach: name,
    address,
    siteEnd: ip + 4n,
    end: address + BigInt(size),
    siteBytes: 4 * (SITE_SHAPES[kernel.ftrace.profile.site].before + SITE_WORDS),
  };
}

/** A program whose images to come are near it or out of its BL range. */
export function programFunction(kernel: Kernel, { args, far }: Situation): TracedFunction {
  const name = 'lab_traced';
  const program = kernel.bpf.load(
    rawProgram(name, assemble('r0 = 0\nexit\n'), { type: 'tracing', stackDepth: 0 }),
    { prototypes: [`u64 ${name}(${parameterList(args)})`] },
  );
  const { base, jitedLength, pltOffset } = program.functionImage(name);
  if (far) moveImagesAway(kernel);
  return {
    name,
    attach: { program },
    address: base,
    siteEnd: base + BigInt(4 * SITE_WORDS),
    end: base + BigInt(jitedLength),
    plt: base + BigInt(pltOffset),
    siteBytes: 4 * SITE_WORDS + jitedLength - pltOffset + PLT_TARGET_SIZE,
  };
}

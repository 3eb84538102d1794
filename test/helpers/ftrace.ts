/** Kernels of each ftrace version for tests, ops that count, and what a site shows. */
import type { CpuFactory } from '../../src/cpu/engines.js';
import { ftraceCallback, type FtraceEvent } from '../../src/kernel/ftrace/callbacks.js';
import { FTRACE_OPS_FL, type FtraceOps } from '../../src/kernel/ftrace/ops.js';
import { KERNEL_OF_FTRACE, type FtraceVersion } from '../../src/kernel/ftrace/profile.js';
import { kernelBooter, type Kernel, type KernelOptions } from '../../src/kernel/kernel.js';
import { kernelAsm } from '../../src/node/files.js';

const boot = await kernelBooter();

export function bootFtrace(
  cpu: CpuFactory,
  ftrace: FtraceVersion,
  options: Partial<KernelOptions> & { readonly texts?: Readonly<Record<string, string>> } = {},
): Kernel {
  const { texts = {}, ...rest } = options;
  const asm = { ...kernelAsm(ftrace), ...texts };
  return boot({ asm, cpu, ftrace, version: KERNEL_OF_FTRACE[ftrace], ...rest });
}

export interface CountingOps {
  readonly ops: FtraceOps;
  /** How often its callback ran. */
  readonly count: () => number;
}

let names = 0;

/** An ops with a callback in TypeScript; not registered. Static ones lie in kernel data. */
export function makeOps(
  kernel: Kernel,
  options: {
    readonly targets?: readonly string[];
    readonly flags?: number;
    readonly isStatic?: boolean;
    readonly callback?: (event: FtraceEvent) => void;
  } = {},
): CountingOps {
  const { targets = [], flags = 0, isStatic = false, callback } = options;
  const name = `test_ops_${names++}`;
  let count = 0;
  kernel.define(
    ftraceCallback(kernel.ftrace.profile, `${name}_func`, (event) => {
      count++;
      callback?.(event);
    }),
  );
  const { size } = kernel.ftrace.profile.ops;
  const address = isStatic ? kernel.data.define(name, size) : kernel.kmalloc(size);
  const ops = kernel.ftrace.createOps(name, address, kernel.symbol(`${name}_func`));
  ops.flags = flags;
  for (const target of targets) kernel.ftrace.setFilterIp(ops, kernel.symbol(target), false);
  return { ops, count: () => count };
}

/** An ops for a direct call: no func yet. */
export function directOps(kernel: Kernel, ...targets: readonly string[]): FtraceOps {
  const ops = kernel.ftrace.createOps(
    `direct_${names++}`,
    kernel.kmalloc(kernel.ftrace.profile.ops.size),
    0n,
  );
  for (const target of targets) kernel.ftrace.setFilterIp(ops, kernel.symbol(target), false);
  return ops;
}

/** What the BL of a site goes to, by symbol; `nop` when there is none. */
export function branchOf(kernel: Kernel, target: string): string {
  const ip = siteOf(kernel, target);
  const word = kernel.memory.read32(ip);
  if (word >>> 26 !== 0b100101) return word === 0xd503201f ? 'nop' : word.toString(16);
  const to = ip + BigInt.asIntN(28, BigInt(word & 0x3ff_ffff) << 2n);
  return kernel.symbols.lookup(to)?.name ?? `0x${to.toString(16)}`;
}

/** The ops that the literal of a site names. */
export function literalOf(kernel: Kernel, target: string): string {
  const literal = kernel.memory.read64(kernel.symbol(target) - 8n);
  return kernel.ftrace.opsAt(literal)?.name ?? `0x${literal.toString(16)}`;
}

export function siteOf(kernel: Kernel, target: string): bigint {
  const ip = kernel.ftrace.location(kernel.symbol(target));
  if (ip === undefined) throw new RangeError(`${target} has no site`);
  return ip;
}

export const { RECURSION, IPMODIFY, PERMANENT, SAVE_REGS, SAVE_REGS_IF_SUPPORTED, RCU } =
  FTRACE_OPS_FL;

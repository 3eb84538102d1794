/** What scenarios are made of: ops with a callback of text, programs, memory in and out of reach. */
import { assemble } from '../../../bpf/assemble.js';
import { rawProgram } from '../../../bpf/raw-program.js';
import { InputError } from '../../../common/errors.js';
import { PROFILES } from '../../../jit/profiles.js';
import type { KernelProgram } from '../../../kernel/bpf/program.js';
import type { FtraceOps } from '../../../kernel/ftrace/ops.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { NOP } from '../../../kernel/text.js';
import type { NameTable } from '../names.js';
import { word32, word64, type PatchPlan, type PlanCall, type PlanTracer } from '../plan.js';
import type { Runs } from '../scenario.js';

/** The function that most scenarios trace. */
export const TARGET = 'bpf_fentry_test1';
/** Kernels of scenarios about ordinary ops. */
export const OPS_KERNELS: Runs = {
  kernels: ['6.12', '6.1', '6.2', '6.3', '7.3'],
  elsewhere: 'kernels that were never merged are left out',
};

/** Kernels of scenarios about direct calls. */
export const DIRECT_KERNELS: Runs = {
  kernels: ['6.12', '7.3'],
  elsewhere: 'it takes direct calls by ops that ftrace_caller knows (since 6.4)',
};

/** Kernels of scenarios about BPF trampolines. */
export const TRAMPOLINE_KERNELS: Runs = {
  kernels: ['6.12', '7.3'],
  elsewhere: 'functions of arm64 have BPF trampolines since 6.4',
};

/** Bytes out of reach of BL. */
const FAR = 128n << 20n;
const CHUNK = 64;

/** An ops on TARGET whose callback is `func`; not registered. */
export function makeOps(
  kernel: Kernel,
  names: NameTable,
  name: string,
  func: bigint,
  where: 'heap' | 'static' = 'heap',
): FtraceOps {
  const { size } = kernel.ftrace.profile.ops;
  const address = where === 'heap' ? kernel.kmalloc(size) : kernel.data.define(name, size);
  const ops = kernel.ftrace.createOps(name, address, func);
  kernel.ftrace.setFilterIp(ops, siteOf(kernel, TARGET), false);
  names.addOps(ops);
  return ops;
}

export function siteOf(kernel: Kernel, name: string): bigint {
  const ip = kernel.ftrace.location(kernel.symbol(name));
  if (ip === undefined) throw new InputError(`${name} has no patch site`);
  return ip;
}

export function callOf(kernel: Kernel, name: string, arg = 1n, result = 2n): PlanCall {
  const entry = kernel.symbol(name);
  return { entry, args: [arg], result, body: entry + 8n };
}

export function tracerOf(ops: FtraceOps, func = ops.func): PlanTracer {
  const filter = new Set(ops.filter);
  return { name: ops.name, ops: ops.address, func, covers: (ip) => filter.has(ip) };
}

/**
 * What a BPF trampoline changes beside argument registers that the function has not: where the JIT keeps
 * R0 (x8 in 7.3). A function that would miss it returns a structure in memory, and has no trampoline.
 */
export function trampolineClobbers(kernel: Kernel): readonly number[] {
  const r0 = PROFILES[kernel.bpf.profile.version].registers.bpf[0];
  return r0 === undefined || r0 < 8 ? [] : [r0];
}

/**
 * Callbacks, tracers and literals of a plan on TARGET.
 * @param way how its body is reached: ftrace_caller restores all argument registers, a BPF trampoline those of
 * the function
 */
export function traced(
  kernel: Kernel,
  tracers: readonly PlanTracer[],
  way: 'ops' | 'trampoline' = 'ops',
): Pick<PatchPlan, 'call' | 'callbacks' | 'tracers' | 'literal' | 'zeroWords'> {
  const { nopOps, listOps, profile } = kernel.ftrace;
  return {
    call: {
      ...callOf(kernel, TARGET),
      ...(way === 'ops' ? { keeps: 8 } : { clobbers: trampolineClobbers(kernel) }),
    },
    callbacks: new Map(
      ['lab_callback_a', 'lab_callback_b'].map((name) => [kernel.symbol(name), name]),
    ),
    tracers,
    ...(profile.callOps && {
      literal: { address: kernel.symbol(TARGET) - 8n, values: [nopOps.address, listOps.address] },
    }),
    zeroWords: [nopOps, listOps].flatMap((ops) => ops.directCallAddress ?? []),
  };
}

/** I11 for the site of a function. */
export function siteIsOff(kernel: Kernel, name: string): NonNullable<PatchPlan['final']> {
  const entry = kernel.symbol(name);
  const { nopOps, profile } = kernel.ftrace;
  const site = { address: entry + 4n, bytes: word32(NOP), what: `the site of ${name}` };
  if (!profile.callOps) return [site];
  return [
    site,
    { address: entry - 8n, bytes: word64(nopOps.address), what: `the literal of ${name}` },
  ];
}

/** A program that returns `value`. */
export function loadReturning(
  kernel: Kernel,
  name: string,
  value = 0,
  type: 'tracing' | 'xdp' = 'tracing',
): KernelProgram {
  const insns = assemble(`r0 = ${value}\nexit`);
  return kernel.bpf.load(rawProgram(name, insns, { type, stackDepth: 0 }));
}

/** Images to come are out of reach of those that are there. Returns a way to let one more come near. */
export function imagesGoFar(kernel: Kernel): () => void {
  const { images } = kernel.bpf;
  kernel.vmalloc.take(FAR, 4096n);
  const first = images.alloc(CHUNK);
  images.free(first);
  // a hole for one image, taken until it is wanted
  const hole = images.alloc(1 << 10);
  for (let size = 1 << 20; size >= CHUNK; size /= 2) {
    let next = first;
    while (next - first < FAR) next = images.alloc(size);
    images.free(next);
  }
  return () => images.free(hole);
}

/** `--engine` of the commands that run programs: interpreter, wasm tier, or the JIT image on a CPU. */
import type { RunEngine } from '../index.js';

export const ENGINES = ['interpreter', 'wasm', 'embedded', 'unicorn'] as const;
export type EngineName = (typeof ENGINES)[number];

/** `--kernel`: whose JIT, trampolines and struct layouts. */
export const KERNEL_VERSIONS = ['6.1', '6.12', '7.3'] as const;

/** The engine of the CPUs of a kernel to boot. */
export function cpuEngine(engine: EngineName): 'embedded' | 'unicorn' {
  return engine === 'unicorn' ? 'unicorn' : 'embedded';
}

/** Who runs the program. */
export function runEngine(engine: EngineName): RunEngine {
  return engine === 'interpreter' || engine === 'wasm' ? engine : 'jit';
}

/** `vmallocRam` of a kernel that users' objects are loaded into: room for large maps. */
export const OBJECT_RAM = 1 << 30;

/** What checks of a booted kernel's files need: a lab kernel to run and attach in. */
import type { Kernel } from '../../../kernel/kernel.js';
import type { FunctionBodies } from '../../../kernel/assembler.js';
import type { CodegenOptions } from '../../../kernel/bpf/codegen.js';
import type { KernelVersion } from '../../../jit/profile.js';
import type { RunEngine } from '../../run-program.js';

/** How a lab kernel is like the booted one. */
export interface BootSetting {
  /** Its BPF images are out of reach of its text. */
  readonly far: boolean;
  /** Where the linear map begins. Default: as the lab has it. */
  readonly pageOffset?: bigint;
  readonly codegen?: CodegenOptions;
  /** Code of functions as the booted kernel's compiler made it. */
  readonly bodies?: FunctionBodies;
}

export interface BootedOptions {
  /** A lab kernel of that version. Equal settings give the same one. */
  readonly boot: (version: KernelVersion, setting: BootSetting) => Promise<Kernel>;
  /** The JSON object in a file beside the one that is checked; undefined when there is none. */
  readonly readSibling: (name: string) => Readonly<Record<string, unknown>> | undefined;
  /** Who runs programs. */
  readonly engine: RunEngine;
}

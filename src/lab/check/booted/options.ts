/** What checks of a booted kernel's files need: a lab kernel to run and attach in. */
import type { KernelVersion } from '../../../jit/profile.js';
import type { Kernel } from '../../../kernel/kernel.js';
import type { RunEngine } from '../../run-program.js';

export interface BootedOptions {
  /** A lab kernel of that version, for one file. */
  readonly boot: (version: KernelVersion) => Promise<Kernel>;
  /** Who runs programs. */
  readonly engine: RunEngine;
}

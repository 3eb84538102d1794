/** What checks of a booted kernel's files need: a lab kernel to run and attach in. */
import type { KernelVersion } from '../../../jit/profile.js';
import type { Kernel } from '../../../kernel/kernel.js';
import type { RunEngine } from '../../run-program.js';

export interface BootedOptions {
  /** A lab kernel of that version; `far`: its BPF images are out of reach of its text. */
  readonly boot: (version: KernelVersion, options: { readonly far: boolean }) => Promise<Kernel>;
  /** The JSON object in a file beside the one that is checked; undefined when there is none. */
  readonly readSibling: (name: string) => Readonly<Record<string, unknown>> | undefined;
  /** Who runs programs. */
  readonly engine: RunEngine;
}

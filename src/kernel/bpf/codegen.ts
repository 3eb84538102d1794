/**
 * For which CPU and kernel configuration a lab kernel generates BPF code, and what it does otherwise than
 * its version does.
 *
 * Reference: cpucaps (ARM64_HAS_LSE_ATOMICS ..) and Kconfig (ARM64_PTR_AUTH_KERNEL, ARM64_BTI_KERNEL) as far
 * as arch/arm64/net/bpf_jit_comp.c asks for them. The default is a CPU with LSE atomics that runs the kernel at
 * EL1, and a distribution's GCC build: PAC, no BTI.
 */
import type { JitConfig, JitCpu, JitProfile, StructOffsets } from '../../jit/profile.js';
import type { TrampolineProfile } from '../../jit/trampoline-profile.js';

export interface Codegen {
  readonly cpu: JitCpu;
  readonly config: JitConfig;
  /** Changes to the version's profiles: mistakes of older versions, ideas to try. */
  readonly jit: Partial<JitProfile>;
  readonly trampoline: Partial<TrampolineProfile>;
  /** Offsets of structs that are the configuration's: where the elements of a `struct bpf_array` are. */
  readonly offsets: Partial<Pick<StructOffsets, 'ptrs'>>;
}

/** What differs from the default. */
export type CodegenOptions = { readonly [K in keyof Codegen]?: Partial<Codegen[K]> };

export const DEFAULT_CODEGEN: Codegen = {
  cpu: { lse: true, vhe: false, sb: false },
  config: { pac: true, bti: false },
  jit: {},
  trampoline: {},
  offsets: {},
};

export function codegenOf(options: CodegenOptions = {}): Codegen {
  return {
    cpu: { ...DEFAULT_CODEGEN.cpu, ...options.cpu },
    config: { ...DEFAULT_CODEGEN.config, ...options.config },
    jit: { ...options.jit },
    trampoline: { ...options.trampoline },
    offsets: { ...options.offsets },
  };
}

/**
 * What a kernel is booted with: texts, CPU engine, versions, layout, memory.
 *
 * Everything has a default but the texts and the engine. `version` says whose JIT and trampolines, `ftrace` whose
 * patch sites: the histories of both differ.
 */
import type { HelperVersion } from '../bpf/helpers/checksum.js';
import type { CpuFactory } from '../cpu/engines.js';
import type { KernelVersion } from '../jit/profile.js';
import type { FunctionBodies } from './assembler.js';
import type { CodegenOptions } from './bpf/codegen.js';
import type { FunctionSiteMaker } from './bpf/site.js';
import type { FtraceVersion } from './ftrace/profile.js';
import type { ReachProfile } from './ftrace/reach.js';
import type { VmallocUse } from './layout/address-space.js';
import type { LayoutOptions } from './layout/layout.js';

/** Texts of one `asm/` folder: file name to source. */
export type AsmSources = Readonly<Record<string, string>>;

export interface KernelOptions extends Omit<LayoutOptions, 'version'> {
  readonly asm: AsmSources;
  /** More texts of functions, placed behind all that the kernel itself has. Default none. */
  readonly modules?: AsmSources;
  /** Bodies of functions of these texts as another compiler made them. Default: what the texts say. */
  readonly bodies?: FunctionBodies;
  readonly cpu: CpuFactory;
  /** Whose JIT, trampolines and struct layouts. Default 6.12. */
  readonly version?: KernelVersion;
  /**
   * Whose ftrace: patch sites, records, registration. `asm` has to be its entry code
   * (`FTRACE_PROFILES[ftrace].asm`). Default: that of `version`.
   */
  readonly ftrace?: FtraceVersion;
  /** Symbol of the function in `asm` that walks the list of ops. Default: the kernel's, whose body is TypeScript. */
  readonly listFunc?: string;
  /** Functions begin with `bti c` (CONFIG_ARM64_BTI_KERNEL), those of texts unless they are static. Default false. */
  readonly bti?: boolean;
  /** Bytes of kernel text. Default 256 KiB. */
  readonly textSize?: number;
  /** Whose semantics BPF helpers have. Default 6.12. */
  readonly helpers?: HelperVersion;
  /** Number of CPUs. Default 1. */
  readonly cpus?: number;
  /** Bytes of vmalloc space in use before the first BPF image. Default 0. */
  readonly vmallocUsed?: number;
  /** What of them was given back: offset in the block and size. Default none. */
  readonly vmallocHoles?: VmallocUse['holes'];
  /** Bytes in use at the start of the first window for modules. Default 0. */
  readonly modulesUsed?: number;
  /** How ftrace finds a way to far targets, with a version's mistakes. Default: that of `ftrace`. */
  readonly reach?: ReachProfile;
  /** Bytes of RAM in the linear map. Default 16 MiB. */
  readonly ram?: number;
  /** Bytes of RAM for vmalloc space: data, stacks, BPF images, maps. Default 16 MiB. */
  readonly vmallocRam?: number;
  /** Seed of get_random_u32. Default 1. */
  readonly seed?: number;
  /** CPU features, configuration and changes that BPF code is generated with. Default: see codegen.ts. */
  readonly codegen?: CodegenOptions;
  /** How kernel functions get to their BPF trampolines. Default: direct calls of ftrace (`FtraceSite`). */
  readonly functionSite?: FunctionSiteMaker;
  /**
   * Kernel text and BPF images are guarded, as with CONFIG_ARM64_BTI_KERNEL: only the embedded engine looks.
   * Functions here have no BTI of their own: calls have to come by BL. Default false.
   */
  readonly guarded?: boolean;
}

/**
 * What a strategy is: one way in which a call of a traced function gets to the BPF programs attached to it.
 *
 * A strategy says which kernel it needs and how a function's site is made to go to a trampoline image; all
 * else (programs, trampolines, other users of ftrace) is the kernel's. So strategies differ in their text
 * and their patching only, and what they cost is found by running them.
 */
import type { AsmSources, Kernel, KernelOptions } from '../../kernel/kernel.js';
import type { LayoutVersion } from '../../kernel/layout/profile.js';
import type { ProgramTarget } from '../../kernel/bpf/bpf.js';
import type { Situation } from './situation.js';

/** The places for an indirection to BPF that the thread of v5 names, and what came beside them. */
export type Place = 'patch site' | 'ftrace op' | 'ftrace trampoline' | 'PLT' | "a user's own";

/**
 * Boots a kernel; what needs a file system is done. `texts` are placed with the entry code, `modules` behind all
 * that the kernel itself has.
 */
export type StrategyBooter = (
  options: StrategyKernel & {
    readonly texts: AsmSources;
    readonly modules: AsmSources;
    readonly listFunc: string;
  },
) => Kernel;

/** What a strategy asks for when its kernel boots. */
export type StrategyKernel = Omit<KernelOptions, 'asm' | 'cpu' | 'modules' | 'listFunc'>;

/** The function that is traced, in a kernel. */
export interface TracedFunction {
  readonly name: string;
  /** What programs are attached to. */
  readonly attach: string | ProgramTarget;
  /** Its first instruction. */
  readonly address: bigint;
  /** Behind the word that becomes the call. */
  readonly siteEnd: bigint;
  /** Behind its last instruction. */
  readonly end: bigint;
  /** The PLT at its end, if it has one. */
  readonly plt?: bigint;
  /** Bytes that are there for tracing, whether it is traced or not. */
  readonly siteBytes: number;
}

/** What a patch site has to reach. */
export type Reaching =
  /** The site calls the image, or what the kernel has for images out of range. */
  | 'image'
  /** The site calls ftrace_caller in any case. */
  | 'ftrace_caller'
  /** The site calls text that was made where images are, ftrace_caller where that is out of range. */
  | 'own trampoline'
  /** The site is that of a BPF program. */
  | 'program'
  /** A user's plan for images in BL range, and another for those that are not, or none. */
  | 'near plan'
  | 'near or far plan';

export interface Strategy {
  /** For command lines. */
  readonly name: string;
  /** One line. */
  readonly title: string;
  readonly place: Place;
  /** Who made it, and what came of it. */
  readonly source: string;
  readonly kernel: StrategyKernel;
  /** Files of `asm/strategies` that have its text. */
  readonly texts: readonly string[];
  /** More texts, by file name. Default none. */
  readonly ownTexts?: AsmSources;
  /** The simplest situation in which a call goes its way. */
  readonly least: Partial<Situation>;
  /** The strategy of the same kernel that this is a case of: other situations lead both the same way. */
  readonly caseOf?: string;
  /** Whose layouts its kernel has. Default 6.12. */
  readonly layout?: LayoutVersion;
  /** What has to be in BL range. Default: nothing is attached. */
  readonly reaching?: Reaching;
  /** The function to attach to. Default: a kernel function. */
  readonly traced?: (kernel: Kernel, situation: Situation) => TracedFunction;
  /** Symbols of its own text that Linux would have as C: the callback of its ops. */
  readonly callbacks?: readonly string[];
  /** Its programs are called by its own text, not by the image of the trampoline. */
  readonly withoutImage?: true;
}

/**
 * What an exhibit of the bug museum is: one historical bug, run as it was and as it was fixed.
 *
 * An exhibit does the same thing twice on kernels that differ in the bug only: as a change to a profile,
 * or as the version that still has it. What it observed is compared with what would be right, so that a
 * broken run that shows nothing wrong, or a fixed one that does, is a failure of the exhibit.
 */
import { KernelError } from '../../common/errors.js';
import { KernelOops } from '../../kernel/executor.js';
import type { AsmSources, Kernel, KernelOptions } from '../../kernel/kernel.js';

export const VARIANTS = ['broken', 'fixed'] as const;
export type Variant = (typeof VARIANTS)[number];

/** How an exhibit gets its kernels; the file system is not on this floor. */
export type Boot = (
  options?: Omit<KernelOptions, 'asm' | 'cpu'> & { readonly texts?: AsmSources },
) => Promise<Kernel>;

/** What a run showed. */
export interface Observation {
  /** Lines for people. */
  readonly lines: readonly string[];
  /** Whether it is what should happen. */
  readonly right: boolean;
}

export interface Exhibit {
  /** As in the lists that historians of the field keep; stable. */
  readonly number: number;
  readonly name: string;
  readonly wing: 'jit' | 'patching' | 'network' | 'interpreter';
  /** The release that has the fix. */
  readonly fixedIn: string;
  /** What went wrong, and what the fix is: two or three sentences. */
  readonly story: string;
  run(variant: Variant, boot: Boot): Promise<Observation>;
}

/** A call's result, or the oops that ended it. */
export type CallOutcome =
  | { readonly kind: 'returned'; readonly value: bigint }
  | { readonly kind: 'oops'; readonly message: string };

export function tryCall(kernel: Kernel, target: string | bigint, ...args: bigint[]): CallOutcome {
  try {
    return { kind: 'returned', value: kernel.call(target, ...args) };
  } catch (error) {
    if (error instanceof KernelOops) return { kind: 'oops', message: error.message };
    throw error;
  }
}

export function describeCall(call: string, outcome: CallOutcome): string {
  return outcome.kind === 'returned'
    ? `${call} returned ${outcome.value}`
    : `${call}: ${outcome.message}`;
}

/** The refusal of what `attempt` does, or undefined when it was done. */
export function refusalOf(attempt: () => void): string | undefined {
  try {
    attempt();
    return undefined;
  } catch (error) {
    if (error instanceof KernelError) return error.message;
    throw error;
  }
}

/** Boots, looks, and closes the kernel whatever comes of it. */
export async function withKernel(
  boot: Boot,
  options: Parameters<Boot>[0],
  look: (kernel: Kernel) => Observation,
): Promise<Observation> {
  const kernel = await boot(options);
  try {
    return look(kernel);
  } finally {
    kernel.close();
  }
}

/**
 * A traced call of a function that has programs attached, with what the trace alone does not show: the
 * meaning of the trampoline's words, where TypeScript bodies ran, the frame as the first program sees it.
 */
import type { TraceEntry } from '../cpu/cpu.js';
import type { Trampoline } from '../kernel/bpf/trampoline.js';
import type { Kernel } from '../kernel/kernel.js';
import { framePicture } from './frame-picture.js';
import { listTrace } from './listing.js';
import { countPath, type PathCounts } from './path-counts.js';
import { tracedRun } from './traced-call.js';

export interface AttachedTrace {
  readonly result: bigint;
  readonly entries: readonly TraceEntry[];
  readonly lines: readonly string[];
  /** Executed instructions by part of the way. */
  readonly path: PathCounts;
  /** The trampoline's frame at the entry of the last program that ran; empty without a trampoline. */
  readonly frame: readonly string[];
}

export function traceAttached(
  kernel: Kernel,
  target: string,
  args: readonly bigint[],
  trampoline: Trampoline | undefined,
  /** What is called, when it is not `target` itself. */
  entry: string | bigint = target,
): AttachedTrace {
  let frame: readonly string[] = [];
  const unwatch = (trampoline?.links ?? []).map(({ program }) =>
    kernel.executor.watch(kernel.cpus, program.entry, (cpu) => {
      // between the trampoline's BLR and the program's first instruction sp is the frame's
      if (trampoline) frame = framePicture(kernel, trampoline, cpu.sp);
    }),
  );
  try {
    const { result, entries } = tracedRun(kernel, () => kernel.call(entry, ...args));
    return {
      result,
      entries,
      lines: listTrace(kernel, entries, annotator(kernel, trampoline)),
      path: countPath(kernel, target, entries),
      frame,
    };
  } finally {
    for (const end of unwatch) end();
  }
}

/** Says at the first word of each range of the trampoline what it does, and where a body ran. */
function annotator(
  kernel: Kernel,
  trampoline: Trampoline | undefined,
): (entry: TraceEntry) => string | undefined {
  const code = trampoline?.image?.code;
  return ({ pc }) => {
    const fn = kernel.text.bodies.get(pc - 4n);
    if (fn) return `body of ${fn.name} ran`;
    if (!code) return undefined;
    const word = Number(pc - code.base) / 4;
    return code.listing.find(({ start }) => start === word)?.text;
  };
}

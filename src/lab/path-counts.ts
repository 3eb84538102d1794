/**
 * Executed instructions of a traced call, sorted into the parts of the way to a BPF program.
 *
 * Functions whose body is TypeScript (`__bpf_prog_enter_recur`, helpers) count with the few
 * instructions of their text only; a compiled kernel runs more there (see `vectors/kernel` figures).
 */
import type { TraceEntry } from '../cpu/cpu.js';
import { SITE_SHAPES } from '../kernel/ftrace/site-form.js';
import type { Kernel } from '../kernel/kernel.js';

export const PATH_PARTS = [
  'function',
  'ftrace',
  'trampoline',
  'programs',
  'enter/exit',
  'other',
] as const;
export type PathPart = (typeof PATH_PARTS)[number];
export type PathCounts = Readonly<Record<PathPart, number>>;

/** Entry code, callbacks, and what function graph returns to. */
const FTRACE_SYMBOLS =
  /^(arch_)?ftrace_|^(call_direct_funcs|function_trace_call|fprobe_ftrace_entry|return_to_handler)$/;

function partOf(kernel: Kernel, target: string, pc: bigint): PathPart {
  const name = kernel.symbols.lookup(pc)?.name ?? '';
  if (name === target) return 'function';
  if (name.startsWith('bpf_trampoline_')) return 'trampoline';
  if (name.startsWith('bpf_prog_')) return 'programs';
  if (name.startsWith('__bpf_')) return 'enter/exit';
  if (FTRACE_SYMBOLS.test(name)) return 'ftrace';
  return name === '' && isBefore(kernel, target, pc) ? 'ftrace' : 'other';
}

/** The words of -fpatchable-function-entry before the function: a literal call. */
function isBefore(kernel: Kernel, target: string, pc: bigint): boolean {
  const distance = (kernel.symbols.find(target)?.address ?? 0n) - pc;
  return distance > 0n && distance <= BigInt(4 * SITE_SHAPES[kernel.ftrace.profile.site].before);
}

/** `target` is the traced function: its patch site and body. */
export function countPath(
  kernel: Kernel,
  target: string,
  entries: readonly TraceEntry[],
): PathCounts {
  const counts: Record<PathPart, number> = {
    function: 0,
    ftrace: 0,
    trampoline: 0,
    programs: 0,
    'enter/exit': 0,
    other: 0,
  };
  for (const { pc } of entries) counts[partOf(kernel, target, pc)]++;
  return counts;
}

/**
 * Makes the calls of a booted kernel's trace in the lab: with the same arguments and the same words on the stack, and
 * keeps of the executed instructions those that no compiler made: the patch site and the function, ftrace's
 * entry code, trampolines and programs.
 */
import { SP, type TraceEntry } from '../../../cpu/cpu.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { tracedRun } from '../../traced-call.js';
import type { RegisterValues } from './compare-trace.js';
import { isImageName, type TracePlaces } from './trace-places.js';

/** Registers that pass arguments. */
const ARGUMENTS = 8;
/** Words of stack that a call has above SP when the file does not say what is there: zeros. */
const STACK_WORDS = 16;

/** Entry code of ftrace in any version. */
const ENTRY_CODE =
  /^(ftrace_(regs_)?caller(_\w+)?|ftrace_common|ftrace_call|ftrace_stub(_\w+)?|return_to_handler)$/;

/** Functions that scenarios trace: what a compiler made of them is compared too. */
const TRACED = /^bpf_(fentry|modify_return)_test\d*$/;

export function isTracedFunction(name: string): boolean {
  return TRACED.test(name);
}

export function isEntryCode(name: string): boolean {
  return ENTRY_CODE.test(name);
}

/** Whether a row at `name+0x8` is compared. */
export function isKept(place: string): boolean {
  const name = place.replace(/\+0x[0-9a-f]+$/, '');
  return isTracedFunction(name) || isEntryCode(name) || isImageName(name);
}

/** Arguments as their registers have them, with addresses of this lab; for `callTraced`. */
export function argumentsOf(
  places: TracePlaces,
  registers: readonly bigint[],
): (sp: bigint) => readonly bigint[] {
  const values = registers.slice(0, ARGUMENTS);
  return (sp) => values.map((value) => places.argument(value, sp));
}

export interface OurCall {
  readonly entries: readonly TraceEntry[];
  /** X0..X30 and SP before the first instruction. */
  readonly registers: RegisterValues;
}

/** `args` gets SP as it is at the call. */
export function callTraced(
  kernel: Kernel,
  target: bigint,
  args: (sp: bigint) => readonly bigint[],
  stack: readonly bigint[],
): OurCall {
  const words = stack.length > 0 ? stack : Array.from({ length: STACK_WORDS }, () => 0n);
  let registers: RegisterValues | undefined;
  const unwatch = kernel.executor.watch(kernel.cpus, target, (cpu) => {
    if (registers) return;
    registers = Array.from({ length: SP }, (_, i) => cpu.getX(i));
    registers.push(cpu.sp);
  });
  try {
    // where the stack of a fresh call begins does not depend on its arguments
    const sp = kernel.stackOf(kernel.current) - BigInt(16 * Math.ceil(words.length / 2));
    const { entries } = tracedRun(kernel, () => kernel.call(target, ...args(sp), ...words));
    return { entries, registers: registers ?? [] };
  } finally {
    unwatch();
  }
}

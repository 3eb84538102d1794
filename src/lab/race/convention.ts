/**
 * The calling convention, as the explorer checks it: registers at the start of a call, and which of them have
 * to be the same in front of the body (I1) and behind the call (I8).
 *
 * Reference: AAPCS64 6.1.1. ftrace and trampolines stand between caller and body and have to keep more than a
 * function does: arguments, x8 (where a structure goes that is returned), the platform register.
 */
import type { Cpu, Registers } from '../../cpu/cpu.js';
import type { Kernel } from '../../kernel/kernel.js';
import type { Task } from '../../kernel/task.js';
import type { PlanCall } from './plan.js';

const CALLEE_SAVED = [19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29];
/** What the body finds as the caller has left it, besides its arguments. */
const AT_ENTRY = [8, 18, ...CALLEE_SAVED];

/** Registers of a task that is about to call. */
export function registersAtCall(kernel: Kernel, call: PlanCall, task: Task): Registers {
  // values of which none is an address and no two are equal
  const x = Array.from({ length: 31 }, (_, n) => 0x5a00_0000_0000_0000n + BigInt(n));
  for (const [n, value] of call.args.entries()) x[n] = BigInt.asUintN(64, value);
  x[29] = 0n;
  x[30] = kernel.symbol('lab_return') + 4n;
  const system = {
    sp_el0: task.address,
    tpidr_el1: kernel.perCpuAddress(0n, 0),
    tpidr_el2: 0n,
    tpidr_el0: 0n,
  };
  return { x, sp: task.stackTop, pc: call.entry, nzcv: 0, system };
}

/** Names of what the body must find as it was and does not. */
export function changedForBody(cpu: Cpu, before: Registers, call: PlanCall): string[] {
  const { args, keeps = args.length, clobbers = [] } = call;
  const others = AT_ENTRY.filter((n) => !clobbers.includes(n));
  return changed(cpu, before, [...Array.from({ length: keeps }, (_, n) => n), ...others]);
}

/** Names of what the caller must get back as it was and does not. */
export function changedForCaller(cpu: Cpu, before: Registers): string[] {
  return changed(cpu, before, CALLEE_SAVED);
}

function changed(cpu: Cpu, before: Registers, registers: readonly number[]): string[] {
  const names = registers.filter((n) => cpu.getX(n) !== before.x[n]).map((n) => `x${n}`);
  return cpu.sp === before.sp ? names : [...names, 'sp'];
}

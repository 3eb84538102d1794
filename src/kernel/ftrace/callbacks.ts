/**
 * The functions that ops->func points at when several ops share a site or one needs help.
 *
 * Reference: kernel/trace/ftrace.c: arch_ftrace_ops_list_func, ftrace_ops_assist_func;
 * include/linux/trace_recursion.h. Only the NORMAL context exists here, so the guard is one bit
 * and the TRANSITION bit.
 */
import { FTRACE_OPS, TASK_STRUCT } from '../offsets.js';
import { call, type BodyGenerator, type KernelContext, type KernelFunction } from '../function.js';
import type { Ftrace } from './ftrace.js';
import { FTRACE_OPS_FL } from './ops.js';

const TRACE_INTERNAL_NORMAL_BIT = 1 << 0;
const TRACE_INTERNAL_TRANSITION_BIT = 1 << 1;

const PROTOTYPE_ARGUMENTS =
  '(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs)';

/** The two functions; `ftrace` is asked late because it is made after its functions are placed. */
export function ftraceCallbacks(ftrace: () => Ftrace): KernelFunction[] {
  function* listFunc(
    kernel: KernelContext,
    ip: bigint,
    parent: bigint,
    _op: bigint,
    fregs: bigint,
  ): BodyGenerator<void> {
    const bit = tryRecursion(kernel);
    if (bit === 0) return;
    for (const ops of ftrace().list()) {
      if (ops.has(FTRACE_OPS_FL.STUB) || !ops.covers(ip)) continue;
      yield* call(ops.func, ip, parent, ops.address, fregs);
    }
    clearRecursion(kernel, bit);
  }

  function* assistFunc(
    kernel: KernelContext,
    ip: bigint,
    parent: bigint,
    op: bigint,
    fregs: bigint,
  ): BodyGenerator<void> {
    const bit = tryRecursion(kernel);
    if (bit === 0) return;
    const func = kernel.memory.read64(op + BigInt(FTRACE_OPS.func));
    yield* call(func, ip, parent, op, fregs);
    clearRecursion(kernel, bit);
  }

  return [
    {
      name: 'arch_ftrace_ops_list_func',
      prototype: `void arch_ftrace_ops_list_func${PROTOTYPE_ARGUMENTS}`,
      parameters: 4,
      notrace: true,
      body: listFunc,
    },
    {
      name: 'ftrace_ops_assist_func',
      prototype: `void ftrace_ops_assist_func${PROTOTYPE_ARGUMENTS}`,
      parameters: 4,
      notrace: true,
      body: assistFunc,
    },
  ];
}

function recursionWord(kernel: KernelContext): bigint {
  return kernel.current + BigInt(TASK_STRUCT.trace_recursion);
}

/** The guard bit that was taken, or 0 when the event has to be dropped. */
function tryRecursion(kernel: KernelContext): number {
  const address = recursionWord(kernel);
  const value = kernel.memory.read32(address);
  const bit =
    value & TRACE_INTERNAL_NORMAL_BIT ? TRACE_INTERNAL_TRANSITION_BIT : TRACE_INTERNAL_NORMAL_BIT;
  if (value & bit) return 0;
  kernel.memory.write32(address, value | bit);
  return bit;
}

function clearRecursion(kernel: KernelContext, bit: number): void {
  const address = recursionWord(kernel);
  kernel.memory.write32(address, kernel.memory.read32(address) & ~bit);
}

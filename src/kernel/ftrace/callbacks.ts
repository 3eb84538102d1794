/**
 * Functions that ops->func points at: those of the core, for several ops on a site, for one that needs help and
 * for direct calls, and callbacks written in TypeScript.
 *
 * Reference: kernel/trace/ftrace.c: arch_ftrace_ops_list_func, ftrace_ops_assist_func, call_direct_funcs.
 * From 6.4 on the last is a load and a store and stands in `asm/`; before, it looked the target up by ip.
 * RCU always watches here.
 *
 * Usage:
 *   kernel.define(ftraceCallback(kernel.ftrace.profile, 'deny', ({ regs }) => {
 *     regs.setReturnValue(BigInt(-1));
 *     regs.overrideFunction();
 *   }));
 */
import { FTRACE_OPS, PT_REGS } from '../offsets.js';
import { call, type BodyGenerator, type KernelContext, type KernelFunction } from '../function.js';
import type { Ftrace } from './ftrace.js';
import { FTRACE_OPS_FL } from './ops.js';
import type { FtraceProfile } from './profile.js';
import { clearRecursion, tryRecursion } from './recursion.js';
import { FtraceRegs } from './regs.js';

/** What a callback is called with. */
export interface FtraceEvent {
  readonly kernel: KernelContext;
  /** The site. */
  readonly ip: bigint;
  /** Where the traced function returns to. */
  readonly parentIp: bigint;
  /** Address of the ops. */
  readonly ops: bigint;
  readonly regs: FtraceRegs;
}

/** A callback for ops->func; it has no patch site. */
export function ftraceCallback(
  profile: FtraceProfile,
  name: string,
  body: (event: FtraceEvent) => void,
): KernelFunction {
  return callbackFunction(name, (kernel, ip = 0n, parentIp = 0n, ops = 0n, fregs = 0n) => {
    body({ kernel, ip, parentIp, ops, regs: new FtraceRegs(kernel.memory, profile, fregs) });
  });
}

/** Those of the core; `ftrace` is asked late because it is made after its functions are placed. */
export function coreCallbacks(profile: FtraceProfile, ftrace: () => Ftrace): KernelFunction[] {
  function* listFunc(
    kernel: KernelContext,
    ip: bigint,
    parent: bigint,
    _op: bigint,
    fregs: bigint,
  ): BodyGenerator<void> {
    const bit = tryRecursion(kernel, 'internal');
    if (bit < 0) return;
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
    const bit = tryRecursion(kernel, 'internal');
    if (bit < 0) return;
    const func = kernel.memory.read64(op + BigInt(FTRACE_OPS.func));
    yield* call(func, ip, parent, op, fregs);
    clearRecursion(kernel, bit);
  }

  const core = [
    callbackFunction('arch_ftrace_ops_list_func', listFunc),
    callbackFunction('ftrace_ops_assist_func', assistFunc),
  ];
  if (profile.direct?.late !== 'orig_x0') return core;
  const callDirectFuncs = callbackFunction(
    'call_direct_funcs',
    ({ memory }, ip, _parent, _op, regs) => {
      const target = ftrace().directFunctions.get(ip as bigint);
      if (target !== undefined) memory.write64((regs as bigint) + BigInt(PT_REGS.orig_x0), target);
    },
  );
  return [...core, callDirectFuncs];
}

function callbackFunction(name: string, body: KernelFunction['body']): KernelFunction {
  const parameters =
    '(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs)';
  return { name, prototype: `void ${name}${parameters}`, parameters: 4, notrace: true, body };
}

/**
 * Kernels without CALL_OPS: ftrace_caller loads function_trace_op, and the BL behind it is itself patched.
 *
 * Reference: ftrace_modify_all_code of kernel/trace/ftrace.c. From one ops alone over the list to another alone:
 * the list function first, which asks every ops itself, then function_trace_op, an IPI, then the function of
 * the ops that stays. The steps are written down here, since this kernel has CALL_OPS.
 *
 * Two things this order does not exclude are assumed away here, and two breaks show what the assumptions are worth:
 * that every CPU has taken some interrupt between the patch to the list function and the store to
 * function_trace_op (nobody waits for that: `back-to-back`), and that the IPI does not come between a CPU's
 * load of function_trace_op and its BL (`interrupted-between`).
 */
import { branchWord } from '../../../a64/immediates.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { FTRACE_OPS } from '../../../kernel/offsets.js';
import {
  free,
  ipi,
  storeData,
  storeInstruction,
  sync,
  wait,
  word32,
  word64,
  type PlanStep,
} from '../plan.js';
import { without, type Scenario } from '../scenario.js';
import { makeOps, siteOf, TARGET, traced, tracerOf } from './parts.js';

const BETWEEN = 'every CPU has been interrupted once (assumed)';
const LIST_PHASE = 'ftrace_call := bl list function';

function callStep(kernel: Kernel, target: string, what: string): PlanStep[] {
  const at = kernel.symbol('lab_ftrace_call');
  const word = branchWord(at, kernel.symbol(target), true);
  return [storeInstruction(at, word, what), sync(at, at + 4n, 'clean and invalidate ftrace_call')];
}

export const traceOp: Scenario = {
  name: 'trace_op',
  summary:
    'without CALL_OPS: ops_a alone -> both -> ops_b alone; function_trace_op and the BL in ftrace_caller',
  prepare: (kernel, names) => {
    const a = makeOps(kernel, names, 'ops_a', kernel.symbol('lab_callback_a'));
    const b = makeOps(kernel, names, 'ops_b', kernel.symbol('lab_callback_b'));
    const tracers = [tracerOf(a), tracerOf(b)];
    const [call, op, head, site] = [
      kernel.symbol('lab_ftrace_call'),
      kernel.symbol('lab_trace_op'),
      kernel.ftrace.listHead,
      siteOf(kernel, TARGET),
    ];
    const steps = [
      storeData(head, b.address, 'ftrace_ops_list := &ops_b'),
      ...callStep(kernel, 'lab_list_func', LIST_PHASE),
      ipi(BETWEEN),
      storeData(b.address + BigInt(FTRACE_OPS.next), 0n, 'ops_b.next := 0'),
      storeData(op, b.address, 'function_trace_op := &ops_b'),
      ipi(),
      ...callStep(kernel, 'lab_callback_b', 'ftrace_call := bl callback of ops_b'),
      wait('tasks_rude'),
      wait('tasks'),
      free(a.address, kernel.ftrace.profile.ops.size, 'ops_a, freed'),
    ];
    const before = [
      { address: b.address + BigInt(FTRACE_OPS.next), bytes: word64(a.address) },
      { address: head, bytes: word64(a.address) },
      { address: op, bytes: word64(a.address) },
      { address: call, bytes: word32(branchWord(call, kernel.symbol('lab_callback_a'), true)) },
      { address: site, bytes: word32(branchWord(site, kernel.symbol('lab_plain_caller'), true)) },
    ];
    return {
      operation: () => undefined,
      roots: [op],
      plan: () => ({
        ...traced(kernel, tracers),
        before,
        steps,
        uninterrupted: [{ start: call, end: call + 4n }],
      }),
    };
  },
  breaks: [
    {
      name: 'no-ipi',
      summary: 'no IPI between function_trace_op and the function: a CPU has the old ops still',
      breaks: ['I9'],
      change: (plan) => without(plan, ({ kind, what }) => kind === 'ipi' && what !== BETWEEN),
    },
    {
      name: 'back-to-back',
      summary: 'function_trace_op changes before every CPU has had to see the list function',
      breaks: ['I9'],
      change: (plan) => without(plan, ({ what }) => what === BETWEEN),
    },
    {
      name: 'no-list-phase',
      summary: 'from one function to the other without the list function between them',
      breaks: ['I9'],
      change: (plan) => without(plan, ({ what }) => what === LIST_PHASE),
    },
    {
      name: 'interrupted-between',
      summary: 'the IPI may come between the load of function_trace_op and the BL',
      breaks: ['I9'],
      change: (plan) => ({ ...plan, uninterrupted: [] }),
    },
  ],
};

/**
 * Kernels without CALL_OPS: ftrace_caller loads function_trace_op, and the BL behind it is itself patched.
 *
 * Reference: ftrace_modify_all_code of kernel/trace/ftrace.c. From one ops alone over the list to another alone:
 * the list function first, which asks every ops itself, then function_trace_op, an IPI, then the function of
 * the ops that stays. Both are static: a DYNAMIC one always goes through the list.
 *
 * Two things this order does not exclude are assumed away here, and two breaks show what the assumptions are worth:
 * that every CPU has taken some interrupt between the patch to the list function and the store to
 * function_trace_op (nobody waits for that: `back-to-back`), and that the IPI does not come between a CPU's
 * load of function_trace_op and its BL (`interrupted-between`). The first is a step beside the recorded ones.
 */
import { ipi, type PatchPlan, type PlanStep } from '../plan.js';
import { without, type Scenario } from '../scenario.js';
import { makeOps, traced, tracerOf } from './parts.js';

const BETWEEN = 'every CPU has been interrupted once (assumed)';

/** The BL to the list function and its cache maintenance; nothing else is patched before it. */
function listPhase(steps: readonly PlanStep[]): readonly PlanStep[] {
  const first = steps.findIndex((step) => step.kind === 'store' && step.as === 'instruction');
  return steps.slice(first, first + 2);
}

/** With the interrupt that is assumed behind the list phase. */
function interruptedBetween(steps: readonly PlanStep[]): PlanStep[] {
  const last = listPhase(steps).at(-1);
  return steps.flatMap((step) => (step === last ? [step, ipi(BETWEEN)] : [step]));
}

function withoutListPhase(plan: PatchPlan): PatchPlan {
  const phase = listPhase(plan.steps);
  return without(plan, (step) => phase.includes(step));
}

export const traceOp: Scenario = {
  name: 'trace_op',
  runs: {
    kernels: ['6.2', '6.1', 'v5'],
    elsewhere: 'with CALL_OPS there is no function_trace_op',
  },
  summary:
    'without CALL_OPS: ops_a alone -> both -> ops_b alone; function_trace_op and the BL in ftrace_caller',
  prepare: (kernel, names) => {
    const a = makeOps(kernel, names, 'ops_a', kernel.symbol('lab_callback_a'), 'static');
    const b = makeOps(kernel, names, 'ops_b', kernel.symbol('lab_callback_b'), 'static');
    const tracers = [tracerOf(a), tracerOf(b)];
    const call = kernel.symbol('ftrace_call');
    kernel.ftrace.register(a);
    return {
      operation: () => {
        kernel.ftrace.register(b);
        kernel.ftrace.unregister(a);
      },
      roots: [kernel.symbol('function_trace_op')],
      plan: (steps) => ({
        ...traced(kernel, tracers),
        steps: interruptedBetween(steps),
        // ldr x2, function_trace_op; mov x3, sp; bl
        uninterrupted: [{ start: call - 4n, end: call + 4n }],
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
      change: withoutListPhase,
    },
    {
      name: 'interrupted-between',
      summary: 'the IPI may come between the load of function_trace_op and the BL',
      breaks: ['I9'],
      change: (plan) => ({ ...plan, uninterrupted: [] }),
    },
  ],
};

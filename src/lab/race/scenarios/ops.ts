/** Ordinary ftrace ops come and go: register_ftrace_function and unregister_ftrace_function on one site. */
import { moveRegisterWord } from '../../../jit/poke.js';
import { NOP } from '../../../kernel/text.js';
import type { PatchPlan, PlanStep } from '../plan.js';
import { storeInstruction, sync, word32 } from '../plan.js';
import { without, withoutWaits, type Runs, type Scenario } from '../scenario.js';
import { makeOps, OPS_KERNELS, siteIsOff, TARGET, traced, tracerOf } from './parts.js';

const WITH_LITERAL: Runs = {
  kernels: ['6.12', '6.3', '7.3'],
  elsewhere: 'without CALL_OPS no literal names an ops',
};

const isStoreTo = (step: PlanStep, what: string): boolean =>
  step.kind === 'store' && step.what.startsWith(what);

export const enable: Scenario = {
  name: 'enable',
  runs: OPS_KERNELS,
  summary: 'an ops is registered: literal, then NOP -> bl ftrace_caller',
  prepare: (kernel, names) => {
    const ops = makeOps(kernel, names, 'ops_a', kernel.symbol('lab_callback_a'));
    const tracer = tracerOf(ops);
    return {
      operation: () => kernel.ftrace.register(ops),
      plan: (steps) => ({ steps, ...traced(kernel, [tracer]) }),
    };
  },
  breaks: [
    {
      name: 'dynamic-mov',
      summary: 'mov x9, x30 is written when tracing begins, not once before anybody runs there',
      breaks: ['CMODX', 'I1'],
      change: dynamicMove,
    },
  ],
};

/** The first word of the function is a NOP and becomes the MOV in front of the BL. */
function dynamicMove(plan: PatchPlan): PatchPlan {
  const { entry } = plan.call;
  const at = plan.steps.findIndex((step) => step.kind === 'store' && step.as === 'instruction');
  const mov = moveRegisterWord(9, 30);
  const steps = [
    ...plan.steps.slice(0, at),
    storeInstruction(entry, mov, `${TARGET}+0x0 := mov x9, x30`),
    sync(entry, entry + 4n),
    ...plan.steps.slice(at),
  ];
  return { ...plan, before: [{ address: entry, bytes: word32(NOP) }], steps };
}

export const disable: Scenario = {
  name: 'disable',
  runs: OPS_KERNELS,
  summary:
    'the only ops is unregistered and freed: literal := nop_ops, bl -> NOP, grace periods, kfree',
  prepare: (kernel, names) => {
    const ops = makeOps(kernel, names, 'ops_a', kernel.symbol('lab_callback_a'));
    const tracer = tracerOf(ops);
    kernel.ftrace.register(ops);
    return {
      operation: () => {
        kernel.ftrace.unregister(ops);
        kernel.kfree(ops.address);
      },
      plan: (steps) => ({
        steps,
        ...traced(kernel, [tracer]),
        final: siteIsOff(kernel, TARGET),
      }),
    };
  },
  breaks: [
    {
      name: 'no-grace-period',
      summary: 'the ops is freed at once',
      breaks: ['I3', 'I4'],
      change: (plan) => withoutWaits(plan),
    },
    {
      name: 'rude-only',
      summary: 'only synchronize_rcu_tasks_rude: a preempted task is not waited for',
      breaks: ['I3', 'I4'],
      runs: {
        ...WITH_LITERAL,
        elsewhere:
          'without CALL_OPS only the list function reads a DYNAMIC ops, inside its recursion guard',
      },
      change: (plan) => withoutWaits(plan, 'tasks'),
    },
    {
      name: 'literal-last',
      runs: WITH_LITERAL,
      summary: 'the site first, then the ops is freed, then the literal',
      breaks: ['I3', 'I4'],
      change: (plan) => {
        const literal = plan.steps.filter((step) => isStoreTo(step, 'literal'));
        const rest = withoutWaits(without(plan, (step) => literal.includes(step)));
        return { ...rest, steps: [...rest.steps, ...literal] };
      },
    },
    {
      name: 'literal-kept',
      runs: WITH_LITERAL,
      summary: 'the literal keeps the ops that goes',
      breaks: ['I11'],
      change: (plan) => without(plan, (step) => isStoreTo(step, 'literal')),
    },
  ],
};

export const list: Scenario = {
  name: 'list',
  runs: OPS_KERNELS,
  summary:
    'a second ops comes and goes: literal ops -> list_ops -> ops; the first is there all the time',
  prepare: (kernel, names) => {
    const first = makeOps(kernel, names, 'ops_a', kernel.symbol('lab_callback_a'));
    const second = makeOps(kernel, names, 'ops_b', kernel.symbol('lab_callback_b'));
    const tracers = [tracerOf(first), tracerOf(second)];
    kernel.ftrace.register(first);
    return {
      operation: () => {
        kernel.ftrace.register(second);
        kernel.ftrace.unregister(second);
        kernel.kfree(second.address);
      },
      plan: (steps) => ({
        steps,
        ...traced(kernel, tracers),
        always: [kernel.symbol('lab_callback_a')],
      }),
    };
  },
  breaks: [
    {
      name: 'no-grace-period',
      summary: 'the second ops is freed at once, a CPU may be in the list at it',
      breaks: ['I3', 'I4'],
      change: (plan) => withoutWaits(plan),
    },
    {
      name: 'next-cleared',
      summary: 'the unlinked ops loses its next: a CPU at it follows NULL',
      breaks: ['I2'],
      change: (plan) => {
        const unlink = plan.steps.findLastIndex((step) => isStoreTo(step, 'ftrace_ops_list'));
        const link = plan.steps.find((step) => isStoreTo(step, 'ops_b.next'));
        if (link?.kind !== 'store') return plan;
        const clear: PlanStep = { ...link, bytes: new Uint8Array(8), what: 'ops_b.next := 0' };
        return { ...plan, steps: plan.steps.toSpliced(unlink + 1, 0, clear) };
      },
    },
  ],
};

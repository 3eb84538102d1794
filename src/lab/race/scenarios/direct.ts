/** Direct calls and the BPF trampolines behind them: attached, exchanged, moved in and out of BL range. */
import type { Kernel } from '../../../kernel/kernel.js';
import type { FtraceOps } from '../../../kernel/ftrace/ops.js';
import type { NameTable } from '../names.js';
import type { PatchPlan, PlanStep } from '../plan.js';
import { without, withoutWaits, type Break, type Scenario } from '../scenario.js';
import {
  DIRECT_KERNELS,
  TRAMPOLINE_KERNELS,
  imagesGoFar,
  loadReturning,
  siteOf,
  TARGET,
  traced,
} from './parts.js';

/** The steps that make an image visible to fetches: its cache maintenance, and the IPI behind it. */
function withoutImageSync(plan: PatchPlan): PatchPlan {
  const image = plan.steps.find((step) => step.kind === 'store' && step.as === 'text');
  const at = image?.kind === 'store' ? image.address : -1n;
  return without(plan, (step) => {
    return step.kind === 'ipi' || (step.kind === 'sync' && step.start === at);
  });
}

const NO_IMAGE_SYNC: Break = {
  name: 'no-image-sync',
  summary: 'the new image is not made coherent with the instruction side',
  breaks: ['CMODX', 'I2'],
  change: withoutImageSync,
};

const FREED_AT_ONCE: Break = {
  name: 'no-grace-period',
  summary: 'the old image is freed as soon as the site no longer calls it',
  breaks: ['I7', 'I2'],
  change: (plan) => withoutWaits(plan),
};

const NO_SITE_SYNC: Break = {
  name: 'no-site-sync',
  summary: 'no cache maintenance of the site: an old BL may be fetched after any grace period',
  breaks: ['I7', 'I2'],
  change: (plan) => {
    const site = plan.call.entry + 4n;
    return without(plan, (step) => step.kind === 'sync' && step.start === site);
  },
};

export const attachNear: Scenario = {
  name: 'attach_near',
  runs: TRAMPOLINE_KERNELS,
  summary: 'an fentry program is attached, its image in BL range: NOP -> bl image',
  prepare: (kernel, names) => {
    const program = loadReturning(kernel, 'watcher');
    return {
      operation: () => void kernel.bpf.attach(program, 'fentry', TARGET),
      plan: (steps) => ({ steps, ...directPlan(kernel, names) }),
    };
  },
  breaks: [NO_IMAGE_SYNC],
};

export const attachFar: Scenario = {
  name: 'attach_far',
  runs: TRAMPOLINE_KERNELS,
  summary: 'the same out of BL range: NOP -> bl ftrace_caller, which finds the image in the ops',
  prepare: (kernel, names) => {
    const program = loadReturning(kernel, 'watcher');
    imagesGoFar(kernel);
    return {
      operation: () => void kernel.bpf.attach(program, 'fentry', TARGET),
      plan: (steps) => ({ steps, ...directPlan(kernel, names) }),
    };
  },
  breaks: [
    NO_IMAGE_SYNC,
    {
      name: 'unordered-fetches',
      summary: 'Neoverse-N1 erratum 1542419, and no IPI behind the cache maintenance of the image',
      breaks: ['CMODX', 'I2'],
      change: (plan) => ({
        ...without(plan, ({ kind }) => kind === 'ipi'),
        orderedFetches: false,
      }),
    },
  ],
};

/** A second program is attached: a new image takes the old one's place. */
function exchange(
  kernel: Kernel,
  names: NameTable,
  move: { readonly first: 'near' | 'far'; readonly next: 'near' | 'far' },
): ReturnType<Scenario['prepare']> {
  const first = loadReturning(kernel, 'first');
  const second = loadReturning(kernel, 'second');
  const comeNear = move.first === 'far' ? imagesGoFar(kernel) : undefined;
  kernel.bpf.attach(first, 'fentry', TARGET);
  if (move.next === 'far') imagesGoFar(kernel);
  else comeNear?.();
  names.collect();
  return {
    operation: () => void kernel.bpf.attach(second, 'fentry', TARGET),
    plan: (steps) => ({ steps, ...directPlan(kernel, names), always: [first.entry] }),
  };
}

export const nearFar: Scenario = {
  name: 'near_far',
  runs: TRAMPOLINE_KERNELS,
  summary:
    'a second program, its image out of range: bl image -> bl ftrace_caller; the old image is freed',
  prepare: (kernel, names) => exchange(kernel, names, { first: 'near', next: 'far' }),
  breaks: [FREED_AT_ONCE, NO_SITE_SYNC],
};

export const farNear: Scenario = {
  name: 'far_near',
  runs: TRAMPOLINE_KERNELS,
  summary:
    'a second program, its image in range again: bl ftrace_caller -> bl image; the old one is freed',
  prepare: (kernel, names) => exchange(kernel, names, { first: 'far', next: 'near' }),
  breaks: [FREED_AT_ONCE],
};

export const imageExchange: Scenario = {
  name: 'image_exchange',
  runs: TRAMPOLINE_KERNELS,
  summary:
    'a second program, both images in range: bl old -> bl ftrace_caller -> bl new; the old is freed',
  prepare: (kernel, names) => exchange(kernel, names, { first: 'near', next: 'near' }),
  breaks: [FREED_AT_ONCE, NO_SITE_SYNC],
};

function directPlan(kernel: Kernel, names: NameTable): Omit<PatchPlan, 'name' | 'steps'> {
  const ops = kernel.bpf.trampolineAt(TARGET)?.ops;
  if (ops) names.addOps(ops);
  return traced(kernel, ops ? [directTracer(kernel, ops)] : [], 'trampoline');
}

function directTracer(kernel: Kernel, ops: FtraceOps): NonNullable<PatchPlan['tracers']>[number] {
  const filter = new Set(ops.filter);
  const func = kernel.symbol('call_direct_funcs');
  return { name: ops.name, ops: ops.address, func, covers: (ip) => filter.has(ip) };
}

/** A direct ops on TARGET; not registered. */
export function makeDirect(kernel: Kernel, names: NameTable, name: string): FtraceOps {
  const ops = kernel.ftrace.createOps(name, kernel.kmalloc(kernel.ftrace.profile.ops.size), 0n);
  kernel.ftrace.setFilterIp(ops, siteOf(kernel, TARGET), false);
  names.addOps(ops);
  return ops;
}

export const modifyDirect: Scenario = {
  name: 'modify_direct',
  runs: DIRECT_KERNELS,
  summary:
    'modify_ftrace_direct: tmp_ops sends calls through the list while the target is exchanged',
  prepare: (kernel, names) => {
    const ops = makeDirect(kernel, names, 'direct_ops');
    const [from, to] = ['lab_direct_a', 'lab_direct_b'].map((name) => kernel.symbol(name));
    if (from === undefined || to === undefined) throw new RangeError('two targets');
    kernel.directCalls.register(ops, from);
    return {
      operation: () => kernel.directCalls.modify(ops, to),
      plan: (steps) => ({
        steps,
        ...traced(kernel, [directTracer(kernel, ops)]),
        always: [from, to],
      }),
    };
  },
  breaks: [
    {
      name: 'site-off-meanwhile',
      summary:
        'the site is a NOP while the target is exchanged, instead of calling through the list',
      breaks: ['I5'],
      change: siteOff,
    },
    {
      name: 'target-cleared',
      summary: 'direct_call is 0 between the old and the new target',
      breaks: ['I5'],
      change: (plan) => {
        const at = plan.steps.findIndex(
          (step) => step.kind === 'store' && step.what.startsWith('direct_ops.direct_call'),
        );
        const step = plan.steps[at];
        if (step?.kind !== 'store') return plan;
        const clear: PlanStep = {
          ...step,
          bytes: new Uint8Array(8),
          what: 'direct_ops.direct_call := 0',
        };
        return { ...plan, steps: plan.steps.toSpliced(at, 0, clear) };
      },
    },
  ],
};

/** Every store to the site but the last writes a NOP. */
function siteOff(plan: PatchPlan): PatchPlan {
  const isSite = (step: PlanStep): boolean => step.kind === 'store' && step.as === 'instruction';
  const last = plan.steps.findLastIndex(isSite);
  const steps = plan.steps.map((step, i): PlanStep => {
    if (!isSite(step) || i === last || step.kind !== 'store') return step;
    const bytes = Uint8Array.of(0x1f, 0x20, 0x03, 0xd5);
    return { ...step, bytes, what: `${TARGET}+0x4 := nop` };
  });
  return { ...plan, steps };
}

export const secondDirect: Scenario = {
  name: 'second_direct',
  runs: DIRECT_KERNELS,
  summary: 'a second direct call on a site is refused with -EBUSY and changes nothing',
  prepare: (kernel, names) => {
    const first = makeDirect(kernel, names, 'direct_ops');
    const second = makeDirect(kernel, names, 'second_ops');
    const target = kernel.symbol('lab_direct_a');
    kernel.directCalls.register(first, target);
    return {
      operation: () => kernel.directCalls.register(second, kernel.symbol('lab_direct_b')),
      refusal: 'EBUSY',
      plan: (steps) => ({
        steps,
        ...traced(kernel, [directTracer(kernel, first)]),
        always: [target],
        ...(steps.length > 0 && {
          complaint: {
            invariant: 'I10' as const,
            message: `the refused registration made ${steps.length} steps`,
          },
        }),
      }),
    };
  },
  breaks: [],
};

/** bpf_arch_text_poke on the entry of a BPF program: short by BL, long through the PLT. */
import type { NameTable } from '../names.js';
import { viewOf } from '../../../common/bytes.js';
import type { Kernel } from '../../../kernel/kernel.js';
import type { PatchPlan, PlanStep } from '../plan.js';
import { type Scenario } from '../scenario.js';
import { imagesGoFar, loadReturning, trampolineClobbers, TRAMPOLINE_KERNELS } from './parts.js';

function poke(
  kernel: Kernel,
  names: NameTable,
  move: { readonly first: 'short' | 'long' | 'none'; readonly next: 'short' | 'long' },
): ReturnType<Scenario['prepare']> {
  const target = loadReturning(kernel, 'target', 2, 'xdp');
  const first = loadReturning(kernel, 'first');
  const second = loadReturning(kernel, 'second');
  const place = { program: target };
  const comeNear = move.first === 'long' ? imagesGoFar(kernel) : undefined;
  if (move.first !== 'none') kernel.bpf.attach(first, 'fentry', place);
  if (move.next === 'short') comeNear?.();
  else if (!comeNear) imagesGoFar(kernel);
  names.collect();
  return {
    operation: () => void kernel.bpf.attach(second, 'fentry', place),
    plan: (steps) => ({
      steps,
      call: {
        entry: target.entry,
        args: [0x1000n],
        result: 2n,
        body: target.entry + 8n,
        clobbers: trampolineClobbers(kernel),
      },
    }),
  };
}

const isPltStore = (step: PlanStep): boolean =>
  step.kind === 'store' && step.as === 'data' && step.what.startsWith('PLT target');

/** The PLT target becomes 0 instead of dummy_tramp. */
function clearedPlt(plan: PatchPlan): PatchPlan {
  const steps = plan.steps.map((step): PlanStep => {
    if (!isPltStore(step) || step.kind !== 'store') return step;
    return { ...step, bytes: new Uint8Array(8), what: `${step.what.split(' :=')[0]} := 0` };
  });
  return { ...plan, steps };
}

export const pokeLong: Scenario = {
  name: 'poke_long',
  runs: TRAMPOLINE_KERNELS,
  summary: 'a BPF program gets its first trampoline, far away: PLT target, then NOP -> bl plt',
  prepare: (kernel, names) => poke(kernel, names, { first: 'none', next: 'long' }),
  breaks: [
    {
      name: 'plt-empty',
      summary:
        'the PLT target is 0 until there is one, instead of dummy_tramp, and is written last',
      breaks: ['I2'],
      change: (plan) => {
        const store = plan.steps.find(isPltStore);
        if (store?.kind !== 'store') return plan;
        const before = [{ address: store.address, bytes: new Uint8Array(8) }];
        return { ...plan, before, steps: [...plan.steps.filter((step) => step !== store), store] };
      },
    },
  ],
};

export const pokeShortLong: Scenario = {
  name: 'poke_short_long',
  runs: TRAMPOLINE_KERNELS,
  summary:
    'bl image -> bl plt: the PLT target first, so that every value it has is a place to land',
  // dummy_tramp and images are far from each other: the upper half of the target changes as well
  boot: { kaslrSeed: 0x1234_5678_9abc_def0n },
  prepare: (kernel, names) => poke(kernel, names, { first: 'short', next: 'long' }),
  breaks: [
    {
      name: 'torn-plt',
      summary: 'the PLT target is stored by halves, as if it were not 8-byte aligned',
      breaks: ['I6', 'I2'],
      change: (plan) => ({
        ...plan,
        steps: plan.steps.flatMap((step) =>
          isPltStore(step) && step.kind === 'store' ? halves(step) : [step],
        ),
      }),
    },
  ],
};

function halves(step: Extract<PlanStep, { kind: 'store' }>): PlanStep[] {
  return [0, 4].map((from) => ({
    ...step,
    address: step.address + BigInt(from),
    bytes: step.bytes.slice(from, from + 4),
    what: `${step.what} (${viewOf(step.bytes).getUint32(from, true).toString(16)} at +${from})`,
  }));
}

export const pokeLongShort: Scenario = {
  name: 'poke_long_short',
  runs: TRAMPOLINE_KERNELS,
  summary: 'bl plt -> bl image: the PLT goes to dummy_tramp before the site changes',
  prepare: (kernel, names) => poke(kernel, names, { first: 'long', next: 'short' }),
  breaks: [
    {
      name: 'plt-cleared',
      summary: 'the PLT target becomes 0 instead of dummy_tramp',
      breaks: ['I2'],
      change: clearedPlt,
    },
  ],
};

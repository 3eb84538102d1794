/**
 * What a scenario of the explorer is: an operation on a booted kernel, recorded, and what CPUs call meanwhile.
 *
 * A break removes one protection from the recorded steps (or from the plan's assumptions); an exhibit of
 * the museum is a scenario whose plan is made twice.
 */
import { InputError } from '../../common/errors.js';
import type { Kernel, KernelOptions } from '../../kernel/kernel.js';
import { EXECUTOR, Exploration, type ExploreOptions } from './explore.js';
import type { Invariant } from './invariants.js';
import { NameTable } from './names.js';
import { changeSteps, type PatchPlan, type PlanStep } from './plan.js';
import { record } from './record.js';
import { RACE_TEXT } from './text.js';

/** How scenarios get their kernels. */
export type RaceBoot = (options: Omit<KernelOptions, 'asm' | 'cpu'>) => Promise<Kernel>;

/** What a scenario has set up. */
export interface Prepared {
  /** What is recorded. */
  readonly operation: () => void;
  /** The plan of the recorded steps; looks at the kernel as the operation has left it. */
  readonly plan: (steps: readonly PlanStep[]) => Omit<PatchPlan, 'name'>;
  /** Variables that code loads by their address. */
  readonly roots?: readonly bigint[];
  /** A refusal with this errno is what should come. */
  readonly refusal?: string;
}

export interface Break {
  readonly name: string;
  readonly summary: string;
  /** What has to be found, one of them. */
  readonly breaks: readonly Invariant[];
  readonly change: (plan: PatchPlan) => PatchPlan;
}

export interface Scenario {
  readonly name: string;
  readonly summary: string;
  /** What the kernel needs to be booted with. */
  readonly boot?: Pick<KernelOptions, 'kaslrSeed'>;
  readonly prepare: (kernel: Kernel, names: NameTable) => Prepared;
  readonly breaks: readonly Break[];
}

export interface Race {
  readonly kernel: Kernel;
  readonly plan: PatchPlan;
  readonly names: NameTable;
  readonly roots: readonly bigint[];
}

/** Boots, sets up, records, and breaks what is to be broken. The caller closes the kernel. */
export async function prepareRace(
  scenario: Scenario,
  boot: RaceBoot,
  broken?: Break,
): Promise<Race> {
  const kernel = await bootRace(boot, { ...scenario.boot });
  const names = new NameTable(kernel);
  const { operation, plan, roots = [], refusal } = scenario.prepare(kernel, names);
  const { steps, refusal: refused } = record(kernel, names, operation);
  if (refused && refused.errno !== refusal) throw refused;
  const whole: PatchPlan = {
    ...plan(steps),
    ...(refusal !== undefined &&
      !refused && {
        complaint: { invariant: 'I10', message: `the operation was not refused with -${refusal}` },
      }),
    name: scenario.name,
  };
  const list = kernel.symbol('ftrace_ops_list');
  return {
    kernel,
    plan: broken ? broken.change(whole) : whole,
    names,
    roots: [list, ...roots],
  };
}

/** A kernel with the explorer's text, whose list function is made of instructions. */
export async function bootRace(
  boot: RaceBoot,
  { modules = {}, ...options }: Pick<KernelOptions, 'kaslrSeed' | 'modules'> = {},
): Promise<Kernel> {
  const kernel = await boot({ ...options, modules: { ...RACE_TEXT, ...modules }, ram: 1 << 20 });
  kernel.ftrace.listOps.func = kernel.symbol('lab_list_func');
  kernel.createTask(EXECUTOR);
  return kernel;
}

export function exploration(race: Race, options: ExploreOptions = {}): Exploration {
  const { kernel, plan, names, roots } = race;
  return new Exploration(kernel, plan, { ...options, roots, format: names.format });
}

/** A plan without the steps that `drops` names. Throws when there are none: the break would break nothing. */
export function without(plan: PatchPlan, drops: (step: PlanStep) => boolean): PatchPlan {
  let dropped = 0;
  const steps = changeSteps(plan.steps, (step) => {
    if (!drops(step)) return [step];
    dropped++;
    return [];
  });
  if (dropped === 0) {
    throw new InputError(`${plan.name}: there is no step that this break would leave out`);
  }
  return { ...plan, steps };
}

/** Leaves out the waits for grace periods; of `flavour` only, if given. */
export function withoutWaits(plan: PatchPlan, flavour?: string): PatchPlan {
  return without(plan, (step) => {
    return step.kind === 'wait' && (flavour === undefined || step.flavour === flavour);
  });
}

/**
 * What a scenario of the explorer is: an operation on a booted kernel, recorded, and what CPUs call meanwhile.
 *
 * A break removes one protection from the recorded steps (or from the plan's assumptions); an exhibit of
 * the museum is a scenario whose plan is made twice.
 */
import { InputError, UsageError } from '../../common/errors.js';
import { KERNEL_OF_FTRACE, type FtraceVersion } from '../../kernel/ftrace/profile.js';
import type { AsmSources, Kernel, KernelOptions } from '../../kernel/kernel.js';
import { EXECUTOR, Exploration, type ExploreOptions } from './explore.js';
import type { Invariant } from './invariants.js';
import { NameTable } from './names.js';
import { changeSteps, type PatchPlan, type PlanStep } from './plan.js';
import { record } from './record.js';
import { bindListFunc, LIST_FUNC, LIST_TEXT, RACE_TEXT } from './text.js';

/** How scenarios get their kernels; `texts` are placed with the kernel's own. */
export type RaceBoot = (
  options: Omit<KernelOptions, 'asm' | 'cpu'> & { readonly texts?: AsmSources },
) => Promise<Kernel>;

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

/** Where a scenario or a break makes sense. */
export interface Runs {
  /** The first is what it runs on if nothing is said. */
  readonly kernels: readonly FtraceVersion[];
  /** Why not on the others, as the end of a sentence. */
  readonly elsewhere: string;
}

export interface Break {
  readonly name: string;
  readonly summary: string;
  /** What has to be found, one of them. */
  readonly breaks: readonly Invariant[];
  readonly change: (plan: PatchPlan) => PatchPlan;
  /** Where the protection is one. Default: wherever the scenario runs. */
  readonly runs?: Runs;
}

export interface Scenario {
  readonly name: string;
  readonly summary: string;
  readonly runs: Runs;
  /** What the kernel needs to be booted with. */
  readonly boot?: Pick<KernelOptions, 'kaslrSeed' | 'modulesUsed' | 'reach'>;
  readonly prepare: (kernel: Kernel, names: NameTable) => Prepared;
  readonly breaks: readonly Break[];
}

export interface Race {
  readonly kernel: Kernel;
  readonly plan: PatchPlan;
  readonly names: NameTable;
  readonly roots: readonly bigint[];
}

/**
 * Boots, sets up, records, and breaks what is to be broken. The caller closes the kernel. Throws UsageError where
 * that makes no sense on `version`.
 */
export async function prepareRace(
  scenario: Scenario,
  boot: RaceBoot,
  broken?: Break,
  version: FtraceVersion = firstOf(scenario.runs),
): Promise<Race> {
  checkRuns(scenario.name, scenario.runs, version);
  if (broken?.runs) checkRuns(`${scenario.name} --break ${broken.name}`, broken.runs, version);
  const kernel = await bootRace(boot, {
    ftrace: version,
    version: KERNEL_OF_FTRACE[version],
    ...scenario.boot,
  });
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

function firstOf({ kernels }: Runs): FtraceVersion {
  const [first] = kernels;
  if (first === undefined) throw new RangeError('a scenario for no kernel');
  return first;
}

function checkRuns(what: string, { kernels, elsewhere }: Runs, version: FtraceVersion): void {
  if (kernels.includes(version)) return;
  throw new UsageError(`${what} runs on ${kernels.join(', ')}, not on ${version}: ${elsewhere}`);
}

/** A kernel with the explorer's text, whose list function is made of instructions. */
export async function bootRace(
  boot: RaceBoot,
  {
    modules = {},
    ...options
  }: Pick<
    KernelOptions,
    'kaslrSeed' | 'modules' | 'ftrace' | 'version' | 'modulesUsed' | 'reach'
  > = {},
): Promise<Kernel> {
  const kernel = await boot({
    ...options,
    texts: LIST_TEXT,
    listFunc: LIST_FUNC,
    modules: { ...RACE_TEXT, ...modules },
    ram: 1 << 20,
    vmallocRam: 8 << 20,
  });
  bindListFunc(kernel);
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

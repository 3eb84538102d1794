/**
 * Looks through the interleavings of a plan: all of them, breadth first, so that the first schedule that breaks an
 * invariant is a shortest one; or random ones, what is found being made shorter by leaving steps out.
 *
 * Usage:
 *   const result = explorePlan(kernel, plan, { executors: 1 });
 *   if (result.kind === 'violation') console.log(result.problem.message, printSchedule(result.schedule));
 */
import { Random } from '../../common/random.js';
import type { Kernel } from '../../kernel/kernel.js';
import { ExecutorGraph } from './executor.js';
import { checkStatic } from './final.js';
import type { Invariant, Problem } from './invariants.js';
import { compilePlan } from './objects.js';
import type { PatchPlan } from './plan.js';
import type { Schedule, ScheduledStep } from './schedule.js';
import { Transitions, type Choice, type Outcome, type State } from './transitions.js';

export interface ExploreOptions {
  /** Executing CPUs beside the patching one. Default 1. */
  readonly executors?: number;
  /** Most states. Default 5 million. */
  readonly limit?: number;
  /** Invariants that are looked at. Default: all. */
  readonly only?: readonly Invariant[];
  /** Addresses of variables that code loads by their address (see transitions.ts). Default none. */
  readonly roots?: readonly bigint[];
  /** Names of addresses. Default: those of the kernel's symbol table. */
  readonly format?: (address: bigint) => string;
}

export interface Figures {
  readonly states: number;
  readonly transitions: number;
  /** Steps of the longest shortest schedule to a state. */
  readonly depth: number;
  /** States of one executing CPU, and instructions executed to find them. */
  readonly nodes: number;
  readonly instructions: number;
}

export type ExploreResult = { readonly figures: Figures } & (
  | { readonly kind: 'holds' }
  /** The limit was reached first. */
  | { readonly kind: 'limit' }
  | { readonly kind: 'violation'; readonly problem: Problem; readonly schedule: Schedule }
);

/** What a schedule does. */
export interface Replay {
  readonly problem: Problem | undefined;
  readonly outcomes: readonly Outcome[];
  /** Before the problem, or at the end. */
  readonly last: State;
}

const DEFAULT_LIMIT = 5_000_000;
/** Name of the task that executing CPUs run; memory that a plan frees must not become its own. */
export const EXECUTOR = 'executor';

/** What is explored: made once per plan, on a kernel whose memory is as before the plan's first step. */
export class Exploration {
  readonly transitions: Transitions;
  readonly #plan: PatchPlan;
  readonly #kernel: Kernel;
  readonly #only: ReadonlySet<Invariant> | undefined;
  readonly #limit: number;

  constructor(kernel: Kernel, plan: PatchPlan, options: ExploreOptions = {}) {
    const roots = new Set(options.roots ?? []);
    for (const { address, bytes } of plan.before ?? []) kernel.memory.pokeBytes(address, bytes);
    const program = compilePlan(plan, kernel.memory, roots);
    const task = kernel.tasks.find(({ name }) => name === EXECUTOR) ?? kernel.createTask(EXECUTOR);
    const graph = new ExecutorGraph(kernel, plan, program, task);
    const executors = options.executors ?? 1;
    this.#kernel = kernel;
    this.#plan = plan;
    this.#only = options.only && new Set(options.only);
    this.#limit = options.limit ?? DEFAULT_LIMIT;
    const format = options.format ?? ((address) => kernel.symbols.format(address));
    const isWanted = (problem: Problem): boolean => this.#isWanted(problem);
    this.transitions = new Transitions(plan, program, graph, executors, { format, isWanted });
  }

  /** Every interleaving. */
  exhaust(): ExploreResult {
    return this.#puttingBack(() => this.#exhaust());
  }

  /** `walks` random schedules of at most `length` steps. */
  sample(walks: number, seed: number, length = 400): ExploreResult {
    return this.#puttingBack(() => this.#sample(walks, seed, length));
  }

  /** What happens on a schedule; stops at the first problem, or where a step is not possible. */
  replay(schedule: Schedule): Replay {
    return this.#puttingBack(() => this.#replay(schedule));
  }

  /** Memory is afterwards as it was. */
  #puttingBack<T>(work: () => T): T {
    try {
      return work();
    } finally {
      this.transitions.graph.putBack();
    }
  }

  #exhaust(): ExploreResult {
    const { transitions } = this;
    transitions.skips = true;
    for (;;) {
      transitions.grown = false;
      const { path, ...result } = this.#search();
      // steps that were taken for unnoticeable are not: once more
      if (transitions.grown) continue;
      if (result.kind !== 'violation') return result;
      return { ...result, schedule: path ? this.#label(path) : result.schedule };
    }
  }

  #sample(walks: number, seed: number, length: number): ExploreResult {
    const wrong = this.#staticProblem();
    if (wrong) return wrong;
    const random = new Random(seed);
    this.transitions.skips = false;
    const { transitions } = this;
    let steps = 0;
    for (let walk = 0; walk < walks; walk++) {
      const taken: ScheduledStep[] = [];
      let state = transitions.initial();
      for (let i = 0; i < length; i++) {
        const actor = random.below(transitions.actors);
        const count = transitions.options(state, actor);
        if (count === 0) continue;
        const choice = { actor, option: random.below(count) };
        const outcome = transitions.apply(state, choice);
        taken.push({ cpu: this.#cpuOf(actor), option: choice.option });
        steps++;
        if (outcome.problem) {
          const schedule = this.#shorten(taken, outcome.problem);
          return {
            kind: 'violation',
            problem: outcome.problem,
            schedule,
            figures: this.#figures(walk + 1, steps, length),
          };
        }
        if (!outcome.state) break;
        state = outcome.state;
      }
    }
    return { kind: 'limit', figures: this.#figures(walks, steps, length) };
  }

  #replay(schedule: Schedule): Replay {
    const { transitions } = this;
    transitions.skips = false;
    let state = transitions.initial();
    const outcomes: Outcome[] = [];
    for (const { cpu, option } of schedule) {
      const actor = this.#actorOf(cpu);
      if (actor < 0 || actor >= transitions.actors) break;
      if (option >= transitions.options(state, actor)) break;
      const outcome = transitions.apply(state, { actor, option });
      outcomes.push(outcome);
      if (outcome.problem) return { problem: outcome.problem, outcomes, last: state };
      state = outcome.state as State;
    }
    return {
      problem: transitions.isDone(state) ? this.#static() : undefined,
      outcomes,
      last: state,
    };
  }

  #search(): ExploreResult & { readonly path?: readonly Choice[] } {
    const wrong = this.#staticProblem();
    if (wrong) return wrong;
    const { transitions } = this;
    const first = transitions.sort(transitions.initial());
    const states: State[] = [first];
    const parents: number[] = [-1];
    const choices: number[] = [0];
    const depths: number[] = [0];
    const known = new Set<string>([keyOf(first)]);
    let edges = 0;
    for (let index = 0; index < states.length; index++) {
      const state = states[index] as State;
      for (let actor = 0; actor < transitions.actors; actor++) {
        const count = transitions.options(state, actor);
        for (let option = 0; option < count; option++) {
          edges++;
          const { state: next, problem } = transitions.apply(state, { actor, option });
          if (problem) {
            const depth = (depths[index] as number) + 1;
            const path = pathTo(parents, choices, index);
            path.push({ actor, option });
            return {
              kind: 'violation',
              problem,
              schedule: [],
              path,
              figures: this.#figures(states.length, edges, depth),
            };
          }
          if (!next) continue;
          const sorted = transitions.sort(next);
          const key = keyOf(sorted);
          if (known.has(key)) continue;
          known.add(key);
          states.push(sorted);
          parents.push(index);
          choices.push(actor + option * transitions.actors);
          depths.push((depths[index] as number) + 1);
          if (states.length >= this.#limit) {
            return {
              kind: 'limit',
              figures: this.#figures(states.length, edges, depths.at(-1) ?? 0),
            };
          }
        }
      }
    }
    return { kind: 'holds', figures: this.#figures(states.length, edges, depths.at(-1) ?? 0) };

    function pathTo(from: number[], taken: number[], index: number): Choice[] {
      const path: Choice[] = [];
      const width = transitions.actors;
      for (let at = index; at > 0; at = from[at] as number) {
        const packed = taken[at] as number;
        path.unshift({ actor: packed % width, option: Math.floor(packed / width) });
      }
      return path;
    }
  }

  /**
   * A path as a schedule of single steps: with those that nobody noticed, and with numbers of CPUs, which do not
   * change places as blocks do.
   */
  #label(path: readonly Choice[]): Schedule {
    const { transitions } = this;
    const { strands } = transitions;
    let state = transitions.initial();
    let cpus = Array.from({ length: transitions.executors }, (_, i) => i + 1);
    const schedule = steppedBetween(undefined, state, strands);
    for (const { actor, option } of path) {
      const next = transitions.apply(state, { actor, option }).state;
      const block = actor - strands;
      if (block >= 0) schedule.push({ cpu: cpus[block] as number, option });
      if (!next) break;
      if (block < 0) schedule.push(...steppedBetween(state, next, strands));
      const order = [...cpus.keys()];
      state = transitions.sort(next, order);
      cpus = order.map((from) => cpus[from] as number);
    }
    return schedule;
  }

  /** Leaves out what the problem does not need: whole CPUs, then ever smaller pieces. */
  #shorten(taken: readonly ScheduledStep[], problem: Problem): Schedule {
    let best = taken;
    const tryOut = (candidate: Schedule): boolean => {
      const { problem: found, outcomes } = this.#replay(candidate);
      const isShorter =
        found?.invariant === problem.invariant && outcomes.length === candidate.length;
      if (isShorter) best = candidate;
      return isShorter;
    };
    for (const cpu of new Set(taken.map((step) => step.cpu))) {
      tryOut(best.filter((step) => step.cpu !== cpu));
    }
    for (let size = best.length; size >= 1; size = Math.floor(size / 2)) {
      for (let at = 0; at < best.length;) {
        if (!tryOut([...best.slice(0, at), ...best.slice(at + size)])) at++;
      }
    }
    return best;
  }

  /** What is wrong whatever the schedule: shown as the patcher alone. */
  #staticProblem(): ExploreResult | undefined {
    const { transitions } = this;
    const problem = this.#static();
    if (!problem || !this.#isWanted(problem)) return undefined;
    const schedule: ScheduledStep[] = [];
    transitions.skips = false;
    let state: State | undefined = transitions.initial();
    for (let actor = 0; state && actor < transitions.strands;) {
      if (transitions.options(state, actor) === 0) {
        actor++;
        continue;
      }
      schedule.push({ cpu: this.#cpuOf(actor), option: 0 });
      state = transitions.apply(state, { actor, option: 0 }).state;
    }
    return {
      kind: 'violation',
      problem,
      schedule,
      figures: this.#figures(1, schedule.length, schedule.length),
    };
  }

  /** Strands behind the first have numbers below 0. */
  #cpuOf(actor: number): number {
    const { strands } = this.transitions;
    return actor < strands ? 0 - actor : actor - strands + 1;
  }

  #actorOf(cpu: number): number {
    const { strands } = this.transitions;
    if (cpu <= 0) return -cpu < strands ? -cpu : -1;
    return strands + cpu - 1;
  }

  #static(): Problem | undefined {
    return checkStatic(this.#plan, this.transitions.program, this.#kernel.memory);
  }

  #isWanted({ invariant }: Problem): boolean {
    return this.#only === undefined || this.#only.has(invariant);
  }

  #figures(states: number, transitions: number, depth: number): Figures {
    const { nodes, instructions } = this.transitions.graph;
    return { states, transitions, depth, nodes: nodes.length, instructions };
  }
}

/** The patcher's steps from one state to another, in the order of the strands. */
function steppedBetween(from: State | undefined, to: State, strands: number): ScheduledStep[] {
  const steps: ScheduledStep[] = [];
  for (let strand = 0; strand < strands; strand++) {
    const count = (to[strand] as number) - (from?.[strand] ?? 0);
    for (let i = 0; i < count; i++) steps.push({ cpu: 0 - strand, option: 0 });
  }
  return steps;
}

/** Explores a plan on a kernel whose memory is as before its first step. */
export function explorePlan(
  kernel: Kernel,
  plan: PatchPlan,
  options: ExploreOptions = {},
): ExploreResult {
  return new Exploration(kernel, plan, options).exhaust();
}

function keyOf(state: State): string {
  return String.fromCharCode(...state);
}

/**
 * The states of a plan with executing CPUs, and the steps between them.
 *
 * A state is a row of small numbers: steps that each strand of the patcher has done, counters, and for each
 * executing CPU its node in the graph, which strands' grace periods wait for it, and the oldest version that it may
 * still see of each word, image or literal. CPUs that stand alike are interchangeable, so their blocks are kept in order.
 *
 * What a CPU may see (docs/race.md has the reasons):
 *   fetches  any version since the one that was coherent at its last context synchronisation event (CSE); having
 *            fetched a word, nothing older of other text than was coherent when that word was written
 *   loads    without address dependency any version since its last CSE, never an older one than before;
 *            others the current one
 * CSEs are: the plan's IPI, waking up, and the quiescent state that each CPU passes between the begin and the end of
 * a grace period: by being between calls or asleep, or by an interrupt where it does not hold the grace
 * period up. That interrupt is a step of its own, since it matters when it comes.
 */
import { decode } from '../../a64/codec.js';
import { AARCH64_BREAK_FAULT } from '../../a64/immediates.js';
import { viewOf } from '../../common/bytes.js';
import type { RcuFlavour } from '../../kernel/patch-observer.js';
import type { ExecutorGraph } from './executor.js';
import type { Problem } from './invariants.js';
import type { LocalEdge, LocalNode, Standing } from './local-graph.js';
import type { MicroStep, PlanProgram, SharedObject, Strand } from './objects.js';
import { valueOf } from './objects.js';
import { word32, type PatchPlan } from './plan.js';

export type State = Uint16Array;

/** Who goes on, strands of the patcher first, then executing CPUs by their blocks; and which view it takes. */
export interface Choice {
  readonly actor: number;
  readonly option: number;
}

export interface Outcome {
  /** Blocks in the order of the actors, not sorted; undefined after a problem. */
  readonly state: State | undefined;
  readonly problem: Problem | undefined;
  readonly micro?: MicroStep;
  /** Where an interrupt came that ends a quiescent state's wait. */
  readonly interrupted?: LocalNode;
  readonly node?: LocalNode;
  readonly seen?: readonly number[];
  readonly edge?: LocalEdge;
}

/** Instructions that may change under execution (Arm ARM B2.2.5). */
const CMODX = new Set(['B', 'BL', 'BRK', 'HVC', 'ISB', 'NOP', 'SMC', 'SVC']);

const BREAK_BYTES = [...word32(AARCH64_BREAK_FAULT)];

function mayChange(bytes: Uint8Array): boolean {
  return CMODX.has(decode(viewOf(bytes).getUint32(0, true))?.row.name ?? '');
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function isBreak(bytes: Uint8Array, offset: number): boolean {
  return BREAK_BYTES.every((byte, i) => bytes[offset + i] === byte);
}

export class Transitions {
  readonly plan: PatchPlan;
  readonly program: PlanProgram;
  readonly graph: ExecutorGraph;
  readonly strands: number;
  readonly executors: number;
  /** Objects that CPUs have been seen to touch: steps that touch no others are made with the step before. */
  readonly touched = new Set<number>();
  /** `touched` has grown since the exploration began. */
  grown = false;
  /** Steps that nobody notices are made with those before them; else each is one of its own. */
  skips = true;
  readonly #windowed: readonly SharedObject[];
  /** By object: place in a block, or -1. */
  readonly #window: readonly number[];
  /** By object: place in a state, or -1. */
  readonly #counter: readonly number[];
  readonly #counters: readonly SharedObject[];
  /** By object, then by newest and oldest version. */
  readonly #visibleVersions: Map<number, readonly number[]>[];
  readonly #head: number;
  readonly #block: number;
  readonly #format: (address: bigint) => string;
  readonly #isWanted: (problem: Problem) => boolean;

  constructor(
    plan: PatchPlan,
    program: PlanProgram,
    graph: ExecutorGraph,
    executors: number,
    looks: {
      readonly format: (address: bigint) => string;
      /** Problems that are none are passed over. */
      readonly isWanted: (problem: Problem) => boolean;
    },
  ) {
    this.plan = plan;
    this.program = program;
    this.graph = graph;
    this.executors = executors;
    this.#format = looks.format;
    this.#isWanted = looks.isWanted;
    this.#windowed = program.objects.filter((each) => each.windowed);
    this.#counters = program.objects.filter((each) => each.kind === 'counter');
    this.#visibleVersions = program.objects.map(() => new Map<number, readonly number[]>());
    this.#window = program.objects.map((each) => this.#windowed.indexOf(each));
    this.strands = program.strands.length;
    this.#counter = program.objects.map((each) => {
      const index = this.#counters.indexOf(each);
      return index < 0 ? -1 : this.strands + index;
    });
    this.#head = this.strands + this.#counters.length;
    this.#block = 2 + this.#windowed.length;
  }

  initial(): State {
    const state = new Uint16Array(this.#head + this.executors * this.#block);
    for (const [i, { versions }] of this.#counters.entries()) {
      state[this.strands + i] = Number(valueOf(versions[0] as Uint8Array));
    }
    this.#skip(state);
    return state;
  }

  /** The same state with its blocks in order; `order` gets where each block was. */
  sort(state: State, order?: number[]): State {
    if (this.executors < 2) return state;
    const blocks = Array.from({ length: this.executors }, (_, i) => {
      const start = this.#head + i * this.#block;
      return { from: i, cells: state.subarray(start, start + this.#block) };
    });
    blocks.sort((a, b) => compareCells(a.cells, b.cells));
    if (order) order.splice(0, order.length, ...blocks.map(({ from }) => from));
    if (blocks.every(({ from }, i) => from === i)) return state;
    const sorted = state.slice();
    blocks.forEach(({ cells }, i) => sorted.set(cells, this.#head + i * this.#block));
    return sorted;
  }

  /** Versions that the next action can see, multiplied over its objects. */
  #views(state: State, actor: number): number {
    let count = 1;
    const block = this.#blockOf(actor);
    for (const id of this.#nodeAt(state, actor).action.objects) {
      count *= this.#visible(state, block, id).length;
    }
    return count;
  }

  /** An interrupt here would let a grace period go. */
  #canReport(state: State, actor: number): boolean {
    const waiting = state[this.#blockOf(actor) + 1] as number;
    if (waiting === 0) return false;
    const { standing } = this.#nodeAt(state, actor);
    for (let strand = 0; strand < this.strands; strand++) {
      if (((waiting >> strand) & 1) === 0) continue;
      const step = this.#nextOf(state, strand);
      if (step?.kind === 'end' && !holds(step.flavour, standing)) return true;
    }
    return false;
  }

  get actors(): number {
    return this.strands + this.executors;
  }

  /** Number of ways in which an actor can go on; 0: it has to wait. */
  options(state: State, actor: number): number {
    if (actor < this.strands) return this.#strandCanGo(state, actor) ? 1 : 0;
    const count = this.#views(state, actor);
    return this.#canReport(state, actor) ? count + 1 : count;
  }

  apply(state: State, { actor, option }: Choice): Outcome {
    return actor < this.strands ? this.#patch(state, actor) : this.#execute(state, actor, option);
  }

  /** Where an executing CPU is; the first is number 1. */
  nodeOf(state: State, cpu: number): LocalNode {
    return this.#nodeAt(state, this.strands + cpu - 1);
  }

  /** All steps of the plan are done. */
  isDone(state: State): boolean {
    return this.program.strands.every(({ steps }, strand) => state[strand] === steps.length);
  }

  #blockOf(actor: number): number {
    return this.#head + (actor - this.strands) * this.#block;
  }

  #nodeAt(state: State, actor: number): LocalNode {
    return this.graph.nodes[state[this.#blockOf(actor)] as number] as LocalNode;
  }

  /** The next step of a strand, if it has begun and is not at its end. */
  #nextOf(state: State, strand: number): MicroStep | undefined {
    const { parent, after, steps } = this.program.strands[strand] as Strand;
    if (parent >= 0 && (state[parent] as number) < after) return undefined;
    return steps[state[strand] as number];
  }

  #strandCanGo(state: State, strand: number): boolean {
    const step = this.#nextOf(state, strand);
    if (!step) return false;
    switch (step.kind) {
      case 'change':
      case 'add':
      case 'sync':
      case 'begin':
        return true;
      case 'ipi':
        return this.#everyCpu((actor) => !this.#nodeAt(state, actor).standing.uninterrupted);
      case 'end':
        return this.#everyCpu(
          (actor) => (((state[this.#blockOf(actor) + 1] as number) >> strand) & 1) === 0,
        );
      case 'drain':
        return state[this.#counter[step.object] as number] === 0;
    }
  }

  #everyCpu(holdsFor: (actor: number) => boolean): boolean {
    for (let actor = this.strands; actor < this.actors; actor++) if (!holdsFor(actor)) return false;
    return true;
  }

  #patch(from: State, strand: number): Outcome {
    const state = from.slice();
    const micro = this.#nextOf(state, strand) as MicroStep;
    state[strand] = (state[strand] as number) + 1;
    switch (micro.kind) {
      case 'change':
      case 'sync':
      case 'drain':
        break;
      case 'add': {
        const at = this.#counter[micro.object] as number;
        state[at] = (state[at] as number) + micro.amount;
        break;
      }
      case 'end':
        break;
      case 'ipi':
        this.#synchroniseAll(state);
        break;
      case 'begin':
        for (let actor = this.strands; actor < this.actors; actor++) {
          const at = this.#blockOf(actor) + 1;
          if (this.#nodeAt(state, actor).standing.quiescent) this.#synchronise(state, actor);
          else state[at] = (state[at] as number) | (1 << strand);
        }
        break;
    }
    this.#skip(state);
    return { state, problem: undefined, micro };
  }

  /** Goes over steps that no CPU can notice. */
  #skip(state: State): void {
    if (!this.skips) return;
    for (let strand = 0; strand < this.strands; strand++) {
      for (;;) {
        const step = this.#nextOf(state, strand);
        if (!step || (step.kind !== 'change' && step.kind !== 'sync')) break;
        if (step.objects.some((id) => this.touched.has(id))) break;
        state[strand] = (state[strand] as number) + 1;
      }
    }
  }

  #execute(from: State, actor: number, option: number): Outcome {
    const state = from.slice();
    if (option === this.#views(state, actor)) {
      this.#report(state, actor);
      this.#synchronise(state, actor);
      return { state, problem: undefined, interrupted: this.#nodeAt(state, actor) };
    }
    const block = this.#blockOf(actor);
    const node = this.#nodeAt(state, actor);
    const { action } = node;
    const seen: number[] = [];
    let rest = option;
    for (const id of action.objects) {
      if (!this.touched.has(id)) {
        this.touched.add(id);
        this.grown = true;
      }
      const visible = this.#visible(state, block, id);
      seen.push(visible[rest % visible.length] as number);
      rest = Math.floor(rest / visible.length);
    }
    const refused = this.#check(state, block, node, seen);
    if (refused && this.#isWanted(refused))
      return { state: undefined, problem: refused, node, seen };
    const edge = this.graph.follow(node, seen);
    const problem = edge.problem ?? this.#checkCallbacks(state, edge);
    if (problem && this.#isWanted(problem)) return { state: undefined, problem, node, seen, edge };
    // what went wrong on the CPU itself has no continuation
    if (edge.problem) return { state: undefined, problem: undefined, node, seen, edge };

    state[block] = edge.to;
    if (edge.counter) state[this.#counter[edge.counter.object] as number] = edge.counter.value;
    this.#learn(state, block, node, seen);
    if (action.kind === 'wake') this.#synchronise(state, actor);
    if (this.#nodeAt(state, actor).standing.quiescent && this.#report(state, actor)) {
      this.#synchronise(state, actor);
    }
    return { state, problem: undefined, node, seen, edge };
  }

  /** A quiescent state: grace periods that it is one for do not wait for the CPU any more. */
  #report(state: State, actor: number): boolean {
    const at = this.#blockOf(actor) + 1;
    if (state[at] === 0) return false;
    const { standing } = this.#nodeAt(state, actor);
    for (let strand = 0; strand < this.strands; strand++) {
      const step = this.#nextOf(state, strand);
      if (step?.kind !== 'end' || holds(step.flavour, standing)) continue;
      state[at] = (state[at] as number) & ~(1 << strand);
    }
    return true;
  }

  /** What has been seen bounds what can be seen later. */
  #learn(state: State, block: number, { action }: LocalNode, seen: readonly number[]): void {
    for (const [i, id] of action.objects.entries()) {
      const object = this.program.objects[id] as SharedObject;
      const version = seen[i] as number;
      if (object.kind === 'data' && object.windowed) this.#raise(state, block, id, version);
      if (object.kind !== 'word' || this.plan.orderedFetches === false) continue;
      const strand = this.#ownerOf(id);
      const clean = strand.coherent[object.writtenAt[version] as number] as Uint16Array;
      for (const each of this.#windowed) {
        // of what another strand writes nothing is known
        if (each.kind !== 'data' && this.#ownerOf(each.id) === strand)
          this.#raise(state, block, each.id, clean[each.id] as number);
      }
    }
  }

  #ownerOf(id: number): Strand {
    return this.program.strands[this.program.owners[id] as number] as Strand;
  }

  /** The newest version of an object. */
  currentOf(state: State, id: number): number {
    const position = state[this.program.owners[id] as number] as number;
    return (this.#ownerOf(id).current[position] as Uint16Array)[id] as number;
  }

  #raise(state: State, block: number, id: number, version: number): void {
    const at = block + 2 + (this.#window[id] as number);
    if ((state[at] as number) < version) state[at] = version;
  }

  /** The versions of an object that the CPU may see, newest first; one for each content. */
  #visible(state: State, block: number, id: number): readonly number[] {
    const object = this.program.objects[id] as SharedObject;
    if (object.kind === 'counter') return [state[this.#counter[id] as number] as number];
    const now = this.currentOf(state, id);
    const window = this.#window[id] as number;
    const oldest = window < 0 ? now : (state[block + 2 + window] as number);
    const cache = this.#visibleVersions[id] as Map<number, readonly number[]>;
    const key = (now << 16) | oldest;
    let versions = cache.get(key);
    if (!versions) {
      versions = oldest === now ? [now] : distinctVersions(object, oldest, now);
      cache.set(key, versions);
    }
    return versions;
  }

  #synchroniseAll(state: State): void {
    for (let actor = this.strands; actor < this.actors; actor++) this.#synchronise(state, actor);
  }

  /** A context synchronisation event on the CPU. */
  #synchronise(state: State, actor: number): void {
    for (const { id } of this.#windowed) {
      const position = state[this.program.owners[id] as number] as number;
      const clean = this.#ownerOf(id).coherent[position] as Uint16Array;
      this.#raise(state, this.#blockOf(actor), id, clean[id] as number);
    }
  }

  #check(
    state: State,
    block: number,
    { action }: LocalNode,
    seen: readonly number[],
  ): Problem | undefined {
    const where = (): string => this.#format(action.pc);
    for (const [i, id] of action.objects.entries()) {
      const object = this.program.objects[id] as SharedObject;
      if (object.kind === 'block') {
        if (seen[i] === 0) continue;
        return action.kind === 'fetch'
          ? { invariant: 'I2', message: `fetches ${where()} from ${object.what}` }
          : { invariant: 'I3', message: `${where()} uses ${object.what}` };
      }
      if (action.kind !== 'fetch') continue;
      const problem = this.#checkFetch(state, block, object, action.pc);
      if (problem) return problem;
    }
    return this.#checkLoad(state, action.objects, seen, where);
  }

  #checkFetch(state: State, block: number, object: SharedObject, pc: bigint): Problem | undefined {
    const visible = this.#visible(state, block, object.id);
    if (
      visible.length === 1 &&
      (object.kind === 'word' || this.currentOf(state, object.id) === 0)
    ) {
      return undefined;
    }
    const where = this.#format(pc);
    const contents = visible.map((version) => object.versions[version] as Uint8Array);
    if (object.kind === 'range') {
      const now = this.currentOf(state, object.id);
      if (now > 0 && isBreak(object.versions[now] as Uint8Array, Number(pc - object.address))) {
        return { invariant: 'I7', message: `is at ${where} when that is freed` };
      }
      if (contents.length === 1) return undefined;
      return {
        invariant: 'CMODX',
        message: `may fetch ${where} as it was before ${object.what} was written`,
      };
    }
    if (object.kind !== 'word' || contents.length === 1 || contents.every(mayChange))
      return undefined;
    return {
      invariant: 'CMODX',
      message: `may fetch ${where} old or new, and not both are instructions that may change`,
    };
  }

  #checkLoad(
    state: State,
    objects: readonly number[],
    seen: readonly number[],
    where: () => string,
  ): Problem | undefined {
    const { literal, tracers } = this.plan;
    for (const [i, id] of objects.entries()) {
      const object = this.program.objects[id] as SharedObject;
      if (object.kind !== 'data' || object.address !== literal?.address) continue;
      const value = valueOf(object.versions[seen[i] as number] as Uint8Array);
      const tracer = tracers?.find(({ ops }) => ops === value);
      if (!tracer && !literal.values.includes(value)) {
        return { invariant: 'I3', message: `${where()} loads a literal that is no ops` };
      }
      if (tracer && this.#isFreed(state, tracer.ops)) {
        return { invariant: 'I3', message: `${where()} loads ${tracer.name}, which is gone` };
      }
    }
    return this.#checkTorn(objects, seen, where);
  }

  /** Halves of different stores, together nothing that was ever stored. */
  #checkTorn(
    objects: readonly number[],
    seen: readonly number[],
    where: () => string,
  ): Problem | undefined {
    const halves = objects.flatMap((id, i) => {
      const object = this.program.objects[id] as SharedObject;
      return object.kind === 'data' && object.size === 4
        ? [{ object, version: seen[i] as number }]
        : [];
    });
    const [low, high] = halves;
    if (!low || !high || low.version === high.version) return undefined;
    const wasStored = low.object.versions.some((_, version) =>
      halves.every((half) => {
        const { versions } = half.object;
        return sameBytes(versions[version] as Uint8Array, versions[half.version] as Uint8Array);
      }),
    );
    if (wasStored) return undefined;
    return {
      invariant: 'I6',
      message: `${where()} loads half of one ${low.object.what} and half of another`,
    };
  }

  #checkCallbacks(state: State, { callbacks }: LocalEdge): Problem | undefined {
    const { tracers, callbacks: names } = this.plan;
    if (!tracers || tracers.length === 0) return undefined;
    for (const { at, ip, ops } of callbacks) {
      const name = names?.get(at) ?? this.#format(at);
      const tracer = tracers.find((each) => each.ops === ops);
      if (!tracer)
        return { invariant: 'I4', message: `${name} is called with an ops unknown here` };
      if (tracer.func !== undefined && tracer.func !== at) {
        return { invariant: 'I9', message: `${name} is called with ${tracer.name}` };
      }
      if (!tracer.covers(ip)) {
        return {
          invariant: 'I4',
          message: `${name} is called for ${tracer.name}, which does not cover ${this.#format(ip)}`,
        };
      }
      if (this.#isFreed(state, ops)) {
        return { invariant: 'I4', message: `${name} is called for ${tracer.name}, which is gone` };
      }
    }
    return undefined;
  }

  /** Is the block that begins at `address` freed? */
  #isFreed(state: State, address: bigint): boolean {
    const block = this.program.objects.find(
      (each) => each.kind === 'block' && each.address === address,
    );
    return block !== undefined && this.currentOf(state, block.id) === 1;
  }
}

/** Versions from `oldest` to `now`, newest first; one for each content. */
function distinctVersions({ versions }: SharedObject, oldest: number, now: number): number[] {
  const found: number[] = [];
  for (let version = now; version >= oldest; version--) {
    const bytes = versions[version] as Uint8Array;
    const same = found.findIndex((each) => sameBytes(versions[each] as Uint8Array, bytes));
    // the older of two that look alike promises less
    if (same < 0) found.push(version);
    else found[same] = version;
  }
  return found;
}

/** Does a CPU that stands there hold up a grace period that begins now? */
function holds(flavour: RcuFlavour, standing: Standing): boolean {
  switch (flavour) {
    case 'tasks':
      return !standing.quiescent;
    case 'tasks_rude':
      return standing.guarded;
    case 'rcu':
      return standing.rcuReader;
    case 'tasks_trace':
      return standing.traceReader;
  }
}

function compareCells(a: Uint16Array, b: Uint16Array): number {
  for (let i = 0; i < a.length; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) return difference;
  }
  return 0;
}

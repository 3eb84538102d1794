/**
 * Brings a lab kernel from one state of a booted kernel's scenario to the next, by attaching what is new and detaching
 * what is gone: programs, the function tracer and an instance of it, function graph, fprobes, kprobes.
 *
 * What a state has follows from what it shows: enabled_functions says how many ops cover the function and
 * whether one is a direct call, the live trampoline which programs are attached, a BRK at the entry that a
 * kprobe is there. Which tracers the other ops are, the literal says when there is one; else those that the
 * scenario's traces and literals know, in a fixed order.
 */
import { InputError } from '../../../common/errors.js';
import type { ProgramTarget } from '../../../kernel/bpf/bpf.js';
import type { KernelProgram } from '../../../kernel/bpf/program.js';
import type { Kernel } from '../../../kernel/kernel.js';
import type { Fprobe } from '../../../kernel/trace/fprobe.js';
import { FunctionGraphTracer } from '../../../kernel/trace/function-graph-tracer.js';
import { branchTarget } from './image.js';
import { ATTACH_KINDS, loadProgram } from './scenario-attach.js';
import type { Scenario, ScenarioProgram, ScenarioState } from './scenario-file.js';
import { readImage } from './scenario-image.js';

/** BRK that arm64 kprobes put at an address. */
const KPROBE_BRK = 0xd4200080;

/** What is registered at a site. */
export interface Enabled {
  readonly ops: number;
  readonly direct: boolean;
}

/** `bpf_fentry_test1 (2)     D   M`: number of ops; flags R, I, D, O, M. */
export function enabledOf({ enabled }: ScenarioState): Enabled {
  const [, count = '0', flags = ''] =
    enabled.map((line) => /^(?:\w+) \((\d+)\)([ A-Z]*)/.exec(line)).find((match) => match) ?? [];
  return { ops: Number(count), direct: flags.includes('D') };
}

type TracerKind = 'function' | 'instance' | 'graph' | 'fprobe';

/** By its ops and by its callback. */
const TRACERS: readonly (readonly [kind: TracerKind, ops: string, callback: string])[] = [
  ['function', 'global_ops', 'function_trace_call'],
  ['graph', 'graph_ops', 'ftrace_graph_func'],
  ['fprobe', 'fprobe_ftrace_ops', 'fprobe_ftrace_entry'],
];

/** The 16 bits of an address that one instruction of a sequence of moves has. */
const PART = 0xffffn;
/** Pages for what maps hold: a block of 64 KiB aligned to that, and the next one. */
const MAP_PAGES = 48;

interface Played {
  readonly program: KernelProgram;
  /** Function it is attached to. */
  readonly place: string;
  readonly undo: () => void;
}

export class ScenarioPlayer {
  readonly #kernel: Kernel;
  readonly #scenario: Scenario;
  readonly #pages: bigint;
  readonly #programs = new Map<string, Played>();
  /** By kind and function. */
  readonly #others = new Map<string, () => void>();
  #target: KernelProgram | undefined;

  constructor(kernel: Kernel, scenario: Scenario) {
    this.#kernel = kernel;
    this.#scenario = scenario;
    this.#pages = kernel.allocPages(MAP_PAGES);
  }

  /** In a block of 64 KiB, so that the lowest 16 bits are theirs and take as many instructions. */
  readonly #mapAt = (theirs: bigint): bigint => {
    const block = (this.#pages + PART) & ~PART;
    return block + (theirs & PART);
  };

  /** Throws KernelError where the lab refuses what the booted kernel did. */
  goTo(state: ScenarioState): void {
    if (state.fn.startsWith('bpf ')) {
      this.#playPrograms(state, this.#onProgram(state));
      return;
    }
    this.#playPrograms(state, this.#onKernel(state));
    this.#attachElsewhere(state);
    this.#playOthers(state);
  }

  /** Other functions whose live trampolines a state lists. */
  #attachElsewhere(state: ScenarioState): void {
    const { programs } = this.#scenario;
    for (const trampoline of state.trampolines) {
      for (const { name, cookie } of readImage(trampoline, programs)?.calls ?? []) {
        const program = programs.find((each) => each.name === name);
        const fn = program?.target;
        if (!program || fn === undefined || fn === state.fn || this.#programs.has(name)) continue;
        this.#attach(program, { ...state, fn }, cookie);
      }
    }
  }

  /** A program of the file as it is loaded now: those that are attached, and the one that is attached to. */
  program(name: string): KernelProgram | undefined {
    return name === 'target' ? this.#target : this.#programs.get(name)?.program;
  }

  close(): void {
    for (const undo of [...this.#others.values()].reverse()) undo();
    this.#others.clear();
    for (const name of [...this.#programs.keys()].reverse()) this.#detach(name);
    this.#target?.free();
    this.#kernel.freePages(this.#pages);
  }

  /** Names of the programs that a kernel function has, with their cookies. */
  #onKernel(state: ScenarioState): Map<string, bigint> {
    const wanted = new Map<string, bigint>();
    if (!enabledOf(state).direct) return wanted;
    const { programs } = this.#scenario;
    const base = state.literal?.directCall;
    // where the literal is the list's, what calls programs for this function
    const images = state.trampolines.flatMap((trampoline) => {
      const image = readImage(trampoline, programs);
      const first = programs.find(({ name }) => name === image?.calls[0]?.name);
      return image && first?.target === state.fn ? [{ ...image, base: trampoline.base }] : [];
    });
    const image = images.find((each) => each.base === base) ?? images[0];
    if (image) for (const { name, cookie } of image.calls) wanted.set(name, cookie);
    else for (const { name, target } of programs) if (target === state.fn) wanted.set(name, 0n);
    return wanted;
  }

  /** The same for the functions of a BPF program; the value is the cookie. */
  #onProgram(state: ScenarioState): Map<string, bigint> {
    const { programs } = this.#scenario;
    const target = programs.find(({ name }) => name === 'target');
    if (!target) throw new InputError(`${this.#scenario.name}: no program is the target`);
    this.#target ??= loadProgram(this.#kernel, target, this.#mapAt);
    const wanted = new Map<string, bigint>();
    state.words.forEach((word, i) => {
      const pc = this.#placeOf(target, i) ?? state.address;
      const jumpsTo = branchTarget(word, pc, false);
      const replacement = programs.find(({ addresses }) => addresses[0] === jumpsTo);
      if (replacement) wanted.set(replacement.name, 0n);
      const called = branchTarget(word, pc, true);
      const trampoline = state.trampolines.find(({ base }) => base === called);
      const image = trampoline && readImage(trampoline, programs);
      for (const { name, cookie } of image?.calls ?? []) wanted.set(name, cookie);
    });
    return wanted;
  }

  /** Address of word `i` of all functions of a program, one after another. */
  #placeOf({ images, addresses }: ScenarioProgram, i: number): bigint | undefined {
    let first = 0;
    for (const [at, image] of images.entries()) {
      if (i < first + image.length) return (addresses[at] ?? 0n) + BigInt(4 * (i - first));
      first += image.length;
    }
    return undefined;
  }

  #playPrograms(state: ScenarioState, wanted: ReadonlyMap<string, bigint>): void {
    for (const [name, { place }] of [...this.#programs].reverse()) {
      if (place === state.fn && !wanted.has(name)) this.#detach(name);
    }
    for (const program of this.#scenario.programs) {
      const cookie = wanted.get(program.name);
      if (cookie === undefined || this.#programs.has(program.name)) continue;
      this.#attach(program, state, cookie);
    }
  }

  #attach(program: ScenarioProgram, state: ScenarioState, cookie: bigint): void {
    const { bpf } = this.#kernel;
    const loaded = loadProgram(this.#kernel, program, this.#mapAt);
    const kind =
      program.attachType === 0 ? 'freplace' : (ATTACH_KINDS[program.attachType] ?? 'fentry');
    const release = this.#steer(state);
    try {
      const { detach } = bpf.attach(loaded, kind, this.#targetOf(state), cookie);
      const undo = (): void => {
        detach();
        loaded.free();
      };
      this.#programs.set(program.name, { program: loaded, place: state.fn, undo });
    } catch (error) {
      loaded.free();
      throw error;
    } finally {
      release();
    }
  }

  /**
   * Lets the next bpf_tramp_image lie where its lowest 16 bits are 0 if theirs are, and else not, so that the address
   * takes as many instructions; gives back what was in the way.
   */
  #steer({ trampolines, literal }: ScenarioState): () => void {
    const { programs } = this.#scenario;
    const shown = trampolines.find(({ base }) => base === literal?.directCall) ?? trampolines[0];
    const image = shown && readImage(shown, programs);
    const wantsZero = image !== undefined && image.im !== 0n && (image.im & PART) === 0n;
    const { size } = this.#kernel.bpf.profile.trampImage;
    const inTheWay: bigint[] = [];
    for (;;) {
      const address = this.#kernel.kmalloc(size);
      if (((address & PART) === 0n) === wantsZero) {
        this.#kernel.kfree(address);
        break;
      }
      inTheWay.push(address);
    }
    return () => inTheWay.forEach((address) => this.#kernel.kfree(address));
  }

  #targetOf({ fn, label }: ScenarioState): string | ProgramTarget {
    if (!fn.startsWith('bpf ')) return fn;
    if (!this.#target) throw new InputError(`${this.#scenario.name}: the target is not loaded`);
    const { functions } = this.#target.xlated;
    return {
      program: this.#target,
      function: functions[label.includes('sub') ? 1 : 0]?.name ?? '',
    };
  }

  #detach(name: string): void {
    this.#programs.get(name)?.undo();
    this.#programs.delete(name);
  }

  #playOthers(state: ScenarioState): void {
    const wanted = new Set(this.#tracersOf(state).map((kind) => `${kind} ${state.fn}`));
    if (state.words[0] === KPROBE_BRK) wanted.add(`kprobe ${state.fn}`);
    for (const [key, undo] of [...this.#others].reverse()) {
      if (wanted.has(key) || !key.endsWith(` ${state.fn}`)) continue;
      undo();
      this.#others.delete(key);
    }
    for (const key of wanted) {
      if (!this.#others.has(key))
        this.#others.set(key, this.#begin(key.split(' ')[0] ?? '', state.fn));
    }
  }

  #tracersOf(state: ScenarioState): readonly TracerKind[] {
    const { ops, direct } = enabledOf(state);
    const count = ops - (direct ? 1 : 0);
    if (count === 0) return [];
    const { states, traces } = this.#scenario;
    const nameOf = ({ literal }: ScenarioState): string => literal?.symbol.split('+')[0] ?? '';
    const single = TRACERS.find(([, name]) => name === nameOf(state));
    if (single) return [single[0]];
    const known = TRACERS.filter(
      ([, name, callback]) =>
        states.some((each) => nameOf(each) === name) ||
        traces.some(({ counts }) => counts.has(callback)),
    ).map(([kind]) => kind);
    const kinds: readonly TracerKind[] = [...known, 'instance'];
    if (kinds.length < count)
      throw new InputError(`${state.label}: ${count} ops, which is not known`);
    return kinds.slice(0, count);
  }

  /** Begins one; the value ends it. */
  #begin(kind: string, fn: string): () => void {
    const { tracing, fprobes, kprobes } = this.#kernel;
    switch (kind) {
      case 'function':
        tracing.start([fn]);
        return () => tracing.stop();
      case 'instance': {
        const instance = tracing.createInstance('second');
        instance.start([fn]);
        return () => {
          instance.stop();
          tracing.removeInstance(instance);
        };
      }
      case 'graph': {
        const graph = new FunctionGraphTracer(this.#kernel);
        graph.start([fn]);
        return () => graph.stop();
      }
      case 'fprobe': {
        const fprobe: Fprobe = { name: 'scenario' };
        fprobes.register(fprobe, [fn]);
        return () => fprobes.unregister(fprobe);
      }
      default: {
        const kprobe = { name: 'scenario', address: this.#kernel.symbol(fn) };
        kprobes.register(kprobe);
        return () => kprobes.unregister(kprobe);
      }
    }
  }
}

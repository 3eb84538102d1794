/**
 * Engines that run A64 code in an emulated kernel: the lab's own JIT in its variants, and a code generator
 * from outside as a `Jit`.
 *
 * Images of a batch lie side by side in memory that is allocated once; nothing else of loading a program is
 * done. After a run the registers that a function must preserve are looked at.
 */
import { InputError, KernelError } from '../../common/errors.js';
import { callDistance } from '../../bpf/call-immediate.js';
import type { BpfHost } from '../../bpf/host.js';
import { encodeSlots, readSlots, type Slot } from '../../bpf/instruction.js';
import type { XlatedProgram } from '../../bpf/program.js';
import { compile, type JitOptions, type JitProgram } from '../../jit/program.js';
import { PROFILES } from '../../jit/profiles.js';
import { KernelOops } from '../../kernel/executor.js';
import type { Kernel } from '../../kernel/kernel.js';
import type { FuzzCase, FuzzOutcome } from './case.js';
import { BUDGET, ended, type FuzzEngine } from './engine.js';
import { ALL_FEATURES, type IsaFeatures } from './generate.js';
import { AREA_SIZE, ImageArea } from './image-area.js';
import { KernelWorkbench } from './kernel-workbench.js';
import { compileAtEdge, edgeOf } from './edge.js';
import { dirtyTasks, FRESH, lostRegisters } from './preserved.js';
import { traceKernel } from './kernel-trace.js';
import type { LinkedCase } from './workbench.js';

/** What the lab's JIT is to do differently. */
export interface JitVariant {
  /** Default: the CPU engine, and the version if it is not 6.12. */
  readonly name?: string;
  /** LSE atomics. Default true. */
  readonly lse?: boolean;
  /** CONFIG_ARM64_BTI_KERNEL. Default false. */
  readonly bti?: boolean;
  /** CONFIG_ARM64_PTR_AUTH_KERNEL. Default true. */
  readonly pac?: boolean;
  /**
   * Images lie so that a call of a helper is just within reach of BL, or just not: as far from them as BL goes.
   * Default false.
   */
  readonly edge?: boolean;
}

/** A code generator under test. */
export interface Jit {
  readonly name: string;
  /** What its programs may use. Default: everything. */
  readonly features?: IsaFeatures;
  /**
   * A64 words for the program, to be placed at `base`: called with the context in x0, result in x0. Helper
   * calls hold target - callBase.
   */
  readonly compile: (
    program: XlatedProgram,
    place: { readonly base: bigint; readonly callBase: bigint },
  ) => Uint32Array;
}

/** What a generator made of one program. */
export interface Generated {
  readonly entry: bigint;
  /** Images and offsets of instructions, if it tells. */
  readonly jit?: JitProgram;
}

/** Puts a program's code into the area. */
export type Generate = (program: XlatedProgram, area: ImageArea) => Generated;

/** Most that one image of a foreign generator takes. */
const FOREIGN_ROOM = 1 << 16;
/** Code of a case's programs, or why there is none. */
interface Placed {
  readonly linked: LinkedCase;
  readonly programs: readonly Generated[];
  readonly refusal?: string;
}

/** Runs cases in a kernel with what a generator makes of them. */
export class KernelRunner {
  readonly kernel: Kernel;
  readonly workbench: KernelWorkbench;
  readonly area: ImageArea;
  readonly #generate: Generate;

  constructor(workbench: KernelWorkbench, generate: Generate, around?: bigint) {
    this.kernel = workbench.kernel;
    this.workbench = workbench;
    this.area = new ImageArea(this.kernel, around);
    this.#generate = generate;
    this.kernel.executor.budget = BUDGET;
    this.kernel.executor.freshRegisters = FRESH;
  }

  run(cases: readonly FuzzCase[]): FuzzOutcome[] {
    const outcomes: FuzzOutcome[] = [];
    let waiting: Placed[] = [];
    const flush = (): void => {
      this.area.publish();
      for (const placed of waiting) outcomes.push(this.#execute(placed));
      waiting = [];
      this.area.clear();
    };
    for (const fuzzCase of cases) {
      if (this.area.room < AREA_SIZE / 4) flush();
      waiting.push(this.place(fuzzCase));
    }
    flush();
    return outcomes;
  }

  place(fuzzCase: FuzzCase): Placed {
    const linked = this.workbench.link(fuzzCase);
    try {
      const programs = linked.programs.map((program) => this.#generate(program, this.area));
      return { linked, programs };
    } catch (error) {
      // RangeError: what a wrong generator runs into, an operand that no encoding has
      if (!(error instanceof KernelError || error instanceof RangeError)) throw error;
      return { linked, programs: [], refusal: `JIT: ${error.message}` };
    }
  }

  #execute({ linked, programs, refusal }: Placed): FuzzOutcome {
    const { workbench } = this;
    workbench.reset(linked);
    return workbench.outcome(linked, refusal ?? this.call(linked, programs));
  }

  /** Calls the main program; how that ended. */
  call({ fuzzCase }: LinkedCase, [main, ...targets]: readonly Generated[]): string {
    const { kernel, workbench } = this;
    if (!main) throw new RangeError('no main program');
    dirtyTasks(kernel);
    const field = BigInt(kernel.bpf.profile.bpfProg.bpf_func);
    targets.forEach(({ entry }, slot) => {
      const struct = workbench.programAddresses[slot];
      if (struct !== undefined) kernel.memory.write64(struct + field, entry);
    });
    try {
      return ended(kernel.call(main.entry, workbench.context(fuzzCase))) + lostRegisters(kernel);
    } catch (error) {
      if (error instanceof KernelOops || error instanceof KernelError) return error.message;
      throw error;
    }
  }
}

function kernelEngine(
  name: string,
  features: IsaFeatures,
  workbench: KernelWorkbench,
  generate: Generate,
  around?: bigint,
): FuzzEngine {
  const runner = new KernelRunner(workbench, generate, around);
  return {
    name,
    features,
    run: (cases) => runner.run(cases),
    trace: (fuzzCase) => traceKernel(runner, fuzzCase),
    close: () => workbench.kernel.close(),
  };
}

/** The lab's own JIT, in the version of the kernel, on its CPU engine. */
export function jitEngine(workbench: KernelWorkbench, variant: JitVariant = {}): FuzzEngine {
  const { kernel } = workbench;
  const { profile, host } = kernel.bpf;
  const { version } = profile;
  const { cpuV4, acquireRelease } = PROFILES[version];
  const { cpu, config, jit: changes } = profile.codegen;
  const { lse = cpu.lse, bti = config.bti, pac = config.pac } = variant;
  const engine = kernel.cpus[0]?.engine ?? 'jit';
  const name = variant.name ?? (version === '6.12' ? engine : `${engine}:${version}`);
  const options = {
    kernel: version,
    profile: { ...PROFILES[version], ...changes },
    cpu: { ...cpu, lse },
    config: { bti, pac },
    offsets: profile.offsets,
    callBase: host.callBase,
    dummyTramp: kernel.symbol('dummy_tramp'),
  };
  const features = { v4: cpuV4, acquireRelease, sharedTailCallCount: version !== '6.1' };
  const around = variant.edge ? edgeOf(workbench) : undefined;
  const generate: Generate = (program, area) => {
    const compileAt = (place: JitOptions['place']): JitProgram =>
      compile(program, { ...options, place });
    const jit = variant.edge
      ? compileAtEdge(program, area, host.callBase, compileAt)
      : compileAt((_index, size) => area.take(size));
    for (const { base, words, pltTarget } of jit.functions) area.put(base, words, pltTarget);
    const [main] = jit.functions;
    if (!main) throw new RangeError('no image');
    return { entry: main.base, jit };
  };
  return kernelEngine(name, features, workbench, generate, around);
}

/** Calls that keep the helper's id for the lab's own JIT have a distance like all others. */
function withoutInlined(program: XlatedProgram, host: BpfHost): XlatedProgram {
  const [main, ...rest] = program.functions.map((fn) => {
    const slots = readSlots(fn.insns);
    const isInlined = ({ code, src, imm }: Slot): boolean =>
      code === 0x85 && src === 0 && host.jitInlines?.has(imm) === true;
    if (!slots.some(isInlined)) return fn;
    const changed = slots.map((slot) => {
      const address = isInlined(slot) ? host.helperAddress(slot.imm) : undefined;
      return address === undefined
        ? slot
        : { ...slot, imm: callDistance('the helper', address, host) };
    });
    return { ...fn, insns: encodeSlots(changed) };
  });
  if (!main) throw new RangeError('no functions');
  return { ...program, functions: [main, ...rest] };
}

/** A code generator from outside, on the kernel's CPU engine. */
export function foreignEngine(workbench: KernelWorkbench, jit: Jit): FuzzEngine {
  const { host } = workbench;
  const { callBase } = host;
  return kernelEngine(jit.name, jit.features ?? ALL_FEATURES, workbench, (program, area) => {
    const base = area.take(FOREIGN_ROOM);
    const words = jit.compile(withoutInlined(program, host), { base, callBase });
    if (4 * words.length > FOREIGN_ROOM) throw new InputError(`image of ${words.length} words`);
    area.put(base, words);
    return { entry: base };
  });
}

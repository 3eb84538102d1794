/**
 * Engines that cases run on, many at a time: what they have in common, and those without A64 code.
 *
 * What is compared is how a run ended, with R0, the memory behind R1, and the maps (`case.ts`).
 */
import { hex64 } from '../../common/bytes.js';
import { PlainHost } from '../../bpf/plain-host.js';
import { helperBodies } from '../../bpf/helpers/table.js';
import { FrameStack } from '../../bpf/interpreter/frames.js';
import { createInterpreter } from '../../bpf/interpreter.js';
import { describeResult, type InterpreterResult } from '../../bpf/result.js';
import { createWasmBatch } from '../../bpf/wasm.js';
import type { FuzzCase, FuzzOutcome } from './case.js';
import { ALL_FEATURES, type IsaFeatures } from './generate.js';
import { mixHelpers } from './helpers.js';
import { traceInterpreter } from './interpreter-trace.js';
import type { Trace } from './trace.js';
import { Workbench, type LinkedCase } from './workbench.js';

/** Instructions after which a run is stopped: far more than generated programs execute. */
export const BUDGET = 1_000_000;

export interface FuzzEngine {
  readonly name: string;
  /** What its programs may use. */
  readonly features: IsaFeatures;
  /** Of every how many programs it gets one. Default: all. */
  readonly every?: number;
  /** Runs each case from a clean start. Its programs pass `validate`. */
  run(cases: readonly FuzzCase[]): FuzzOutcome[];
  /** Runs a case and tells each step. */
  trace?(fuzzCase: FuzzCase): Trace;
  close(): void;
}

/** The same engine for every `every`-th program only. */
export function sampled(engine: FuzzEngine, every: number): FuzzEngine {
  return { ...engine, every };
}

/** A workbench without a kernel. */
export function plainWorkbench(): Workbench {
  const mixed = mixHelpers();
  const host = new PlainHost({ helpers: new Map([...helperBodies(), ...mixed]) });
  const own = [...mixed.keys()].map((id): [number, bigint] => [id, host.helperAddress(id) ?? 0n]);
  return new Workbench(host, new Map(own));
}

/** Something that runs a linked program once. */
interface Runnable {
  run(context: bigint, options: { readonly budget: number }): InterpreterResult;
  close(): void;
}

/** Runs `loaded` as the main program of a case. */
export function runOn(workbench: Workbench, linked: LinkedCase, loaded: Runnable): FuzzOutcome {
  workbench.reset(linked);
  const result = loaded.run(workbench.context(linked.fuzzCase), { budget: BUDGET });
  loaded.close();
  const end = result.kind === 'return' ? ended(result.r0) : describeResult(result);
  return workbench.outcome(linked, end);
}

export function ended(r0: bigint): string {
  return `return ${hex64(r0)}`;
}

export function interpreterEngine(workbench: Workbench = plainWorkbench()): FuzzEngine {
  const { host } = workbench;
  const frames = new FrameStack(host);
  return {
    name: 'interpreter',
    features: ALL_FEATURES,
    run: (cases) =>
      cases.map((fuzzCase) => {
        const linked = workbench.link(fuzzCase);
        const [main] = linked.programs;
        return runOn(workbench, linked, createInterpreter(main, host, { frames, validated: true }));
      }),
    trace: (fuzzCase) => traceInterpreter(workbench, fuzzCase),
    close: () => frames.close(),
  };
}

/** One module for all programs of a batch. */
export function wasmEngine(workbench: Workbench = plainWorkbench()): FuzzEngine {
  return {
    name: 'wasm',
    features: ALL_FEATURES,
    run: (cases) => {
      const linked = cases.map((fuzzCase) => workbench.link(fuzzCase));
      const batch = createWasmBatch(
        linked.map(({ programs }) => programs[0]),
        workbench.host,
        {
          slice: Infinity,
          validated: true,
          targets: linked.flatMap(({ programs }) => programs.slice(1)),
        },
      );
      return linked.map((each, index) => {
        const loaded = batch[index];
        if (!loaded) throw new RangeError(`no program ${index}`);
        return runOn(workbench, each, loaded);
      });
    },
    close: () => undefined,
  };
}

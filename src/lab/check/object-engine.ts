/**
 * What vectors with whole objects need of an engine: a host with helpers and maps, and a way to run a
 * loaded program on it. The interpreter's and the wasm tier's are here.
 */
import { helperBodies, type HelperOptions } from '../../bpf/helpers/table.js';
import type { BpfHost } from '../../bpf/host.js';
import { createInterpreter } from '../../bpf/interpreter.js';
import { describeResult, type InterpreterResult } from '../../bpf/result.js';
import { PlainHost } from '../../bpf/plain-host.js';
import type { XlatedProgram } from '../../bpf/program.js';
import { createWasmProgram } from '../../bpf/wasm.js';
import type { RunOutcome } from './runner.js';

export interface ObjectInstance {
  /** Runs with R1 = `context`. */
  run(context: bigint): RunOutcome;
  close(): void;
}

export interface ObjectEngine {
  /** As `--engine` names it. */
  readonly name: string;
  /** A host of its own for one object. */
  createHost(options: { readonly helpers: HelperOptions; readonly cpuCount: number }): BpfHost;
  instantiate(program: XlatedProgram, host: BpfHost): ObjectInstance;
}

const MEMORY = 8 << 20;

/** What both engines here offer once a program is loaded. */
interface Loaded {
  run(context: bigint): InterpreterResult;
  close(): void;
}

function engineOf(
  name: string,
  make: (program: XlatedProgram, host: BpfHost) => Loaded,
): ObjectEngine {
  return {
    name,
    createHost: ({ helpers, cpuCount }) =>
      new PlainHost({ helpers: helperBodies(helpers), memorySize: MEMORY, cpuCount }),
    instantiate: (program, host) => {
      const loaded = make(program, host);
      return {
        run: (context) => {
          const result = loaded.run(context);
          if (result.kind === 'return') return result;
          return { kind: 'fault', reason: describeResult(result) };
        },
        close: () => loaded.close(),
      };
    },
  };
}

export const interpreterObjects = engineOf('interpreter', createInterpreter);
export const wasmObjects = engineOf('wasm', (program, host) => createWasmProgram(program, host));

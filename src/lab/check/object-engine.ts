/**
 * What vectors with whole objects need of an engine: a host with helpers and maps, and a way to run a
 * loaded program on it. Those of the interpreter and of the wasm tier are here.
 */
import { helperBodies, type HelperOptions } from '../../bpf/helpers/table.js';
import type { BpfHost } from '../../bpf/host.js';
import { createInterpreter, type Interpreter } from '../../bpf/interpreter.js';
import { describeResult } from '../../bpf/result.js';
import { createWasmProgram } from '../../bpf/wasm.js';
import { PlainHost } from '../../bpf/plain-host.js';
import type { XlatedProgram } from '../../bpf/program.js';
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

/** Engines without a kernel. */
function plainObjects(
  name: string,
  create: (program: XlatedProgram, host: BpfHost) => Pick<Interpreter, 'run' | 'close'>,
): ObjectEngine {
  return {
    name,
    createHost: ({ helpers, cpuCount }) =>
      new PlainHost({ helpers: helperBodies(helpers), memorySize: MEMORY, cpuCount }),
    instantiate: (program, host) => {
      const loaded = create(program, host);
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

export const interpreterObjects = plainObjects('interpreter', createInterpreter);
export const wasmObjects = plainObjects('wasm', createWasmProgram);

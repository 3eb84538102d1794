/**
 * What vectors with whole objects need of an engine: a host with helpers and maps, and a way to run a
 * loaded program on it. The interpreter's is here; a wasm tier implements the same interface.
 */
import { helperBodies, type HelperOptions } from '../../bpf/helpers/table.js';
import type { BpfHost } from '../../bpf/host.js';
import { createInterpreter, describeResult } from '../../bpf/interpreter.js';
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

export const interpreterEngine: ObjectEngine = {
  name: 'interpreter',
  createHost: ({ helpers, cpuCount }) =>
    new PlainHost({ helpers: helperBodies(helpers), memorySize: MEMORY, cpuCount }),
  instantiate: (program, host) => {
    const interpreter = createInterpreter(program, host);
    return {
      run: (context) => {
        const result = interpreter.run(context);
        if (result.kind === 'return') return result;
        return { kind: 'fault', reason: describeResult(result) };
      },
      close: () => interpreter.close(),
    };
  },
};

/**
 * What vectors with whole objects need of an engine: a host with helpers and maps, and a way to run a
 * loaded program on it. The interpreter's and the wasm tier's are here, those of JIT images in
 * `jit-objects.ts`.
 */
import type { HelperVersion } from '../../bpf/helpers/checksum.js';
import { helperBodies } from '../../bpf/helpers/table.js';
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

/** A host of its own for one object, and what runs the programs loaded on it. */
export interface ObjectMachine {
  readonly host: BpfHost;
  /** Throws KernelError when the engine refuses the program. */
  instantiate(program: XlatedProgram): ObjectInstance;
  close(): void;
}

export interface ObjectMachineOptions {
  /** Whose semantics helpers have. Default 6.12. */
  readonly helpers?: HelperVersion;
  readonly cpuCount: number;
}

export interface ObjectEngine {
  /** As `--engine` names it. */
  readonly name: string;
  open(options: ObjectMachineOptions): ObjectMachine;
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
    open: ({ helpers: version = '6.12', cpuCount }) => {
      const helpers = helperBodies({ version });
      const host = new PlainHost({ helpers, memorySize: MEMORY, cpuCount });
      return {
        host,
        instantiate: (program) => instanceOf(make(program, host)),
        close: () => undefined,
      };
    },
  };
}

function instanceOf(loaded: Loaded): ObjectInstance {
  return {
    run: (context) => {
      const result = loaded.run(context);
      if (result.kind === 'return') return result;
      return { kind: 'fault', reason: describeResult(result) };
    },
    close: () => loaded.close(),
  };
}

export const interpreterObjects = engineOf('interpreter', createInterpreter);
export const wasmObjects = engineOf('wasm', (program, host) => createWasmProgram(program, host));

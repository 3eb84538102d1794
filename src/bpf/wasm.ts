/**
 * The wasm tier: an xlated program compiled to WebAssembly, on the memory that all engines share.
 *
 * Results are those of the interpreter, bit for bit, faults with access and instruction included.
 * Different is only when the instruction budget is looked at: on back edges and in functions that call
 * others, so a run that is stopped for it may have got further. Registers are locals, R10 accesses are
 * not checked at run time, others against a cached region; see the files in `wasm/`. Left out: kfuncs
 * other than by address, packet loads, arenas.
 *
 * Most of the time of making a program goes into its module, so `createWasmBatch` makes many programs
 * with one. They share stack frames and tables: one of them runs at a time.
 *
 * Usage:
 *   const wasm = createWasmProgram(program, host);
 *   const result = wasm.run(xdp.address);
 *   wasm.close();
 *
 *   for (const each of createWasmBatch(programs, host)) {
 *     each.run(xdp.address);
 *     each.close();
 *   }
 */
import { hex64, high32, join64, low32 } from '../common/bytes.js';
import { MemoryAccessError } from '../cpu/fault.js';
import { ProgramExit, type BpfHost } from './host.js';
import type { XlatedProgram } from './program.js';
import { DEFAULT_BUDGET, type InterpreterOptions, type InterpreterResult } from './result.js';
import { Runtime, StopSignal, type Entry, type StopReason } from './wasm/runtime.js';
import { MAX_CALL_FRAMES } from './wasm/state.js';

export interface WasmOptions {
  /**
   * Instructions after which a loop of the main function is first left and resumed, so that an engine
   * can bring in optimised code. Default: 2^20. Infinity: never, for programs that run briefly.
   */
  readonly slice?: number;
  /** The programs and those that they tail-call have passed `validate`. Default: they are checked. */
  readonly validated?: boolean;
  /** Programs that tail calls will reach: compiled with them. Others are when they are first called. */
  readonly targets?: readonly XlatedProgram[];
}

export class WasmProgram {
  readonly program: XlatedProgram;
  readonly #runtime: Runtime;
  readonly #entry: Entry;

  /** `createWasmProgram` and `createWasmBatch` make them. */
  constructor(program: XlatedProgram, runtime: Runtime, entry: Entry) {
    this.program = program;
    this.#runtime = runtime;
    this.#entry = entry;
  }

  /** Runs the program with R1 = `context`. */
  run(context: bigint, options: InterpreterOptions = {}): InterpreterResult {
    const runtime = this.#runtime;
    const r2 = options.r2 ?? 0n;
    const budget = options.budget ?? DEFAULT_BUDGET;
    try {
      runtime.run(this.#entry, high32(context), low32(context), high32(r2), low32(r2), budget);
    } catch (error) {
      return this.caught(error);
    }
    const { words } = runtime;
    return { kind: 'return', r0: join64(words[0] as number, words[1] as number) };
  }

  /**
   * As `run`, without allocating: true when the program returned, and then `r0` is its result's lower
   * half; otherwise `result` tells why. What helpers throw is for `caught`.
   */
  execute(contextHi: number, contextLo: number, budget: number = DEFAULT_BUDGET): boolean {
    try {
      this.#runtime.run(this.#entry, contextHi, contextLo, 0, 0, budget);
      return true;
    } catch (error) {
      if (error instanceof StopSignal) return false;
      throw error;
    }
  }

  /** Why the last `execute` came back with false. */
  get result(): InterpreterResult {
    const { reason } = this.#runtime;
    if (!reason) throw new RangeError(`program ${this.program.name} was not stopped`);
    return this.#stopped(reason);
  }

  /** Low 32 bits of R0, unsigned. */
  get r0(): number {
    return (this.#runtime.words[0] as number) >>> 0;
  }

  /** Gives stack and tables back to the host; for those of a batch the last one does. Call it once. */
  close(): void {
    this.#runtime.close();
  }

  /** What a helper threw, as a result: the end of the program, or an access that memory refused. */
  caught(error: unknown): InterpreterResult {
    const runtime = this.#runtime;
    if (error instanceof ProgramExit) {
      try {
        return { kind: 'return', r0: runtime.ended(this.program, this.#entry, error) };
      } catch (again) {
        return this.caught(again);
      }
    }
    if (error instanceof MemoryAccessError) {
      return { kind: 'fault', fault: error.fault, ...this.#place(runtime.helperSite) };
    }
    const { reason } = runtime;
    if (!(error instanceof StopSignal) || !reason) throw error;
    return this.#stopped(reason);
  }

  #stopped(reason: StopReason): InterpreterResult {
    const at = this.#place(reason.site);
    switch (reason.kind) {
      case 'fault':
        return { kind: 'fault', fault: reason.fault, ...at };
      case 'budget':
        return { kind: 'budget', ...at };
      case 'call_depth':
        return { kind: 'error', reason: `more than ${MAX_CALL_FRAMES} nested calls`, ...at };
      case 'call_target': {
        const text = `call of ${hex64(reason.target)}, where no function is`;
        return { kind: 'error', reason: text, ...at };
      }
    }
  }

  #place(site: number): { readonly function: string; readonly insn: number } {
    const { sites } = this.#runtime;
    const place = sites[site];
    if (!place) throw new RangeError(`no site ${site}`);
    return { function: place.function, insn: place.insn };
  }
}

/** Compiles `program`. Throws InputError when it cannot be run: see `validate`. */
export function createWasmProgram(
  program: XlatedProgram,
  host: BpfHost,
  options: WasmOptions = {},
): WasmProgram {
  const [wasm] = createWasmBatch([program], host, options);
  if (!wasm) throw new RangeError(`no entry for ${program.name}`);
  return wasm;
}

/**
 * Compiles programs into one module; they come in the same order. Throws InputError when one of them
 * cannot be run.
 */
export function createWasmBatch(
  programs: readonly XlatedProgram[],
  host: BpfHost,
  options: WasmOptions = {},
): WasmProgram[] {
  if (programs.length === 0) return [];
  const nests = programs.some(({ functions }) => functions.length > 1);
  const runtime = new Runtime(host, nests ? MAX_CALL_FRAMES : 1, options);
  try {
    const entries = runtime.load(programs, options.targets);
    runtime.share(programs.length);
    return programs.map((program, index) => {
      return new WasmProgram(program, runtime, entries[index] as Entry);
    });
  } catch (error) {
    runtime.close();
    throw error;
  }
}

/**
 * The eBPF interpreter: runs an xlated program on a `BpfHost`.
 *
 * Decoding happens once, a run allocates nothing but its result (`execute` not even that), so one
 * interpreter serves a stream of packets. Semantics are those of RFC 9669 and kernel/bpf/core.c:
 * division by zero gives 0, modulo by zero leaves dst, shift amounts are masked. A program is not
 * verified: what it does wrong at run time comes back as a value. Left out: kfuncs other than by
 * address, packet loads (LD_ABS, LD_IND), arenas.
 *
 * Usage:
 *   const interpreter = createInterpreter(program, host);
 *   const result = interpreter.run(xdp.address);
 *   if (result.kind === 'return') print(XDP_ACTIONS[Number(result.r0)]);
 */
import { hex64, high32, join64, low32 } from '../common/bytes.js';
import { MemoryAccessError } from '../cpu/fault.js';
import { ProgramExit, type BpfHost } from './host.js';
import { execute } from './interpreter/execute.js';
import { runCallback } from './interpreter/callback.js';
import { CODE_START, locate, type LinkedProgram } from './interpreter/link.js';
import { MAX_CALL_FRAMES } from './interpreter/frames.js';
import { CallbackStop, Machine, OUTCOME, type MachineOptions } from './interpreter/machine.js';
import type { XlatedProgram } from './program.js';
import { DEFAULT_BUDGET, type InterpreterOptions, type InterpreterResult } from './result.js';

export { describeResult, type InterpreterOptions, type InterpreterResult } from './result.js';

export class Interpreter {
  readonly program: XlatedProgram;
  readonly #machine: Machine;
  readonly #main: LinkedProgram;
  #outcome: number = OUTCOME.RETURN;

  constructor(program: XlatedProgram, host: BpfHost, options: MachineOptions = {}) {
    this.program = program;
    this.#machine = new Machine(host, program, runCallback, options);
    this.#main = this.#machine.linked;
  }

  /** Instructions executed by the last run; ld_imm64 counts as one. */
  get executed(): number {
    return this.#machine.executed + this.#machine.callbackExecuted;
  }

  /** Runs the program with R1 = `context`. */
  run(context: bigint, options: InterpreterOptions = {}): InterpreterResult {
    const { words } = this.#main;
    try {
      const r2 = options.r2 ?? 0n;
      const budget = options.budget ?? DEFAULT_BUDGET;
      this.#start(high32(context), low32(context), high32(r2), low32(r2), budget);
    } catch (error) {
      return this.caught(error);
    }
    if (this.#outcome === OUTCOME.RETURN && this.#machine.linked === this.#main) {
      return { kind: 'return', r0: join64(words[0], words[1]) };
    }
    return this.result;
  }

  /**
   * As `run`, without allocating: true when the program returned, and then `r0` is its result's lower
   * half; `result` tells more. What helpers throw is for `caught`.
   */
  execute(contextHi: number, contextLo: number, budget: number = DEFAULT_BUDGET): boolean {
    this.#start(contextHi, contextLo, 0, 0, budget);
    return this.#outcome === OUTCOME.RETURN;
  }

  /** Low 32 bits of R0, unsigned. */
  get r0(): number {
    return this.#machine.linked.words[0] >>> 0;
  }

  /** How the last run ended. */
  get result(): InterpreterResult {
    const machine = this.#machine;
    const { words } = machine.linked;
    const at = locate(machine.linked, machine.record);
    switch (this.#outcome) {
      case OUTCOME.RETURN:
        return { kind: 'return', r0: join64(words[0], words[1]) };
      case OUTCOME.BUDGET:
        return { kind: 'budget', ...at };
      case OUTCOME.FAULT: {
        const { address, accessSize: size, access } = machine;
        const fault = machine.host.memory.faultAt(address, size, access);
        return {
          kind: 'fault',
          fault: fault ?? { access, address, size, reason: 'unmapped' },
          ...at,
        };
      }
      case OUTCOME.CALL_DEPTH:
        return { kind: 'error', reason: `more than ${MAX_CALL_FRAMES} nested calls`, ...at };
      default: {
        const reason = `call of ${hex64(machine.address)}, where no function is`;
        return { kind: 'error', reason, ...at };
      }
    }
  }

  /** Gives the stack back to the host, if it is its own. */
  close(): void {
    this.#machine.close();
  }

  #start(r1Hi: number, r1Lo: number, r2Hi: number, r2Lo: number, budget: number): void {
    const { words } = this.#main;
    const machine = this.#machine;
    words.fill(0, 0, CODE_START);
    words[2] = r1Lo;
    words[3] = r1Hi;
    words[4] = r2Lo;
    words[5] = r2Hi;
    machine.start(this.#main, budget);
    try {
      this.#outcome = this.#execute(budget);
    } catch (error) {
      if (!(error instanceof CallbackStop)) throw error;
      this.#outcome = error.outcome;
    } finally {
      machine.running = false;
    }
  }

  /** Runs to the end, also where exceptions end programs that functions have tail-called. */
  #execute(budget: number): number {
    let entry = CODE_START;
    for (;;) {
      try {
        return execute(this.#machine, entry, budget);
      } catch (error) {
        entry = this.#afterException(error);
      }
    }
  }

  /** The record where the caller of a tail-called program goes on. Throws what is no exception of such a one. */
  #afterException(error: unknown): number {
    const machine = this.#machine;
    if (!(error instanceof ProgramExit && error.isException && machine.unwind())) throw error;
    const r0 = this.#handle(error.r0);
    const record = machine.pop();
    machine.linked.values[0] = r0;
    return record;
  }

  /** What a helper threw, as a result: the end of the program, or an access that memory refused. */
  caught(error: unknown): InterpreterResult {
    if (error instanceof ProgramExit) return this.#ended(error);
    if (!(error instanceof MemoryAccessError)) throw error;
    const machine = this.#machine;
    return { kind: 'fault', fault: error.fault, ...locate(machine.linked, machine.record) };
  }

  #ended({ r0, isException }: ProgramExit): InterpreterResult {
    if (!isException) return { kind: 'return', r0 };
    try {
      return { kind: 'return', r0: this.#handle(r0) };
    } catch (error) {
      if (!(error instanceof CallbackStop)) return this.caught(error);
      this.#outcome = error.outcome;
      return this.result;
    }
  }

  /** What the exception callback of the program that runs, whichever tail calls led there, makes of an exception. */
  #handle(cookie: bigint): bigint {
    const machine = this.#machine;
    const { linked } = machine;
    const callback = linked.program.functions.findIndex((fn) => fn.exceptionCallback);
    const entry = linked.entries[callback];
    if (entry === undefined) return cookie;
    const registers = new Int32Array(CODE_START);
    registers[2] = low32(cookie);
    registers[3] = high32(cookie);
    runCallback(machine, linked, entry, registers);
    return join64(registers[0] ?? 0, registers[1] ?? 0);
  }
}

/**
 * Decodes `program`. Throws InputError when it cannot be run: see `validate`. Who makes many shares frames
 * between them.
 */
export function createInterpreter(
  program: XlatedProgram,
  host: BpfHost,
  options: MachineOptions = {},
): Interpreter {
  return new Interpreter(program, host, options);
}

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
import { describeFault, MemoryAccessError, type AccessFault } from '../cpu/fault.js';
import { ProgramExit, type BpfHost } from './host.js';
import { execute } from './interpreter/execute.js';
import { runCallback } from './interpreter/callback.js';
import { CODE_START, locate, type LinkedProgram } from './interpreter/link.js';
import { CallbackStop, Machine, MAX_CALL_FRAMES, OUTCOME } from './interpreter/machine.js';
import type { XlatedProgram } from './program.js';

/** How a run ended. `insn` is a slot number in `function`. */
export type InterpreterResult =
  | { readonly kind: 'return'; readonly r0: bigint }
  | {
      readonly kind: 'fault';
      readonly fault: AccessFault;
      readonly insn: number;
      readonly function: string;
    }
  /** The budget of instructions is used up. */
  | { readonly kind: 'budget'; readonly insn: number; readonly function: string }
  /** More than 8 nested calls, or a call through a register that points nowhere. */
  | {
      readonly kind: 'error';
      readonly reason: string;
      readonly insn: number;
      readonly function: string;
    };

export interface InterpreterOptions {
  /** R2 at entry. Default: 0. */
  readonly r2?: bigint;
  /** About how many instructions may be executed (checked on jumps). Default: 1e9. */
  readonly budget?: number;
}

const DEFAULT_BUDGET = 1e9;

export class Interpreter {
  readonly program: XlatedProgram;
  readonly #machine: Machine;
  readonly #main: LinkedProgram;
  #outcome: number = OUTCOME.RETURN;

  constructor(program: XlatedProgram, host: BpfHost) {
    this.program = program;
    this.#machine = new Machine(host, program, runCallback);
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
      return this.#caught(error);
    }
    if (this.#outcome === OUTCOME.RETURN && this.#machine.linked === this.#main) {
      return { kind: 'return', r0: join64(words[0], words[1]) };
    }
    return this.result;
  }

  /**
   * As `run`, without allocating: true when the program returned, and then `r0` is its result's lower
   * half; `result` tells more. What helpers throw (ProgramExit, MemoryAccessError) is not caught.
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

  /** Gives the stack back to the host. */
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
    machine.start(this.#main, words, budget);
    try {
      this.#outcome = execute(machine, CODE_START, budget);
    } catch (error) {
      if (!(error instanceof CallbackStop)) throw error;
      this.#outcome = error.outcome;
    } finally {
      machine.running = false;
    }
  }

  /** What a helper threw: the end of the program, or an access that memory refused. */
  #caught(error: unknown): InterpreterResult {
    if (error instanceof ProgramExit) return { kind: 'return', r0: error.r0 };
    if (!(error instanceof MemoryAccessError)) throw error;
    const machine = this.#machine;
    return { kind: 'fault', fault: error.fault, ...locate(machine.linked, machine.record) };
  }
}

/** Decodes `program`. Throws InputError when it cannot be run: see `validate`. */
export function createInterpreter(program: XlatedProgram, host: BpfHost): Interpreter {
  return new Interpreter(program, host);
}

/** One line: `main insn 3: write of 8 bytes at 0x0000000000000010: no memory there`. */
export function describeResult(result: InterpreterResult): string {
  switch (result.kind) {
    case 'return':
      return `returned ${hex64(result.r0)}`;
    case 'fault':
      return `${result.function} insn ${result.insn}: ${describeFault(result.fault)}`;
    case 'budget':
      return `${result.function} insn ${result.insn}: the budget of instructions is used up`;
    case 'error':
      return `${result.function} insn ${result.insn}: ${result.reason}`;
  }
}

/**
 * What the lab asks of a CPU engine, so that ours and libunicorn can stand in for each other.
 *
 * A `Cpu` executes A64 at EL1 on a `Memory` shared with other CPUs. Exceptions are not vectored:
 * the engine stops and returns what happened. What a CPU fetches is its own view of text until
 * `sync` renews it (Arm ARM B2.2.5: instruction fetch is not coherent with stores).
 *
 * Left out: EL0/EL2/EL3, the MMU, interrupts, floating point and SIMD, PAC (PACIASP and AUTIASP act as
 * NOPs). BTI is a NOP except on the embedded engine in regions that are `guarded`.
 */
import type { AccessFault } from './fault.js';
import type { Memory } from './memory.js';

/** System registers that the lab's code reads and writes. */
export type SystemRegister = 'sp_el0' | 'tpidr_el1' | 'tpidr_el2' | 'tpidr_el0';

/** Register number of SP in traces and in `Registers` indexing; 0..30 are X0..X30. */
export const SP = 31;
/** Pseudo register number of NZCV in traces. */
export const NZCV = 32;
/** Pseudo register number of the program counter, for access by halves. */
export const PC = 33;

/** All architectural state of one CPU that the lab models. */
export interface Registers {
  /** X0..X30. */
  readonly x: readonly bigint[];
  readonly sp: bigint;
  readonly pc: bigint;
  /** N=8 Z=4 C=2 V=1. */
  readonly nzcv: number;
  readonly system: Readonly<Record<SystemRegister, bigint>>;
}

/** Why `run` or `step` came back. `pc` is where execution would go on. */
export type Stop =
  /** `pc` reached the stop address; it has not been executed. */
  | { readonly kind: 'until' }
  /** The budget of instructions is used up. */
  | { readonly kind: 'budget' }
  /** `pc` reached a breakpoint; it has not been executed. */
  | { readonly kind: 'breakpoint'; readonly address: bigint }
  /** BRK, SVC, HVC, SMC or HLT; `pc` is at that instruction for all of them. */
  | {
      readonly kind: 'trap';
      readonly instruction: 'brk' | 'svc' | 'hvc' | 'smc' | 'hlt';
      /** The 16-bit immediate. */
      readonly immediate: number;
    }
  /** The word at `pc` is no instruction (or none this lab knows); it has not been executed. */
  | { readonly kind: 'undefined'; readonly word: number }
  /** A memory access was refused; `pc` is at the accessing instruction (fetch: at the target). */
  | { readonly kind: 'fault'; readonly fault: AccessFault };

/** One register that an executed instruction changed. `register`: 0..30, `SP` or `NZCV`. */
export interface RegisterChange {
  readonly register: number;
  readonly value: bigint;
}

/** One executed instruction. */
export interface TraceEntry {
  readonly pc: bigint;
  readonly word: number;
  /** Registers whose value differs after the instruction (pc excluded), in register order. */
  readonly changes: readonly RegisterChange[];
}

export interface RunOptions {
  /** Stop before executing this address. Default: none. */
  readonly until?: bigint;
  /** Most instructions to execute. Default: 1e9. */
  readonly budget?: number;
}

export interface Cpu {
  /** `embedded` or `unicorn`. */
  readonly engine: string;
  readonly memory: Memory;
  /** False for an engine that works on copies of pages. */
  readonly sharesMemory: boolean;

  /** X0..X30 by number. */
  getX(register: number): bigint;
  setX(register: number, value: bigint): void;
  sp: bigint;
  pc: bigint;
  /** The halves of X0..X30, `SP` or `PC` as Int32, for those who make no bigint. */
  low(register: number): number;
  high(register: number): number;
  setHalves(register: number, lo: number, hi: number): void;
  /** N=8 Z=4 C=2 V=1. */
  nzcv: number;
  getSystem(register: SystemRegister): bigint;
  setSystem(register: SystemRegister, value: bigint): void;

  saveRegisters(): Registers;
  loadRegisters(registers: Registers): void;

  /** Instructions executed since the CPU was made. */
  readonly executed: number;

  /**
   * Looks at the stop address, then at breakpoints, then at the budget before every instruction, the first
   * included: a run that starts at one of them stops there at once; `step` gets past a breakpoint.
   */
  run(options?: RunOptions): Stop;
  /** Executes one instruction (breakpoints do not stop it); `budget` means it was executed. */
  step(): Stop;

  addBreakpoint(address: bigint): void;
  removeBreakpoint(address: bigint): void;

  /** From here on fetches in [start, end) see what memory holds now. */
  sync(start: bigint, end: bigint): void;

  /** Starts recording every executed instruction. What was recorded before is dropped. */
  startTrace(): void;
  /** Ends recording and returns what was executed, in order. */
  stopTrace(): TraceEntry[];

  /** Frees what the engine holds outside JavaScript. */
  close(): void;
}

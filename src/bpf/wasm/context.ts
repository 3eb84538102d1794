/**
 * What the code generator knows while it writes a module, one program, one function.
 *
 * A site is a place that may stop a run; its number goes to the runtime, which finds function and slot.
 */
import type { BpfHost, HelperBody } from '../host.js';
import type { Slot } from '../instruction.js';
import type { BpfMap } from '../maps/map.js';
import type { CodeWriter, ValueType } from './emitter.js';
import type { Flow } from './flow.js';
import type { Needs } from './liveness.js';
import type { Origins } from './origins.js';

export interface Site {
  readonly function: string;
  readonly insn: number;
}

/** A function of the program, analysed. */
export interface FunctionPlan {
  readonly index: number;
  readonly name: string;
  readonly slots: readonly Slot[];
  readonly flow: Flow;
  readonly origins: Origins;
  /** Written as a chain of dispatch loops instead of structured control flow. */
  readonly isChunked: boolean;
  /** Other functions, or itself, may call it. */
  readonly isCalled: boolean;
  /** A run that was interrupted in a loop of this function can go on there. */
  readonly canResume: boolean;
  /**
   * Who counts its instructions: itself block by block, in a local; itself as a whole when it is
   * called; or its callers.
   */
  readonly fuel: 'blocks' | 'entry' | 'callers';
  /** Small and without loops and calls: written in place of calls of it. */
  readonly isInlined: boolean;
  readonly usesFrame: boolean;
  /** R1 up to this one are handed over; the others it does not read before it writes them. */
  readonly parameters: number;
  /** Instructions, ld_imm64 as one. */
  readonly length: number;
  readonly classes: readonly PointerClass[];
}

/** Accesses that share a cached region. */
export interface PointerClass {
  /** Offset of its slot in the backing store. */
  slot: number;
  needsWrite: boolean;
  /** Bytes that all its accesses have; 0 when they differ. */
  size: number;
  inLoop: boolean;
}

/** Indexes of imported functions. */
export interface Imports {
  readonly miss: number;
  readonly refresh: number;
  readonly stop: number;
  readonly refill: number;
  readonly tail: number;
  readonly callHelper: number;
}

/** What all programs of a module share. */
export interface ModuleContext {
  readonly host: BpfHost;
  /** Offset of the state region in the backing store. */
  readonly state: number;
  readonly imports: Imports;
  /** The slow path of accesses. */
  readonly locate: number;
  /** (R1..R5, depth) -> R0: functions that are called through the table. */
  readonly bpfType: number;
  /** (block, depth) -> next block or -1 */
  readonly chunkType: number;
  /** Globals that hold what a helper body takes: registers and host. */
  readonly helperArguments: readonly number[];
  /** Import index of the helper at an entry address. */
  helper(address: bigint): number;
  /** Writes a small function in place of a call of it. */
  inline(caller: FunctionContext, plan: FunctionPlan): void;
  bodyOf(address: bigint): HelperBody | undefined;
  site(plan: FunctionPlan, insn: number): number;
  /** Index of a function that the module has once for each key; made when it is first asked for. */
  shared(key: object | string, shape: SharedFunction): number;
  /** Code looks into this map itself. */
  uses(map: BpfMap): void;
}

export interface SharedFunction {
  readonly parameters: readonly ValueType[];
  readonly results: readonly ValueType[];
  readonly locals: readonly (readonly [number, ValueType])[];
  readonly write: (code: CodeWriter) => void;
}

export interface ProgramContext extends ModuleContext {
  /** Address of function 0; undefined when the program takes no addresses of functions. */
  readonly callbackBase: bigint | undefined;
  readonly plans: readonly FunctionPlan[];
  readonly needs: Needs;
  /** Index of each BPF function. */
  readonly functions: readonly number[];
  /** Table index of function 0; the others follow. */
  readonly firstEntry: number;
}

/** Numbers of the locals of a wasm function. */
export interface Locals {
  /** R0..R11. */
  readonly registers: readonly number[];
  /** i64 */
  readonly address: number;
  readonly temporary: number;
  /** i32 */
  readonly depth: number;
  readonly at: number;
  readonly second: number;
  readonly fuel: number;
  readonly frame: number;
  readonly generation: number;
  readonly resume: number;
  readonly next: number;
  /** Copies of slots, by class. */
  readonly copies: ReadonlyMap<PointerClass, SlotCopy>;
  /** R0..R11 and the frame of a function written in place; undefined when there is none. */
  readonly inlined: { readonly registers: readonly number[]; readonly frame: number } | undefined;
}

export interface SlotCopy {
  readonly lo: number;
  /** Of a class with one size: the region's size less that. */
  readonly limit: number;
  readonly delta: number;
}

export interface FunctionContext {
  readonly program: ProgramContext;
  readonly plan: FunctionPlan;
  readonly code: CodeWriter;
  readonly locals: Locals;
  /** Writes the way out with R0 and what callers need. */
  leave(): void;
}

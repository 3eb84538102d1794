/**
 * What one interpreter holds besides the program: stack frames, saved registers, the reason of a stop.
 *
 * The frames themselves may be shared with other interpreters of the host (`frames.ts`).
 */
import { join64 } from '../../common/bytes.js';
import type { AccessKind } from '../../cpu/fault.js';
import type { BpfHost } from '../host.js';
import type { XlatedProgram } from '../program.js';
import { FrameStack, MAX_CALL_FRAMES } from './frames.js';
import {
  CODE_START,
  linkProgram,
  type CallbackRunner,
  type LinkedProgram,
  type Magnitude,
} from './link.js';

/** R6..R9 */
const SAVED_REGISTERS = 4;

export interface MachineOptions {
  /** Stack frames to use; whoever made them closes them. Default: its own. */
  readonly frames?: FrameStack | undefined;
  /** The program and those that it tail-calls have passed `validate`. Default: they are checked. */
  readonly validated?: boolean | undefined;
  /** How signed division of 32 bits takes magnitudes. Default 'u32', which is right. */
  readonly magnitude?: Magnitude | undefined;
}

/** Why the loop ended. */
export const OUTCOME = {
  RETURN: 0,
  FAULT: 1,
  BUDGET: 2,
  CALL_DEPTH: 3,
  CALL_TARGET: 4,
} as const;

/** Thrown through a helper when the function it called back did not return. */
export class CallbackStop extends Error {
  readonly outcome: number;

  constructor(outcome: number) {
    super('a callback did not return');
    this.name = 'CallbackStop';
    this.outcome = outcome;
  }
}

export class Machine {
  readonly host: BpfHost;
  /** The program that runs: changes with a tail call. */
  linked: LinkedProgram;
  depth = 0;
  /** Depth at which `exit` ends the loop: that of the program, or of the callback that runs. */
  baseDepth = 0;
  /** Whether a program runs. */
  running = false;
  /** What callbacks may still execute, and what they have executed. */
  callbackBudget = 0;
  callbackExecuted = 0;
  /** Programs are known to be valid. */
  readonly validated: boolean;
  readonly magnitude: Magnitude;
  /** How functions of its programs are called back. */
  readonly runCallback: CallbackRunner;
  /** Tail calls of this run. */
  tailCalls = 0;
  /** Record of the last call, or of what stopped the run. */
  record = 0;
  /** Instructions executed by this run. */
  executed = 0;
  /** The refused access, or the unknown call target. */
  addressHi = 0;
  addressLo = 0;
  accessSize = 0;
  access: AccessKind = 'read';
  /** Programs that tail calls have reached, decoded. */
  readonly targets = new Map<XlatedProgram, LinkedProgram>();

  readonly #main: LinkedProgram;
  readonly #saved = new BigInt64Array(MAX_CALL_FRAMES * SAVED_REGISTERS);
  /** Where each depth goes on when its callee returns: record, or its complement behind a tail call, and program. */
  readonly #returns = new Int32Array(MAX_CALL_FRAMES);
  readonly #callers: LinkedProgram[] = [];
  readonly #frames: FrameStack;
  readonly #ownsFrames: boolean;
  /** Frame pointer of each depth. */
  readonly #framePointers: BigInt64Array;

  constructor(
    host: BpfHost,
    program: XlatedProgram,
    runCallback: (machine: Machine, ...args: Parameters<CallbackRunner>) => void,
    options: MachineOptions = {},
  ) {
    this.host = host;
    this.validated = options.validated ?? false;
    this.#ownsFrames = options.frames === undefined;
    this.#frames = options.frames ?? new FrameStack(host);
    this.#framePointers = this.#frames.pointers;
    this.runCallback = (linked, entry, registers) => runCallback(this, linked, entry, registers);
    this.magnitude = options.magnitude ?? 'u32';
    this.linked = linkProgram(program, host, this.runCallback, this.validated, this.magnitude);
    this.#main = this.linked;
  }

  /** Ready to run `linked` from the outermost frame. */
  start(linked: LinkedProgram, budget: number): void {
    this.linked = linked;
    this.depth = 0;
    this.baseDepth = 0;
    this.tailCalls = 0;
    this.running = true;
    this.callbackBudget = budget;
    this.callbackExecuted = 0;
    this.#setFramePointer();
  }

  /** Points R10 at the stack of the current depth. */
  #setFramePointer(): void {
    const { depth } = this;
    if (depth >= this.#frames.mapped) this.#frames.grow();
    this.linked.values[10] = this.#framePointers[depth];
  }

  /** Saves what the callee must not change; false when the calls are nested too deep. */
  push(returnRecord: number): boolean {
    const { depth, linked } = this;
    if (depth + 1 >= MAX_CALL_FRAMES) return false;
    const { values } = linked;
    const saved = this.#saved;
    const base = depth * SAVED_REGISTERS;
    saved[base] = values[6];
    saved[base + 1] = values[7];
    saved[base + 2] = values[8];
    saved[base + 3] = values[9];
    this.#returns[depth] = returnRecord;
    this.#callers[depth] = linked;
    this.depth = depth + 1;
    this.#setFramePointer();
    return true;
  }

  /** Back to the caller: restores its registers and gives the record to go on at. */
  pop(): number {
    const depth = this.depth - 1;
    this.depth = depth;
    const caller = this.#callers[depth];
    if (caller !== this.linked) this.switchTo(caller);
    const { values } = caller;
    const saved = this.#saved;
    const base = depth * SAVED_REGISTERS;
    values[6] = saved[base];
    values[7] = saved[base + 1];
    values[8] = saved[base + 2];
    values[9] = saved[base + 3];
    values[10] = this.#framePointers[depth];
    const record = this.#returns[depth];
    return record < 0 ? ~record : record;
  }

  /** A tail call put another program into this frame: an exception goes no further than to its caller. */
  enterByTailCall(): void {
    const caller = this.depth - 1;
    const record = this.#returns[caller] ?? 0;
    if (caller >= this.baseDepth && record >= 0) this.#returns[caller] = ~record;
  }

  /** Drops the frames above the last one that a tail call entered; false where none did. */
  unwind(): boolean {
    for (let caller = this.depth - 1; caller >= this.baseDepth; caller--) {
      if (this.#returns[caller] >= 0) continue;
      this.depth = caller + 1;
      return true;
    }
    return false;
  }

  /** Goes on with another program: its registers take the present values. */
  switchTo(next: LinkedProgram): void {
    next.words.set(this.linked.words.subarray(0, CODE_START));
    this.linked = next;
  }

  /** `count + record` is 8 times the number of instructions executed but not summed up. */
  stopAt(count: number, record: number, outcome: number): number {
    this.executed += (count + record) / 8;
    this.record = record;
    return outcome;
  }

  /** Keeps what memory has refused. */
  refuse(hi: number, lo: number, size: number, access: AccessKind): void {
    this.addressHi = hi;
    this.addressLo = lo;
    this.accessSize = size;
    this.access = access;
  }

  get address(): bigint {
    return join64(this.addressLo, this.addressHi);
  }

  /** Gives the stack frames and function addresses back to the host. */
  close(): void {
    for (const { callbackBase } of [this.#main, ...this.targets.values()]) {
      if (callbackBase !== undefined) this.host.removeCallbacks(callbackBase);
    }
    if (this.#ownsFrames) this.#frames.close();
  }
}

/**
 * What one interpreter holds besides the program: stack frames, saved registers, the reason of a stop.
 *
 * Each call depth has 512 bytes of stack in a region of its own, so an access beyond a frame faults.
 * Frames are mapped when a depth is first reached and kept. Reference: MAX_BPF_STACK and
 * MAX_CALL_FRAMES in include/linux/{filter,bpf_verifier}.h.
 */
import { high32, join64, low32 } from '../../common/bytes.js';
import type { AccessKind } from '../../cpu/fault.js';
import type { Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';
import type { XlatedProgram } from '../program.js';
import type { LinkedProgram } from './link.js';

/** MAX_BPF_STACK */
export const STACK_SIZE = 512;
/** MAX_CALL_FRAMES */
export const MAX_CALL_FRAMES = 8;
/** Words a call saves: return record, R6..R9, R10. */
const SAVED_WORDS = 11;

/** Why the loop ended. */
export const OUTCOME = {
  RETURN: 0,
  FAULT: 1,
  BUDGET: 2,
  CALL_DEPTH: 3,
  CALL_TARGET: 4,
} as const;

export class Machine {
  readonly host: BpfHost;
  /** The program that runs: changes with a tail call. */
  linked: LinkedProgram;
  depth = 0;
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

  readonly #saved = new Int32Array(MAX_CALL_FRAMES * SAVED_WORDS);
  readonly #callers: LinkedProgram[] = [];
  readonly #frames: Region[] = [];
  /** Frame pointer of each depth, (lo, hi). */
  readonly #framePointers = new Int32Array(2 * MAX_CALL_FRAMES);

  constructor(host: BpfHost, linked: LinkedProgram) {
    this.host = host;
    this.linked = linked;
  }

  /** Points R10 at the stack of the current depth. */
  setFramePointer(words: Int32Array): void {
    if (this.depth >= this.#frames.length) {
      const frame = this.host.allocate(`bpf_stack_${this.depth}`, STACK_SIZE);
      this.#frames.push(frame);
      const top = frame.address + BigInt(STACK_SIZE);
      this.#framePointers[2 * this.depth] = low32(top);
      this.#framePointers[2 * this.depth + 1] = high32(top);
    }
    words[20] = this.#framePointers[2 * this.depth];
    words[21] = this.#framePointers[2 * this.depth + 1];
  }

  /** Saves what the callee must not change; false when the calls are nested too deep. */
  push(words: Int32Array, returnRecord: number): boolean {
    if (this.depth + 1 >= MAX_CALL_FRAMES) return false;
    const saved = this.#saved;
    const base = this.depth * SAVED_WORDS;
    saved[base] = returnRecord;
    for (let i = 0; i < 10; i++) saved[base + 1 + i] = words[12 + i];
    this.#callers[this.depth] = this.linked;
    this.depth++;
    this.setFramePointer(words);
    return true;
  }

  /** Back to the caller: restores its registers and gives the record to go on at. */
  pop(): number {
    this.depth--;
    const base = this.depth * SAVED_WORDS;
    const callee = this.linked;
    const caller = this.#callers[this.depth];
    if (caller !== callee) this.switchTo(caller);
    const { words } = this.linked;
    for (let i = 0; i < 10; i++) words[12 + i] = this.#saved[base + 1 + i];
    return this.#saved[base];
  }

  /** Goes on with another program: its registers take the present values. */
  switchTo(next: LinkedProgram): void {
    next.words.set(this.linked.words.subarray(0, 22));
    this.linked = next;
  }

  /** `count + record` is 8 times the number of instructions executed but not summed up. */
  stopAt(count: number, record: number, outcome: number): number {
    this.executed += (count + record) / 8;
    this.record = record;
    return outcome;
  }

  fault(
    count: number,
    record: number,
    hi: number,
    lo: number,
    size: number,
    access: AccessKind,
  ): number {
    this.addressHi = hi;
    this.addressLo = lo;
    this.accessSize = size;
    this.access = access;
    return this.stopAt(count, record, OUTCOME.FAULT);
  }

  get address(): bigint {
    return join64(this.addressLo, this.addressHi);
  }

  /** Gives the stack frames back to the host. */
  close(): void {
    for (const frame of this.#frames.splice(0)) this.host.release(frame);
  }
}

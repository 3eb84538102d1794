/**
 * Calls of helpers that the verifier replaces, with what it knows of their arguments.
 *
 * Reference: do_misc_fixups and optimize_bpf_loop in kernel/bpf/verifier.c. What needs no knowledge is in
 * `inline-helpers.ts`.
 *
 * Usage:
 *   const calls = new CallInliner(flow, host);
 *   const slots = calls.at(index, helperId);     // put them in place of the call
 *   const inlined = calls.inlined(moved);        // what engines may do as a call again
 */
import type { BpfHost } from '../host.js';
import { makeSlot, type Slot } from '../instruction.js';
import { callImmediate } from '../call-immediate.js';
import type { InlinedCall } from '../program.js';
import type { FunctionFlow } from './data-flow.js';
import { inlineLoop, stackWithLoops } from './inline-loop.js';
import { inlineMapCall } from './inline-maps.js';

const CALL = 0x85;
const LDX_DW = 0x79;
const LD_IMM64 = 0x18;
const LOOP = 181;
const JIFFIES64 = 118;
/** Stack that engines without a JIT have for a function. */
const MAX_STACK = 512;

/** Of one function. */
export class CallInliner {
  /** Bytes of stack below R10, those of inlined loops included. */
  readonly stackDepth: number;
  readonly #flow: FunctionFlow;
  readonly #host: BpfHost;
  /** By slot of the call: how many slots took its place, and which of them looks something up. */
  readonly #calls = new Map<number, { readonly length: number; readonly at: number; call: Slot }>();

  constructor(flow: FunctionFlow, host: BpfHost) {
    this.#flow = flow;
    this.#host = host;
    const loops = [...(flow.loops?.values() ?? [])].some((callback) => callback !== undefined);
    this.stackDepth = loops ? stackWithLoops(flow.stackDepth) : flow.stackDepth;
  }

  /** The instructions for the call of helper `id` in slot `slot`; undefined when it stays one. */
  at(slot: number, id: number): readonly Slot[] | undefined {
    if (id === JIFFIES64) return this.#jiffies();
    if (id === LOOP) return this.#loop(slot);
    const map = this.#flow.maps?.get(slot);
    const inlined = map && inlineMapCall(id, map, this.#host);
    if (inlined?.lookupAt !== undefined) this.#note(slot, id, inlined.slots, inlined.lookupAt);
    return inlined?.slots;
  }

  /** @param moved where each slot went when the instructions were put in */
  inlined(moved: readonly number[]): readonly InlinedCall[] {
    return [...this.#calls].map(([slot, { length, at, call }]) => {
      const first = moved[slot] ?? 0;
      return { first, length, at: first + at, call };
    });
  }

  #note(slot: number, id: number, { length }: readonly Slot[], at: number): void {
    const imm = callImmediate(this.#host, id);
    if (imm !== undefined) this.#calls.set(slot, { length, at, call: makeSlot(CALL, { imm }) });
  }

  /** r0 = &jiffies; r0 = *(u64 *)(r0 +0) */
  #jiffies(): readonly Slot[] | undefined {
    const address = this.#host.symbolAddress?.('jiffies');
    if (address === undefined) return undefined;
    const low = Number(BigInt.asIntN(32, address));
    const high = Number(BigInt.asIntN(32, address >> 32n));
    return [makeSlot(LD_IMM64, { imm: low }), makeSlot(0, { imm: high }), makeSlot(LDX_DW)];
  }

  #loop(slot: number): readonly Slot[] | undefined {
    const callback = this.#flow.loops?.get(slot);
    if (callback === undefined) return undefined;
    const slots = inlineLoop(callback, this.stackDepth);
    // the loop's own part of the stack is one that only a JIT image has then
    if (this.stackDepth > MAX_STACK) this.#note(slot, LOOP, slots, 0);
    return slots;
  }
}

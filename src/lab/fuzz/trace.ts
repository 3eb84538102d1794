/**
 * What an engine did with a case, BPF instruction by BPF instruction, so that two of them can be laid side by
 * side.
 *
 * The effect of an instruction is what it wrote: a register, or bytes of memory. Addresses of the stack
 * are told relative to R10 and those of the case's memory relative to it, because engines have
 * them in different places.
 */
import { bytesToHex, hex64 } from '../../common/bytes.js';
import { readSlots, type Slot } from '../../bpf/instruction.js';
import { OPCODES } from '../../bpf/opcodes.js';
import type { LinkedCase, Workbench } from './workbench.js';

/** An executed instruction. */
export interface TraceStep {
  /** Program and function of the case, and slot in it. */
  readonly program: number;
  readonly fn: number;
  readonly slot: number;
  /** What it wrote: `r3 = 0x5`, `[fp-8] = 0500000000000000`. */
  readonly effect: string;
  /** A64 instructions that ran for it. */
  readonly code: readonly string[];
}

export interface Trace {
  /** None where the engine does not know which instruction its code is for. */
  readonly steps: readonly TraceStep[];
  /** A64 instructions that belong to none. */
  readonly code: readonly string[];
  readonly end: string;
}

/** Steps that a trace has at most. */
export const MOST_STEPS = 2000;

type Position = Pick<TraceStep, 'program' | 'fn' | 'slot' | 'code'>;

/** Makes steps of positions and of the registers R0..R10 before each. */
export class TraceRecorder {
  readonly steps: TraceStep[] = [];
  readonly #workbench: Workbench;
  readonly #context: bigint;
  readonly #memorySize: number;
  readonly #slots: readonly (readonly (readonly Slot[])[])[];
  #last: { readonly position: Position; readonly registers: readonly bigint[] } | undefined;

  constructor(workbench: Workbench, linked: LinkedCase) {
    this.#workbench = workbench;
    this.#context = workbench.context(linked.fuzzCase);
    this.#memorySize = linked.fuzzCase.memory.length;
    this.#slots = linked.programs.map(({ functions }) =>
      functions.map(({ insns }) => readSlots(insns)),
    );
  }

  /** The instruction at `position` is about to be executed. */
  record(position: Position, registers: readonly bigint[]): void {
    this.#finishStep(registers);
    if (this.steps.length < MOST_STEPS) this.#last = { position, registers };
  }

  /** The run is over. */
  finish(end: string): readonly TraceStep[] {
    const last = this.#last;
    if (last) this.steps.push({ ...last.position, effect: end });
    this.#last = undefined;
    return this.steps;
  }

  #finishStep(now: readonly bigint[]): void {
    const last = this.#last;
    this.#last = undefined;
    if (!last) return;
    const { program, fn, slot } = last.position;
    const insn = this.#slots[program]?.[fn]?.[slot];
    this.steps.push({
      ...last.position,
      effect: insn ? this.#effect(insn, last.registers, now) : '',
    });
  }

  #effect(slot: Slot, before: readonly bigint[], now: readonly bigint[]): string {
    const opcode = OPCODES[slot.code];
    const register = (number: number): string =>
      `r${number} = ${this.#value(now[number] ?? 0n, now[10] ?? 0n)}`;
    switch (opcode?.kind) {
      case 'alu':
      case 'neg':
      case 'end':
      case 'load':
      case 'ld_imm64':
        return register(slot.dst);
      case 'call':
        return slot.src === 0 ? register(0) : '';
      case 'exit':
        return register(0);
      case 'store':
        return this.#stored(slot, opcode.size, before);
      case 'atomic':
        if (slot.imm === 0x100) return register(slot.dst);
        return [
          this.#stored(slot, opcode.size, before),
          ...(slot.imm === 0xf1 ? [register(0)] : []),
          ...((slot.imm & 1) === 1 && slot.imm !== 0xf1 ? [register(slot.src)] : []),
        ].join(', ');
      default:
        return '';
    }
  }

  #stored(slot: Slot, size: number, before: readonly bigint[]): string {
    const address = BigInt.asUintN(64, (before[slot.dst] ?? 0n) + BigInt(slot.off));
    const place = this.#value(address, before[10] ?? 0n);
    const { memory } = this.#workbench.host;
    if (memory.faultAt(address, size, 'read')) return `[${place}]`;
    return `[${place}] = ${bytesToHex(memory.readBytes(address, size))}`;
  }

  #value(value: bigint, frame: bigint): string {
    const below = frame - value;
    if (frame !== 0n && below >= 0n && below <= 512n) return below === 0n ? 'fp' : `fp-${below}`;
    const within = value - this.#context;
    if (within >= 0n && within <= BigInt(this.#memorySize)) return `mem+${within}`;
    return hex64(value);
  }
}

/**
 * Which registers are read later: masks with bit N for RN, over all functions of a program.
 *
 * A bpf2bpf call hands over what the callee reads of R1..R5 and gets R0 back. Programs that no verifier has seen may read more:
 * the callee the caller's R0, R6..R9 and R11, the caller what the callee left in R1..R5 and R11. What
 * of that is needed is found here, so that all others pay nothing. A helper may call any function whose
 * address the program takes. Reference: the register rules of
 * kernel/bpf/core.c:___bpf_prog_run, where all functions share one register file.
 */
import type { Slot } from '../instruction.js';
import { OPCODES, PSEUDO, type Opcode } from '../opcodes.js';
import type { Flow } from './flow.js';

export const ARGUMENTS = 0b11_1110;
/** R0, R6..R9, R11: not handed over by a call. */
const EXTRA_IN = 0b1011_1100_0001;
/** R1..R5, R11: not given back by a return. */
export const EXTRA_OUT = 0b1000_0011_1110;
const ALL = 0b1011_1111_1111;

export interface Needs {
  /** Of `EXTRA_IN`: what a function reads of its caller's registers. */
  readonly in: Uint16Array;
  /** Of `EXTRA_OUT`: what callers read of its registers after it returned. */
  readonly out: Uint16Array;
  /** Of `EXTRA_IN`: what functions that helpers may call read of their caller's registers. */
  readonly callbacks: number;
  /** Live registers at each block's start, per function. */
  readonly live: readonly Uint16Array[];
}

export interface AnalysedFunction {
  readonly slots: readonly Slot[];
  readonly flow: Flow;
}

/** @param mainOut what is read of the first function's registers from outside. */
export function analyseNeeds(functions: readonly AnalysedFunction[], mainOut: number): Needs {
  const needs = {
    in: new Uint16Array(functions.length),
    out: new Uint16Array(functions.length),
    live: functions.map(({ flow }) => new Uint16Array(flow.blocks.length)),
  };
  needs.out[0] = mainOut;
  const named = addressTaken(functions.map(({ slots }) => slots));
  const solver = new Solver(needs, functions, named);
  for (let changed = true; changed;) {
    changed = false;
    for (let index = 0; index < functions.length; index++) {
      if (solver.solve(index)) changed = true;
    }
    if (functions.length === 1 && !solver.changedNeeds) break;
  }
  return { ...needs, callbacks: solver.callbacks };
}

/** Functions whose address a program takes. */
export function addressTaken(functions: readonly (readonly Slot[])[]): Set<number> {
  const named = new Set<number>();
  for (const slots of functions) {
    for (let index = 0; index < slots.length; index++) {
      const { code, src } = slots[index] as Slot;
      if (code === 0x18 && src === PSEUDO.FUNC) named.add(slots[index + 1]?.off ?? 0);
    }
  }
  return named;
}

class Solver {
  changedNeeds = false;
  readonly #needs: Omit<Needs, 'callbacks'>;
  readonly #functions: readonly AnalysedFunction[];
  readonly #addressTaken: ReadonlySet<number>;
  #out = 0;

  constructor(
    needs: Omit<Needs, 'callbacks'>,
    functions: readonly AnalysedFunction[],
    named: ReadonlySet<number>,
  ) {
    this.#needs = needs;
    this.#functions = functions;
    this.#addressTaken = named;
  }

  /** What functions that helpers may call need, as far as it is known. */
  get callbacks(): number {
    let mask = 0;
    for (const index of this.#addressTaken) mask |= this.#needs.in[index] as number;
    return mask;
  }

  /** True when a need has grown. */
  solve(index: number): boolean {
    const { slots, flow } = this.#functions[index] as AnalysedFunction;
    const live = this.#needs.live[index] as Uint16Array;
    const before = live[0] as number;
    this.changedNeeds = false;
    this.#out = this.#needs.out[index] as number;
    for (let changed = true; changed;) {
      changed = false;
      for (let at = flow.blocks.length - 1; at >= 0; at--) {
        const block = flow.blocks[at];
        if (!block) continue;
        let mask = block.next >= 0 ? (live[block.next] as number) : 0;
        if (block.taken >= 0) mask |= live[block.taken] as number;
        for (let slot = block.end - 1; slot >= block.start; slot--) {
          const here = slots[slot] as Slot;
          const opcode = OPCODES[here.code];
          // the second slot of ld_imm64 has code 0
          if (opcode) mask = this.#before(here, opcode, mask);
        }
        if (mask !== live[at]) {
          live[at] = mask;
          if (flow.hasLoops) changed = true;
        }
      }
    }
    this.#grow(this.#needs.in, index, (live[0] as number) & EXTRA_IN);
    if ((((live[0] as number) ^ before) & ARGUMENTS) !== 0) this.changedNeeds = true;
    return this.changedNeeds;
  }

  #grow(masks: Uint16Array, index: number, mask: number): void {
    const before = masks[index] as number;
    if ((before | mask) === before) return;
    masks[index] = before | mask;
    this.changedNeeds = true;
  }

  #before(slot: Slot, opcode: Opcode, after: number): number {
    const dst = 1 << slot.dst;
    const src = 1 << slot.src;
    switch (opcode.kind) {
      case 'alu': {
        const read = opcode.source === 'register' ? src : 0;
        return opcode.op === 'mov' ? (after & ~dst) | read : after | dst | read;
      }
      case 'neg':
      case 'end':
        return after | dst;
      case 'ld_imm64':
        return after & ~dst;
      case 'load':
        return (after & ~dst) | src;
      case 'store':
        return after | dst | (opcode.source === 'register' ? src : 0);
      case 'atomic':
        if (slot.imm === 0x100) return (after & ~dst) | src;
        return after | dst | src | (slot.imm === 0xf1 ? 1 : 0);
      case 'jump':
        return after | dst | (opcode.source === 'register' ? src : 0);
      case 'exit':
        return 1 | this.#out;
      case 'tail_call':
        return ALL;
      case 'call':
        return this.#beforeCall(slot, opcode.source === 'register', after);
      default:
        return after;
    }
  }

  #beforeCall(slot: Slot, byRegister: boolean, after: number): number {
    const { in: needIn, out: needOut, live } = this.#needs;
    if (byRegister) {
      let mask = (1 << slot.dst) | 1 | ARGUMENTS;
      for (let index = 0; index < needIn.length; index++) {
        this.#grow(needOut, index, after & EXTRA_OUT);
        mask |= needIn[index] as number;
      }
      return (after & ~1) | mask;
    }
    if (slot.src === PSEUDO.CALL) {
      this.#grow(needOut, slot.off, after & EXTRA_OUT);
      const read = (live[slot.off]?.[0] ?? ALL) & ARGUMENTS;
      return (after & ~(1 | EXTRA_OUT)) | read | (needIn[slot.off] as number);
    }
    return after | 1 | ARGUMENTS | this.callbacks;
  }
}

/**
 * Removes what can never run: branches decided by constants, and what only they lead to.
 *
 * CO-RE and `__kconfig` make such code on purpose: `if (bpf_core_field_exists(...))` is a comparison of a
 * number that the loader puts in, and the branch not taken may hold poisoned instructions. Reference:
 * opt_hard_wire_dead_code_branches, opt_remove_dead_code and opt_remove_nops in kernel/bpf/verifier.c.
 * Without the verifier's findings it
 * follows constants in registers only.
 *
 * Usage:
 *   const { slots, moved } = removeDeadCode(linked.slots);
 */
import { imm64, makeSlot, type Slot } from '../instruction.js';
import { OPCODES, PSEUDO, type AluOperation, type JumpOperation, type Opcode } from '../opcodes.js';
import { jumpDistance } from '../validate.js';
import { patchSlots, type Patched } from './patch.js';

/** Values of R0..R9; undefined where it may be anything. */
type Constants = (bigint | undefined)[];

const JA = 0x05;

/**
 * `dead`: slots that no path reaches, as the verifier found them. Default: what constants in registers
 * rule out.
 */
export function removeDeadCode(slots: readonly Slot[], dead?: ReadonlySet<number>): Patched {
  const { seen, decided } = dead ? fromDead(slots, dead) : follow(slots);
  const replacements = new Map<number, readonly Slot[]>();
  for (const [at] of slots.entries()) {
    if (!seen.has(at)) replacements.set(at, []);
  }
  const hardWired = slots.map((slot, at) => {
    const taken = decided.get(at);
    if (taken === undefined) return slot;
    return makeSlot(JA, { off: taken ? slot.off : 0 });
  });
  const live = patchSlots(hardWired, replacements);
  const nops = new Map<number, readonly Slot[]>();
  for (const [at, slot] of live.slots.entries()) {
    if (slot.code === JA && slot.off === 0) nops.set(at, []);
  }
  if (nops.size === 0) return live;
  const dense = patchSlots(live.slots, nops);
  return { slots: dense.slots, moved: live.moved.map((at) => dense.moved[at] ?? at) };
}

interface Reach {
  readonly seen: ReadonlySet<number>;
  /** Conditional jumps that always, or never, jump. */
  readonly decided: ReadonlyMap<number, boolean>;
}

/** The same from a list of dead slots: a jump is decided when one of its two ways is dead. */
function fromDead(slots: readonly Slot[], dead: ReadonlySet<number>): Reach {
  const seen = new Set<number>();
  const decided = new Map<number, boolean>();
  for (const [at, slot] of slots.entries()) {
    // the second slot of ld_imm64 lives as the first does
    const isSecond = OPCODES[slots[at - 1]?.code ?? 0]?.kind === 'ld_imm64';
    if (dead.has(isSecond ? at - 1 : at)) continue;
    seen.add(at);
    if (OPCODES[slot.code]?.kind !== 'jump') continue;
    const [falls, jumps] = [!dead.has(at + 1), !dead.has(at + 1 + slot.off)];
    if (falls !== jumps) decided.set(at, jumps);
  }
  return { seen, decided };
}

/** Walks all paths with the constants known on each, until nothing new comes. */
function follow(slots: readonly Slot[]): Reach {
  const states = new Map<number, Constants>([[0, Array<undefined>(10).fill(undefined)]]);
  const outcomes = new Map<number, Set<boolean>>();
  const seen = new Set<number>();
  const pending = new Set([0]);
  const arrive = (at: number, state: Constants): void => {
    const known = states.get(at);
    const merged = known
      ? known.map((value, i) => (value === state[i] ? value : undefined))
      : state;
    if (known && merged.every((value, i) => value === known[i])) return;
    states.set(at, merged);
    pending.add(at);
  };
  for (const at of pending) {
    pending.delete(at);
    const slot = slots[at];
    const opcode = slot && OPCODES[slot.code];
    if (!slot || !opcode) continue;
    const state = (states.get(at) ?? []).slice();
    seen.add(at);
    if (opcode.kind === 'ld_imm64') seen.add(at + 1);
    const distance = jumpDistance(slot, opcode);
    const next = at + (opcode.kind === 'ld_imm64' ? 2 : 1);
    switch (opcode.kind) {
      case 'exit':
        break;
      case 'goto':
        arrive(at + 1 + (distance ?? 0), state);
        break;
      case 'jump': {
        const taken = decide(slot, opcode, state);
        const ways = outcomes.get(at) ?? new Set();
        outcomes.set(at, ways);
        for (const way of taken === undefined ? [false, true] : [taken]) {
          ways.add(way);
          arrive(way ? at + 1 + slot.off : next, state.slice());
        }
        break;
      }
      case 'may_goto':
        arrive(at + 1 + (distance ?? 0), state.slice());
        arrive(next, state);
        break;
      default:
        apply(slot, slots[at + 1], opcode, state);
        arrive(next, state);
    }
  }
  const decided = new Map<number, boolean>();
  for (const [at, ways] of outcomes) {
    const [way] = ways;
    if (ways.size === 1 && way !== undefined) decided.set(at, way);
  }
  return { seen, decided };
}

/** What the instruction leaves in the registers. */
function apply(slot: Slot, second: Slot | undefined, opcode: Opcode, state: Constants): void {
  switch (opcode.kind) {
    case 'alu': {
      const right = opcode.source === 'register' ? state[slot.src] : BigInt(slot.imm);
      const left = opcode.op === 'mov' ? 0n : state[slot.dst];
      const known = slot.off === 0 && left !== undefined && right !== undefined;
      state[slot.dst] = known ? compute(opcode.op, opcode.width, left, right) : undefined;
      break;
    }
    case 'ld_imm64':
      state[slot.dst] = second && slot.src !== PSEUDO.FUNC ? imm64(slot, second) : undefined;
      break;
    case 'neg':
    case 'end':
    case 'load':
      state[slot.dst] = undefined;
      break;
    case 'atomic':
      state[0] = undefined;
      state[slot.src] = undefined;
      state[slot.dst] = slot.imm === 0x100 ? undefined : state[slot.dst];
      break;
    case 'call':
    case 'tail_call':
    case 'packet_load':
      state.fill(undefined, 0, 6);
      break;
    default:
  }
  // R10 is no constant
  state.length = 10;
}

function compute(
  op: AluOperation,
  width: 32 | 64,
  left: bigint,
  right: bigint,
): bigint | undefined {
  const amount = right & BigInt(width - 1);
  const operand = BigInt.asUintN(width, left);
  const wrap = (value: bigint): bigint => BigInt.asUintN(width, value);
  switch (op) {
    case 'mov':
      return wrap(right);
    case 'add':
      return wrap(left + right);
    case 'sub':
      return wrap(left - right);
    case 'and':
      return wrap(left & right);
    case 'or':
      return wrap(left | right);
    case 'xor':
      return wrap(left ^ right);
    case 'lsh':
      return wrap(operand << amount);
    case 'rsh':
      return wrap(operand >> amount);
    case 'arsh':
      return wrap(BigInt.asIntN(width, left) >> amount);
    default:
      return undefined;
  }
}

/** Whether the jump is taken; undefined when that is not known. */
function decide(
  slot: Slot,
  opcode: Extract<Opcode, { kind: 'jump' }>,
  state: Constants,
): boolean | undefined {
  const left = state[slot.dst];
  const right = opcode.source === 'register' ? state[slot.src] : BigInt(slot.imm);
  if (left === undefined || right === undefined) return undefined;
  return compare(opcode.op, opcode.width, left, right);
}

function compare(op: JumpOperation, width: 32 | 64, left: bigint, right: bigint): boolean {
  const [a, b] = [BigInt.asUintN(width, left), BigInt.asUintN(width, right)];
  const [x, y] = [BigInt.asIntN(width, left), BigInt.asIntN(width, right)];
  switch (op) {
    case 'jeq':
      return a === b;
    case 'jne':
      return a !== b;
    case 'jset':
      return (a & b) !== 0n;
    case 'jgt':
      return a > b;
    case 'jge':
      return a >= b;
    case 'jlt':
      return a < b;
    case 'jle':
      return a <= b;
    case 'jsgt':
      return x > y;
    case 'jsge':
      return x >= y;
    case 'jslt':
      return x < y;
    case 'jsle':
      return x <= y;
  }
}

/**
 * Where the base of each memory access comes from: the frame pointer plus a constant, or a class of
 * pointers that very likely stay in one region.
 *
 * Each class has one cached region at run time. A definition (load, call result, constant, argument)
 * begins a class, moves and additions keep it, and where paths meet the classes of live registers
 * become one. This only decides which cache is asked: a wrong guess costs time, never correctness.
 * What is exact is `constant` at calls and the distance from R10.
 */
import { imm64, type Slot } from '../instruction.js';
import { OPCODES, PSEUDO, type Opcode } from '../opcodes.js';
import type { Flow } from './flow.js';

/** A value in a register. Classes are trees of `parent` links. */
export interface Origin {
  parent: Origin | undefined;
  /** Distance from R10, when the value is R10 plus that. */
  readonly stack: number | undefined;
  /** The value itself, when it is known. */
  readonly constant: bigint | undefined;
  /** The result of arithmetic: unlikely to be a pointer. */
  readonly scalar: boolean;
  /** Number of the class; -1 until it is asked for. */
  slot: number;
}

type State = (Origin | undefined)[];

export function classOf(origin: Origin): Origin {
  let root = origin;
  while (root.parent) root = root.parent;
  let at = origin;
  while (at.parent) {
    const next = at.parent;
    if (next !== root) at.parent = root;
    at = next;
  }
  return root;
}

function make(fields: Partial<Origin> = {}): Origin {
  return {
    parent: undefined,
    stack: undefined,
    constant: undefined,
    scalar: false,
    slot: -1,
    ...fields,
  };
}

function unite(one: Origin, other: Origin): void {
  const a = classOf(one);
  const b = classOf(other);
  if (a !== b) b.parent = a;
}

/** Origins of what instructions need, by slot number. */
export interface Origins {
  /** The base of an access. */
  readonly bases: ReadonlyMap<number, Origin>;
  /** R1..R3 of a call. */
  readonly calls: ReadonlyMap<number, readonly Origin[]>;
}

const FRAME = 10;

export function findOrigins(slots: readonly Slot[], flow: Flow, live: Uint16Array): Origins {
  const bases = new Map<number, Origin>();
  const calls = new Map<number, readonly Origin[]>();
  const starts: State[] = [];
  const ends: State[] = [];
  for (const [index, block] of flow.blocks.entries()) {
    const from = flow.predecessors[index] ?? [];
    const [only] = from;
    const inherits = index !== 0 && from.length === 1 && only !== undefined && only < index;
    const start = inherits ? (ends[only] ?? []) : freshState(index === 0, live[index] ?? 0);
    starts.push(inherits ? [] : [...start]);
    const state = [...start];
    for (let slot = block.start; slot < block.end; slot++) {
      const here = slots[slot] as Slot;
      const opcode = OPCODES[here.code];
      if (opcode) step(state, slots, slot, here, opcode, { bases, calls });
    }
    ends.push(state);
  }
  for (const [index, start] of starts.entries()) {
    for (const from of flow.predecessors[index] ?? []) {
      for (let register = 0; register < FRAME && start.length > 0; register++) {
        const here = start[register];
        const there = ends[from]?.[register];
        if (here && there) unite(here, there);
      }
    }
  }
  return { bases, calls };
}

function freshState(isEntry: boolean, live: number): State {
  return Array.from({ length: 12 }, (_, register) => {
    if (register === FRAME) return make({ stack: 0 });
    if (isEntry && (register === 0 || register > 5)) return make({ scalar: true });
    return isEntry || ((live >> register) & 1) === 1 ? make() : undefined;
  });
}

function step(
  state: State,
  slots: readonly Slot[],
  index: number,
  slot: Slot,
  opcode: Opcode,
  { bases, calls }: { bases: Map<number, Origin>; calls: Map<number, readonly Origin[]> },
): void {
  const read = (register: number): Origin => (state[register] ??= make());
  switch (opcode.kind) {
    case 'alu':
      state[slot.dst] = afterAlu(state, slot, opcode);
      return;
    case 'neg':
    case 'end':
      state[slot.dst] = make({ scalar: true });
      return;
    case 'ld_imm64':
      state[slot.dst] = make({ constant: imm64(slot, slots[index + 1] as Slot) });
      return;
    case 'load':
      bases.set(index, read(slot.src));
      state[slot.dst] = make({ scalar: opcode.size < 4 });
      return;
    case 'store':
      bases.set(index, read(slot.dst));
      return;
    case 'atomic':
      bases.set(index, read(slot.imm === 0x100 ? slot.src : slot.dst));
      if (slot.imm === 0x100) state[slot.dst] = make();
      else if (slot.imm === 0xf1) state[0] = make();
      else if ((slot.imm & 1) === 1) state[slot.src] = make();
      return;
    case 'call':
      calls.set(index, [read(1), read(2), read(3)]);
      state[0] = make();
      if (opcode.source === 'register' || slot.src === PSEUDO.CALL) {
        for (let register = 1; register <= 5; register++) state[register] = make();
        state[11] = make();
      }
      return;
    default:
      return;
  }
}

function afterAlu(
  state: State,
  slot: Slot,
  { op, width, source }: Opcode & { readonly kind: 'alu' },
): Origin {
  const dst = (state[slot.dst] ??= make());
  const isRegister = source === 'register';
  if (op === 'mov') {
    if (isRegister && width === 64 && slot.off === 0) return (state[slot.src] ??= make());
    return make({ scalar: true });
  }
  if (width === 32 || (op !== 'add' && op !== 'sub')) return make({ scalar: true });
  if (!isRegister) {
    const distance = op === 'add' ? slot.imm : -slot.imm;
    if (dst.stack !== undefined) return make({ parent: dst, stack: dst.stack + distance });
    return make({ parent: classOf(dst), scalar: dst.scalar });
  }
  const src = (state[slot.src] ??= make());
  const base = dst.scalar && !src.scalar ? src : dst;
  return make({ parent: classOf(base), scalar: dst.scalar && src.scalar });
}

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
import type { Block, Flow } from './flow.js';

/** A value in a register. Classes are trees of `parent` links. */
export class Origin {
  parent: Origin | undefined;
  /** Distance from R10, when the value is R10 plus that. */
  readonly stack: number | undefined;
  /** The value itself, when it is known. */
  readonly constant: bigint | undefined;
  /** The result of arithmetic: unlikely to be a pointer. */
  readonly scalar: boolean;
  /** Number of the class; -1 until it is asked for. */
  slot = -1;

  // positional: a compiler makes one per instruction
  constructor(scalar = false, parent?: Origin, stack?: number, constant?: bigint) {
    this.parent = parent;
    this.stack = stack;
    this.constant = constant;
    this.scalar = scalar;
  }
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

function unite(one: Origin, other: Origin): void {
  const a = classOf(one);
  const b = classOf(other);
  if (a !== b) b.parent = a;
}

/** Origins of what instructions need, by slot number. */
export interface Origins {
  /** The base of an access. */
  readonly bases: readonly (Origin | undefined)[];
  /** R1..R3 of a call. */
  readonly calls: ReadonlyMap<number, readonly Origin[]>;
}

interface Found extends Origins {
  readonly bases: (Origin | undefined)[];
  readonly calls: Map<number, readonly Origin[]>;
}

const FRAME = 10;
/** The start of a block that goes on with what another one has left. */
const NOTHING: State = [];

export function findOrigins(slots: readonly Slot[], flow: Flow, live: Uint16Array): Origins {
  const found: Found = { bases: [], calls: new Map() };
  const starts: State[] = [];
  const ends: State[] = [];
  for (let index = 0; index < flow.blocks.length; index++) {
    const block = flow.blocks[index] as Block;
    const from = flow.predecessors[index] as readonly number[];
    const only = from[0];
    const inherits = index !== 0 && from.length === 1 && only !== undefined && only < index;
    const start = inherits ? (ends[only] as State) : freshState(index === 0, live[index] ?? 0);
    starts.push(inherits ? NOTHING : start);
    const state = start.slice();
    for (let slot = block.start; slot < block.end; slot++) {
      const here = slots[slot] as Slot;
      const opcode = OPCODES[here.code];
      if (opcode) step(state, slots, slot, here, opcode, found);
    }
    ends.push(state);
  }
  for (let index = 0; index < starts.length; index++) {
    const start = starts[index] as State;
    if (start === NOTHING) continue;
    for (const from of flow.predecessors[index] as readonly number[]) {
      const end = ends[from] as State;
      for (let register = 0; register < FRAME; register++) {
        const here = start[register];
        const there = end[register];
        if (here && there) unite(here, there);
      }
    }
  }
  return found;
}

function freshState(isEntry: boolean, live: number): State {
  const state: State = [];
  for (let register = 0; register < 12; register++) {
    if (register === FRAME) state.push(new Origin(false, undefined, 0));
    else if (isEntry) state.push(new Origin(register === 0 || register > 5));
    else state.push(((live >> register) & 1) === 1 ? new Origin() : undefined);
  }
  return state;
}

function step(
  state: State,
  slots: readonly Slot[],
  index: number,
  slot: Slot,
  opcode: Opcode,
  { bases, calls }: Found,
): void {
  switch (opcode.kind) {
    case 'alu':
      state[slot.dst] = afterAlu(state, slot, opcode);
      return;
    case 'neg':
    case 'end':
      state[slot.dst] = new Origin(true);
      return;
    case 'ld_imm64':
      state[slot.dst] = new Origin(
        false,
        undefined,
        undefined,
        imm64(slot, slots[index + 1] as Slot),
      );
      return;
    case 'load':
      bases[index] = read(state, slot.src);
      state[slot.dst] = new Origin(opcode.size < 4);
      return;
    case 'store':
      bases[index] = read(state, slot.dst);
      return;
    case 'atomic':
      bases[index] = read(state, slot.imm === 0x100 ? slot.src : slot.dst);
      if (slot.imm === 0x100) state[slot.dst] = new Origin();
      else if (slot.imm === 0xf1) state[0] = new Origin();
      else if ((slot.imm & 1) === 1) state[slot.src] = new Origin();
      return;
    case 'call':
      calls.set(index, [read(state, 1), read(state, 2), read(state, 3)]);
      state[0] = new Origin();
      if (opcode.source === 'register' || slot.src === PSEUDO.CALL) {
        for (let register = 1; register <= 5; register++) state[register] = new Origin();
        state[11] = new Origin();
      }
      return;
    default:
      return;
  }
}

function read(state: State, register: number): Origin {
  return (state[register] ??= new Origin());
}

function afterAlu(
  state: State,
  slot: Slot,
  { op, width, source }: Opcode & { readonly kind: 'alu' },
): Origin {
  const dst = read(state, slot.dst);
  const isRegister = source === 'register';
  if (op === 'mov') {
    if (isRegister && width === 64 && slot.off === 0) return read(state, slot.src);
    return new Origin(true);
  }
  if (width === 32 || (op !== 'add' && op !== 'sub')) return new Origin(true);
  if (!isRegister) {
    const distance = op === 'add' ? slot.imm : -slot.imm;
    if (dst.stack !== undefined) return new Origin(false, dst, dst.stack + distance);
    return new Origin(dst.scalar, classOf(dst));
  }
  const src = read(state, slot.src);
  const base = dst.scalar && !src.scalar ? src : dst;
  return new Origin(dst.scalar && src.scalar, classOf(base));
}

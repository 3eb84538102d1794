/**
 * Follows the context pointer and the frame pointer through a linked program.
 *
 * A forward data flow over every function, entered anew for each state in which it is called (as the
 * verifier walks calls), finds which loads and stores go through the context pointer, and how deep
 * each function's stack is used. Reference: what check_mem_access and check_func_call of
 * kernel/bpf/verifier.c keep in struct bpf_reg_state; values are those of `values.ts`. Where it
 * cannot follow a pointer into the stack, the whole 512 bytes count. Left out: everything else the
 * verifier knows; whether accesses are allowed is decided by who uses the result.
 */
import { KernelError } from '../../common/errors.js';
import type { Slot } from '../instruction.js';
import { OPCODES, PSEUDO, type Opcode } from '../opcodes.js';
import { jumpDistance } from '../validate.js';
import type { CallFixup } from '../verifier/input.js';
import type { LinkedFunction } from './link.js';
import {
  add,
  CONFLICT,
  CTX,
  CTX_MOVED,
  functionOf,
  functionValue,
  isExactStack,
  isStack,
  join,
  MAX_STACK,
  OTHER,
  POSITIVE,
  stackFrame,
  stackOffset,
  stackValue,
  U32,
} from './values.js';

/** How an instruction reaches the context. */
type ContextAccess = 'ctx' | 'moved' | 'conflict';

export interface FunctionFlow {
  /** Loads, stores and atomics through the context pointer, by slot. */
  readonly contextAccesses: ReadonlyMap<number, ContextAccess>;
  /** Loads through pointers of the kernel that may be bad, by slot; only the verifier knows them. */
  readonly guarded?: ReadonlySet<number>;
  /** Loads of sockets, by slot; only the verifier knows them. */
  readonly sockets?: ReadonlySet<number>;
  /** The same of `struct bpf_xdp_sock`. */
  readonly xdpSockets?: ReadonlySet<number>;
  /** What calls on objects of the program need, by slot; only the verifier knows. */
  readonly calls?: ReadonlyMap<number, CallFixup>;
  /** Bytes of stack below R10. */
  readonly stackDepth: number;
}

/** Calls that may be nested (MAX_CALL_FRAMES). */
const MAX_FRAMES = 8;
/** Instructions walked in all, as the verifier's limit. */
const MAX_STEPS = 1_000_000;
const REGISTERS = 11;
/** 8-byte stack slots that are followed in each frame. */
const FRAME_SLOTS = MAX_STACK / 8;

/** Helpers that call a function given in R2: where its context comes from, and where it goes. */
const CALLBACK_HELPERS: ReadonlyMap<number, { readonly from: number; readonly to: number }> =
  new Map([
    [164, { from: 3, to: 4 }], // for_each_map_elem(map, callback, ctx): callback(map, key, value, ctx)
    [181, { from: 3, to: 2 }], // loop(count, callback, ctx): callback(index, ctx)
  ]);

/** Registers, then the slots of each frame, outermost first. */
type State = Int32Array;

interface Walk {
  readonly functions: readonly LinkedFunction[];
  readonly accesses: Map<number, number>[];
  readonly depths: number[];
  /** Result of functions already walked in the same state. */
  readonly memo: Map<string, State | undefined>;
  /** Which functions are active, outermost first. */
  readonly active: number[];
  steps: number;
}

export function analyze(functions: readonly LinkedFunction[]): FunctionFlow[] {
  const walk: Walk = {
    functions,
    accesses: functions.map(() => new Map<number, number>()),
    depths: functions.map(() => 0),
    memo: new Map(),
    active: [],
    steps: 0,
  };
  const entry: State = new Int32Array(REGISTERS);
  entry[1] = CTX;
  walkFunction(walk, 0, entry);
  return functions.map((_, i) => ({
    contextAccesses: new Map(
      [...(walk.accesses[i] ?? [])].flatMap(([slot, value]) => {
        const access = contextAccess(value);
        return access ? [[slot, access] as const] : [];
      }),
    ),
    stackDepth: Math.min(walk.depths[i] ?? 0, MAX_STACK),
  }));
}

function contextAccess(value: number): ContextAccess | undefined {
  if (value === CTX) return 'ctx';
  if (value === CTX_MOVED) return 'moved';
  return value === CONFLICT ? 'conflict' : undefined;
}

/**
 * Walks one function from `entry` (registers and the frames of its callers).
 * The result is the state at its exits, without its own frame; undefined when it never exits.
 */
function walkFunction(walk: Walk, index: number, entry: State): State | undefined {
  const { slots } = walk.functions[index] as LinkedFunction;
  if (walk.active.length >= MAX_FRAMES) {
    throw new KernelError('E2BIG', `the call stack of ${MAX_FRAMES + 1} frames is too deep`);
  }
  const key = `${[...walk.active, index].join('>')}:${entry.join(',')}`;
  if (walk.memo.has(key)) return walk.memo.get(key);
  const frame = walk.active.length;
  walk.active.push(index);
  const start = new Int32Array(entry.length + FRAME_SLOTS);
  start.set(entry);
  start[10] = stackValue(frame, 0);
  // states are kept where paths may meet; between those, one state runs along
  const states = new Map<number, State>([[0, start]]);
  const meeting = meetingPoints(slots);
  const pending = new Set([0]);
  let result: State | undefined;
  const arrive = (at: number, state: State): void => {
    if (at < 0 || at >= slots.length) return;
    const known = states.get(at);
    const merged = known ? joinStates(known, state) : state.slice();
    if (known && sameState(known, merged)) return;
    states.set(at, merged);
    pending.add(at);
  };
  for (const first of pending) {
    pending.delete(first);
    const state = (states.get(first) as State).slice();
    let at = first;
    for (;;) {
      const slot = slots[at];
      const opcode = slot && OPCODES[slot.code];
      if (!slot || !opcode) break;
      if (++walk.steps > MAX_STEPS) {
        throw new KernelError(
          'E2BIG',
          `BPF program is too large: walked ${MAX_STEPS} instructions`,
        );
      }
      if (opcode.kind === 'exit') {
        const left = state.slice(0, entry.length);
        result = result ? joinStates(result, left) : left;
        break;
      }
      if (!step(walk, index, at, slot, opcode, state)) break;
      const [next, ...others] = successors(at, slot, opcode);
      if (next === undefined) break;
      if (others.length === 0 && !meeting.has(next)) {
        at = next;
        continue;
      }
      for (const each of [next, ...others]) arrive(each, state);
      break;
    }
  }
  walk.active.pop();
  walk.memo.set(key, result);
  return result;
}

/** Slots that more than one path may come to: targets of jumps, and what follows a conditional one. */
function meetingPoints(slots: readonly Slot[]): Set<number> {
  const points = new Set<number>();
  for (const [at, slot] of slots.entries()) {
    const opcode = OPCODES[slot.code];
    const distance = opcode && jumpDistance(slot, opcode);
    if (distance === undefined) continue;
    points.add(at + 1 + distance);
    points.add(at + 1);
  }
  return points;
}

function joinStates(a: State, b: State): State {
  return a.map((value, i) => join(value, b[i] as number));
}

function sameState(a: State, b: State): boolean {
  return a.every((value, i) => value === b[i]);
}

function successors(at: number, slot: Slot, opcode: Opcode): number[] {
  const distance = jumpDistance(slot, opcode);
  const next = at + (opcode.kind === 'ld_imm64' ? 2 : 1);
  if (distance === undefined) return [next];
  return opcode.kind === 'goto' ? [at + 1 + distance] : [next, at + 1 + distance];
}

/** Applies one instruction to `state`; false when control does not come out of it. */
function step(
  walk: Walk,
  index: number,
  at: number,
  slot: Slot,
  opcode: Opcode,
  state: State,
): boolean {
  const value = (register: number): number => state[register] ?? OTHER;
  switch (opcode.kind) {
    case 'alu': {
      const source = opcode.source === 'register' ? value(slot.src) : undefined;
      if (slot.dst < 10) state[slot.dst] = arithmetic(slot, opcode, value(slot.dst), source);
      return true;
    }
    case 'neg':
      state[slot.dst] = opcode.width === 32 ? U32 : OTHER;
      return true;
    case 'end':
      state[slot.dst] = slot.imm < 64 ? U32 : OTHER;
      return true;
    case 'load': {
      const base = value(slot.src);
      note(walk, index, at, base, slot.off);
      state[slot.dst] = loaded(state, base, slot.off, opcode);
      return true;
    }
    case 'store': {
      const stored = opcode.source === 'register' ? value(slot.src) : OTHER;
      note(walk, index, at, value(slot.dst), slot.off);
      store(walk, state, value(slot.dst), slot.off, opcode.size, stored);
      return true;
    }
    case 'atomic': {
      const base = value(slot.dst);
      note(walk, index, at, base, slot.off);
      store(walk, state, base, slot.off, opcode.size, OTHER);
      if (slot.imm === 0xf1) state[0] = OTHER;
      else if ((slot.imm & 1) !== 0) state[slot.src] = OTHER;
      else if (slot.imm === 0x100) state[slot.dst] = OTHER;
      return true;
    }
    case 'ld_imm64': {
      const second = (walk.functions[index] as LinkedFunction).slots[at + 1];
      const isFunction = slot.src === PSEUDO.FUNC && second !== undefined;
      state[slot.dst] = isFunction ? functionValue(second.off) : OTHER;
      return true;
    }
    case 'call':
      return call(walk, index, slot, state);
    case 'tail_call':
    case 'packet_load':
      state.fill(OTHER, 0, 6);
      return true;
    case 'jump':
    case 'goto':
    case 'may_goto':
    case 'nospec':
    case 'exit':
      return true;
  }
}

function arithmetic(
  slot: Slot,
  opcode: Extract<Opcode, { kind: 'alu' }>,
  left: number,
  source: number | undefined,
): number {
  const { imm } = slot;
  const constant = source === undefined ? imm : undefined;
  const right = source ?? (imm >= 0 ? U32 : OTHER);
  if (opcode.width === 32) return U32;
  switch (opcode.op) {
    case 'mov':
      return slot.off === 0 ? right : OTHER;
    case 'add':
      return add(left, right, constant);
    case 'sub':
      if (constant !== undefined) return add(left, OTHER, -constant);
      if (isStack(left)) return isStack(right) ? OTHER : add(left, OTHER);
      return left === CTX || left === CTX_MOVED ? CTX_MOVED : OTHER;
    case 'and':
      return left === U32 || right === U32 ? U32 : OTHER;
    case 'or':
    case 'xor':
      return left === U32 && right === U32 ? U32 : OTHER;
    case 'rsh':
      if (constant === undefined || constant === 0) return left === U32 ? U32 : OTHER;
      return constant >= 32 || left === U32 ? U32 : POSITIVE;
    case 'lsh':
      return left === U32 && constant !== undefined && constant <= 30 ? POSITIVE : OTHER;
    case 'mul':
      return left === U32 && constant !== undefined && constant >= 0 ? POSITIVE : OTHER;
    case 'arsh':
      return left === U32 || left === POSITIVE ? left : OTHER;
    case 'div':
      return slot.off === 0 && left === U32 ? U32 : OTHER;
    case 'mod':
      return slot.off === 0 && (left === U32 || right === U32) ? U32 : OTHER;
  }
}

/** Records an access through `base`: context accesses, and how deep into which stack. */
function note(walk: Walk, index: number, at: number, base: number, offset: number): void {
  if (isStack(base)) {
    useStack(walk, base, offset);
    return;
  }
  const accesses = walk.accesses[index] as Map<number, number>;
  const before = accesses.get(at);
  accesses.set(at, before === undefined ? base : join(before, base));
}

function useStack(walk: Walk, pointer: number, offset: number): void {
  const owner = walk.active[stackFrame(pointer)];
  if (owner === undefined) return;
  const depth = -(stackOffset(pointer) + offset);
  walk.depths[owner] = Math.max(walk.depths[owner] ?? 0, depth);
}

/** Index in the state of the followed slot at `base + offset`; -1 when there is none. */
function followedSlot(state: State, base: number, offset: number): number {
  const at = stackOffset(base) + offset;
  if (!isExactStack(base) || at < -MAX_STACK || at >= 0 || at % 8 !== 0) return -1;
  const index = REGISTERS + stackFrame(base) * FRAME_SLOTS + (at + MAX_STACK) / 8;
  return index < state.length ? index : -1;
}

function loaded(
  state: State,
  base: number,
  offset: number,
  opcode: Extract<Opcode, { kind: 'load' }>,
): number {
  if (opcode.size < 8) return opcode.signed ? OTHER : U32;
  const index = isStack(base) ? followedSlot(state, base, offset) : -1;
  return index < 0 ? OTHER : (state[index] as number);
}

function store(
  walk: Walk,
  state: State,
  base: number,
  offset: number,
  size: number,
  stored: number,
): void {
  const exact = isExactStack(base);
  const index = isStack(base) && size === 8 ? followedSlot(state, base, offset) : -1;
  if (index >= 0) {
    state[index] = stored;
    return;
  }
  // a stack pointer that goes where it is not followed may reach all of its frame
  if (isStack(stored)) useStack(walk, stackValue(stackFrame(stored), -MAX_STACK), 0);
  if (!exact) return;
  const first = Math.floor((stackOffset(base) + offset) / 8) * 8;
  const last = stackOffset(base) + offset + size - 1;
  for (let at = first; at <= last; at += 8) {
    const covered = followedSlot(state, stackValue(stackFrame(base), at), 0);
    if (covered >= 0) state[covered] = OTHER;
  }
}

function call(walk: Walk, index: number, slot: Slot, state: State): boolean {
  if (slot.src === PSEUDO.CALL) {
    if (slot.off < 0 || slot.off >= walk.functions.length) return false;
    return enter(walk, slot.off, state, state.slice(0, 6));
  }
  for (let register = 1; register <= 5; register++) {
    const argument = state[register] as number;
    if (isStack(argument)) useStack(walk, argument, 0);
  }
  const callback = functionOf(state[2] as number);
  const passing = CALLBACK_HELPERS.get(slot.imm);
  if (callback !== undefined && callback < walk.functions.length && walk.functions[index]) {
    const registers = new Int32Array(6);
    if (passing) registers[passing.to] = state[passing.from] as number;
    // the callback may run or not: what it leaves in the frames is joined with what was there
    const after = state.slice();
    if (enter(walk, callback, after, registers)) state.set(joinStates(state, after));
  }
  state.fill(OTHER, 0, 6);
  return true;
}

/** Walks a callee from R1..R5 of `registers`; leaves R0 and the frames as it leaves them. */
function enter(walk: Walk, callee: number, state: State, registers: Int32Array): boolean {
  const entry = state.slice();
  entry.fill(OTHER, 0, REGISTERS);
  entry.set(registers.subarray(1, 6), 1);
  const result = walkFunction(walk, callee, entry);
  if (!result) return false;
  const saved = state.slice(6, REGISTERS);
  state.set(result);
  state.set(saved, 6);
  state.fill(OTHER, 1, 6);
  return true;
}

/**
 * From trees to slots: what a function needs at its beginning, its body, what makes its result.
 *
 * Only what the body mentions is set up: registers get their first values, stack cells theirs, so a function
 * that uses few callee-saved registers or no stack has the frame for that. Functions that nobody
 * calls are left out.
 */
import { encodeSlots, makeSlot, type Slot } from '../../bpf/instruction.js';
import { OPCODES, PSEUDO } from '../../bpf/opcodes.js';
import type { FuzzCase, FuzzFunction, FuzzProgram } from './case.js';
import {
  DATA_SIZE,
  FUZZ_MAPS,
  KEY_OFFSET,
  PROGRAMS_MAP,
  VALUE_SIZE,
  visitNodes,
  type CaseTree,
  type FunctionTree,
  type FunctionTrees,
  type Node,
} from './tree.js';

const MOV64_IMM = 0xb7;
const MOV64_REG = 0xbf;
const ADD64_IMM = 0x07;
const ADD64_REG = 0x0f;
const MUL64_IMM = 0x27;
const LD_IMM64 = 0x18;
const LDX_DW = 0x79;
const STX_DW = 0x7b;
const ST_DW = 0x7a;
const ST_W = 0x62;
const JA = 0x05;
const GOTOL = 0x06;
const JNE_IMM = 0x55;
const JEQ_IMM = 0x15;
const CALL = 0x85;
const EXIT = 0x95;
const TAIL_CALL = 0xf5;

const FRAME = 10;
const ARGUMENTS = [1, 2, 3, 4, 5];

const movImm = (dst: number, imm: number): Slot => makeSlot(MOV64_IMM, { dst, imm });
const movReg = (dst: number, src: number): Slot => makeSlot(MOV64_REG, { dst, src });

/** What a function mentions, as far as its beginning depends on it. */
interface Mentions {
  /** Bit per register. */
  registers: number;
  /** Bit per 8-byte cell of the data area. */
  cells: number;
  /** Bytes below r10 that are used. */
  depth: number;
}

const bit = (register: number): number => 1 << register;
const has = (set: number, register: number): boolean => (set & bit(register)) !== 0;

/** The registers that hold arguments which the function looks at. */
function parametersOf(mentions: number): number {
  return mentions & 0x3e;
}

/** Marks the cells of the data area in [at, at + size), `at` from r10. */
function touch(mentions: Mentions, fn: FunctionTree, at: number, size: number): void {
  mentions.depth = Math.max(mentions.depth, -at);
  const first = at + fn.stack;
  for (let cell = first >> 3; cell <= (first + size - 1) >> 3; cell++) mentions.cells |= 1 << cell;
}

function mentionSlots(mentions: Mentions, fn: FunctionTree, slots: readonly Slot[]): void {
  // r10 plus a constant, made by `mov` and `add` in front of the access
  let copy = -1;
  let distance = 0;
  for (let i = 0; i < slots.length; i++) {
    const slot = slots[i] as Slot;
    mentions.registers |= bit(slot.dst) | bit(slot.src);
    const opcode = OPCODES[slot.code];
    if (!opcode) continue;
    switch (opcode.kind) {
      case 'ld_imm64':
        i++;
        break;
      case 'alu':
        if (slot.code === MOV64_REG && slot.src === FRAME) [copy, distance] = [slot.dst, 0];
        else if (slot.code === ADD64_IMM && slot.dst === copy) distance += slot.imm;
        break;
      case 'load':
      case 'store':
      case 'atomic': {
        if (opcode.kind === 'atomic' && slot.imm === 0xf1) mentions.registers |= 1;
        const loads = opcode.kind === 'load' || (opcode.kind === 'atomic' && slot.imm === 0x100);
        const base = loads ? slot.src : slot.dst;
        if (base === FRAME) touch(mentions, fn, slot.off, opcode.size);
        else if (base === copy) touch(mentions, fn, distance + slot.off, opcode.size);
        break;
      }
      default:
    }
  }
}

function mentionNode(
  mentions: Mentions,
  fn: FunctionTree,
  node: Node,
  parameters: readonly number[],
): void {
  switch (node.kind) {
    case 'insn':
      return mentionSlots(mentions, fn, node.slots);
    case 'branch':
      mentions.registers |= bit(node.jump.dst) | bit(node.jump.src);
      return;
    case 'loop':
      mentions.registers |= bit(FRAME) | 1;
      mentions.depth = Math.max(mentions.depth, 8 * (node.depth + 1));
      return;
    case 'call': {
      mentions.registers |= 1 | (parameters[node.callee] ?? 0);
      return;
    }
    case 'helper':
      mentions.registers |= 1;
      for (let r = 1; r <= node.count; r++) mentions.registers |= bit(r);
      return;
    case 'lookup':
    case 'delete':
      if (node.kind === 'lookup') mentions.registers |= bit(node.pointer);
      mentions.registers |= bit(FRAME) | 1;
      mentions.depth = Math.max(mentions.depth, -KEY_OFFSET);
      return;
    case 'update':
      mentions.registers |= bit(FRAME) | 1;
      mentions.depth = Math.max(mentions.depth, -KEY_OFFSET);
      touch(mentions, fn, -fn.stack + node.at, VALUE_SIZE);
      return;
    case 'tail':
      mentions.registers |= bit(fn.memory);
      return;
  }
}

/** Everything one function is emitted with. */
interface Scope {
  readonly fn: FunctionTree;
  readonly mentions: Mentions;
  /** New number of each function of the program. */
  readonly numbers: readonly number[];
  /** Parameters of each function. */
  readonly parameters: readonly number[];
  /** For each function whether it takes the memory's address. */
  readonly takesMemory: readonly boolean[];
  readonly slots: Slot[];
}

function add(scope: Scope, ...slots: readonly Slot[]): void {
  for (const slot of slots) scope.slots.push(slot);
}

/** What every call leaves undefined gets a value again, where it is looked at. */
function refill(scope: Scope): void {
  for (const dst of ARGUMENTS) {
    if (has(scope.mentions.registers, dst)) add(scope, movImm(dst, 0x1111 * dst));
  }
}

function frameAddress(dst: number, offset: number): Slot[] {
  return [movReg(dst, FRAME), makeSlot(ADD64_IMM, { dst, imm: offset })];
}

function mapReference(dst: number, map: number): Slot[] {
  return [makeSlot(LD_IMM64, { dst, src: PSEUDO.MAP_IDX, imm: map }), makeSlot(0)];
}

/** key on the stack, r2 at it, r1 the map. */
function mapArguments(scope: Scope, map: number, key: number): void {
  add(scope, makeSlot(ST_W, { dst: FRAME, off: KEY_OFFSET, imm: key }));
  add(scope, ...frameAddress(2, KEY_OFFSET), ...mapReference(1, map));
}

/** Emits `body` and fills in how far the jump at `at` goes to skip it, and `more` slots. */
function emitSkipped(scope: Scope, at: number, body: readonly Node[], more = 0): void {
  emitNodes(scope, body);
  const off = scope.slots.length + more - at - 1;
  scope.slots[at] = { ...(scope.slots[at] as Slot), off };
}

function emitNodes(scope: Scope, nodes: readonly Node[]): void {
  for (const node of nodes) emitNode(scope, node);
}

function emitBranch(scope: Scope, node: Extract<Node, { kind: 'branch' }>): void {
  const { slots } = scope;
  const at = slots.length;
  add(scope, node.jump);
  if (!node.otherwise) return emitSkipped(scope, at, node.body);
  emitSkipped(scope, at, node.body, 1);
  const over = slots.length;
  add(scope, makeSlot(JA));
  emitNodes(scope, node.otherwise);
  const distance = slots.length - over - 1;
  slots[over] = node.long ? makeSlot(GOTOL, { imm: distance }) : makeSlot(JA, { off: distance });
}

function emitLoop(scope: Scope, node: Extract<Node, { kind: 'loop' }>): void {
  const { slots } = scope;
  const off = -8 * (node.depth + 1);
  add(scope, makeSlot(ST_DW, { dst: FRAME, off, imm: node.count }));
  const start = slots.length;
  const down = [
    makeSlot(LDX_DW, { dst: 0, src: FRAME, off }),
    makeSlot(ADD64_IMM, { dst: 0, imm: -1 }),
    makeSlot(STX_DW, { dst: FRAME, src: 0, off }),
  ];
  if (node.form === 'until') {
    emitNodes(scope, node.body);
    add(scope, ...down);
    add(scope, makeSlot(JNE_IMM, { dst: 0, off: start - slots.length - 1 }));
    return;
  }
  add(scope, makeSlot(LDX_DW, { dst: 0, src: FRAME, off }));
  const at = slots.length;
  add(scope, makeSlot(JEQ_IMM, { dst: 0 }), ...down.slice(1));
  emitSkipped(scope, at, node.body, 1);
  add(scope, makeSlot(JA, { off: start - slots.length - 1 }));
}

function emitLookup(scope: Scope, node: Extract<Node, { kind: 'lookup' }>): void {
  mapArguments(scope, node.map, node.key);
  add(scope, makeSlot(CALL, { imm: 1 }));
  const at = scope.slots.length;
  add(scope, makeSlot(JEQ_IMM, { dst: 0 }));
  if (node.pointer !== 0) add(scope, movReg(node.pointer, 0), movImm(0, 1));
  refill(scope);
  emitSkipped(scope, at, node.body);
  add(scope, movImm(0, node.key));
  if (node.pointer !== 0) add(scope, movImm(node.pointer, node.key));
  refill(scope);
}

function emitNode(scope: Scope, node: Node): void {
  switch (node.kind) {
    case 'insn':
      return add(scope, ...node.slots);
    case 'branch':
      return emitBranch(scope, node);
    case 'loop':
      return emitLoop(scope, node);
    case 'call':
      if (scope.takesMemory[node.callee]) add(scope, movReg(1, scope.fn.memory));
      add(
        scope,
        makeSlot(CALL, { src: PSEUDO.CALL, off: scope.numbers[node.callee] ?? 0, imm: 1 }),
      );
      return refill(scope);
    case 'helper':
      add(scope, makeSlot(CALL, { imm: node.id }));
      return refill(scope);
    case 'lookup':
      return emitLookup(scope, node);
    case 'update':
      mapArguments(scope, node.map, node.key);
      add(scope, ...frameAddress(3, -scope.fn.stack + node.at), movImm(4, 0));
      add(scope, makeSlot(CALL, { imm: 2 }));
      return refill(scope);
    case 'delete':
      mapArguments(scope, node.map, node.key);
      add(scope, makeSlot(CALL, { imm: 3 }));
      return refill(scope);
    case 'tail':
      add(scope, movReg(1, scope.fn.memory), ...mapReference(2, PROGRAMS_MAP));
      add(scope, movImm(3, node.index), makeSlot(TAIL_CALL), movImm(0, node.index));
      return refill(scope);
  }
}

/** Registers and stack cells get values, so that nothing is read before it is written. */
function emitBeginning(scope: Scope, isMain: boolean): void {
  const { fn, mentions } = scope;
  const memory = has(mentions.registers, fn.memory);
  if (memory) add(scope, movReg(fn.memory, 1));
  for (let register = 0; register < FRAME; register++) {
    if (register === fn.memory || !has(mentions.registers, register)) continue;
    // r1 held the memory's address; the other arguments come from the caller
    const given = !isMain && register >= (memory ? 2 : 1) && register <= 5;
    if (!given) add(scope, movImm(register, fn.values[register] ?? 0));
  }
  for (let cell = 0; cell < DATA_SIZE / 8; cell++) {
    if (!has(mentions.cells, cell)) continue;
    add(
      scope,
      makeSlot(ST_DW, { dst: FRAME, off: -fn.stack + 8 * cell, imm: fn.values[cell] ?? 0 }),
    );
  }
}

/** r0 = r0 * 31 + r for every scalar that counts; r0 begins as the first of them if the body has no use for it. */
function emitEnd(scope: Scope): void {
  const { fn, mentions } = scope;
  let hasResult = has(mentions.registers, 0);
  for (const src of fn.mixed) {
    if (src === fn.memory || src === 0 || !has(mentions.registers, src)) continue;
    if (hasResult) add(scope, makeSlot(MUL64_IMM, { imm: 31 }), makeSlot(ADD64_REG, { src }));
    else add(scope, movReg(0, src));
    hasResult = true;
  }
  if (!hasResult) add(scope, movImm(0, 0));
  add(scope, makeSlot(EXIT));
}

/** Which functions main reaches. */
function reached(functions: FunctionTrees): boolean[] {
  const seen = functions.map((_, index) => index === 0);
  // callees come after their callers
  functions.forEach(({ body }, index) => {
    if (!seen[index]) return;
    visitNodes(body, (node) => {
      if (node.kind === 'call') seen[node.callee] = true;
    });
  });
  return seen;
}

export function emitProgram(functions: FunctionTrees): FuzzProgram {
  const live = reached(functions);
  let next = 0;
  const numbers = live.map((isLive) => (isLive ? next++ : -1));
  const all: Mentions[] = [];
  const parameters: number[] = [];
  const takesMemory: boolean[] = [];
  for (let index = functions.length - 1; index >= 0; index--) {
    const fn = functions[index] as FunctionTree;
    const mentions: Mentions = { registers: 0, cells: 0, depth: 0 };
    visitNodes(fn.body, (node) => {
      mentionNode(mentions, fn, node, parameters);
      if (node.kind === 'call' && takesMemory[node.callee]) {
        mentions.registers |= bit(fn.memory) | bit(1);
      }
    });
    all[index] = mentions;
    parameters[index] = parametersOf(mentions.registers);
    takesMemory[index] = has(mentions.registers, fn.memory);
  }
  const emitted: FuzzFunction[] = [];
  for (const [index, fn] of functions.entries()) {
    if (!live[index]) continue;
    const mentions = all[index] as Mentions;
    const scope: Scope = { fn, mentions, numbers, parameters, takesMemory, slots: [] };
    emitBeginning(scope, index === 0);
    emitNodes(scope, fn.body);
    emitEnd(scope);
    const stackDepth = Math.ceil(mentions.depth / 8) * 8;
    emitted.push({ insns: encodeSlots(scope.slots), stackDepth });
  }
  return emitted;
}

export function caseOf({ programs, memory }: CaseTree): FuzzCase {
  return { programs: programs.map(emitProgram), memory, maps: FUZZ_MAPS };
}

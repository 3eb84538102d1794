/**
 * A random program as a tree: straight instructions, forward branches, counted loops, calls.
 *
 * The tree is what is generated and what the minimiser cuts; `emitProgram` turns it into slots. Every tree is
 * a valid program: jumps lead to the end of their block, loops end, registers and stack are written
 * before they are read, pointers stay where they are. So every subtree with nodes taken out is one too.
 *
 * Registers: r0..r5 and r6..r8 are scalars, r9 points at the memory of the case, r10 is the frame. Below r10
 * lie the data area of a function, then its loop counters and its scratch slot.
 */
import { encodeSlots, makeSlot, type Slot } from '../../bpf/instruction.js';
import { PSEUDO } from '../../bpf/opcodes.js';

export type Node =
  /** One instruction (ld_imm64: two slots) without a jump. */
  | { readonly kind: 'insn'; readonly slots: readonly Slot[] }
  /** `if (condition) skip the body`; the condition is a jump instruction whose offset is filled in. */
  | { readonly kind: 'branch'; readonly jump: Slot; readonly body: readonly Node[] }
  /** The body, `count` times; `depth` picks the counter's slot. */
  | {
      readonly kind: 'loop';
      readonly count: number;
      readonly depth: number;
      readonly body: readonly Node[];
    }
  /** A call of function `callee`: its arguments are what r1..r5 hold. */
  | { readonly kind: 'call'; readonly callee: number }
  /** r0 = lookup of `key` in map `map`; the body runs with r0 at the value, if there is one. */
  | {
      readonly kind: 'lookup';
      readonly map: number;
      readonly key: number;
      readonly body: readonly Node[];
    }
  /** Update of `key` in map `map` with bytes of the frame's data area. */
  | { readonly kind: 'update'; readonly map: number; readonly key: number; readonly at: number };

export interface FunctionTree {
  readonly body: readonly Node[];
}

/** A case: functions (main first) and what they run on. */
export interface ProgramTree {
  readonly functions: readonly FunctionTree[];
  /** Bytes that r1 points at when main begins. */
  readonly memory: Uint8Array;
}

/** Bytes of a frame that loads, stores and atomics may use: [r10-DATA_BASE, r10-DATA_BASE+DATA_SIZE). */
export const DATA_BASE = 128;
export const DATA_SIZE = 64;
/** Bytes behind r9. */
export const MEMORY_SIZE = 64;
/** Slots for loop counters: r10-8, r10-16, .. */
const COUNTER_SLOT = 8;
/** The key of map calls. */
const KEY_OFFSET = -56;

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
const JNE_IMM = 0x55;
const JEQ_IMM = 0x15;
const CALL = 0x85;
const EXIT = 0x95;

const movImm = (dst: number, imm: number): Slot => makeSlot(MOV64_IMM, { dst, imm });
const movReg = (dst: number, src: number): Slot => makeSlot(MOV64_REG, { dst, src });

/** What every call leaves undefined gets a value again. */
function refillScratch(): Slot[] {
  return [1, 2, 3, 4, 5].map((dst) => movImm(dst, 0x1111 * dst));
}

function frameAddress(dst: number, offset: number): Slot[] {
  return [movReg(dst, 10), makeSlot(ADD64_IMM, { dst, imm: offset })];
}

function mapReference(map: number): Slot[] {
  return [makeSlot(LD_IMM64, { dst: 1, src: PSEUDO.MAP_IDX, imm: map }), makeSlot(0)];
}

function emitNodes(nodes: readonly Node[]): Slot[] {
  return nodes.flatMap(emitNode);
}

function emitNode(node: Node): Slot[] {
  switch (node.kind) {
    case 'insn':
      return [...node.slots];
    case 'branch': {
      const body = emitNodes(node.body);
      return [{ ...node.jump, off: body.length }, ...body];
    }
    case 'loop': {
      const off = -COUNTER_SLOT * (node.depth + 1);
      const body = emitNodes(node.body);
      const tail = [
        makeSlot(LDX_DW, { dst: 0, src: 10, off }),
        makeSlot(ADD64_IMM, { dst: 0, imm: -1 }),
        makeSlot(STX_DW, { dst: 10, src: 0, off }),
      ];
      const back = -(body.length + tail.length + 1);
      return [
        makeSlot(ST_DW, { dst: 10, off, imm: node.count }),
        ...body,
        ...tail,
        makeSlot(JNE_IMM, { dst: 0, imm: 0, off: back }),
      ];
    }
    case 'call':
      return [
        // imm is set to the distance when all functions have their places
        makeSlot(CALL, { src: PSEUDO.CALL, imm: node.callee }),
        ...refillScratch(),
      ];
    case 'lookup': {
      const body = [...refillScratch(), ...emitNodes(node.body)];
      return [
        makeSlot(ST_W, { dst: 10, off: KEY_OFFSET, imm: node.key }),
        ...frameAddress(2, KEY_OFFSET),
        ...mapReference(node.map),
        makeSlot(CALL, { imm: 1 }),
        makeSlot(JEQ_IMM, { dst: 0, imm: 0, off: body.length }),
        ...body,
        movImm(0, node.key),
        ...refillScratch(),
      ];
    }
    case 'update':
      return [
        makeSlot(ST_W, { dst: 10, off: KEY_OFFSET, imm: node.key }),
        ...frameAddress(2, KEY_OFFSET),
        ...frameAddress(3, -DATA_BASE + node.at),
        movImm(4, 0),
        ...mapReference(node.map),
        makeSlot(CALL, { imm: 2 }),
        ...refillScratch(),
      ];
  }
}

/** Registers and data area get values, so that nothing is read before it is written. */
function prologue(isMain: boolean): Slot[] {
  const slots: Slot[] = [];
  if (isMain) slots.push(movReg(9, 1), ...refillScratch());
  for (const dst of [6, 7, 8]) slots.push(isMain ? movImm(dst, dst) : movReg(dst, dst - 5));
  slots.push(movImm(0, 0));
  for (let at = 0; at < DATA_SIZE; at += 8) {
    slots.push(makeSlot(ST_DW, { dst: 10, off: -DATA_BASE + at, imm: at }));
  }
  return slots;
}

/** The result depends on every scalar: r0 = r0 * 31 + r1 and so on. */
function epilogue(): Slot[] {
  const mix = [1, 2, 3, 4, 5, 6, 7, 8].flatMap((src) => [
    makeSlot(MUL64_IMM, { dst: 0, imm: 31 }),
    makeSlot(ADD64_REG, { dst: 0, src }),
  ]);
  return [...mix, makeSlot(EXIT)];
}

/** Slots of the whole program: functions one after the other, calls relative. */
export function emitProgram(tree: ProgramTree): Uint8Array {
  const functions = tree.functions.map(({ body }, index) => [
    ...prologue(index === 0),
    ...emitNodes(body),
    ...epilogue(),
  ]);
  const starts: number[] = [];
  let total = 0;
  for (const slots of functions) {
    starts.push(total);
    total += slots.length;
  }
  const all = functions.flat().map((slot, index) => {
    if (slot.code !== CALL || slot.src !== PSEUDO.CALL) return slot;
    return { ...slot, imm: (starts[slot.imm] ?? 0) - index - 1 };
  });
  return encodeSlots(all);
}

/** Number of nodes: what the minimiser makes smaller. */
export function countNodes(tree: ProgramTree): number {
  const count = (nodes: readonly Node[]): number =>
    nodes.reduce((sum, node) => sum + 1 + ('body' in node ? count(node.body) : 0), 0);
  return tree.functions.reduce((sum, { body }) => sum + count(body), 0);
}

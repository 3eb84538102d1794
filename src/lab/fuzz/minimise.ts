/**
 * Makes the case of a difference small, as long as the engines still differ on it.
 *
 * Whole nodes go first, then what is left is made plain: constants nearer to zero, fewer registers,
 * memory of zeros, less that the result depends on. What every step makes is a valid case again.
 */
import type { Slot } from '../../bpf/instruction.js';
import { OPCODES } from '../../bpf/opcodes.js';
import { differOn, type FuzzDifference } from './fuzz.js';
import {
  bodiesOf,
  LEAST_STACK,
  visitNodes,
  type CaseTree,
  type FunctionTree,
  type Node,
} from './tree.js';

/** Trees that are simpler in one respect, the largest steps first. */
type Simplify = (tree: CaseTree) => Iterable<CaseTree>;

export function minimise(difference: FuzzDifference): FuzzDifference {
  let best = difference;
  const passes: readonly Simplify[] = [
    withoutNodes,
    withoutPrograms,
    plainFunctions,
    plainMemory,
    plainSlots,
  ];
  for (;;) {
    const before = best;
    for (const pass of passes) best = applyPass(best, pass);
    if (best === before) return best;
  }
}

/** Takes the first simplification that still differs, again and again. */
function applyPass(difference: FuzzDifference, simplify: Simplify): FuzzDifference {
  let best = difference;
  for (;;) {
    const simpler = firstThatDiffers(best, simplify(best.tree));
    if (!simpler) return best;
    best = simpler;
  }
}

function firstThatDiffers(
  difference: FuzzDifference,
  trees: Iterable<CaseTree>,
): FuzzDifference | undefined {
  for (const tree of trees) {
    const found = differOn(difference, tree);
    if (found) return found;
  }
  return undefined;
}

/** The case with one function replaced. */
function replaceFunction(
  tree: CaseTree,
  program: number,
  index: number,
  fn: FunctionTree,
): CaseTree {
  const programs = tree.programs.map((functions, p) =>
    p === program ? functions.map((each, i) => (i === index ? fn : each)) : functions,
  );
  return { ...tree, programs };
}

function* eachFunction(
  tree: CaseTree,
  simpler: (fn: FunctionTree) => Iterable<FunctionTree>,
): Generator<CaseTree> {
  for (const [program, functions] of tree.programs.entries()) {
    for (const [index, fn] of functions.entries()) {
      for (const one of simpler(fn)) yield replaceFunction(tree, program, index, one);
    }
  }
}

function withoutNodes(tree: CaseTree): Iterable<CaseTree> {
  return eachFunction(tree, function* (fn) {
    for (const body of smallerBodies(fn.body)) yield { ...fn, body };
  });
}

function* smallerBodies(body: readonly Node[]): Generator<Node[]> {
  for (let length = body.length; length >= 1; length = length >> 1) {
    for (let at = 0; at + length <= body.length; at += length) {
      yield [...body.slice(0, at), ...body.slice(at + length)];
    }
  }
  for (const [index, node] of body.entries()) {
    for (const nodes of simplerNode(node)) {
      yield [...body.slice(0, index), ...nodes, ...body.slice(index + 1)];
    }
  }
}

/** What may stand for a node: its bodies alone, or itself with less in them. */
function* simplerNode(node: Node): Generator<readonly Node[]> {
  switch (node.kind) {
    case 'branch': {
      const { otherwise, ...plain } = node;
      for (const body of bodiesOf(node)) yield body;
      if (otherwise) yield [plain];
      for (const body of smallerBodies(node.body)) yield [{ ...node, body }];
      for (const body of smallerBodies(otherwise ?? [])) yield [{ ...node, otherwise: body }];
      return;
    }
    case 'loop':
      yield node.body;
      if (node.count > 1) yield [{ ...node, count: 1 }];
      if (node.count > 2) yield [{ ...node, count: 2 }];
      for (const body of smallerBodies(node.body)) yield [{ ...node, body }];
      return;
    case 'lookup':
      // behind a lookup a register is an address: its body cannot stand alone
      for (const body of smallerBodies(node.body)) yield [{ ...node, body }];
      return;
    case 'insn':
    case 'call':
    case 'helper':
    case 'update':
    case 'delete':
    case 'tail':
      return;
  }
}

/** Programs that tail calls reach, from the last on. */
function* withoutPrograms(tree: CaseTree): Generator<CaseTree> {
  if (tree.programs.length > 1) yield { ...tree, programs: tree.programs.slice(0, -1) };
}

/** Fewer registers in the result, plain first values, less stack. */
function plainFunctions(tree: CaseTree): Iterable<CaseTree> {
  return eachFunction(tree, function* (fn) {
    if (fn.mixed.length > 0) yield { ...fn, mixed: [] };
    for (const register of fn.mixed) {
      if (fn.mixed.length > 1) yield { ...fn, mixed: fn.mixed.filter((each) => each !== register) };
    }
    for (const [register, value] of fn.values.entries()) {
      for (const plain of plainer(value)) {
        yield { ...fn, values: fn.values.map((each, i) => (i === register ? plain : each)) };
      }
    }
    if (fn.stack > LEAST_STACK) {
      yield { ...fn, stack: LEAST_STACK, body: moveStack(fn.body, fn.stack - LEAST_STACK) };
    }
    const used = scalarsOf(fn);
    for (const from of used) {
      for (const to of used) if (to < from) yield { ...fn, body: rename(fn.body, from, to) };
    }
  });
}

/** Values to try for one, the plainest first. */
function plainer(value: number): number[] {
  const half = Math.trunc(value / 2);
  return [...new Set([0, 1, -1, half])].filter(
    (each) => Math.abs(each) < Math.abs(value) || (each === 1 && value === -1),
  );
}

function* plainMemory(tree: CaseTree): Generator<CaseTree> {
  if (tree.memory.some((byte) => byte !== 0)) yield { ...tree, memory: tree.memory.map(() => 0) };
  for (let length = tree.memory.length >> 1; length >= 1; length = length >> 1) {
    for (let at = 0; at < tree.memory.length; at += length) {
      if (!tree.memory.subarray(at, at + length).some((byte) => byte !== 0)) continue;
      const memory = tree.memory.slice();
      memory.fill(0, at, at + length);
      yield { ...tree, memory };
    }
  }
}

/** Immediates of instructions and jumps nearer to zero. */
function plainSlots(tree: CaseTree): Iterable<CaseTree> {
  return eachFunction(tree, function* (fn) {
    for (const body of plainBodies(fn.body)) yield { ...fn, body };
  });
}

function* plainBodies(body: readonly Node[]): Generator<Node[]> {
  for (const [index, node] of body.entries()) {
    for (const plain of plainNode(node)) {
      yield [...body.slice(0, index), plain, ...body.slice(index + 1)];
    }
  }
}

function* plainNode(node: Node): Generator<Node> {
  switch (node.kind) {
    case 'insn':
      // several slots make an address: their constants belong together
      if (node.slots.length > 2) return;
      for (const [index, slot] of node.slots.entries()) {
        if (node.slots.length === 2 && slot.code !== 0x18 && slot.code !== 0) return;
        for (const plain of plainSlot(slot)) {
          yield { ...node, slots: node.slots.map((each, i) => (i === index ? plain : each)) };
        }
      }
      return;
    case 'branch':
      for (const jump of plainSlot(node.jump)) yield { ...node, jump };
      for (const body of plainBodies(node.body)) yield { ...node, body };
      for (const body of plainBodies(node.otherwise ?? [])) yield { ...node, otherwise: body };
      return;
    case 'loop':
    case 'lookup':
      for (const body of plainBodies(node.body)) yield { ...node, body };
      return;
    case 'call':
    case 'helper':
    case 'update':
    case 'delete':
    case 'tail':
      return;
  }
}

/** Kinds of instructions whose imm is a number and not a selector. */
function hasNumber(slot: Slot): boolean {
  if (slot.code === 0) return true;
  const opcode = OPCODES[slot.code];
  switch (opcode?.kind) {
    case 'ld_imm64':
      return slot.src === 0;
    case 'alu':
    case 'jump':
    case 'store':
      return opcode.source === 'immediate';
    default:
      return false;
  }
}

function* plainSlot(slot: Slot): Generator<Slot> {
  if (!hasNumber(slot)) return;
  const opcode = OPCODES[slot.code];
  const divides = opcode?.kind === 'alu' && (opcode.op === 'div' || opcode.op === 'mod');
  for (const imm of plainer(slot.imm)) if (imm !== 0 || !divides) yield { ...slot, imm };
}

/** Registers of a function that are never addresses. */
function scalarsOf(fn: FunctionTree): number[] {
  const used = new Set<number>();
  const addresses = new Set([10, fn.memory]);
  visitNodes(fn.body, (node) => {
    if (node.kind === 'lookup') addresses.add(node.pointer);
    if (node.kind === 'branch') used.add(node.jump.dst).add(node.jump.src);
    if (node.kind !== 'insn') return;
    for (const { dst, src } of node.slots) used.add(dst).add(src);
    if (node.slots.length > 2) for (const { dst } of node.slots) addresses.add(dst);
  });
  return [...used].filter((register) => !addresses.has(register));
}

function mapSlots(nodes: readonly Node[], change: (slot: Slot) => Slot): Node[] {
  return nodes.map((node): Node => {
    switch (node.kind) {
      case 'insn':
        return { ...node, slots: node.slots.map(change) };
      case 'branch':
        return {
          ...node,
          jump: change(node.jump),
          body: mapSlots(node.body, change),
          ...(node.otherwise && { otherwise: mapSlots(node.otherwise, change) }),
        };
      case 'loop':
      case 'lookup':
        return { ...node, body: mapSlots(node.body, change) };
      case 'call':
      case 'helper':
      case 'update':
      case 'delete':
      case 'tail':
        return node;
    }
  });
}

function rename(nodes: readonly Node[], from: number, to: number): Node[] {
  const renamed = (register: number): number => (register === from ? to : register);
  return mapSlots(nodes, (slot) => {
    // the second slot of ld_imm64, and fields that are no register, hold zeros
    if (slot.code === 0 || !usesSource(slot)) {
      return slot.code === 0 ? slot : { ...slot, dst: renamed(slot.dst) };
    }
    return { ...slot, dst: renamed(slot.dst), src: renamed(slot.src) };
  });
}

/** Whether src is a register. */
function usesSource({ code }: Slot): boolean {
  const opcode = OPCODES[code];
  switch (opcode?.kind) {
    case 'alu':
    case 'jump':
    case 'store':
      return opcode.source === 'register';
    case 'load':
    case 'atomic':
      return true;
    default:
      return false;
  }
}

/** The data area lies `less` bytes nearer to r10. */
function moveStack(nodes: readonly Node[], less: number): Node[] {
  const accesses = (slot: Slot): boolean => {
    const kind = OPCODES[slot.code]?.kind;
    if (kind === 'load') return slot.src === 10;
    if (kind === 'atomic') return (slot.imm === 0x100 ? slot.src : slot.dst) === 10;
    return kind === 'store' && slot.dst === 10;
  };
  return nodes.map((node): Node => {
    if (node.kind !== 'insn') {
      const bodies = bodiesOf(node);
      if (bodies.length === 0) return node;
      const [body = [], otherwise] = bodies.map((each) => moveStack(each, less));
      return { ...node, body, ...(otherwise && { otherwise }) } as Node;
    }
    let copy = -1;
    const slots = node.slots.map((slot) => {
      if (slot.code === 0xbf && slot.src === 10) copy = slot.dst;
      if (slot.code === 0x07 && slot.dst === copy) return { ...slot, imm: slot.imm + less };
      return accesses(slot) ? { ...slot, off: slot.off + less } : slot;
    });
    return { ...node, slots };
  });
}

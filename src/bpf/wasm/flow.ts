/**
 * The control-flow graph of one BPF function: basic blocks, their order, dominators, loops.
 *
 * Blocks are numbered in reverse postorder and only reachable ones are kept, so an edge to a block of
 * the same or a smaller number is a back edge when its target dominates its source. Reference for the
 * dominators: Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm".
 *
 * Usage:
 *   const flow = buildFlow(readSlots(fn.insns));
 *   if (!flow.reducible) ...
 */
import type { Slot } from '../instruction.js';
import { OPCODES } from '../opcodes.js';
import { jumpDistance } from '../validate.js';

/** Longest block in slots: longer ones are cut, so that huge functions can be split. */
const MAX_BLOCK = 2048;

export interface Block {
  /** First slot and the slot behind the last one. */
  readonly start: number;
  readonly end: number;
  /** Block entered when the last instruction does not jump, or -1. */
  next: number;
  /** Block that the last instruction jumps to, or -1. */
  taken: number;
  /** Number of the loop that it heads, from 1; 0 for none. Only `withResumes` gives numbers. */
  loop: number;
  /** Of a block without instructions that `withResumes` adds: where a resumed run goes. */
  readonly resumes: readonly Resume[];
}

/** Loops `first` to `first + count - 1` are reached through block `to`. */
export interface Resume {
  readonly first: number;
  readonly count: number;
  to: number;
}

export interface Flow {
  /** In reverse postorder; the entry is 0. */
  readonly blocks: readonly Block[];
  readonly predecessors: readonly (readonly number[])[];
  /** Immediate dominator of each block; 0 for the entry. */
  readonly dominator: Int32Array;
  /** Every loop is entered at its header only. */
  readonly reducible: boolean;
  /** 1 for targets of back edges. */
  readonly isHeader: Uint8Array;
  readonly hasLoops: boolean;
}

const NO_RESUMES: readonly Resume[] = [];

export function buildFlow(slots: readonly Slot[]): Flow {
  return finish(splitBlocks(slots));
}

function finish(raw: readonly Block[]): Flow {
  const blocks = renumber(raw, reversePostorder(raw));
  const predecessors: number[][] = blocks.map(() => []);
  const isHeader = new Uint8Array(blocks.length);
  const backEdges: [from: number, to: number][] = [];
  const edge = (from: number, to: number): void => {
    (predecessors[to] as number[]).push(from);
    if (to <= from) backEdges.push([from, to]);
  };
  for (let index = 0; index < blocks.length; index++) {
    const { next, taken, resumes } = blocks[index] as Block;
    for (const { to } of resumes) edge(index, to);
    if (next >= 0) edge(index, next);
    // a jump to where it falls through to anyway is one edge
    if (taken >= 0 && taken !== next) edge(index, taken);
  }
  const dominator = dominators(predecessors);
  let reducible = true;
  for (const [from, to] of backEdges) {
    isHeader[to] = 1;
    if (!dominates(dominator, to, from)) reducible = false;
  }
  const hasLoops = backEdges.length > 0;
  return { blocks, predecessors, dominator, reducible, isHeader, hasLoops };
}

function splitBlocks(slots: readonly Slot[]): Block[] {
  const isStart = new Uint8Array(slots.length + 1);
  const isSecond = new Uint8Array(slots.length + 1);
  isStart[0] = 1;
  let length = 0;
  for (let index = 0; index < slots.length; index++) {
    const slot = slots[index] as Slot;
    const opcode = OPCODES[slot.code];
    if (!opcode) continue;
    if (isStart[index] === 1) length = 0;
    else if (++length >= MAX_BLOCK) {
      isStart[index] = 1;
      length = 0;
    }
    if (opcode.kind === 'ld_imm64') isSecond[++index] = 1;
    const distance = jumpDistance(slot, opcode);
    if (distance !== undefined) isStart[index + 1 + distance] = 1;
    if (distance !== undefined || opcode.kind === 'exit') isStart[index + 1] = 1;
  }
  const starts: number[] = [];
  const blockAt = new Int32Array(slots.length + 1).fill(-1);
  for (let index = 0; index < slots.length; index++) {
    if (isStart[index] === 1) blockAt[index] = starts.push(index) - 1;
  }
  return starts.map((start, at) => {
    const end = starts[at + 1] ?? slots.length;
    const last = isSecond[end - 1] === 1 ? end - 2 : end - 1;
    const slot = slots[last] as Slot;
    const opcode = OPCODES[slot.code];
    const distance = opcode && jumpDistance(slot, opcode);
    const taken = distance === undefined ? -1 : (blockAt[last + 1 + distance] as number);
    const falls = opcode?.kind !== 'goto' && opcode?.kind !== 'exit';
    const next = falls && end < slots.length ? at + 1 : -1;
    return { start, end, next, taken, loop: 0, resumes: NO_RESUMES };
  });
}

/** Blocks reachable from the first, in reverse postorder. */
function reversePostorder(blocks: readonly Block[]): number[] {
  const order: number[] = [];
  const seen = new Uint8Array(blocks.length);
  /** The blocks on the way to the last one, and how many of its successors each has looked at. */
  const stack = [0];
  const looked = new Int32Array(blocks.length);
  seen[0] = 1;
  while (stack.length > 0) {
    const at = stack[stack.length - 1] as number;
    const to = successor(blocks[at] as Block, looked[at] as number);
    if (to === undefined) {
      order.push(at);
      stack.pop();
      continue;
    }
    looked[at] = (looked[at] as number) + 1;
    if (to < 0 || seen[to] !== 0) continue;
    seen[to] = 1;
    stack.push(to);
  }
  return order.reverse();
}

/** The taken side first: the fall-through comes right behind its block. -1: there is none there. */
function successor({ next, taken, resumes }: Block, number: number): number | undefined {
  if (number === 0) return taken;
  if (number === 1) return next;
  return resumes[resumes.length + 1 - number]?.to;
}

function renumber(blocks: readonly Block[], order: readonly number[]): Block[] {
  const numbers = new Int32Array(blocks.length).fill(-1);
  for (let number = 0; number < order.length; number++) numbers[order[number] as number] = number;
  const renamed = (old: number): number => (old < 0 ? -1 : (numbers[old] as number));
  return order.map((old) => {
    const { start, end, next, taken, loop, resumes } = blocks[old] as Block;
    return {
      start,
      end,
      next: renamed(next),
      taken: renamed(taken),
      loop,
      resumes:
        resumes.length === 0
          ? NO_RESUMES
          : resumes.map(({ first, count, to }) => ({ first, count, to: renamed(to) })),
    };
  });
}

function dominators(predecessors: readonly (readonly number[])[]): Int32Array {
  const dominator = new Int32Array(predecessors.length).fill(-1);
  dominator[0] = 0;
  for (let changed = true; changed;) {
    changed = false;
    for (let block = 1; block < predecessors.length; block++) {
      let common = -1;
      for (const from of predecessors[block] as readonly number[]) {
        if ((dominator[from] as number) < 0) continue;
        common = common < 0 ? from : intersect(dominator, common, from);
      }
      if (common !== dominator[block]) {
        dominator[block] = common;
        changed = true;
      }
    }
  }
  return dominator;
}

function intersect(dominator: Int32Array, one: number, other: number): number {
  let a = one;
  let b = other;
  while (a !== b) {
    while (a > b) a = dominator[a] as number;
    while (b > a) b = dominator[b] as number;
  }
  return a;
}

function dominates(dominator: Int32Array, above: number, below: number): boolean {
  let at = below;
  while (at > above) at = dominator[at] as number;
  return at === above;
}

/** How many loops each block is in, up to 255. Meaningful for reducible graphs. */
export function loopDepths({ blocks, predecessors, isHeader }: Flow): Uint8Array {
  const depths = new Uint8Array(blocks.length);
  const mark = new Int32Array(blocks.length).fill(-1);
  for (let header = 0; header < blocks.length; header++) {
    if (isHeader[header] === 0) continue;
    for (const block of loopBody(predecessors, header, mark)) {
      depths[block] = Math.min(255, (depths[block] as number) + 1);
    }
  }
  return depths;
}

/** Blocks of the natural loop at `header`, itself first. */
function loopBody(
  predecessors: readonly (readonly number[])[],
  header: number,
  mark: Int32Array,
): number[] {
  const body = [header];
  mark[header] = header;
  const left = (predecessors[header] as readonly number[]).filter((from) => from >= header);
  for (let block = left.pop(); block !== undefined; block = left.pop()) {
    if (mark[block] === header) continue;
    mark[block] = header;
    body.push(block);
    left.push(...(predecessors[block] as readonly number[]));
  }
  return body;
}

/**
 * The same function with ways into its loops: a block in front of everything, and one in front of
 * each header that has loops inside, lead to the loop whose number a run is resumed with.
 * Only for reducible graphs, which stay so.
 */
export function withResumes(flow: Flow): Flow {
  const { blocks, predecessors, isHeader } = flow;
  const headers = blocks.flatMap((_, index) => (isHeader[index] === 1 ? [index] : []));
  const parents = new Map<number, number>();
  const mark = new Int32Array(blocks.length).fill(-1);
  // outer headers have smaller numbers, so the innermost loop is the last to claim a header
  for (const header of headers) {
    for (const block of loopBody(predecessors, header, mark)) {
      if (block !== header && isHeader[block] === 1) parents.set(block, header);
    }
  }
  const children = (parent: number | undefined): number[] =>
    headers.filter((header) => parents.get(header) === parent);
  const added: Block[] = [];
  const entries = blocks.map((_, index) => index + 1);
  let loops = 0;
  const number = (header: number): Resume => {
    const first = ++loops;
    const inner = children(header).map(number);
    const block = blocks[header] as Block;
    if (inner.length > 0) {
      added.push({
        ...block,
        end: block.start,
        next: header + 1,
        taken: -1,
        loop: first,
        resumes: inner,
      });
      entries[header] = blocks.length + added.length;
    } else {
      block.loop = first;
    }
    return { first, count: loops - first + 1, to: entries[header] as number };
  };
  const outer = children(undefined).map(number);
  const renamed = (block: number): number => (block < 0 ? -1 : (entries[block] as number));
  const entry = blocks[0] as Block;
  return finish([
    { ...entry, end: entry.start, next: renamed(0), taken: -1, loop: 0, resumes: outer },
    ...blocks.map((block) => ({
      ...block,
      next: renamed(block.next),
      taken: renamed(block.taken),
    })),
    ...added,
  ]);
}

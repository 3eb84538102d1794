/**
 * Random cases: all ALU and byte-order operations of ISA v1 to v4, loads and stores of all sizes near and
 * far, atomics, jumps of both widths, loops, functions up to eight deep, helpers, maps, tail calls.
 *
 * Instructions come from the opcode table, so a new opcode there is generated without a change here.
 * What not every kernel's JIT can do is left out unless asked for (`IsaFeatures`).
 */
import { makeSlot, type Slot } from '../../bpf/instruction.js';
import { ATOMIC, OPCODES, type Opcode } from '../../bpf/opcodes.js';
import type { Random } from '../../common/random.js';
import { MIX_HELPERS } from './helpers.js';
import { randomConstant, randomImmediate, randomOffset } from './operands.js';
import {
  COUNTERS,
  DATA_SIZE,
  LEAST_STACK,
  MEMORY_SIZE,
  PROGRAM_SLOTS,
  VALUE_SIZE,
  type CaseTree,
  type FunctionTree,
  type FunctionTrees,
  type Node,
} from './tree.js';

/** What kernel versions differ in, as far as programs may use it. */
export interface IsaFeatures {
  /** cpu v4: sdiv, smod, movsx, bswap, ldsx, gotol. */
  readonly v4: boolean;
  /** load_acquire and store_release. */
  readonly acquireRelease: boolean;
  /**
   * Tail calls are counted over all functions, and only those that happen. Otherwise only main functions
   * make any, and never through an empty slot.
   */
  readonly sharedTailCallCount: boolean;
}

export const ALL_FEATURES: IsaFeatures = {
  v4: true,
  acquireRelease: true,
  sharedTailCallCount: true,
};

/** What all of them have. */
export function commonFeatures(all: readonly IsaFeatures[]): IsaFeatures {
  return {
    v4: all.every((each) => each.v4),
    acquireRelease: all.every((each) => each.acquireRelease),
    sharedTailCallCount: all.every((each) => each.sharedTailCallCount),
  };
}

export interface GenerateOptions {
  /** Nodes on the average: a program has 1 to twice as many. Default 12. */
  readonly size?: number;
  /** Default: all. */
  readonly features?: IsaFeatures;
}

/** MAX_BPF_STACK, which the functions of a chain of calls share; few chains have all of them. */
const STACK = 512;
/** About how many instructions a program may execute. */
const MOST_EXECUTED = 3000;
/** A function of a tail call's target, which may run 33 times. */
const MOST_EXECUTED_TAIL = 100;
const MAX_LOOP_DEPTH = COUNTERS;

interface Choice {
  readonly code: number;
  readonly opcode: Opcode;
}

const CHOICES: readonly Choice[] = OPCODES.flatMap((opcode, code) =>
  opcode === undefined ? [] : [{ code, opcode }],
);
const ofKind = (...kinds: readonly Opcode['kind'][]): readonly Choice[] =>
  CHOICES.filter(({ opcode }) => kinds.includes(opcode.kind));

const ARITHMETIC = ofKind('alu', 'neg', 'end');
const JUMPS = ofKind('jump');
const LOADS = ofKind('load').filter(({ opcode }) => opcode.kind === 'load' && !opcode.probe);
const STORES = ofKind('store');
const ATOMICS = ofKind('atomic');

function isV4({ opcode }: Choice): boolean {
  return (
    (opcode.kind === 'end' && opcode.to === 'swap') || (opcode.kind === 'load' && opcode.signed)
  );
}

/** Choices that a set of features allows. */
interface Repertoire {
  readonly features: IsaFeatures;
  readonly arithmetic: readonly Choice[];
  readonly loads: readonly Choice[];
  readonly atomics: readonly { readonly imm: number; readonly sizes: readonly Choice[] }[];
}

function repertoireOf(features: IsaFeatures): Repertoire {
  const allowed = (choice: Choice): boolean => features.v4 || !isV4(choice);
  const wide = ATOMICS.filter(({ opcode }) => opcode.kind === 'atomic' && opcode.size >= 4);
  return {
    features,
    arithmetic: ARITHMETIC.filter(allowed),
    loads: LOADS.filter(allowed),
    atomics: ATOMIC.flatMap(({ imm, op }) => {
      const ordered = op === 'load_acquire' || op === 'store_release';
      if (ordered && !features.acquireRelease) return [];
      return [{ imm, sizes: ordered ? ATOMICS : wide }];
    }),
  };
}

/** Where in a function something is generated. */
interface Place {
  readonly depth: number;
  readonly loops: number;
  /** Times that it is executed. */
  readonly weight: number;
  /** The register that holds the address of a map value. */
  readonly pointer: number | undefined;
}

/** What holds for one function. */
interface Frame {
  readonly memory: number;
  readonly stack: number;
  readonly callees: readonly number[];
  readonly tails: readonly number[];
}

/** Where an access goes. */
interface Target {
  readonly base: number;
  readonly off: number;
  /** What makes the base register beforehand, and a scalar of it again. */
  readonly before: readonly Slot[];
  readonly after: readonly Slot[];
}

/** r0..r9. */
const REGISTERS: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

const MOV64_IMM = 0xb7;
const MOV64_REG = 0xbf;
const ADD64_IMM = 0x07;
const LDX_DW = 0x79;
const STX_DW = 0x7b;
const LOAD_ACQUIRE = 0x100;
const CMPXCHG = 0xf1;

class Generator {
  readonly #random: Random;
  readonly #repertoire: Repertoire;
  readonly #size: number;
  /** Nodes of the case's main program. */
  #nodes = 0;
  #left = 0;
  #executed = 0;
  #most = MOST_EXECUTED;
  /** Instructions that each function of the program executes. */
  #costs: number[] = [];
  #frame: Frame = { memory: 9, stack: LEAST_STACK, callees: [], tails: [] };
  #scalars: readonly number[] = [];

  constructor(random: Random, repertoire: Repertoire, size: number) {
    this.#random = random;
    this.#repertoire = repertoire;
    this.#size = size;
  }

  tree(): CaseTree {
    const random = this.#random;
    this.#nodes = 1 + random.below(2 * this.#size);
    const tailPrograms = random.below(24) === 0 ? 1 + random.below(PROGRAM_SLOTS - 1) : 0;
    const programs: FunctionTrees[] = [];
    for (let index = 0; index <= tailPrograms; index++) {
      programs.push(this.#program(index, tailPrograms));
    }
    const words = new Uint32Array(MEMORY_SIZE / 4);
    for (let i = 0; i < words.length; i++) words[i] = random.u32();
    return { programs, memory: new Uint8Array(words.buffer) };
  }

  #program(index: number, tailPrograms: number): FunctionTrees {
    const random = this.#random;
    const isMain = index === 0;
    // calls and tail calls together must not nest deeper than eight frames
    const most = tailPrograms === 0 ? 8 : 3;
    const count = random.below(8) === 0 ? 1 + random.below(most) : 1 + random.below(2);
    this.#left = isMain ? this.#nodes : Math.max(3, this.#nodes >> 2);
    this.#most = isMain ? MOST_EXECUTED : MOST_EXECUTED_TAIL;
    this.#costs = [];
    const functions: FunctionTree[] = [];
    const share = Math.max(LEAST_STACK, Math.floor(STACK / count / 32) * 32);
    for (let each = count - 1; each >= 0; each--) {
      const slack = share > LEAST_STACK ? random.below((share - LEAST_STACK) / 8 + 1) : 0;
      const callees = Array.from({ length: count - each - 1 }, (_, i) => each + 1 + i);
      const tails = this.#tailIndexes(each, isMain, tailPrograms);
      this.#frame = {
        memory: 6 + random.below(4),
        stack: LEAST_STACK + 8 * slack,
        callees,
        tails,
      };
      let fn = this.#function(Math.ceil(this.#left / (each + 1)));
      // many functions are there to be nested, targets of tail calls to go on to the next one
      if (count > 2 && callees.length > 0) fn = this.#withCall(fn, each + 1);
      if (tails.length > 0 && random.below(2) === 0) fn = this.#withTailCall(fn, tails);
      functions[each] = fn;
      this.#costs[each] = this.#executed + 20;
    }
    return functions;
  }

  /** Slots of the prog array that a function may call through. */
  #tailIndexes(index: number, isMain: boolean, tailPrograms: number): number[] {
    const { sharedTailCallCount } = this.#repertoire.features;
    if (tailPrograms === 0) return [];
    // a target's functions would nest deeper each time
    if (index > 0 && (!sharedTailCallCount || !isMain)) return [];
    const indexes = Array.from({ length: tailPrograms }, (_, i) => i);
    // past the end of the array, and an empty slot
    return [...indexes, PROGRAM_SLOTS, ...(sharedTailCallCount ? [PROGRAM_SLOTS - 1] : [])];
  }

  #function(nodes: number): FunctionTree {
    const { memory, stack } = this.#frame;
    const random = this.#random;
    this.#executed = 0;
    this.#scalars = this.#chooseScalars(memory);
    const rest = this.#left - nodes;
    this.#left = nodes;
    const body = this.#block({ depth: 0, loops: 0, weight: 1, pointer: undefined });
    this.#left = Math.max(0, rest + this.#left);
    const values: number[] = [];
    for (const _ of REGISTERS) values.push(randomImmediate(random));
    return { body, memory, values, stack, mixed: REGISTERS };
  }

  #withCall(fn: FunctionTree, callee: number): FunctionTree {
    this.#executed += this.#costs[callee] ?? 0;
    return this.#withNode(fn, { kind: 'call', callee });
  }

  #withTailCall(fn: FunctionTree, tails: readonly number[]): FunctionTree {
    return this.#withNode(fn, { kind: 'tail', index: this.#pick(tails) });
  }

  /** The function with one more node, which always runs. */
  #withNode(fn: FunctionTree, node: Node): FunctionTree {
    const at = this.#random.below(fn.body.length + 1);
    return { ...fn, body: [...fn.body.slice(0, at), node, ...fn.body.slice(at)] };
  }

  /** Sometimes all, sometimes few, so that there is more to do with each. */
  #chooseScalars(memory: number): number[] {
    const all = REGISTERS.filter((register) => register !== memory);
    const wanted = 3 + this.#random.below(all.length - 2);
    while (all.length > wanted) all.splice(this.#random.below(all.length), 1);
    return all;
  }

  #block(place: Place): Node[] {
    const nodes: Node[] = [];
    const length = place.depth === 0 ? this.#left : 1 + this.#random.below(5);
    for (let i = 0; i < length && this.#left > 0; i++) {
      this.#left--;
      const node = this.#node(place);
      nodes.push(node);
      this.#executed += place.weight * (node.kind === 'insn' ? node.slots.length : 8);
    }
    return nodes;
  }

  #node(place: Place): Node {
    const roll = this.#random.below(100);
    if (roll < 42) return this.#arithmetic(place);
    if (roll < 66) return this.#access(place);
    if (roll < 78 && place.depth < 4) return this.#branch(place);
    const free = this.#most - this.#executed;
    // r0 is needed by what follows
    if (place.pointer === 0) return this.#arithmetic(place);
    if (roll < 84 && place.loops < MAX_LOOP_DEPTH && free > 40 * place.weight) {
      return this.#loop(place, free);
    }
    if (roll < 89) return this.#call(place, free);
    if (roll < 92) return this.#helper();
    if (roll < 96 && place.pointer === undefined) return this.#mapCall(place);
    if (place.pointer === undefined && this.#frame.tails.length > 0) {
      return { kind: 'tail', index: this.#pick(this.#frame.tails) };
    }
    return this.#arithmetic(place);
  }

  #branch(place: Place): Node {
    const inner = { ...place, depth: place.depth + 1 };
    const jump = this.#jump(place);
    const body = this.#block(inner);
    if (this.#random.below(3) > 0) return { kind: 'branch', jump, body };
    const long = this.#repertoire.features.v4 && this.#random.below(2) === 0;
    return { kind: 'branch', jump, body, otherwise: this.#block(inner), long };
  }

  #loop(place: Place, free: number): Node {
    const most = Math.min(6, Math.floor(free / (40 * place.weight)));
    const count = 1 + this.#random.below(Math.max(1, most));
    const inner = { ...place, depth: place.depth + 1, loops: place.loops + 1 };
    const body = this.#block({ ...inner, weight: place.weight * count });
    const form = this.#random.below(2) === 0 ? 'until' : 'while';
    return { kind: 'loop', count, depth: place.loops, body, form };
  }

  #call(place: Place, free: number): Node {
    const { callees } = this.#frame;
    const callee = callees.length > 0 ? this.#pick(callees) : undefined;
    const cost = place.weight * (callee === undefined ? 0 : (this.#costs[callee] ?? 0));
    if (callee === undefined || cost > free) return this.#arithmetic(place);
    this.#executed += cost;
    return { kind: 'call', callee };
  }

  #helper(): Node {
    // one of the kernel's own, which some JITs put in place
    if (this.#random.below(8) === 0) return { kind: 'helper', id: 8, count: 0 };
    const count = this.#random.below(MIX_HELPERS.length);
    return { kind: 'helper', id: MIX_HELPERS[count] ?? MIX_HELPERS[0], count };
  }

  #mapCall(place: Place): Node {
    const map = this.#random.below(2);
    const key = this.#random.below(6);
    const roll = this.#random.below(8);
    if (roll === 0) return { kind: 'delete', map, key };
    if (roll < 4) {
      const at = 8 * this.#random.below((DATA_SIZE - VALUE_SIZE) / 8 + 1);
      return { kind: 'update', map, key, at };
    }
    const saved = [6, 7, 8, 9].filter((register) => register !== this.#frame.memory);
    const pointer = this.#random.below(2) === 0 ? 0 : this.#pick(saved);
    const inner = { ...place, depth: place.depth + 1, pointer };
    return { kind: 'lookup', map, key, pointer, body: this.#block(inner) };
  }

  #arithmetic(place: Place): Node {
    if (this.#random.below(10) === 0) return this.#constant(place);
    const { code, opcode } = this.#pick(this.#repertoire.arithmetic);
    return insn(this.#arithmeticSlot(code, opcode, this.#scalar(place), this.#scalar(place)));
  }

  #arithmeticSlot(code: number, opcode: Opcode, dst: number, src: number): Slot {
    if (opcode.kind === 'end') return makeSlot(code, { dst, imm: this.#pick([16, 32, 64]) });
    if (opcode.kind !== 'alu') return makeSlot(code, { dst });
    const { op, width, source } = opcode;
    const { v4 } = this.#repertoire.features;
    if (op === 'mov' && source === 'register') {
      // movsx: off is the width in bits
      const widths = width === 64 ? [0, 0, 8, 16, 32] : [0, 0, 8, 16];
      return makeSlot(code, { dst, src, off: v4 ? this.#pick(widths) : 0 });
    }
    const divides = op === 'div' || op === 'mod';
    const off = divides && v4 ? this.#random.below(2) : 0;
    if (source === 'register') return makeSlot(code, { dst, src, off });
    if (op === 'lsh' || op === 'rsh' || op === 'arsh') {
      return makeSlot(code, { dst, imm: this.#random.below(width) });
    }
    const imm = randomImmediate(this.#random);
    // a verifier refuses a constant zero divisor
    return makeSlot(code, { dst, imm: divides && imm === 0 ? 3 : imm, off });
  }

  #constant(place: Place): Node {
    const [low, high] = randomConstant(this.#random);
    const first = makeSlot(0x18, { dst: this.#scalar(place), imm: low });
    return { kind: 'insn', slots: [first, makeSlot(0, { imm: high })] };
  }

  #jump(place: Place): Slot {
    const { code, opcode } = this.#pick(JUMPS);
    const dst = this.#scalar(place);
    if (opcode.kind === 'jump' && opcode.source === 'register') {
      return makeSlot(code, { dst, src: this.#scalar(place) });
    }
    return makeSlot(code, { dst, imm: randomImmediate(this.#random) });
  }

  #access(place: Place): Node {
    const kind = this.#random.below(3);
    if (kind === 2) return this.#atomic(place);
    const { code, opcode } = this.#pick(kind === 0 ? this.#repertoire.loads : STORES);
    const register = this.#scalar(place);
    if (opcode.kind === 'load') {
      const { base, off, before, after } = this.#target(opcode.size, false, place, [register]);
      const load = makeSlot(code, { dst: register, src: base, off });
      return { kind: 'insn', slots: [...before, load, ...after] };
    }
    if (opcode.kind !== 'store') throw new RangeError(`opcode ${code} is no store`);
    const { base, off, before, after } = this.#target(opcode.size, false, place, [register]);
    const store =
      opcode.source === 'register'
        ? makeSlot(code, { dst: base, src: register, off })
        : makeSlot(code, { dst: base, off, imm: randomImmediate(this.#random) });
    return { kind: 'insn', slots: [...before, store, ...after] };
  }

  #atomic(place: Place): Node {
    const choices = this.#repertoire.atomics;
    let { imm, sizes } = this.#pick(choices);
    // r0 is an address there
    while (imm === CMPXCHG && place.pointer === 0) ({ imm, sizes } = this.#pick(choices));
    const { code, opcode } = this.#pick(sizes);
    const size = opcode.kind === 'atomic' ? opcode.size : 8;
    const register = this.#scalar(place);
    const used = imm === CMPXCHG ? [register, 0] : [register];
    const { base, off, before, after } = this.#target(size, true, place, used);
    const access =
      imm === LOAD_ACQUIRE
        ? makeSlot(code, { dst: register, src: base, off, imm })
        : makeSlot(code, { dst: base, src: register, off, imm });
    return { kind: 'insn', slots: [...before, access, ...after] };
  }

  /** A base register and an offset with room for `size` bytes; `used` registers are not for addresses. */
  #target(size: number, aligned: boolean, place: Place, used: readonly number[]): Target {
    const random = this.#random;
    const { memory, stack } = this.#frame;
    const within = (room: number, step: number): number =>
      random.below(Math.floor((room - size) / step) + 1) * step;
    const free = this.#scalars.filter((r) => r !== place.pointer && !used.includes(r));
    const copy = free.length > 0 ? random.pick(free) : undefined;
    const roll = random.below(place.pointer === undefined ? 10 : 14);
    if (roll >= 10 && place.pointer !== undefined) {
      return plainTarget(place.pointer, within(VALUE_SIZE, aligned ? size : 1));
    }
    const inMemory = within(MEMORY_SIZE, aligned ? size : 1);
    // the verifier wants stack accesses aligned
    const inStack = -stack + within(DATA_SIZE, size);
    if (roll < 4) return plainTarget(10, inStack);
    if (roll < 7 || copy === undefined) return plainTarget(memory, inMemory);
    if (roll === 7) return farTarget(copy, memory, inMemory, randomOffset(random, size));
    if (roll === 8) return farTarget(copy, 10, inStack, random.pick([0, 8, 16, -8, 256]));
    return spilledTarget(copy, memory, inMemory, -stack + 8 * random.below(DATA_SIZE / 8));
  }

  #scalar({ pointer }: Place): number {
    const scalars = this.#scalars;
    let register = this.#pick(scalars);
    while (register === pointer) register = this.#pick(scalars);
    return register;
  }

  #pick<T>(items: readonly T[]): T {
    return this.#random.pick(items);
  }
}

function insn(slot: Slot): Node {
  return { kind: 'insn', slots: [slot] };
}

function plainTarget(base: number, off: number): Target {
  return { base, off, before: [], after: [] };
}

/** As [base + at], but with the offset `off` from a register that is so much lower. */
function farTarget(copy: number, base: number, at: number, off: number): Target {
  return {
    base: copy,
    off,
    before: [
      makeSlot(MOV64_REG, { dst: copy, src: base }),
      makeSlot(ADD64_IMM, { dst: copy, imm: at - off }),
    ],
    after: [makeSlot(MOV64_IMM, { dst: copy, imm: copy })],
  };
}

/** The address goes through the stack. */
function spilledTarget(copy: number, base: number, off: number, cell: number): Target {
  return {
    base: copy,
    off,
    before: [
      makeSlot(STX_DW, { dst: 10, src: base, off: cell }),
      makeSlot(LDX_DW, { dst: copy, src: 10, off: cell }),
    ],
    after: [
      makeSlot(MOV64_IMM, { dst: copy, imm: copy }),
      makeSlot(STX_DW, { dst: 10, src: copy, off: cell }),
    ],
  };
}

/** Makes the trees of a campaign: the same random numbers give the same tree. */
export function treeMaker(options: GenerateOptions = {}): (random: Random) => CaseTree {
  const repertoire = repertoireOf(options.features ?? ALL_FEATURES);
  return (random) => new Generator(random, repertoire, options.size ?? 12).tree();
}

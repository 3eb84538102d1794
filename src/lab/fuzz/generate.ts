/**
 * Random program trees: all ALU and byte-order operations of ISA v1 to v4, loads and stores of all sizes,
 * atomics, jumps of both widths, loops, subprograms, map lookups and updates.
 *
 * The instructions come from the opcode table, so a new opcode there is generated without a change here.
 */
import { makeSlot, type Slot } from '../../bpf/instruction.js';
import { ATOMIC, OPCODES, type Opcode } from '../../bpf/opcodes.js';
import type { MapSpec } from '../../bpf/maps/map.js';
import type { Random } from '../../common/random.js';
import { DATA_BASE, DATA_SIZE, MEMORY_SIZE, type Node, type ProgramTree } from './tree.js';

/** The maps of every case, in the order of their indexes. */
export const FUZZ_MAPS: readonly MapSpec[] = [
  { name: 'array', type: 'ARRAY', keySize: 4, valueSize: 32, maxEntries: 4, flags: 0 },
  { name: 'hash', type: 'HASH', keySize: 4, valueSize: 32, maxEntries: 4, flags: 0 },
];
const VALUE_SIZE = 32;

const SCALARS = [0, 1, 2, 3, 4, 5, 6, 7, 8];
/** Values at which carries, signs and widths change. */
const EDGES = [0, 1, -1, 2, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 32767, 32768, 65535, 65536];
const EXTREMES = [0x7fffffff, -0x80000000, 0x55555555, 0x0f0f0f0f];

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
const ATOMICS = ofKind('atomic').filter(
  ({ opcode }) => opcode.kind === 'atomic' && opcode.size >= 4,
);

/** Those of all versions; cmpxchg also writes r0, so not where that is an address. */
const ATOMIC_OPERATIONS = ATOMIC.filter(
  ({ op }) => op !== 'load_acquire' && op !== 'store_release',
);

export interface GenerateOptions {
  /** About how many nodes. Default 24. */
  readonly size?: number;
  /** Map lookups and updates. Default true. */
  readonly maps?: boolean;
}

class Generator {
  readonly #random: Random;
  readonly #maps: boolean;
  #left: number;

  constructor(random: Random, options: GenerateOptions) {
    this.#random = random;
    this.#left = options.size ?? 24;
    this.#maps = options.maps ?? true;
  }

  tree(): ProgramTree {
    const count = this.#random.below(3);
    const callees = Array.from({ length: count }, (_, i) => i + 1);
    const functions = [
      { body: this.#block(0, callees, true) },
      // a function calls only later ones, so nothing recurses
      ...callees.map((index) => ({ body: this.#block(0, callees.slice(index), false) })),
    ];
    const memory = Uint8Array.from({ length: MEMORY_SIZE }, () => this.#random.below(256));
    return { functions, memory };
  }

  #block(depth: number, callees: readonly number[], main: boolean, value = false): Node[] {
    const nodes: Node[] = [];
    const length = 1 + this.#random.below(depth === 0 ? 12 : 5);
    for (let i = 0; i < length && this.#left > 0; i++) {
      this.#left--;
      nodes.push(this.#node(depth, callees, main, value));
    }
    return nodes;
  }

  #node(depth: number, callees: readonly number[], main: boolean, value: boolean): Node {
    const roll = this.#random.below(100);
    const inner = (): Node[] => this.#block(depth + 1, value ? [] : callees, main, value);
    if (roll < 45) return this.#arithmetic(value);
    if (roll < 70) return this.#access(main, value);
    if (depth < 3 && roll < 82) return { kind: 'branch', jump: this.#jump(value), body: inner() };
    // behind a lookup r0 holds the value's address: nothing there may take it
    if (value) return this.#arithmetic(value);
    if (depth < 3 && roll < 88) {
      return { kind: 'loop', count: 1 + this.#random.below(6), depth, body: inner() };
    }
    if (roll < 92 && callees.length > 0) return { kind: 'call', callee: this.#pick(callees) };
    if (this.#maps && roll < 97) {
      const body = this.#block(depth + 1, [], main, true);
      return { kind: 'lookup', map: this.#random.below(2), key: this.#random.below(6), body };
    }
    if (this.#maps) {
      const at = 8 * this.#random.below((DATA_SIZE - VALUE_SIZE) / 8 + 1);
      return { kind: 'update', map: this.#random.below(2), key: this.#random.below(6), at };
    }
    return this.#arithmetic(value);
  }

  #arithmetic(value: boolean): Node {
    if (this.#random.below(10) === 0) return this.#constant(value);
    const { code, opcode } = this.#pick(ARITHMETIC);
    const dst = this.#scalar(value);
    const src = this.#scalar(value);
    return { kind: 'insn', slots: [this.#arithmeticSlot(code, opcode, dst, src)] };
  }

  #arithmeticSlot(code: number, opcode: Opcode, dst: number, src: number): Slot {
    if (opcode.kind === 'end') return makeSlot(code, { dst, imm: this.#pick([16, 32, 64]) });
    if (opcode.kind !== 'alu') return makeSlot(code, { dst });
    const { op, width, source } = opcode;
    if (op === 'mov' && source === 'register') {
      // movsx: off is the width in bits
      const widths = width === 64 ? [0, 0, 8, 16, 32] : [0, 0, 8, 16];
      return makeSlot(code, { dst, src, off: this.#pick(widths) });
    }
    const signedDivision = op === 'div' || op === 'mod' ? this.#random.below(2) : 0;
    if (source === 'register') return makeSlot(code, { dst, src, off: signedDivision });
    if (op === 'lsh' || op === 'rsh' || op === 'arsh') {
      return makeSlot(code, { dst, imm: this.#random.below(width) });
    }
    const imm = this.#immediate();
    // a verifier refuses a constant zero divisor
    const divides = op === 'div' || op === 'mod';
    return makeSlot(code, { dst, imm: divides && imm === 0 ? 3 : imm, off: signedDivision });
  }

  #constant(value: boolean): Node {
    const low = this.#immediate();
    const high = this.#immediate();
    const dst = this.#scalar(value);
    return { kind: 'insn', slots: [makeSlot(0x18, { dst, imm: low }), makeSlot(0, { imm: high })] };
  }

  #jump(value: boolean): Slot {
    const { code, opcode } = this.#pick(JUMPS);
    const dst = this.#scalar(value);
    if (opcode.kind === 'jump' && opcode.source === 'register') {
      return makeSlot(code, { dst, src: this.#scalar(value) });
    }
    return makeSlot(code, { dst, imm: this.#immediate() });
  }

  #access(main: boolean, value: boolean): Node {
    const kind = this.#random.below(3);
    const { code, opcode } = this.#pick([LOADS, STORES, ATOMICS][kind] ?? LOADS);
    if (opcode.kind !== 'load' && opcode.kind !== 'store' && opcode.kind !== 'atomic') {
      throw new RangeError(`opcode ${code} is no access`);
    }
    const place = this.#place(opcode.size, opcode.kind === 'atomic', main, value);
    const scalar = this.#scalar(value);
    switch (opcode.kind) {
      case 'load':
        return insn(makeSlot(code, { dst: scalar, src: place.base, off: place.off }));
      case 'store':
        return insn(
          opcode.source === 'register'
            ? makeSlot(code, { dst: place.base, src: scalar, off: place.off })
            : makeSlot(code, { dst: place.base, off: place.off, imm: this.#immediate() }),
        );
      case 'atomic': {
        const choices = value
          ? ATOMIC_OPERATIONS.filter(({ op }) => op !== 'cmpxchg')
          : ATOMIC_OPERATIONS;
        const { imm } = this.#pick(choices);
        return insn(makeSlot(code, { dst: place.base, src: scalar, off: place.off, imm }));
      }
    }
  }

  /** A base register and an offset with room for `size` bytes. */
  #place(
    size: number,
    aligned: boolean,
    main: boolean,
    value: boolean,
  ): { readonly base: number; readonly off: number } {
    const offset = (room: number): number => {
      const at = this.#random.below(room - size + 1);
      return aligned ? at - (at % size) : at;
    };
    const roll = this.#random.below(value ? 3 : 2);
    if (roll === 2) return { base: 0, off: offset(VALUE_SIZE) };
    if (roll === 1 && main) return { base: 9, off: offset(MEMORY_SIZE) };
    // the verifier wants stack accesses aligned
    const at = this.#random.below(DATA_SIZE / size) * size;
    return { base: 10, off: -DATA_BASE + at };
  }

  #scalar(value: boolean): number {
    return this.#pick(value ? SCALARS.slice(1) : SCALARS);
  }

  #immediate(): number {
    switch (this.#random.below(4)) {
      case 0:
        return this.#pick(EDGES);
      case 1:
        return this.#pick(EXTREMES);
      case 2:
        return this.#random.below(4096);
      default:
        return this.#random.u32() | 0;
    }
  }

  #pick<T>(items: readonly T[]): T {
    return this.#random.pick(items);
  }
}

function insn(slot: Slot): Node {
  return { kind: 'insn', slots: [slot] };
}

export function generateTree(random: Random, options: GenerateOptions = {}): ProgramTree {
  return new Generator(random, options).tree();
}

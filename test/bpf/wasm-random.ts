/**
 * Random eBPF programs that end: ALU, memory in and out of bounds, atomics, jumps that make reducible
 * and irreducible loops, helper calls, bpf2bpf calls, calls through registers, tail calls.
 *
 * Every back edge counts R9 down and no other instruction writes it, so a function takes at most a few
 * of them. Nothing else is kept in order: registers are read before they are written, calls nest too
 * deep, pointers are garbage.
 */
import type { Random } from '../../src/common/random.js';
import { encodeSlots, makeSlot, type Slot } from '../../src/bpf/instruction.js';
import { ATOMIC, atomicOperation } from '../../src/bpf/opcodes.js';
import type { XlatedFunction, XlatedProgram } from '../../src/bpf/program.js';
import { EDGES } from './reference.js';

/** What programs may point at and call. */
export interface Surroundings {
  readonly pointers: readonly bigint[];
  readonly maps: readonly bigint[];
  readonly progArray: bigint;
  /** Call immediates. */
  readonly lookup: number;
  readonly helpers: readonly number[];
}

/** A slot, or a jump whose distance is found when all items have their places. */
type Item = readonly Slot[];

const BACK_EDGES = 3;

export function randomProgram(random: Random, around: Surroundings): XlatedProgram {
  const count = 1 + (random.below(3) === 0 ? random.below(3) : 0);
  const functions = Array.from({ length: count }, (_, index): XlatedFunction => ({
    name: `f${index}`,
    insns: encodeSlots(new Generator(random, around, count).generate()),
    stackDepth: 512,
  }));
  return { name: 'random', type: 'tracing', functions: functions as [XlatedFunction] };
}

class Generator {
  readonly #random: Random;
  readonly #around: Surroundings;
  readonly #functions: number;
  readonly #jumps = new Map<number, number>();

  constructor(random: Random, around: Surroundings, functions: number) {
    this.#random = random;
    this.#around = around;
    this.#functions = functions;
  }

  generate(): Slot[] {
    const count = 3 + this.#random.below(40);
    const items: Item[] = [[makeSlot(0xb7, { dst: 9, imm: BACK_EDGES })]];
    for (let index = 1; index < count; index++) items.push(this.#item(index, count));
    items.push([makeSlot(0x95)]);
    return this.#place(items);
  }

  /** Puts items behind each other and the distances into jumps. */
  #place(items: readonly Item[]): Slot[] {
    const starts: number[] = [];
    let at = 0;
    for (const item of items) {
      starts.push(at);
      at += item.length;
    }
    const slots = items.flatMap((item, index) => {
      const target = this.#jumps.get(index);
      if (target === undefined) return item;
      const last = item.length - 1;
      const off = (starts[target] ?? 0) - (starts[index] ?? 0) - item.length;
      return item.map((slot, i) => (i === last ? { ...slot, off } : slot));
    });
    return slots;
  }

  #pick<T>(list: readonly T[]): T {
    return this.#random.pick(list);
  }

  #register(): number {
    return this.#random.below(9);
  }

  #source(): number {
    return this.#random.below(12) === 0 ? this.#pick([9, 10, 11]) : this.#register();
  }

  #immediate(): number {
    return this.#random.below(2) === 0
      ? this.#random.below(64) - 8
      : Number(BigInt.asIntN(32, this.#pick(EDGES)));
  }

  #constant(dst: number, value: bigint): Slot[] {
    return [
      makeSlot(0x18, { dst, imm: Number(BigInt.asIntN(32, value)) }),
      makeSlot(0, { imm: Number(BigInt.asIntN(32, value >> 32n)) }),
    ];
  }

  #item(index: number, count: number): Item {
    const kind = this.#random.below(100);
    if (kind < 34) return [this.#alu()];
    if (kind < 40) return this.#constant(this.#register(), this.#pick(EDGES));
    if (kind < 66) return this.#access();
    if (kind < 80) return this.#jump(index, index + 1 + this.#random.below(count - index));
    if (kind < 84) {
      const jump = this.#jump(index, 1 + this.#random.below(index));
      return [makeSlot(0x07, { dst: 9, imm: -1 }), makeSlot(0xd5, { dst: 9, off: 1 }), ...jump];
    }
    if (kind < 92) return this.#helper();
    if (kind < 96) return this.#call();
    return kind === 99 ? [makeSlot(0x95)] : [this.#alu()];
  }

  #alu(): Slot {
    const dst = this.#register();
    const width = this.#pick([4, 7]);
    const form = this.#random.below(16);
    if (form === 0) return makeSlot(0x80 | width, { dst });
    if (form === 1) {
      return makeSlot(this.#pick([0xd4, 0xdc, 0xd7]), { dst, imm: this.#pick([16, 32, 64]) });
    }
    const op = this.#pick([0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]) << 4;
    const isRegister = this.#random.below(2) === 0;
    let off = 0;
    if (op === 0x30 || op === 0x90) off = this.#random.below(2);
    if (op === 0xb0 && isRegister && form < 8) {
      off = this.#pick(width === 7 ? [8, 16, 32] : [8, 16]);
    }
    const code = op | width | (isRegister ? 8 : 0);
    return isRegister
      ? makeSlot(code, { dst, src: this.#source(), off })
      : makeSlot(code, { dst, imm: this.#immediate(), off });
  }

  /** A base that mostly points somewhere, then a load, store or atomic. */
  #access(): Item {
    const prepared: Slot[] = [];
    let base = this.#register();
    const how = this.#random.below(40);
    if (how < 14) base = 10;
    else if (how < 18) prepared.push(makeSlot(0xbf, { dst: base, src: 10 }));
    else if (how < 39) prepared.push(...this.#constant(base, this.#pick(this.#around.pointers)));
    if (how >= 14 && this.#random.below(3) === 0) {
      prepared.push(makeSlot(0x07, { dst: base, imm: this.#random.below(8) - 1 }));
    }
    const size = this.#pick([0x00, 0x08, 0x10, 0x18]);
    const isWild = this.#random.below(40) === 0;
    const near = how < 18 ? -this.#random.below(48) - 8 : this.#random.below(24);
    const off = isWild ? this.#random.below(1100) - 550 : near;
    return [...prepared, this.#memory(base, size, off)];
  }

  #memory(base: number, size: number, off: number): Slot {
    const other = this.#register();
    switch (this.#random.below(9)) {
      case 0:
      case 1:
      case 2:
        return makeSlot(0x61 | size, { dst: other, src: base, off });
      case 3:
        return makeSlot(0x81 | (size % 0x18), { dst: other, src: base, off });
      case 4:
      case 5:
        return makeSlot(0x63 | size, { dst: base, src: this.#source(), off });
      case 6:
        return makeSlot(0x62 | size, { dst: base, imm: this.#immediate(), off });
      case 7: {
        const isSigned = this.#random.below(2) === 0;
        const code = isSigned ? 0x41 | (size % 0x18) : 0x21 | size;
        return makeSlot(code, { dst: other, src: base, off });
      }
      default: {
        const bytes = { 0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8 }[size] as 1 | 2 | 4 | 8;
        const { imm } = this.#pick(ATOMIC.filter((row) => atomicOperation(row.imm, bytes)));
        const code = 0xc3 | size;
        return imm === 0x100
          ? makeSlot(code, { dst: other, src: base, off, imm })
          : makeSlot(code, { dst: base, src: other, off, imm });
      }
    }
  }

  #jump(index: number, target: number): Slot[] {
    this.#jumps.set(index, target);
    if (this.#random.below(6) === 0) return [makeSlot(0x05)];
    const op = this.#pick([1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13]) << 4;
    const width = this.#pick([5, 6]);
    const dst = this.#source();
    return this.#random.below(2) === 0
      ? [makeSlot(op | width | 8, { dst, src: this.#source() })]
      : [makeSlot(op | width, { dst, imm: this.#immediate() })];
  }

  #helper(): Item {
    const { maps, pointers, lookup, helpers, progArray } = this.#around;
    const key = this.#random.below(3);
    const prepared: Slot[] = [];
    if (this.#random.below(12) === 0) {
      return [
        ...this.#constant(2, progArray),
        makeSlot(0xb7, { dst: 3, imm: this.#random.below(4) }),
        makeSlot(0xf5),
      ];
    }
    prepared.push(...this.#constant(1, this.#pick(maps)));
    if (key < 2) {
      prepared.push(
        makeSlot(0x62, { dst: 10, off: -4, imm: this.#random.below(8) }),
        makeSlot(0xbf, { dst: 2, src: 10 }),
        makeSlot(0x07, { dst: 2, imm: -4 }),
      );
    } else prepared.push(...this.#constant(2, this.#pick(pointers)));
    if (this.#random.below(2) === 0) {
      const use = this.#random.below(3) === 0 ? [] : [makeSlot(0x31, { dst: 7, src: 0 })];
      return [...prepared, makeSlot(0x85, { imm: lookup }), ...use];
    }
    prepared.push(...this.#constant(3, this.#pick(pointers)), makeSlot(0xb7, { dst: 4 }));
    return [...prepared, makeSlot(0x85, { imm: this.#pick(helpers) })];
  }

  #call(): Item {
    const callee = this.#random.below(this.#functions);
    if (this.#functions === 1 && this.#random.below(8) !== 0) return [this.#alu()];
    if (this.#random.below(4) > 0) return [makeSlot(0x85, { src: 1, off: callee, imm: 1 })];
    const dst = this.#register();
    if (this.#random.below(8) === 0) return [makeSlot(0x8d, { dst })];
    return [makeSlot(0x18, { dst, src: 4 }), makeSlot(0, { off: callee }), makeSlot(0x8d, { dst })];
  }
}

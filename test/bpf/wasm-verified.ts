/**
 * Random XDP programs that the verifier accepts, nearly always: packet access behind data_end checks,
 * maps of all kinds, helpers, subprograms, bpf_loop, tail calls, loops, atomics, spills.
 *
 * r6 is the context (in a subprogram a pointer to 64 bytes of its caller's stack), r7 a pointer inside the
 * block that has checked it, all others are scalars. Stack: data, keys, spill slot, loop counters, format.
 */
import type { Random } from '../../src/common/random.js';
import { makeSlot, type Slot } from '../../src/bpf/instruction.js';
import type { BpfMap } from '../../src/bpf/maps/map.js';
import { ATOMIC } from '../../src/bpf/opcodes.js';
import { EDGES } from './reference.js';

export interface VerifiedSurroundings {
  /** Looked up, updated, deleted from. */
  readonly maps: readonly BpfMap[];
  readonly queue: BpfMap;
  readonly progArray: BpfMap;
}

const DATA = -80;
const DATA_SIZE = 80;
const KEYS = -96;
const KEYS_SIZE = 16;
const SPILL = -104;
const COUNTERS = -112;
const FORMAT = -136;
/** What a subprogram may use of its caller's data. */
const SHARED = 64;

const SCALARS = [0, 1, 2, 3, 4, 5, 8, 9];
const CALL_FREE = [5, 118, 125, 160, 208, 7, 8, 42, 14];
const SIZES = [
  { bits: 0x10, bytes: 1 },
  { bits: 0x08, bytes: 2 },
  { bits: 0x00, bytes: 4 },
  { bits: 0x18, bytes: 8 },
];
const UPDATES = ATOMIC.filter(({ op }) => op !== 'load_acquire' && op !== 'store_release');

/** Memory that the code at hand may use. */
interface Pointer {
  readonly register: number;
  readonly off: number;
  readonly size: number;
  readonly kind: 'stack' | 'packet' | 'value';
}

interface Place {
  readonly role: 'main' | 'sub' | 'callback';
  /** Functions that may be called. */
  readonly callees: readonly number[];
  readonly callbacks: readonly number[];
  readonly depth: number;
  /** What r7 points at. */
  readonly pointer: Pointer | undefined;
}

const mov = (dst: number, imm: number): Slot => makeSlot(0xb7, { dst, imm });
const copy = (dst: number, src: number): Slot => makeSlot(0xbf, { dst, src });
const add = (dst: number, imm: number): Slot => makeSlot(0x07, { dst, imm });
const frame = (dst: number, off: number): Slot[] => [copy(dst, 10), add(dst, off)];
const call = (id: number): Slot => makeSlot(0x85, { imm: id });

/** Functions of a program; calls of functions have the callee's index in `off`. */
export function verifiedProgram(random: Random, around: VerifiedSurroundings): Slot[][] {
  return new Generator(random, around).functions();
}

class Generator {
  readonly #random: Random;
  readonly #around: VerifiedSurroundings;
  #left: number;

  constructor(random: Random, around: VerifiedSurroundings) {
    this.#random = random;
    this.#around = around;
    this.#left = 8 + random.below(20);
  }

  functions(): Slot[][] {
    const subs = this.#random.below(3);
    const callbacks = this.#random.below(4) === 0 ? [subs + 1] : [];
    const callees = Array.from({ length: subs }, (_, index) => index + 1);
    const place = { depth: 0, pointer: undefined };
    return [
      this.#function({ ...place, role: 'main', callees, callbacks }),
      // a function calls only later ones
      ...callees.map((index) =>
        this.#function({ ...place, role: 'sub', callees: callees.slice(index), callbacks }),
      ),
      ...callbacks.map(() =>
        this.#function({ ...place, role: 'callback', callees: [], callbacks: [] }),
      ),
    ];
  }

  #function(place: Place): Slot[] {
    const { role } = place;
    const slots = [copy(6, role === 'callback' ? 2 : 1), ...this.#refill()];
    slots.push(copy(8, 3), mov(9, this.#random.below(99)), mov(0, 1));
    for (let at = KEYS; at < 0; at += 8) slots.push(makeSlot(0x7a, { dst: 10, off: at, imm: at }));
    // "%d %x\n"
    slots.push(makeSlot(0x62, { dst: 10, off: FORMAT, imm: 0x25206425 }));
    slots.push(makeSlot(0x62, { dst: 10, off: FORMAT + 4, imm: 0x0a78 }));
    slots.push(...this.#block(place, 12));
    for (const src of SCALARS.slice(1)) {
      slots.push(makeSlot(0x27, { dst: 0, imm: 31 }), makeSlot(0x0f, { dst: 0, src }));
    }
    if (role === 'callback') slots.push(makeSlot(0x57, { dst: 0, imm: 1 }));
    return [...slots, makeSlot(0x95)];
  }

  #refill(): Slot[] {
    return [1, 2, 3, 4, 5].map((dst) =>
      mov(dst, this.#random.below(4) === 0 ? this.#immediate() : 0x111 * dst),
    );
  }

  #block(place: Place, most: number): Slot[] {
    const slots: Slot[] = [];
    for (let i = 1 + this.#random.below(most); i > 0 && this.#left > 0; i--) {
      this.#left--;
      slots.push(...this.#node(place));
    }
    return slots;
  }

  #node(place: Place): Slot[] {
    const roll = this.#random.below(100);
    if (roll < 20) return [this.#alu()];
    if (roll < 40) return this.#memory(this.#pick(this.#pointers(place)));
    if (roll < 48) return this.#branch(place);
    if (roll < 52) return this.#loop(place);
    if (roll < 66) return this.#lookup(place);
    if (roll < 74) return this.#change();
    if (roll < 84) return place.role === 'main' ? this.#packet(place) : [this.#alu()];
    if (roll < 88) return this.#callFunction(place);
    if (roll < 90) return this.#spill(place);
    return this.#helper(place);
  }

  #inner(place: Place, pointer = place.pointer): Slot[] {
    return this.#block({ ...place, depth: place.depth + 1, pointer }, 4);
  }

  #pointers({ role, pointer }: Place): Pointer[] {
    const list: Pointer[] = [
      { register: 10, off: DATA, size: DATA_SIZE, kind: 'stack' },
      { register: 10, off: KEYS, size: KEYS_SIZE, kind: 'stack' },
    ];
    if (role !== 'main') list.push({ register: 6, off: 0, size: SHARED, kind: 'stack' });
    if (pointer) list.push(pointer, pointer);
    return list;
  }

  #alu(): Slot {
    const dst = this.#scalar();
    const src = this.#scalar();
    const width = this.#pick([4, 7]);
    const form = this.#random.below(12);
    if (form === 0) return makeSlot(0x80 | width, { dst });
    if (form === 1) return makeSlot(this.#pick([0xd4, 0xdc, 0xd7]), { dst, imm: 32 });
    const op = this.#pick([0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]) << 4;
    const isRegister = this.#random.below(2) === 0;
    const isDivision = op === 0x30 || op === 0x90;
    const isShift = op === 0x60 || op === 0x70 || op === 0xc0;
    const off = isDivision ? this.#random.below(2) : 0;
    if (isRegister) return makeSlot(op | width | 8, { dst, src, off });
    let imm = isShift ? this.#random.below(32) : this.#immediate();
    if (isDivision && imm === 0) imm = 7;
    return makeSlot(op | width, { dst, imm, off });
  }

  #memory({ register, off: start, size, kind }: Pointer): Slot[] {
    const { bits, bytes } = this.#pick(SIZES.filter((each) => each.bytes <= size));
    const isAtomic = kind !== 'packet' && bytes >= 4 && this.#random.below(4) === 0;
    const step = isAtomic || kind === 'stack' ? bytes : 1;
    const off = start + step * this.#random.below(Math.floor((size - bytes) / step) + 1);
    const other = this.#scalar();
    if (isAtomic) {
      const { imm } = this.#pick(UPDATES);
      return [makeSlot(0xc3 | bits, { dst: register, src: other, off, imm })];
    }
    switch (this.#random.below(4)) {
      case 0:
        return [makeSlot(0x62 | bits, { dst: register, off, imm: this.#immediate() })];
      case 1:
        return [makeSlot(0x63 | bits, { dst: register, src: other, off })];
      case 2:
        if (bytes < 8) return [makeSlot(0x81 | bits, { dst: other, src: register, off })];
        return [makeSlot(0x61 | bits, { dst: other, src: register, off })];
      default:
        return [makeSlot(0x61 | bits, { dst: other, src: register, off })];
    }
  }

  #branch(place: Place): Slot[] {
    if (place.depth > 2) return [this.#alu()];
    const op = this.#pick([1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13]) << 4;
    const width = this.#pick([5, 6]);
    const body = this.#inner(place);
    const dst = this.#scalar();
    const jump =
      this.#random.below(2) === 0
        ? makeSlot(op | width | 8, { dst, src: this.#scalar(), off: body.length })
        : makeSlot(op | width, { dst, imm: this.#immediate(), off: body.length });
    return [jump, ...body];
  }

  #loop(place: Place): Slot[] {
    if (place.depth > 1) return [this.#alu()];
    const off = COUNTERS - 8 * place.depth;
    const body = [...this.#inner(place), makeSlot(0x79, { dst: 0, src: 10, off }), add(0, -1)];
    body.push(makeSlot(0x7b, { dst: 10, src: 0, off }));
    return [
      makeSlot(0x7a, { dst: 10, off, imm: 1 + this.#random.below(4) }),
      ...body,
      makeSlot(0x55, { dst: 0, off: -body.length - 1 }),
    ];
  }

  /** dst = a key of `size` bytes, often one that is there. */
  #key(dst: number, size: number, { pointer }: Pick<Place, 'pointer'>): Slot[] {
    if (pointer && pointer.size >= size && this.#random.below(3) === 0) return [copy(dst, 7)];
    const off = size > KEYS_SIZE ? DATA : KEYS;
    const slots: Slot[] = [];
    for (let at = 0; at < size; at += 8) slots.push(makeSlot(0x7a, { dst: 10, off: off + at }));
    slots.push(makeSlot(0x72, { dst: 10, off, imm: this.#random.below(7) }));
    if (this.#random.below(3) === 0) {
      // known only when it runs
      slots.push(copy(1, this.#pick([8, 9])), makeSlot(0x57, { dst: 1, imm: 7 }));
      slots.push(makeSlot(0x73, { dst: 10, src: 1, off }));
    }
    return [...slots, ...frame(dst, off)];
  }

  #map(dst: number, { address }: BpfMap): Slot[] {
    const half = (value: bigint): number => Number(BigInt.asIntN(32, value));
    return [
      makeSlot(0x18, { dst, imm: half(address) }),
      makeSlot(0, { imm: half(address >> 32n) }),
    ];
  }

  #lookup(place: Place): Slot[] {
    const map = this.#pick(this.#around.maps);
    const { keySize, valueSize, type } = map.spec;
    const ofCpu = type.includes('PERCPU') && this.#random.below(4) === 0;
    const start = [
      ...this.#key(2, keySize, place),
      ...this.#map(1, map),
      ...(ofCpu ? [mov(3, this.#random.below(4)), call(195)] : [call(1)]),
    ];
    const value = { register: 7, off: 0, size: valueSize, kind: 'value' } as const;
    const isInner = place.pointer !== undefined || place.depth > 2;
    const body = isInner
      ? [copy(5, 0), mov(0, 5), ...this.#refill().slice(0, 4)]
      : [copy(7, 0), ...this.#refill(), mov(0, 5), ...this.#variable(valueSize)];
    if (isInner) body.push(...this.#memory({ ...value, register: 5 }));
    if (!isInner) body.push(...this.#inner(place, value));
    const end = [mov(0, this.#random.below(9)), ...this.#refill()];
    return [...start, makeSlot(0x15, { dst: 0, off: body.length }), ...body, ...end];
  }

  /** An access in the value at a distance that is known only when it runs. */
  #variable(size: number): Slot[] {
    if (size < 16 || this.#random.below(2) === 0) return [];
    const bounded = [copy(1, this.#pick([8, 9])), makeSlot(0x57, { dst: 1, imm: 7 })];
    const at = { register: 1, off: 0, size: size - 7, kind: 'value' } as const;
    const access = this.#memory(at).filter(({ code }) => (code & 7) !== 3);
    return [...bounded, makeSlot(0x0f, { dst: 1, src: 7 }), ...access, mov(1, 3)];
  }

  /** Update, delete, push, pop. */
  #change(): Slot[] {
    const { maps, queue } = this.#around;
    const roll = this.#random.below(8);
    if (roll === 0) {
      const id = this.#pick([87, 88, 89]);
      const flags = id === 87 ? [mov(3, this.#pick([0, 2]))] : [];
      return [...frame(2, DATA), ...flags, ...this.#map(1, queue), call(id), ...this.#refill()];
    }
    const map = this.#pick(maps);
    const key = this.#key(2, map.spec.keySize, { pointer: undefined });
    if (roll === 1) return [...key, ...this.#map(1, map), call(3), ...this.#refill()];
    const flags = mov(4, this.#pick([0, 0, 0, 1, 2]));
    const value = frame(3, DATA);
    return [...key, ...value, flags, ...this.#map(1, map), call(2), ...this.#refill()];
  }

  /** r7 = the packet, behind a check that it is long enough. */
  #packet(place: Place): Slot[] {
    if (place.pointer || place.depth > 2) return this.#memory(this.#pick(this.#pointers(place)));
    const size = this.#pick([1, 4, 8, 14, 34, 64, 100]);
    const isVariable = this.#random.below(3) === 0;
    const moved = [copy(2, 8), makeSlot(0x57, { dst: 2, imm: 31 })];
    moved.push(makeSlot(0x0f, { dst: 7, src: 2 }));
    const pointer = { register: 7, off: 0, size, kind: 'packet' } as const;
    const body = [...this.#refill(), ...this.#inner(place, pointer)];
    // data up to data_end, or metadata up to data
    const [from, to] = this.#random.below(8) === 0 ? [8, 0] : [0, 4];
    return [
      makeSlot(0x61, { dst: 7, src: 6, off: from }),
      makeSlot(0x61, { dst: 1, src: 6, off: to }),
      ...(isVariable ? moved : []),
      copy(2, 7),
      add(2, size),
      makeSlot(0x2d, { dst: 2, src: 1, off: body.length }),
      ...body,
      ...this.#refill(),
    ];
  }

  #callFunction({ callees, callbacks, role }: Place): Slot[] {
    const pointer = role === 'main' || this.#random.below(2) === 0 ? frame(1, DATA) : [copy(1, 6)];
    if (callees.length > 0 && this.#random.below(3) > 0) {
      const callee = makeSlot(0x85, { src: 1, off: this.#pick(callees), imm: 1 });
      return [...pointer, callee, ...this.#refill()];
    }
    const [callback] = callbacks;
    if (callback === undefined) return [this.#alu()];
    return [
      mov(1, this.#random.below(5)),
      makeSlot(0x18, { dst: 2, src: 4 }),
      makeSlot(0, { off: callback }),
      ...frame(3, DATA),
      mov(4, 0),
      call(181),
      ...this.#refill(),
    ];
  }

  /** r7, or the context, goes through the stack. */
  #spill(place: Place): Slot[] {
    const register = place.pointer ? 7 : 6;
    return [
      makeSlot(0x7b, { dst: 10, src: register, off: SPILL }),
      mov(register, 1),
      ...this.#memory({ register: 10, off: DATA, size: DATA_SIZE, kind: 'stack' }),
      makeSlot(0x79, { dst: register, src: 10, off: SPILL }),
    ];
  }

  #helper(place: Place): Slot[] {
    const { role, pointer } = place;
    const roll = this.#random.below(12);
    if (roll < 4) return [call(this.#pick(CALL_FREE)), ...this.#refill()];
    const buffer = pointer && this.#random.below(2) === 0 ? [copy(1, 7)] : frame(1, DATA);
    const most = Math.min(pointer?.size ?? DATA_SIZE, 64);
    if (roll < 6) {
      // sizes that are no multiples of 4 are refused at run time
      const to =
        this.#random.below(4) === 0 ? [mov(3, 0), mov(4, 0)] : [...frame(3, DATA), mov(4, 20)];
      const size = this.#random.below(8) === 0 ? most : most & ~3;
      return [...buffer, mov(2, size), ...to, copy(5, 8), call(28), ...this.#refill()];
    }
    if (roll === 6) {
      const values = [copy(3, 8), copy(4, 9), mov(5, 1)];
      return [...frame(1, FORMAT), mov(2, 8), ...values, call(6), ...this.#refill()];
    }
    if (roll === 7) {
      const from = this.#random.below(3) === 0 ? [copy(3, 8)] : frame(3, DATA + 8);
      return [
        ...frame(1, DATA),
        mov(2, 1 + this.#random.below(40)),
        ...from,
        call(113),
        ...this.#refill(),
      ];
    }
    if (role !== 'main') return [this.#alu()];
    return this.#xdpHelper(pointer !== undefined);
  }

  #xdpHelper(inPacket: boolean): Slot[] {
    const bytes = (id: number): Slot[] => {
      const offset = [copy(2, 8), makeSlot(0x57, { dst: 2, imm: 127 })];
      return [...offset, ...frame(3, DATA), mov(4, 1 + this.#random.below(DATA_SIZE)), call(id)];
    };
    const kinds: (() => Slot[])[] = [
      () => [call(188)],
      () => [call(188)],
      () => bytes(189),
      () => bytes(190),
    ];
    if (!inPacket) {
      kinds.push(
        () => [mov(2, this.#pick([-40, -14, -4, 0, 4, 8, 20, 1000, -1000])), call(44)],
        () => [copy(2, 8), makeSlot(0x57, { dst: 2, imm: 31 }), call(44)],
        () => [mov(2, this.#pick([-8, -4, 0, 4, -3, -256])), call(54)],
        () => [mov(2, this.#pick([-20, -4, 0, 8, 5000])), call(65)],
        () => [...this.#map(2, this.#around.progArray), mov(3, this.#random.below(5)), call(12)],
      );
    }
    return [copy(1, 6), ...this.#pick(kinds)(), ...this.#refill()];
  }

  #scalar(): number {
    return this.#pick(SCALARS);
  }

  #immediate(): number {
    return this.#random.below(2) === 0
      ? this.#random.below(64) - 8
      : Number(BigInt.asIntN(32, this.#pick(EDGES)));
  }

  #pick<T>(list: readonly T[]): T {
    return this.#random.pick(list);
  }
}

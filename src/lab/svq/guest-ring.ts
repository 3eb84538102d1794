/**
 * A split ring that is written by hand: a guest that can do what no driver does.
 *
 * Buffers are allocated for each chain and freed when it comes back, so that guest memory is counted
 * too. `chain` makes a well-formed chain, `rows` one of given descriptors; `descriptor` and `publish` write whatever is
 * wanted.
 *
 * Usage:
 *   const ring = new GuestRing(kernel, 4);
 *   const head = ring.chain([Uint8Array.of(0, 0), Uint8Array.of(0)], [1]);
 *   // the device works
 *   ring.takeUsed();        // [{ id: head, len: 1, bytes: Uint8Array.of(0) }]
 */
import type { KernelContext } from '../../kernel/function.js';
import { concatBytes } from '../../net/packet.js';
import {
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
  splitRingLayout,
  splitRingSize,
  type SplitRingLayout,
} from '../../virtio/ring/split-ring.js';

/** What the device gave back. */
export interface UsedChain {
  readonly id: number;
  readonly len: number;
  /** It was outstanding, as far as `chain` knows. */
  readonly known: boolean;
  /** What stands in its writable segments. */
  readonly bytes: Uint8Array;
}

/** A descriptor as it stands in memory. */
export type RawDescriptor = readonly [address: bigint, length: number, flags: number, next: number];

interface Piece {
  readonly at: number;
  readonly length: number;
}

interface Chain {
  readonly descriptors: readonly number[];
  readonly readable: readonly Piece[];
  readonly writable: readonly Piece[];
  /** Memory of the chain's own. */
  readonly slab: readonly number[];
  /** Its indirect table, or 0. */
  readonly table: number;
}

/** Fills the writable segments before the device has them. */
const UNWRITTEN = 0xff;

export class GuestRing {
  readonly layout: SplitRingLayout;
  readonly num: number;
  /** Where the parts lie. */
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  readonly #kernel: KernelContext;
  readonly #free: number[];
  readonly #chains = new Map<number, Chain>();
  #availIdx = 0;
  #lastUsed = 0;

  constructor(kernel: KernelContext, num: number) {
    const { ram } = kernel.memory;
    this.#kernel = kernel;
    this.num = num;
    this.desc = kernel.physical.allocPages(Math.ceil(splitRingSize(num) / 4096));
    this.layout = splitRingLayout(num, ram.physToVirt(this.desc));
    this.avail = ram.virtToPhys(this.layout.avail);
    this.used = ram.virtToPhys(this.layout.used);
    this.#free = Array.from({ length: num }, (_, i) => i);
  }

  /** Chains that have not come back. */
  get outstanding(): number {
    return this.#chains.size;
  }

  get freeDescriptors(): number {
    return this.#free.length;
  }

  /** Where the first readable segment of a chain lies. */
  outputOf(head: number): number {
    return this.#chains.get(head)?.readable[0]?.at ?? 0;
  }

  /**
   * Makes a chain available: readable segments with their bytes, sizes of writable ones. Its head. `indirect`: one
   * descriptor, which names a table of them.
   */
  chain(out: readonly Uint8Array[], input: readonly number[], indirect = false): number {
    const { memory, physical } = this.#kernel;
    const { ram } = memory;
    const alloc = (length: number): number => physical.alloc(Math.max(1, length));
    const readable = out.map((bytes) => {
      const at = alloc(bytes.length);
      ram.bytes.set(bytes, at);
      return { at, length: bytes.length };
    });
    const writable = input.map((length) => {
      const at = alloc(length);
      ram.bytes.fill(UNWRITTEN, at, at + length);
      return { at, length };
    });
    const pieces = [...readable, ...writable];
    const rows = pieces.map(({ at, length }, i): RawDescriptor => {
      const isLast = i + 1 === pieces.length;
      const flags = (i < out.length ? 0 : VRING_DESC_F_WRITE) | (isLast ? 0 : VRING_DESC_F_NEXT);
      return [ram.physToVirt(at), length, flags, i + 1];
    });
    return this.#publishChain(
      rows,
      indirect,
      pieces.map(({ at }) => at),
    );
  }

  /** The same of memory that belongs to the caller; `next` counts within the rows. */
  rows(rows: readonly RawDescriptor[], indirect = false): number {
    return this.#publishChain(rows, indirect, []);
  }

  #publishChain(
    rows: readonly RawDescriptor[],
    indirect: boolean,
    slab: readonly number[],
  ): number {
    const { ram } = this.#kernel.memory;
    const count = indirect ? 1 : rows.length;
    const descriptors = this.#free.splice(0, count);
    if (descriptors.length < count) throw new RangeError(`ring of ${this.num} is full`);
    const [head = 0] = descriptors;
    const table = indirect ? this.#table(head, rows) : 0;
    if (!indirect) {
      for (const [i, [address, length, flags, next]] of rows.entries()) {
        this.descriptor(descriptors[i] ?? 0, address, length, flags, descriptors[next] ?? 0);
      }
    }
    const pieces = (isWritable: boolean): Piece[] =>
      rows
        .filter(([, , flags]) => ((flags & VRING_DESC_F_WRITE) !== 0) === isWritable)
        .map(([address, length]) => ({ at: ram.virtToPhys(address), length }));
    const [readable, writable] = [pieces(false), pieces(true)];
    this.#chains.set(head, { descriptors, readable, writable, slab, table });
    this.publish(head);
    return head;
  }

  /** Writes an indirect table, and the descriptor that names it. */
  #table(index: number, rows: readonly RawDescriptor[]): number {
    const { memory, physical } = this.#kernel;
    const size = rows.length * VRING_DESC_SIZE;
    const table = physical.allocPages(Math.ceil(size / 4096));
    for (const [i, row] of rows.entries()) this.#write(table + VRING_DESC_SIZE * i, row);
    this.descriptor(index, memory.ram.physToVirt(table), size, VRING_DESC_F_INDIRECT, 0);
    return table;
  }

  /** Writes a descriptor. */
  descriptor(index: number, address: bigint, length: number, flags: number, next: number): void {
    this.#write(this.desc + VRING_DESC_SIZE * index, [address, length, flags, next]);
  }

  #write(at: number, [address, length, flags, next]: RawDescriptor): void {
    const { ram } = this.#kernel.memory;
    ram.set64(at, address);
    ram.set32(at + 8, length);
    ram.set16(at + 12, flags);
    ram.set16(at + 14, next);
  }

  /** Puts a head into the available ring. */
  publish(head: number): void {
    const { ram } = this.#kernel.memory;
    ram.set16(this.avail + 4 + 2 * (this.#availIdx & (this.num - 1)), head);
    this.#availIdx = (this.#availIdx + 1) & 0xffff;
    ram.set16(this.avail + 2, this.#availIdx);
  }

  /** What came back since the last call. */
  takeUsed(): UsedChain[] {
    const { ram } = this.#kernel.memory;
    const taken: UsedChain[] = [];
    while (this.#lastUsed !== ram.u16(this.used + 2)) {
      const entry = this.used + 4 + 8 * (this.#lastUsed & (this.num - 1));
      const id = ram.u32(entry);
      const known = this.#chains.has(id);
      taken.push({ id, len: ram.u32(entry + 4), known, bytes: this.#release(id) });
      this.#lastUsed = (this.#lastUsed + 1) & 0xffff;
    }
    return taken;
  }

  /** Frees everything; no device uses the ring any more. */
  close(): void {
    for (const head of this.#chains.keys()) this.#release(head);
    this.#kernel.physical.freePages(this.desc);
  }

  #release(head: number): Uint8Array {
    const { memory, physical } = this.#kernel;
    const chain = this.#chains.get(head);
    if (!chain) return new Uint8Array(0);
    this.#chains.delete(head);
    this.#free.push(...chain.descriptors);
    const parts = chain.writable.map(({ at, length }) => memory.ram.slice(at, length));
    for (const at of chain.slab) physical.free(at);
    if (chain.table !== 0) physical.freePages(chain.table);
    return concatBytes(...parts);
  }
}

/**
 * The device's side of a split virtqueue: takes chains, checks them, gives them back.
 *
 * Reference: virtio 1.x, "Split Virtqueues"; the refusals are those of QEMU's virtqueue_pop
 * (hw/virtio/virtio.c). The device is outside the guest kernel, so it keeps its own indexes, but it
 * sees rings and buffers through guest memory only. A refused chain breaks the queue: the device then
 * needs a reset. Leaves out IN_ORDER and address translation.
 *
 * Usage:
 *   const queue = new SplitDeviceQueue(memory, layout, { eventIdx: true, indirect: true });
 *   const head = queue.take(readable, writable);      // or pop(), which gives objects
 *   if (head >= 0) { queue.push(head, written); queue.flush(); }
 */
import { hex64, join64 } from '../../common/bytes.js';
import type { Memory } from '../../cpu/memory.js';
import type { Ram } from '../../cpu/ram.js';
import {
  VRING_AVAIL_F_NO_INTERRUPT,
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
  VRING_USED_F_NO_NOTIFY,
  availEventAddress,
  needEvent,
  usedEventAddress,
  type SplitRingLayout,
} from './split-ring.js';

/** Pieces a chain may have in all. */
const VIRTQUEUE_MAX_SEGMENTS = 1024;

export interface Segment {
  readonly address: bigint;
  readonly length: number;
}

export interface DescriptorChain {
  /** Index of the first descriptor: what `push` gives back. */
  readonly head: number;
  readonly readable: readonly Segment[];
  readonly writable: readonly Segment[];
}

export type PopResult =
  | { readonly kind: 'chain'; readonly chain: DescriptorChain }
  | { readonly kind: 'empty' }
  | { readonly kind: 'broken'; readonly why: string };

export interface DeviceQueueOptions {
  /** VIRTIO_F_EVENT_IDX. Default false. */
  readonly eventIdx?: boolean;
  /** VIRTIO_F_INDIRECT_DESC. Default false: an indirect descriptor is refused. */
  readonly indirect?: boolean;
}

const EMPTY: PopResult = { kind: 'empty' };

/** What `take` returns in place of a head. */
export const QUEUE_EMPTY = -1;
export const QUEUE_BROKEN = -2;

/** Pieces of memory by physical address. A list is cleared and filled again, so it costs nothing. */
export class PieceList {
  count = 0;
  #addresses = new Int32Array(64);
  #lengths = new Int32Array(64);

  address(index: number): number {
    return this.#addresses[index] as number;
  }

  length(index: number): number {
    return this.#lengths[index] as number;
  }

  /** Bytes in the pieces from `first` on. */
  bytes(first = 0): number {
    let total = 0;
    for (let i = first; i < this.count; i++) total += this.length(i);
    return total;
  }

  shorten(index: number, length: number): void {
    this.#lengths[index] = length;
  }

  add(address: number, length: number): void {
    if (this.count === this.#addresses.length) {
      this.#addresses = doubled(this.#addresses);
      this.#lengths = doubled(this.#lengths);
    }
    this.#addresses[this.count] = address;
    this.#lengths[this.count] = length;
    this.count++;
  }
}

function doubled(numbers: Int32Array): Int32Array<ArrayBuffer> {
  const copy = new Int32Array(2 * numbers.length);
  copy.set(numbers);
  return copy;
}

export class SplitDeviceQueue {
  readonly #memory: Memory;
  readonly #ram: Ram;
  /** Queue size and where the parts of the ring lie. */
  readonly #num: number;
  readonly #desc: number;
  readonly #avail: number;
  readonly #used: number;
  readonly #usedEvent: number;
  readonly #availEvent: number;
  readonly #eventIdx: boolean;
  readonly #indirect: boolean;
  #lastAvail = 0;
  #usedIdx = 0;
  /** Used elements written but not covered by the index yet. */
  #pushed = 0;
  /** Used index at the last interrupt decision. */
  #signalledUsed = 0;
  #broken: string | undefined;

  constructor(memory: Memory, ring: SplitRingLayout, options: DeviceQueueOptions = {}) {
    const { ram } = memory;
    this.#memory = memory;
    this.#ram = ram;
    this.#num = ring.num;
    this.#desc = ram.virtToPhys(ring.desc);
    this.#avail = ram.virtToPhys(ring.avail);
    this.#used = ram.virtToPhys(ring.used);
    this.#usedEvent = ram.virtToPhys(usedEventAddress(ring));
    this.#availEvent = ram.virtToPhys(availEventAddress(ring));
    this.#eventIdx = options.eventIdx ?? false;
    this.#indirect = options.indirect ?? false;
  }

  /** Why the queue stopped; `undefined` while it works. */
  get broken(): string | undefined {
    return this.#broken;
  }

  /** Chains made available and not popped yet. */
  get available(): number {
    return (this.#ram.u16(this.#avail + 2) - this.#lastAvail) & 0xffff;
  }

  /** Available index of the chain that `pop` takes next. */
  get position(): number {
    return this.#lastAvail;
  }

  /** Takes the next chain. */
  pop(): PopResult {
    const readable = new PieceList();
    const writable = new PieceList();
    const head = this.take(readable, writable);
    if (head === QUEUE_EMPTY) return EMPTY;
    if (head < 0) return { kind: 'broken', why: this.#broken ?? '' };
    const segments = (pieces: PieceList): Segment[] =>
      Array.from({ length: pieces.count }, (_, i) => ({
        address: this.#ram.physToVirt(pieces.address(i)),
        length: pieces.length(i),
      }));
    const chain = { head, readable: segments(readable), writable: segments(writable) };
    return { kind: 'chain', chain };
  }

  /**
   * Takes the next chain and adds its pieces to the lists. Returns its head, or QUEUE_EMPTY or
   * QUEUE_BROKEN, with pieces of a refused chain in the lists.
   */
  take(readable: PieceList, writable: PieceList): number {
    if (this.#broken !== undefined) return QUEUE_BROKEN;
    const waiting = this.available;
    if (waiting === 0) return QUEUE_EMPTY;
    const num = this.#num;
    if (waiting > num) {
      return this.#break(`avail index ${waiting} ahead of ${this.#lastAvail}, queue size ${num}`);
    }
    const head = this.#ram.u16(this.#avail + 4 + 2 * (this.#lastAvail & (num - 1)));
    if (head >= num) return this.#break(`head ${head} in a queue of ${num}`);
    const refusal = this.#walk(head, readable, writable);
    if (refusal !== undefined) return this.#break(refusal);
    this.#lastAvail = (this.#lastAvail + 1) & 0xffff;
    this.#writeAvailEvent();
    return head;
  }

  /** Puts back the last `count` chains popped: there was not enough room in them. */
  unpop(count: number): void {
    this.#lastAvail = (this.#lastAvail - count) & 0xffff;
    this.#writeAvailEvent();
  }

  /** Writes a used element; the driver sees it after `flush`. */
  push(head: number, written: number): void {
    const slot = (this.#usedIdx + this.#pushed) & (this.#num - 1);
    this.#ram.set32(this.#used + 4 + 8 * slot, head);
    this.#ram.set32(this.#used + 8 + 8 * slot, written);
    this.#pushed++;
  }

  /** Publishes all pushed elements at once. */
  flush(): void {
    // a write barrier stands here: elements are visible before the index that covers them
    this.#usedIdx = (this.#usedIdx + this.#pushed) & 0xffff;
    this.#pushed = 0;
    this.#ram.set16(this.#used + 2, this.#usedIdx);
  }

  /** Whether the driver wants an interrupt for what was flushed since the last call. */
  shouldInterrupt(): boolean {
    const oldUsed = this.#signalledUsed;
    this.#signalledUsed = this.#usedIdx;
    if (oldUsed === this.#usedIdx) return false;
    if (this.#eventIdx) {
      const event = this.#ram.u16(this.#usedEvent);
      return needEvent(event, this.#usedIdx, oldUsed);
    }
    return (this.#ram.u16(this.#avail) & VRING_AVAIL_F_NO_INTERRUPT) === 0;
  }

  /** Tells the driver whether to notify (without EVENT_IDX; with it, `pop` moves avail_event). */
  setNotification(enabled: boolean): void {
    if (this.#eventIdx) {
      if (enabled) this.#writeAvailEvent();
      return;
    }
    this.#ram.set16(this.#used, enabled ? 0 : VRING_USED_F_NO_NOTIFY);
  }

  #writeAvailEvent(): void {
    if (this.#eventIdx) this.#ram.set16(this.#availEvent, this.#lastAvail);
  }

  #break(why: string): number {
    this.#broken = why;
    return QUEUE_BROKEN;
  }

  /** Collects the pieces of the chain that starts at `head`; why it is refused, if it is. */
  #walk(head: number, readable: PieceList, writable: PieceList): string | undefined {
    const ram = this.#ram;
    const firstWritable = writable.count;
    const limit = readable.count + writable.count + VIRTQUEUE_MAX_SEGMENTS;
    let table = this.#desc;
    let entries = this.#num;
    let insideIndirect = false;
    let visited = 0;
    let i = head;
    for (;;) {
      if (++visited > entries) return `loop in the chain of head ${head}`;
      const desc = table + VRING_DESC_SIZE * i;
      const length = ram.u32(desc + 8);
      const flags = ram.u16(desc + 12);
      const isWritable = (flags & VRING_DESC_F_WRITE) !== 0;
      if ((flags & VRING_DESC_F_INDIRECT) !== 0) {
        if (insideIndirect) return 'indirect descriptor in an indirect table';
        const refusal = this.#refuseIndirect(i, desc, length, flags);
        if (refusal !== undefined) return refusal;
        table = this.#locate(desc, length, false);
        entries = length / VRING_DESC_SIZE;
        insideIndirect = true;
        visited = 0;
        i = 0;
        continue;
      }
      if (!isWritable && writable.count > firstWritable) {
        return `descriptor ${i}: readable after writable`;
      }
      if (length === 0) return `descriptor ${i}: zero sized buffers are not allowed`;
      const at = this.#locate(desc, length, isWritable);
      if (at < 0) {
        return `descriptor ${i}: ${length} bytes at ${this.#describe(desc)} not mapped`;
      }
      (isWritable ? writable : readable).add(at, length);
      if (readable.count + writable.count > limit) {
        return `more than ${VIRTQUEUE_MAX_SEGMENTS} segments`;
      }
      if ((flags & VRING_DESC_F_NEXT) === 0) return undefined;
      i = ram.u16(desc + 14);
      if (i >= entries) return `next ${i} in a table of ${entries}`;
    }
  }

  #refuseIndirect(i: number, desc: number, length: number, flags: number): string | undefined {
    if (!this.#indirect) return `descriptor ${i} is indirect, which was not negotiated`;
    if ((flags & VRING_DESC_F_NEXT) !== 0) return `descriptor ${i} is indirect and has a next`;
    if (length === 0 || length % VRING_DESC_SIZE !== 0) return `indirect table of ${length} bytes`;
    if (this.#locate(desc, length, false) < 0) {
      return `indirect table of ${length} bytes at ${this.#describe(desc)} not mapped`;
    }
    return undefined;
  }

  /** Physical address of the memory that a descriptor names, or -1 when it is not all there. */
  #locate(desc: number, length: number, isWritten: boolean): number {
    const hi = this.#ram.s32(desc + 4);
    const lo = this.#ram.s32(desc);
    const memory = this.#memory;
    return isWritten ? memory.offsetWrite(hi, lo, length) : memory.offsetRead(hi, lo, length);
  }

  #describe(desc: number): string {
    return hex64(join64(this.#ram.s32(desc), this.#ram.s32(desc + 4)));
  }
}

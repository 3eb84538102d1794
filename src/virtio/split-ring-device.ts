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
 *   const popped = queue.pop();
 *   if (popped.kind === 'chain') { queue.push(popped.chain.head, written); queue.flush(); }
 */
import { hex64 } from '../common/bytes.js';
import type { Memory } from '../cpu/memory.js';
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

export class SplitDeviceQueue {
  readonly #memory: Memory;
  readonly #ring: SplitRingLayout;
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
    this.#memory = memory;
    this.#ring = ring;
    this.#eventIdx = options.eventIdx ?? false;
    this.#indirect = options.indirect ?? false;
  }

  /** Why the queue stopped; `undefined` while it works. */
  get broken(): string | undefined {
    return this.#broken;
  }

  /** Chains made available and not popped yet. */
  get available(): number {
    return (this.#memory.read16(this.#ring.avail + 2n) - this.#lastAvail) & 0xffff;
  }

  /** Available index of the chain that `pop` takes next. */
  get position(): number {
    return this.#lastAvail;
  }

  /** Takes the next chain. */
  pop(): PopResult {
    if (this.#broken !== undefined) return { kind: 'broken', why: this.#broken };
    const { num, avail } = this.#ring;
    const waiting = this.available;
    if (waiting === 0) return EMPTY;
    if (waiting > num) {
      return this.#break(`avail index ${waiting} ahead of ${this.#lastAvail}, queue size ${num}`);
    }
    const head = this.#memory.read16(avail + BigInt(4 + 2 * (this.#lastAvail & (num - 1))));
    if (head >= num) return this.#break(`head ${head} in a queue of ${num}`);
    const chain = this.#walk(head);
    if (typeof chain === 'string') return this.#break(chain);
    this.#lastAvail = (this.#lastAvail + 1) & 0xffff;
    this.#writeAvailEvent();
    return { kind: 'chain', chain };
  }

  /** Puts back the last `count` chains popped: there was not enough room in them. */
  unpop(count: number): void {
    this.#lastAvail = (this.#lastAvail - count) & 0xffff;
    this.#writeAvailEvent();
  }

  /** Writes a used element; the driver sees it after `flush`. */
  push(head: number, written: number): void {
    const { num, used } = this.#ring;
    const slot = (this.#usedIdx + this.#pushed) & (num - 1);
    this.#memory.write32(used + BigInt(4 + 8 * slot), head);
    this.#memory.write32(used + BigInt(8 + 8 * slot), written);
    this.#pushed++;
  }

  /** Publishes all pushed elements at once. */
  flush(): void {
    // a write barrier stands here: elements are visible before the index that covers them
    this.#usedIdx = (this.#usedIdx + this.#pushed) & 0xffff;
    this.#pushed = 0;
    this.#memory.write16(this.#ring.used + 2n, this.#usedIdx);
  }

  /** Whether the driver wants an interrupt for what was flushed since the last call. */
  shouldInterrupt(): boolean {
    const oldUsed = this.#signalledUsed;
    this.#signalledUsed = this.#usedIdx;
    if (oldUsed === this.#usedIdx) return false;
    if (this.#eventIdx) {
      const event = this.#memory.read16(usedEventAddress(this.#ring));
      return needEvent(event, this.#usedIdx, oldUsed);
    }
    return (this.#memory.read16(this.#ring.avail) & VRING_AVAIL_F_NO_INTERRUPT) === 0;
  }

  /** Tells the driver whether to notify (without EVENT_IDX; with it, `pop` moves avail_event). */
  setNotification(enabled: boolean): void {
    if (this.#eventIdx) {
      if (enabled) this.#writeAvailEvent();
      return;
    }
    this.#memory.write16(this.#ring.used, enabled ? 0 : VRING_USED_F_NO_NOTIFY);
  }

  #writeAvailEvent(): void {
    if (this.#eventIdx) this.#memory.write16(availEventAddress(this.#ring), this.#lastAvail);
  }

  #break(why: string): PopResult {
    this.#broken = why;
    return { kind: 'broken', why };
  }

  /** The chain that starts at `head`, or why it is refused. */
  #walk(head: number): DescriptorChain | string {
    let table = this.#ring.desc;
    let entries = this.#ring.num;
    let insideIndirect = false;
    let visited = 0;
    let i = head;
    const readable: Segment[] = [];
    const writable: Segment[] = [];
    for (;;) {
      if (++visited > entries) return `loop in the chain of head ${head}`;
      const desc = table + BigInt(VRING_DESC_SIZE * i);
      const address = this.#memory.read64(desc);
      const length = this.#memory.read32(desc + 8n);
      const flags = this.#memory.read16(desc + 12n);
      if ((flags & VRING_DESC_F_INDIRECT) !== 0) {
        if (insideIndirect) return 'indirect descriptor in an indirect table';
        const refusal = this.#refuseIndirect(i, address, length, flags);
        if (refusal !== undefined) return refusal;
        table = address;
        entries = length / VRING_DESC_SIZE;
        insideIndirect = true;
        visited = 0;
        i = 0;
        continue;
      }
      const isWritable = (flags & VRING_DESC_F_WRITE) !== 0;
      if (!isWritable && writable.length > 0) return `descriptor ${i}: readable after writable`;
      if (length === 0) return `descriptor ${i}: zero sized buffers are not allowed`;
      if (this.#memory.faultAt(address, length, isWritable ? 'write' : 'read')) {
        return `descriptor ${i}: ${length} bytes at ${hex64(address)} not mapped`;
      }
      (isWritable ? writable : readable).push({ address, length });
      if (readable.length + writable.length > VIRTQUEUE_MAX_SEGMENTS) {
        return `more than ${VIRTQUEUE_MAX_SEGMENTS} segments`;
      }
      if ((flags & VRING_DESC_F_NEXT) === 0) return { head, readable, writable };
      i = this.#memory.read16(desc + 14n);
      if (i >= entries) return `next ${i} in a table of ${entries}`;
    }
  }

  #refuseIndirect(i: number, address: bigint, length: number, flags: number): string | undefined {
    if (!this.#indirect) return `descriptor ${i} is indirect, which was not negotiated`;
    if ((flags & VRING_DESC_F_NEXT) !== 0) return `descriptor ${i} is indirect and has a next`;
    if (length === 0 || length % VRING_DESC_SIZE !== 0) return `indirect table of ${length} bytes`;
    if (this.#memory.faultAt(address, length, 'read')) {
      return `indirect table of ${length} bytes at ${hex64(address)} not mapped`;
    }
    return undefined;
  }
}

/**
 * The device's side of a split virtqueue.
 *
 * Reference: virtio 1.x, "Split Virtqueues". What both layouts share is in `device-queue.ts`.
 *
 * Usage:
 *   const queue = new SplitDeviceQueue(memory, layout, { eventIdx: true });
 */
import { locateRing, type BufferAccess } from './buffer-access.js';
import { DeviceQueue, QUEUE_EMPTY, type DeviceQueueOptions } from './device-queue.js';
import type { PieceList } from './piece-list.js';
import {
  VRING_AVAIL_F_NO_INTERRUPT,
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
  VRING_USED_F_NO_NOTIFY,
  needEvent,
  type SplitRingLayout,
} from './split-ring.js';

export class SplitDeviceQueue extends DeviceQueue {
  readonly #desc: number;
  readonly #avail: number;
  readonly #used: number;
  readonly #usedEvent: number;
  readonly #availEvent: number;
  #lastAvail = 0;
  #usedIdx = 0;
  /** Slots of used elements not covered by the index yet. */
  #pushed = 0;
  /** Used index at the last interrupt decision. */
  #signalledUsed = 0;

  constructor(memory: BufferAccess, ring: SplitRingLayout, options: DeviceQueueOptions = {}) {
    super(memory, ring.num, options);
    const { num } = ring;
    // the event fields behind the rings belong to them with EVENT_IDX only
    const event = this.eventIdx ? 2 : 0;
    this.#desc = locateRing(memory, ring.desc, VRING_DESC_SIZE * num, false);
    this.#avail = locateRing(memory, ring.avail, 4 + 2 * num + event, false);
    this.#used = locateRing(memory, ring.used, 4 + 8 * num + event, true);
    this.#usedEvent = this.#avail + 4 + 2 * num;
    this.#availEvent = this.#used + 4 + 8 * num;
    if (options.base === undefined) return;
    this.#lastAvail = options.base;
    this.#usedIdx = this.ram.u16(this.#used + 2);
    this.#signalledUsed = this.#usedIdx;
  }

  get position(): number {
    return this.#lastAvail;
  }

  shouldInterrupt(): boolean {
    const oldUsed = this.#signalledUsed;
    this.#signalledUsed = this.#usedIdx;
    if (oldUsed === this.#usedIdx) return false;
    if (this.eventIdx) return needEvent(this.ram.u16(this.#usedEvent), this.#usedIdx, oldUsed);
    return (this.ram.u16(this.#avail) & VRING_AVAIL_F_NO_INTERRUPT) === 0;
  }

  setNotification(enabled: boolean): void {
    if (this.eventIdx) {
      if (enabled) this.writeAvailEvent();
      return;
    }
    this.ram.set16(this.#used, enabled ? 0 : VRING_USED_F_NO_NOTIFY);
  }

  protected takeNext(readable: PieceList, writable: PieceList): number {
    const { num } = this;
    const idx = this.ram.u16(this.#avail + 2);
    const waiting = (idx - this.#lastAvail) & 0xffff;
    if (waiting === 0) return QUEUE_EMPTY;
    if (waiting > num) {
      return this.refuse(
        `avail index ${idx} is ${waiting} ahead of ${this.#lastAvail}, queue size ${num}`,
      );
    }
    const head = this.ram.u16(this.#avail + 4 + 2 * (this.#lastAvail & (num - 1)));
    if (head >= num) return this.refuse(`head ${head} in a queue of ${num}`);
    if (this.inUse >= num) return this.refuse(`head ${head}: more than ${num} chains in use`);
    this.checks.begin(readable, writable);
    const refusal = this.#walk(head);
    if (refusal !== undefined) return this.refuse(`head ${head}: ${refusal}`);
    this.#lastAvail = (this.#lastAvail + 1) & 0xffff;
    this.writeAvailEvent();
    return head;
  }

  protected putBack(): void {
    this.#lastAvail = (this.#lastAvail - 1) & 0xffff;
  }

  protected writeAvailEvent(): void {
    if (this.eventIdx) this.ram.set16(this.#availEvent, this.#lastAvail);
  }

  protected complete(): number {
    return 1;
  }

  protected writeUsed(head: number, written: number, slots: number): void {
    const slot = (this.#usedIdx + this.#pushed) & (this.num - 1);
    this.ram.set32(this.#used + 4 + 8 * slot, head);
    this.ram.set32(this.#used + 8 + 8 * slot, written);
    this.#pushed += slots;
  }

  protected publish(): void {
    // a write barrier stands here: elements are visible before the index that covers them
    this.#usedIdx = (this.#usedIdx + this.#pushed) & 0xffff;
    this.#pushed = 0;
    this.ram.set16(this.#used + 2, this.#usedIdx);
  }

  /** Collects the pieces of the chain that starts at `head`; why it is refused, if it is. */
  #walk(head: number): string | undefined {
    const { ram } = this;
    let table = this.#desc;
    let entries = this.num;
    let insideIndirect = false;
    let visited = 0;
    let i = head;
    for (;;) {
      if (++visited > entries) return 'loop in the chain';
      const desc = table + VRING_DESC_SIZE * i;
      const flags = ram.u16(desc + 12);
      if ((flags & VRING_DESC_F_INDIRECT) !== 0) {
        if (insideIndirect) return 'indirect descriptor in an indirect table';
        const refusal = this.checks.refuseTable(i, desc, flags);
        if (refusal !== undefined) return refusal;
        table = this.checks.tableAt(desc);
        entries = ram.u32(desc + 8) / VRING_DESC_SIZE;
        insideIndirect = true;
        visited = 0;
        i = 0;
        continue;
      }
      const refusal = this.checks.addPiece(i, desc, (flags & VRING_DESC_F_WRITE) !== 0);
      if (refusal !== undefined) return refusal;
      if ((flags & VRING_DESC_F_NEXT) === 0) return undefined;
      i = ram.u16(desc + 14);
      if (i >= entries) return `next ${i} in a table of ${entries}`;
    }
  }
}

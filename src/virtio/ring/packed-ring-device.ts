/**
 * The device's side of a packed virtqueue.
 *
 * Reference: virtio 1.x, "Packed Virtqueues". What both layouts share is in `device-queue.ts`. The head of
 * a chain is its buffer id, whatever number the driver gave it. One used descriptor stands for a chain
 * (with IN_ORDER for several); of those published together the first becomes visible last, so that a
 * driver never sees part of a frame that takes several buffers.
 *
 * Usage:
 *   const queue = new PackedDeviceQueue(memory, layout, { eventIdx: true });
 */
import { locateRing, type BufferAccess } from './buffer-access.js';
import { DeviceQueue, QUEUE_EMPTY, type DeviceQueueOptions } from './device-queue.js';
import {
  OFFSET,
  VRING_PACKED_DESC_SIZE,
  VRING_PACKED_EVENT_FLAGS,
  VRING_PACKED_EVENT_FLAG_DESC,
  VRING_PACKED_EVENT_FLAG_DISABLE,
  VRING_PACKED_EVENT_FLAG_ENABLE,
  WRAP,
  advance,
  isAvailable,
  needPackedEvent,
  usedFlags,
  type PackedRingLayout,
} from './packed-ring.js';
import type { PieceList } from './piece-list.js';
import { VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE } from './split-ring.js';

export class PackedDeviceQueue extends DeviceQueue {
  readonly #desc: number;
  /** Event suppression of the driver and of the device. */
  readonly #driver: number;
  readonly #device: number;
  /** Descriptors of each chain in use, by buffer id; 0: not in use. Grows with the ids. */
  #slots: Uint16Array;
  /** Descriptors of all chains in use. */
  #slotsInUse = 0;
  /** Descriptors of the chain walked last, and its buffer id. */
  #length = 0;
  #id = 0;
  #nextAvail = WRAP;
  #nextUsed = WRAP;
  /** Slots used since the last interrupt decision. */
  #unsignalled = 0;
  // the used descriptor that is published last: where its flags lie (-1: none), and they
  #firstAt = -1;
  #firstFlags = 0;

  constructor(memory: BufferAccess, ring: PackedRingLayout, options: DeviceQueueOptions = {}) {
    super(memory, ring.num, options);
    this.#desc = locateRing(memory, ring.desc, VRING_PACKED_DESC_SIZE * ring.num, true);
    this.#driver = locateRing(memory, ring.driver, 4, false);
    this.#device = locateRing(memory, ring.device, 4, true);
    this.#slots = new Uint16Array(ring.num);
    this.setNotification(true);
  }

  get position(): number {
    return this.#nextAvail;
  }

  shouldInterrupt(): boolean {
    const moved = this.#unsignalled;
    this.#unsignalled = 0;
    if (moved === 0) return false;
    const flags = this.ram.u16(this.#driver + 2) & VRING_PACKED_EVENT_FLAGS;
    if (flags === VRING_PACKED_EVENT_FLAG_DISABLE) return false;
    if (flags !== VRING_PACKED_EVENT_FLAG_DESC || !this.eventIdx) return true;
    return needPackedEvent(this.ram.u16(this.#driver), this.#nextUsed, moved, this.num);
  }

  setNotification(enabled: boolean): void {
    this.writeAvailEvent();
    const wanted = this.eventIdx ? VRING_PACKED_EVENT_FLAG_DESC : VRING_PACKED_EVENT_FLAG_ENABLE;
    this.ram.set16(this.#device + 2, enabled ? wanted : VRING_PACKED_EVENT_FLAG_DISABLE);
  }

  protected takeNext(readable: PieceList, writable: PieceList): number {
    const at = this.#descriptorAt(this.#nextAvail & OFFSET);
    if (!isAvailable(this.ram.u16(at + 14), this.#nextAvail)) return QUEUE_EMPTY;
    const slot = this.#nextAvail & OFFSET;
    this.checks.begin(readable, writable);
    const refusal = this.#walk(slot);
    if (refusal !== undefined) return this.refuse(`head ${slot}: ${refusal}`);
    if (this.#slotsInUse + this.#length > this.num) {
      return this.refuse(`head ${slot}: more than ${this.num} descriptors in use`);
    }
    const id = this.#id;
    if ((this.#slots[id] ?? 0) !== 0) return this.refuse(`head ${slot}: buffer id ${id} is in use`);
    if (id >= this.#slots.length) this.#slots = grown(this.#slots, id);
    this.#slots[id] = this.#length;
    this.#slotsInUse += this.#length;
    this.#nextAvail = advance(this.#nextAvail, this.#length, this.num);
    this.writeAvailEvent();
    return id;
  }

  protected putBack(id: number): void {
    const offset = (this.#nextAvail & OFFSET) - this.complete(id);
    const wrap = this.#nextAvail & WRAP;
    this.#nextAvail = offset < 0 ? (offset + this.num) | (wrap ^ WRAP) : offset | wrap;
  }

  protected writeAvailEvent(): void {
    if (this.eventIdx) this.ram.set16(this.#device, this.#nextAvail);
  }

  protected complete(id: number): number {
    const slots = this.#slots[id] ?? 0;
    this.#slots[id] = 0;
    this.#slotsInUse -= slots;
    return slots;
  }

  protected writeUsed(id: number, written: number, slots: number): void {
    const { ram } = this;
    const at = this.#descriptorAt(this.#nextUsed & OFFSET);
    const flags = usedFlags(this.#nextUsed) | (written > 0 ? VRING_DESC_F_WRITE : 0);
    ram.set32(at + 8, written);
    ram.set16(at + 12, id);
    // a write barrier stands here: the flags make the rest visible
    if (this.#firstAt < 0) {
      this.#firstAt = at + 14;
      this.#firstFlags = flags;
    } else {
      ram.set16(at + 14, flags);
    }
    this.#nextUsed = advance(this.#nextUsed, slots, this.num);
    this.#unsignalled += slots;
  }

  protected publish(): void {
    if (this.#firstAt < 0) return;
    this.ram.set16(this.#firstAt, this.#firstFlags);
    this.#firstAt = -1;
  }

  #descriptorAt(slot: number): number {
    return this.#desc + VRING_PACKED_DESC_SIZE * slot;
  }

  /** Collects the pieces of the chain that starts in `first`; why it is refused, if it is. */
  #walk(first: number): string | undefined {
    const { ram, num } = this;
    let slot = first;
    for (let length = 1; ; length++) {
      if (length > num) return `more than ${num} descriptors in the chain`;
      const desc = this.#descriptorAt(slot);
      const flags = ram.u16(desc + 14);
      if ((flags & VRING_DESC_F_INDIRECT) !== 0) {
        if (length > 1) return `descriptor ${slot} is indirect in a list of descriptors`;
        const refusal = this.checks.refuseTable(slot, desc, flags) ?? this.#walkTable(desc);
        if (refusal !== undefined) return refusal;
      } else {
        const refusal = this.checks.addPiece(slot, desc, (flags & VRING_DESC_F_WRITE) !== 0);
        if (refusal !== undefined) return refusal;
      }
      if ((flags & VRING_DESC_F_NEXT) === 0) {
        this.#length = length;
        this.#id = ram.u16(desc + 12);
        return undefined;
      }
      if (++slot === num) slot = 0;
    }
  }

  /** All entries of an indirect table; of their flags only WRITE counts. */
  #walkTable(desc: number): string | undefined {
    const { ram } = this;
    const table = this.checks.tableAt(desc);
    const entries = ram.u32(desc + 8) / VRING_PACKED_DESC_SIZE;
    for (let i = 0; i < entries; i++) {
      const entry = table + VRING_PACKED_DESC_SIZE * i;
      const isWritable = (ram.u16(entry + 14) & VRING_DESC_F_WRITE) !== 0;
      const refusal = this.checks.addPiece(i, entry, isWritable);
      if (refusal !== undefined) return refusal;
    }
    return undefined;
  }
}

function grown(numbers: Uint16Array, index: number): Uint16Array {
  const copy = new Uint16Array(Math.max(2 * numbers.length, index + 1));
  copy.set(numbers);
  return copy;
}

/**
 * The device's side of a virtqueue in either layout: what a device model works with.
 *
 * Reference: virtio 1.x, "Virtqueues". The device is outside the guest kernel, so it keeps its own
 * indexes, but it sees rings and buffers through guest memory only. A refused chain breaks the queue: the
 * device then needs a reset. Chains complete in any order; with IN_ORDER in the order they were taken,
 * and then a batch whose buffers were used completely, but for the last, is told by one used element.
 * What differs between the layouts is in `split-ring-device.ts` and `packed-ring-device.ts`. Addresses are
 * those of the guest, or what a `BufferAccess` translates.
 *
 * Usage:
 *   const queue = openDeviceQueue(memory, layout, { eventIdx: true, indirect: true });
 *   const head = queue.take(readable, writable);      // or pop(), which gives objects
 *   if (head >= 0) { queue.push(head, written); queue.flush(); }
 */
import type { Ram } from '../../cpu/ram.js';
import type { BufferAccess } from './buffer-access.js';
import { DescriptorChecks } from './descriptor-checks.js';
import { PieceList } from './piece-list.js';

export interface Segment {
  readonly address: bigint;
  readonly length: number;
}

export interface DescriptorChain {
  /** What `push` gives back: see `DeviceQueue.take`. */
  readonly head: number;
  readonly readable: readonly Segment[];
  readonly writable: readonly Segment[];
}

export type PopResult =
  | { readonly kind: 'chain'; readonly chain: DescriptorChain }
  | { readonly kind: 'empty' }
  | { readonly kind: 'broken'; readonly why: string };

export interface DeviceQueueOptions {
  /** Position among the device's queues, for the texts of errors. Default 0. */
  readonly index?: number;
  /** VIRTIO_F_EVENT_IDX. Default false. */
  readonly eventIdx?: boolean;
  /** VIRTIO_F_INDIRECT_DESC. Default false: an indirect descriptor is refused. */
  readonly indirect?: boolean;
  /** Descriptors of no bytes: QEMU refuses them, the standard does not. Default 'refuse'. */
  readonly zeroLength?: 'refuse' | 'allow';
  /** VIRTIO_F_IN_ORDER. Default false. */
  readonly inOrder?: boolean;
  /** Split: the available index with which the device goes on, the used one as the ring has it. Default: both 0. */
  readonly base?: number;
}

const EMPTY: PopResult = { kind: 'empty' };

/** What `take` returns in place of a head. */
export const QUEUE_EMPTY = -1;
export const QUEUE_BROKEN = -2;

/** Any layout: `SplitDeviceQueue` or `PackedDeviceQueue`. */
export abstract class DeviceQueue {
  protected readonly ram: Ram;
  protected readonly checks: DescriptorChecks;
  /** Queue size. */
  protected readonly num: number;
  protected readonly eventIdx: boolean;
  readonly #index: number;
  readonly #inOrder: boolean;
  #broken: string | undefined;
  #stopped = false;
  // chains taken and not pushed yet, by the order of taking (modulo the queue size)
  readonly #heads: Int32Array;
  readonly #writable: Float64Array;
  #taken = 0;
  #completed = 0;
  // with IN_ORDER: slots at the end of what was pushed that one used element tells of
  #batch = 0;
  #batchHead = 0;
  #batchWritten = 0;
  /** The last buffer of the batch was used completely: another may follow it. */
  #batchIsOpen = false;

  constructor(memory: BufferAccess, num: number, options: DeviceQueueOptions) {
    this.ram = memory.ram;
    const allowsEmpty = options.zeroLength === 'allow';
    this.checks = new DescriptorChecks(memory, options.indirect ?? false, allowsEmpty);
    this.num = num;
    this.eventIdx = options.eventIdx ?? false;
    this.#index = options.index ?? 0;
    this.#inOrder = options.inOrder ?? false;
    this.#heads = new Int32Array(num);
    this.#writable = new Float64Array(num);
  }

  /** Why the queue stopped; `undefined` while it works. */
  get broken(): string | undefined {
    return this.#broken;
  }

  /** Chains taken and not pushed. */
  get inUse(): number {
    return this.#taken - this.#completed;
  }

  /** Where `take` looks next: an available index, or slot and wrap counter of a packed ring. */
  abstract get position(): number;

  /** The driver resets this queue (RING_RESET): the device leaves its memory alone from now on. */
  stop(): void {
    this.#stopped = true;
  }

  /** Takes the next chain, as objects. */
  pop(): PopResult {
    const readable = new PieceList();
    const writable = new PieceList();
    const head = this.take(readable, writable);
    if (head === QUEUE_EMPTY) return EMPTY;
    if (head < 0) return { kind: 'broken', why: this.#broken ?? '' };
    const segments = (pieces: PieceList): Segment[] =>
      Array.from({ length: pieces.count }, (_, i) => ({
        address: this.ram.physToVirt(pieces.address(i)),
        length: pieces.length(i),
      }));
    const chain = { head, readable: segments(readable), writable: segments(writable) };
    return { kind: 'chain', chain };
  }

  /**
   * Takes the next chain and adds its pieces to the lists. Returns its head, the index of its first
   * descriptor (split) or its buffer id (packed), or QUEUE_EMPTY or QUEUE_BROKEN, with pieces of a refused
   * chain in the lists.
   */
  take(readable: PieceList, writable: PieceList): number {
    if (this.#broken !== undefined) return QUEUE_BROKEN;
    if (this.#stopped) return QUEUE_EMPTY;
    const head = this.takeNext(readable, writable);
    if (head < 0) return head;
    const slot = this.#taken++ % this.num;
    this.#heads[slot] = head;
    if (this.#inOrder) this.#writable[slot] = this.checks.writableBytes;
    return head;
  }

  /** Puts back the last `count` chains taken, none of them pushed: there was not enough room in them. */
  unpop(count: number): void {
    for (let left = count; left > 0; left--) {
      this.#taken--;
      this.putBack(this.#heads[this.#taken % this.num] as number);
    }
    this.writeAvailEvent();
  }

  /**
   * Gives a chain back with `written` bytes in it; the driver sees it after `flush`. With IN_ORDER it is
   * the chain taken first of those in use.
   */
  push(head: number, written: number): void {
    const slot = this.#completed % this.num;
    if (!this.#inOrder) {
      this.#completed++;
      this.writeUsed(head, written, this.complete(head));
      return;
    }
    if (this.inUse === 0 || this.#heads[slot] !== head) {
      throw new RangeError(`queue ${this.#index}: head ${head} completed out of order`);
    }
    if (!this.#batchIsOpen) this.#writeBatch();
    this.#completed++;
    this.#batch += this.complete(head);
    this.#batchHead = head;
    this.#batchWritten = written;
    this.#batchIsOpen = this.#writable[slot] === written;
  }

  /** Publishes all pushed chains at once. */
  flush(): void {
    this.#writeBatch();
    this.publish();
  }

  /** Whether the driver wants an interrupt for what was flushed since the last call. */
  abstract shouldInterrupt(): boolean;

  /** Tells the driver whether to notify; with EVENT_IDX, `take` moves the event position. */
  abstract setNotification(enabled: boolean): void;

  /** The next chain: its head, QUEUE_EMPTY, or what `refuse` returns. */
  protected abstract takeNext(readable: PieceList, writable: PieceList): number;

  /** Undoes the last `takeNext`, which gave `head`. */
  protected abstract putBack(head: number): void;

  /** With EVENT_IDX: asks to be notified of what becomes available at the position. */
  protected abstract writeAvailEvent(): void;

  /** The chain of `head` is in use no more. Returns by how many slots positions move over it. */
  protected abstract complete(head: number): number;

  /** Writes a used element that stands for `slots`, where the driver does not see it yet. */
  protected abstract writeUsed(head: number, written: number, slots: number): void;

  /** Makes visible what `writeUsed` wrote. */
  protected abstract publish(): void;

  protected refuse(why: string): number {
    this.#broken = `queue ${this.#index}: ${why}`;
    return QUEUE_BROKEN;
  }

  #writeBatch(): void {
    if (this.#batch === 0) return;
    this.writeUsed(this.#batchHead, this.#batchWritten, this.#batch);
    this.#batch = 0;
    this.#batchIsOpen = false;
  }
}

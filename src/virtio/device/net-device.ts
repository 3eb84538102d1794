/**
 * The virtio-net device: puts frames from outside into receive buffers, hands out what is transmitted.
 *
 * Reference: virtio 1.x, "Network Device"; delivery follows QEMU's virtio_net_receive_rcu. It is the
 * host's side: it keeps its own state and touches the guest through rings and buffers only. A driver
 * error sets DEVICE_NEEDS_RESET and stops all queues. It applies no offload: a header goes to the
 * driver as it was given, as a vhost-user backend does that ignores offload commands. Leaves out the
 * control queue, RSS, and completing checksums.
 *
 * Usage:
 *   const device = new VirtioNetDevice(memory, { pairs, headerSize: 12, mergeable: true, onInterrupt });
 *   device.deliver(frame);            // 'delivered', or why not
 *   device.runTransmit();             // frames the driver sent, through onTransmit
 */
import { viewOf } from '../../common/bytes.js';
import type { Memory } from '../../cpu/memory.js';
import { NET_HEADER_OFFSET, encodeNetHeader, type NetHeader } from '../net-header.js';
import { QUEUE_BROKEN, QUEUE_EMPTY, type DeviceQueue } from '../ring/device-queue.js';
import { openDeviceQueue, type RingLayout } from '../ring/open-device-queue.js';
import { PieceList } from '../ring/piece-list.js';

/** In the device status: a driver error stopped the device. */
const VIRTIO_CONFIG_S_NEEDS_RESET = 0x40;
const VIRTIO_CONFIG_S_DRIVER_OK = 4;

export interface NetDeviceOptions {
  /** Rings of each queue pair. */
  readonly pairs: readonly { readonly rx: RingLayout; readonly tx: RingLayout }[];
  /** Pairs the driver uses at first. Default all. */
  readonly activePairs?: number;
  /** Bytes of virtio_net_hdr on each frame. */
  readonly headerSize: number;
  /** VIRTIO_NET_F_MRG_RXBUF: a frame may span several buffers. */
  readonly mergeable: boolean;
  /** Default false. */
  readonly eventIdx?: boolean;
  /** Default false. */
  readonly indirect?: boolean;
  /** Default false. */
  readonly inOrder?: boolean;
  /** Called with the queue's index (rx of pair i: 2i, tx: 2i+1) when the driver wants to know. */
  readonly onInterrupt: (queue: number) => void;
  /**
   * A frame leaves the guest from a queue pair: virtio_net_hdr and frame are bytes [start, end) of `bytes`,
   * during the call only.
   */
  readonly onTransmit: (bytes: Uint8Array, start: number, end: number, queue: number) => void;
}

export interface DeliverOptions {
  /** Queue pair. Default 0. */
  readonly queue?: number;
  /** Header fields; num_buffers is filled in. Default all zero. */
  readonly header?: Partial<NetHeader>;
  /**
   * Most bytes to put into the first, second, ... buffer, a hostile or odd device's choice; the last
   * number holds for those behind. Default: fill them.
   */
  readonly bytesPerBuffer?: readonly number[];
}

/**
 * `no-buffers`: those available cannot hold it now; `too-big`: one buffer cannot, and a frame may not
 * span several (no MRG_RXBUF).
 */
export type DeliverResult = 'delivered' | 'no-buffers' | 'too-big' | 'needs-reset';

export interface DeviceCounters {
  /** Frames written to the guest. */
  rxFrames: number;
  /** Receive buffers used for them. */
  rxBuffers: number;
  /** Frames refused for want of buffers, or too big. */
  rxDropped: number;
  txFrames: number;
  interrupts: number;
  notifications: number;
}

const DEFAULTS: DeliverOptions = {};
const NO_LIMITS: readonly number[] = [];

export class VirtioNetDevice {
  readonly counters: DeviceCounters = {
    rxFrames: 0,
    rxBuffers: 0,
    rxDropped: 0,
    txFrames: 0,
    interrupts: 0,
    notifications: 0,
  };

  readonly #memory: Memory;
  readonly #options: NetDeviceOptions;
  readonly #rx: DeviceQueue[];
  readonly #tx: DeviceQueue[];
  /** The virtio_net_hdr of the frame that is delivered. */
  readonly #header: Uint8Array;
  readonly #headerView: DataView;
  // of the chains taken for one frame
  readonly #readable = new PieceList();
  readonly #writable = new PieceList();
  /** Head of each chain, and the bytes that go into it. */
  readonly #chains = new PieceList();
  #status = VIRTIO_CONFIG_S_DRIVER_OK;
  #error: string | undefined;
  #activePairs: number;

  constructor(memory: Memory, options: NetDeviceOptions) {
    this.#memory = memory;
    this.#options = options;
    this.#header = new Uint8Array(options.headerSize);
    this.#headerView = viewOf(this.#header);
    this.#activePairs = options.activePairs ?? options.pairs.length;
    this.#rx = options.pairs.map(({ rx }, pair) => this.#open(2 * pair, rx));
    this.#tx = options.pairs.map(({ tx }, pair) => this.#open(2 * pair + 1, tx));
  }

  /** Queue pairs the driver uses: what VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET would say. */
  get activePairs(): number {
    return this.#activePairs;
  }

  setQueuePairs(pairs: number): void {
    if (pairs < 1 || pairs > this.#rx.length) {
      throw new RangeError(`${pairs} queue pairs of ${this.#rx.length}`);
    }
    this.#activePairs = pairs;
  }

  get status(): number {
    return this.#status;
  }

  /** What the driver did wrong, when the device needs a reset. */
  get error(): string | undefined {
    return this.#error;
  }

  /** The driver resets a queue (RING_RESET): the device leaves its memory alone until `startQueue`. */
  resetQueue(queue: number): void {
    this.#queues(queue)[queue >> 1]?.stop();
  }

  /** The driver enables a queue that it has reset; it may lie elsewhere now and have another size. */
  startQueue(queue: number, layout: RingLayout): void {
    this.#queues(queue)[queue >> 1] = this.#open(queue, layout);
  }

  /** The driver resets the device: no queue is used until `startQueue`, and no error is left. */
  reset(): void {
    for (const queue of [...this.#rx, ...this.#tx]) queue.stop();
    this.#status = VIRTIO_CONFIG_S_DRIVER_OK;
    this.#error = undefined;
  }

  /** Puts a frame, with a header in front, into the next receive buffers of a queue. */
  deliver(frame: Uint8Array, options: DeliverOptions = DEFAULTS): DeliverResult {
    const { headerSize } = this.#options;
    if (options.header) this.#header.set(encodeNetHeader(options.header, headerSize));
    else this.#header.fill(0);
    return this.#receive(headerSize, frame, options);
  }

  /** As `deliver`, with the header's bytes in front; they may be too few to be one. */
  deliverRaw(bytes: Uint8Array, options: Omit<DeliverOptions, 'header'> = DEFAULTS): DeliverResult {
    const headerBytes = Math.min(bytes.length, this.#options.headerSize);
    this.#header.set(bytes.subarray(0, headerBytes));
    return this.#receive(headerBytes, bytes.subarray(headerBytes), options);
  }

  /** The frame and in front of it the first bytes of `#header`. */
  #receive(
    headerBytes: number,
    frame: Uint8Array,
    options: Omit<DeliverOptions, 'header'>,
  ): DeliverResult {
    const queue = options.queue ?? 0;
    const rx = this.#rx[queue];
    if (!rx || queue >= this.#activePairs) {
      throw new RangeError(`receive queue ${queue} of ${this.#activePairs}`);
    }
    const refusal = this.#takeBuffers(rx, headerBytes + frame.length, options.bytesPerBuffer);
    if (refusal !== undefined) return refusal;
    const chains = this.#chains;
    if (headerBytes >= 12) {
      this.#headerView.setUint16(NET_HEADER_OFFSET.num_buffers, chains.count, true);
    }
    this.#writeFrame(headerBytes, frame);
    for (let i = 0; i < chains.count; i++) rx.push(chains.address(i), chains.length(i));
    rx.flush();
    this.counters.rxFrames++;
    this.counters.rxBuffers += chains.count;
    this.#interrupt(rx, 2 * queue);
    return 'delivered';
  }

  /** Position in its ring of the receive buffer that comes next: see `DeviceQueue.position`. */
  receivePosition(queue: number): number {
    const rx = this.#rx[queue];
    if (!rx) throw new RangeError(`receive queue ${queue} of ${this.#rx.length}`);
    return rx.position;
  }

  /** The driver rang the doorbell of a queue. The queues are looked at in `runTransmit`. */
  notify(_queue: number): void {
    this.counters.notifications++;
  }

  /** Takes up to `budget` frames from the transmit queues. Returns how many. */
  runTransmit(budget = Infinity): number {
    let taken = 0;
    for (let pair = 0; pair < this.#tx.length; pair++) {
      const tx = this.#tx[pair] as DeviceQueue;
      let completed = false;
      while (taken < budget) {
        const head = this.#take(tx);
        if (head < 0) break;
        const bytes = this.#readable.bytes();
        if (bytes < this.#options.headerSize) {
          this.#fail(`transmit of ${bytes} bytes, shorter than its header`);
          break;
        }
        this.#transmit(bytes, pair);
        tx.push(head, 0);
        completed = true;
        taken++;
      }
      if (!completed) continue;
      tx.flush();
      this.#interrupt(tx, 2 * pair + 1);
    }
    this.counters.txFrames += taken;
    return taken;
  }

  #open(index: number, layout: RingLayout): DeviceQueue {
    const { eventIdx = false, indirect = false, inOrder = false } = this.#options;
    return openDeviceQueue(this.#memory, layout, { index, eventIdx, indirect, inOrder });
  }

  /** The list that a queue is in, at its pair's number. */
  #queues(queue: number): DeviceQueue[] {
    return queue % 2 === 0 ? this.#rx : this.#tx;
  }

  /** Takes a chain into cleared lists: its head, QUEUE_EMPTY or QUEUE_BROKEN. */
  #take(queue: DeviceQueue): number {
    this.#readable.count = 0;
    this.#writable.count = 0;
    return this.#takeMore(queue);
  }

  #takeMore(queue: DeviceQueue): number {
    if (this.#error !== undefined) return QUEUE_BROKEN;
    const head = queue.take(this.#readable, this.#writable);
    if (head === QUEUE_BROKEN) this.#fail(queue.broken ?? '');
    return head;
  }

  /** Takes chains for `bytes` bytes into the lists; why not, if it cannot. */
  #takeBuffers(
    rx: DeviceQueue,
    bytes: number,
    limits: readonly number[] = NO_LIMITS,
  ): Exclude<DeliverResult, 'delivered'> | undefined {
    const chains = this.#chains;
    const writable = this.#writable;
    chains.count = 0;
    writable.count = 0;
    let left = bytes;
    while (left > 0) {
      const first = writable.count;
      this.#readable.count = 0;
      const head = this.#takeMore(rx);
      if (head === QUEUE_BROKEN) return 'needs-reset';
      if (head === QUEUE_EMPTY || (chains.count > 0 && !this.#options.mergeable)) {
        rx.unpop(chains.count + (head === QUEUE_EMPTY ? 0 : 1));
        this.counters.rxDropped++;
        return head === QUEUE_EMPTY ? 'no-buffers' : 'too-big';
      }
      const limit = limits[chains.count] ?? limits.at(-1) ?? Infinity;
      const share = Math.min(left, limit, writable.bytes(first));
      if (share === 0) return this.#fail('receive buffer without writable bytes');
      this.#trim(first, share);
      chains.add(head, share);
      left -= share;
    }
    return undefined;
  }

  /** Shortens the pieces from `first` on to `bytes` in all. */
  #trim(first: number, bytes: number): void {
    const writable = this.#writable;
    let left = bytes;
    for (let i = first; i < writable.count; i++) {
      if (left < writable.length(i)) writable.shorten(i, left);
      left -= writable.length(i);
    }
  }

  #fail(why: string): 'needs-reset' {
    this.#status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    this.#error = why;
    return 'needs-reset';
  }

  #interrupt(queue: DeviceQueue, index: number): void {
    if (!queue.shouldInterrupt()) return;
    this.counters.interrupts++;
    this.#options.onInterrupt(index);
  }

  #writeFrame(headerBytes: number, frame: Uint8Array): void {
    const { ram } = this.#memory;
    const writable = this.#writable;
    let at = 0;
    for (let i = 0; i < writable.count; i++) {
      let target = writable.address(i);
      const end = target + writable.length(i);
      while (at < headerBytes && target < end) ram.set8(target++, this.#header[at++] as number);
      const size = end - target;
      const from = at - headerBytes;
      if (size === 0) continue;
      ram.bytes.set(size === frame.length ? frame : frame.subarray(from, from + size), target);
      at += size;
    }
  }

  /** Shows the frame in `#readable` where it lies, or a copy if it lies in pieces. */
  #transmit(size: number, queue: number): void {
    const { ram } = this.#memory;
    const readable = this.#readable;
    if (readable.count === 1) {
      const start = readable.address(0);
      this.#options.onTransmit(ram.bytes, start, start + size, queue);
      return;
    }
    const bytes = new Uint8Array(size);
    let at = 0;
    for (let i = 0; i < readable.count; i++) {
      bytes.set(ram.slice(readable.address(i), readable.length(i)), at);
      at += readable.length(i);
    }
    this.#options.onTransmit(bytes, 0, size, queue);
  }
}

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
import { viewOf } from '../common/bytes.js';
import type { Memory } from '../cpu/memory.js';
import { NET_HEADER_OFFSET, encodeNetHeader, type NetHeader } from './net-header.js';
import { SplitDeviceQueue, type DescriptorChain, type Segment } from './split-ring-device.js';
import type { SplitRingLayout } from './split-ring.js';

/** In the device status: a driver error stopped the device. */
const VIRTIO_CONFIG_S_NEEDS_RESET = 0x40;
const VIRTIO_CONFIG_S_DRIVER_OK = 4;

export interface NetDeviceOptions {
  /** Rings of each queue pair. */
  readonly pairs: readonly { readonly rx: SplitRingLayout; readonly tx: SplitRingLayout }[];
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
  /** Called with the queue's index (rx of pair i: 2i, tx: 2i+1) when the driver wants to know. */
  readonly onInterrupt: (queue: number) => void;
  readonly onTransmit: (frame: TransmittedFrame) => void;
}

/** A frame that left the guest. */
export interface TransmittedFrame {
  /** Queue pair. */
  readonly queue: number;
  /** The virtio_net_hdr the driver put in front. */
  readonly header: Uint8Array;
  readonly frame: Uint8Array;
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
  readonly #rx: readonly SplitDeviceQueue[];
  readonly #tx: readonly SplitDeviceQueue[];
  #status = VIRTIO_CONFIG_S_DRIVER_OK;
  #error: string | undefined;
  #activePairs: number;

  constructor(memory: Memory, options: NetDeviceOptions) {
    const ringOptions = {
      eventIdx: options.eventIdx ?? false,
      indirect: options.indirect ?? false,
    };
    this.#memory = memory;
    this.#options = options;
    this.#activePairs = options.activePairs ?? options.pairs.length;
    this.#rx = options.pairs.map(({ rx }) => new SplitDeviceQueue(memory, rx, ringOptions));
    this.#tx = options.pairs.map(({ tx }) => new SplitDeviceQueue(memory, tx, ringOptions));
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

  /** Puts a frame, with a header in front, into the next receive buffers of a queue. */
  deliver(frame: Uint8Array, options: DeliverOptions = {}): DeliverResult {
    const { headerSize } = this.#options;
    const bytes = new Uint8Array(headerSize + frame.length);
    bytes.set(encodeNetHeader(options.header ?? {}, headerSize));
    bytes.set(frame, headerSize);
    return this.deliverRaw(bytes, options);
  }

  /** As `deliver`, with the header's bytes in front; they may be too few to be one. */
  deliverRaw(bytes: Uint8Array, options: Omit<DeliverOptions, 'header'> = {}): DeliverResult {
    const queue = options.queue ?? 0;
    const rx = this.#rx[queue];
    if (!rx || queue >= this.#activePairs) {
      throw new RangeError(`receive queue ${queue} of ${this.#activePairs}`);
    }
    const limits = options.bytesPerBuffer ?? [];
    const chains: DescriptorChain[] = [];
    const shares: number[] = [];
    let left = bytes.length;
    while (left > 0) {
      const chain = this.#pop(rx);
      if (chain === 'needs-reset') return chain;
      const refused = chain === 'empty' || (chains.length > 0 && !this.#options.mergeable);
      if (refused) {
        rx.unpop(chains.length + (chain === 'empty' ? 0 : 1));
        this.counters.rxDropped++;
        return chain === 'empty' ? 'no-buffers' : 'too-big';
      }
      const limit = limits[chains.length] ?? limits.at(-1) ?? Infinity;
      const share = Math.min(left, limit, totalLength(chain.writable));
      if (share === 0) return this.#fail('receive buffer without writable bytes');
      chains.push(chain);
      shares.push(share);
      left -= share;
    }
    this.#writeFrame(bytes, chains, shares);
    for (const [i, chain] of chains.entries()) rx.push(chain.head, shares[i] ?? 0);
    rx.flush();
    this.counters.rxFrames++;
    this.counters.rxBuffers += chains.length;
    this.#interrupt(rx, 2 * queue);
    return 'delivered';
  }

  /** Available index of the receive buffer that comes next. */
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
    for (const [pair, tx] of this.#tx.entries()) {
      let completed = false;
      while (taken < budget) {
        const chain = this.#pop(tx);
        if (typeof chain === 'string') break;
        const bytes = this.#gather(chain.readable);
        if (bytes.length < this.#options.headerSize) {
          this.#fail(`transmit of ${bytes.length} bytes, shorter than its header`);
          break;
        }
        this.#options.onTransmit({
          queue: pair,
          header: bytes.slice(0, this.#options.headerSize),
          frame: bytes.slice(this.#options.headerSize),
        });
        tx.push(chain.head, 0);
        tx.flush();
        completed = true;
        taken++;
      }
      if (completed) this.#interrupt(tx, 2 * pair + 1);
    }
    this.counters.txFrames += taken;
    return taken;
  }

  #pop(queue: SplitDeviceQueue): DescriptorChain | 'empty' | 'needs-reset' {
    if (this.#error !== undefined) return 'needs-reset';
    const popped = queue.pop();
    switch (popped.kind) {
      case 'chain':
        return popped.chain;
      case 'empty':
        return 'empty';
      case 'broken':
        return this.#fail(popped.why);
    }
  }

  #fail(why: string): 'needs-reset' {
    this.#status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    this.#error = why;
    return 'needs-reset';
  }

  #interrupt(queue: SplitDeviceQueue, index: number): void {
    if (!queue.shouldInterrupt()) return;
    this.counters.interrupts++;
    this.#options.onInterrupt(index);
  }

  #writeFrame(
    bytes: Uint8Array,
    chains: readonly DescriptorChain[],
    shares: readonly number[],
  ): void {
    const withCount = bytes.slice();
    if (this.#options.headerSize >= 12 && withCount.length >= 12) {
      viewOf(withCount).setUint16(NET_HEADER_OFFSET.num_buffers, chains.length, true);
    }
    let at = 0;
    for (const [i, chain] of chains.entries()) {
      let share = shares[i] ?? 0;
      for (const segment of chain.writable) {
        const part = Math.min(share, segment.length);
        this.#memory.writeBytes(segment.address, withCount.subarray(at, at + part));
        at += part;
        share -= part;
      }
    }
  }

  #gather(segments: readonly Segment[]): Uint8Array {
    const bytes = new Uint8Array(totalLength(segments));
    let at = 0;
    for (const { address, length } of segments) {
      bytes.set(this.#memory.readBytes(address, length), at);
      at += length;
    }
    return bytes;
  }
}

function totalLength(segments: readonly Segment[]): number {
  return segments.reduce((sum, { length }) => sum + length, 0);
}

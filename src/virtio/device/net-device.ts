/**
 * The virtio-net device: puts frames from outside into receive buffers, hands out what is transmitted,
 * answers control commands.
 *
 * Reference: virtio 1.4, "Network Device"; delivery follows QEMU's virtio_net_receive_rcu. It is the
 * host's side: it keeps its own state and touches the guest through rings and buffers only. A driver
 * error sets DEVICE_NEEDS_RESET and stops all queues. Unless `honoursOffloads`, a header goes to the
 * driver as it was given, as with a vhost-user backend that ignores offload commands. Which queue
 * a frame goes to, and what its header says of its hash, is as control commands have it
 * (`receive-steering.ts`), unless `steer` chooses.
 *
 * Usage:
 *   const device = new VirtioNetDevice(memory, { features, config, onInterrupt, onTransmit });
 *   // the driver sets it up through VirtioTransport, then
 *   device.deliver(frame);            // 'delivered', or why not
 *   device.runTransmit();             // frames the driver sent, through onTransmit
 */
import { viewOf } from '../../common/bytes.js';
import type { Memory } from '../../cpu/memory.js';
import { DROPPED } from '../../net/rss/steering.js';
import {
  NET_HEADER_OFFSET,
  decodeNetHeader,
  encodeNetHeader,
  type NetHeader,
} from '../net-header.js';
import {
  DEFAULT_NET_CONFIG,
  VIRTIO_NET_S_ANNOUNCE,
  encodeNetConfig,
  type NetConfig,
} from '../net-config.js';
import { hasFeature, netHeaderSize } from '../net-features.js';
import { QUEUE_BROKEN, QUEUE_EMPTY, type DeviceQueue } from '../ring/device-queue.js';
import type { BufferAccess } from '../ring/buffer-access.js';
import { openDeviceQueue, type RingLayout } from '../ring/open-device-queue.js';
import { PieceList } from '../ring/piece-list.js';
import { VIRTIO_CONFIG_S, type VirtioTransport } from '../transport.js';
import { runControlQueue, type CompleteCommand, type ControlAnswer } from './control-queue.js';
import { VIRTIO_NET_ERR, VIRTIO_NET_OK } from './control/commands.js';
import { executeControl, type ControlResult } from './control/execute.js';
import { acceptsFrame } from './control/rx-filter.js';
import { resetControlState, type ControlDevice, type ControlState } from './control/state.js';
import { applyOffloads } from './offload.js';
import { ReceiveSteering } from './receive-steering.js';
import { DeviceStatus } from './status.js';

/** Where a frame goes, and what its header says of its hash. */
export interface Steering {
  readonly queue: number;
  /** Written with HASH_REPORT. Default 0, report 0. */
  readonly hashValue?: number;
  readonly hashReport?: number;
}

export interface ControlLogEntry {
  /** Class, command, data. */
  readonly request: Uint8Array;
  readonly ack: number;
  /** Why it was refused. */
  readonly why: string | undefined;
}

export interface NetDeviceOptions {
  /** Offered features. */
  readonly features: bigint;
  /** Default: `DEFAULT_NET_CONFIG`. */
  readonly config?: Partial<NetConfig>;
  /** Completes checksums and cuts segmented frames up as the guest's offloads ask. Default false. */
  readonly honoursOffloads?: boolean;
  /** Hashing and steering deviate from the standard where QEMU does. Default false. */
  readonly qemuHashing?: boolean;
  /**
   * Chooses the queue of each frame that `deliver` names none for, and its hash. Default: as the driver
   * has configured.
   */
  readonly steer?: (frame: Uint8Array, state: ControlState) => Steering;
  /** Sees each control command with its answer. */
  readonly onControl?: (entry: ControlLogEntry) => void;
  /** Control commands that the device answers with ERR, whatever they say: a fault. Default none. */
  readonly refuses?: (request: Uint8Array) => boolean;
  /** The ack that stands in place of the one a command earned: a fault. Default that one. */
  readonly ackOf?: (ack: number) => number;
  /** How a command's chain is given back, a faulty device's choice. Default: as it should be. */
  readonly completeCommand?: CompleteCommand;
  /** How a queue reaches memory. Default: by the guest's addresses. */
  readonly access?: (queue: number) => BufferAccess;
  /** Called with the queue's index (rx of pair i: 2i, tx: 2i+1) when the driver wants to know. */
  readonly onInterrupt: (queue: number) => void;
  /** The configuration or the status changed. */
  readonly onConfigChange?: () => void;
  /**
   * A frame leaves the guest from a queue pair: virtio_net_hdr and frame are bytes [start, end) of `bytes`,
   * during the call only.
   */
  readonly onTransmit: (bytes: Uint8Array, start: number, end: number, queue: number) => void;
}

export interface DeliverOptions {
  /** Queue pair. Default: where the frame is steered to. */
  readonly queue?: number;
  /** Header fields; num_buffers and the hash are filled in. Default all zero. */
  readonly header?: Partial<NetHeader>;
  /**
   * Most bytes to put into the first, second, ... buffer, a hostile or odd device's choice; the last
   * number holds for those behind. Default: fill them.
   */
  readonly bytesPerBuffer?: readonly number[];
}

/**
 * `no-buffers`: those available cannot hold it now; `too-big`: one buffer cannot, and a frame may not
 * span several (no MRG_RXBUF); `filtered`: the guest asked not to see it.
 */
export type DeliverResult = 'delivered' | 'no-buffers' | 'too-big' | 'needs-reset' | 'filtered';

export interface DeviceCounters {
  /** Frames written to the guest. */
  rxFrames: number;
  /** Receive buffers used for them. */
  rxBuffers: number;
  /** Frames refused for want of buffers, or too big. */
  rxDropped: number;
  /** Frames that the guest's filter stopped. */
  rxFiltered: number;
  txFrames: number;
  interrupts: number;
  notifications: number;
}

const DEFAULTS: DeliverOptions = {};
const NO_LIMITS: readonly number[] = [];

export class VirtioNetDevice implements VirtioTransport {
  readonly counters: DeviceCounters = {
    rxFrames: 0,
    rxBuffers: 0,
    rxDropped: 0,
    rxFiltered: 0,
    txFrames: 0,
    interrupts: 0,
    notifications: 0,
  };

  readonly #memory: Memory;
  readonly #options: NetDeviceOptions;
  readonly #config: NetConfig;
  readonly #status: DeviceStatus;
  /** By index: rx of pair i at 2i, tx at 2i+1, the control queue behind them. */
  #queues: (DeviceQueue | undefined)[] = [];
  #control: ControlState;
  #controlDevice: ControlDevice;
  readonly #steering: ReceiveSteering;
  #mergeable = false;
  /** The virtio_net_hdr of the frame that is delivered. */
  #header = new Uint8Array(0);
  #headerView: DataView = viewOf(this.#header);
  // of the chains taken for one frame
  readonly #readable = new PieceList();
  readonly #writable = new PieceList();
  /** Head of each chain, and the bytes that go into it. */
  readonly #chains = new PieceList();
  #error: string | undefined;
  /** Frames by queue; commands and accepted ones of the control queue. */
  readonly #framesOf: Float64Array;
  #commands = 0;
  #accepted = 0;

  constructor(memory: Memory, options: NetDeviceOptions) {
    this.#memory = memory;
    this.#options = options;
    this.#config = { ...DEFAULT_NET_CONFIG, ...options.config };
    this.#framesOf = new Float64Array(2 * this.#config.maxVirtqueuePairs + 1);
    this.#status = new DeviceStatus(options.features);
    this.#controlDevice = { features: 0n, config: this.#config };
    this.#control = resetControlState(this.#controlDevice);
    this.#steering = new ReceiveSteering(options.qemuHashing === true);
  }

  get offeredFeatures(): bigint {
    return this.#options.features;
  }

  get features(): bigint {
    return this.#status.features;
  }

  get status(): number {
    return this.#status.value;
  }

  /** Why the device did not take FEATURES_OK. */
  get featureRefusal(): string | undefined {
    return this.#status.refusal;
  }

  writeFeatures(features: bigint): void {
    this.#status.writeFeatures(features);
  }

  writeStatus(status: number): void {
    const wasReady = (this.#status.value & VIRTIO_CONFIG_S.DRIVER_OK) !== 0;
    if (this.#status.write(status)) {
      for (const queue of this.#queues) queue?.stop();
      this.#queues = [];
      this.#error = undefined;
    } else if (wasReady) {
      return;
    }
    const { features } = this.#status;
    this.#controlDevice = {
      features,
      config: this.#config,
      statistics: this.#statistics,
      qemuDisableOnError: this.#options.qemuHashing === true,
    };
    this.#control = resetControlState(this.#controlDevice);
    this.#steering.reset(features, this.#control.rss);
    this.#mergeable = hasFeature(features, 'MRG_RXBUF');
    this.#header = new Uint8Array(netHeaderSize(features));
    this.#headerView = viewOf(this.#header);
  }

  readConfig(): Uint8Array {
    const announce = this.#control.announce ? VIRTIO_NET_S_ANNOUNCE : 0;
    return encodeNetConfig({ ...this.#config, status: this.#config.status | announce });
  }

  /** Also: the driver enables a queue that it has reset; it may lie elsewhere now and have another size. */
  startQueue(index: number, layout: RingLayout, base?: number): void {
    const { features } = this.#status;
    this.#steering.setResetting(index, false);
    this.#queues[index] = openDeviceQueue(this.#access(index), layout, {
      index,
      ...(base === undefined ? {} : { base }),
      eventIdx: hasFeature(features, 'EVENT_IDX'),
      indirect: hasFeature(features, 'INDIRECT_DESC'),
      inOrder: hasFeature(features, 'IN_ORDER'),
    });
  }

  /** The driver resets a queue (RING_RESET): the device leaves its memory alone until `startQueue`. */
  resetQueue(index: number): void {
    this.#queues[index]?.stop();
    this.#steering.setResetting(index, true);
  }

  /** What control commands left behind. */
  get control(): ControlState {
    return this.#control;
  }

  /** Queue pairs the driver uses: VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET. */
  get activePairs(): number {
    return this.#control.rss.queuePairs;
  }

  /** Asks the driver to announce itself on the network (VIRTIO_NET_S_ANNOUNCE). */
  requestAnnounce(): void {
    this.#control = { ...this.#control, announce: true };
    this.#options.onConfigChange?.();
  }

  /** What the driver did wrong, when the device needs a reset. */
  get error(): string | undefined {
    return this.#error;
  }

  /** Puts a frame, with a header in front, into the next receive buffers of a queue. */
  deliver(frame: Uint8Array, options: DeliverOptions = DEFAULTS): DeliverResult {
    if (this.#options.honoursOffloads !== true) return this.#deliverAs(frame, options);
    const pieces = applyOffloads(options.header ?? {}, frame, this.#control.offloads);
    let result: DeliverResult = 'delivered';
    for (const piece of pieces) {
      result = this.#deliverAs(piece.frame, { ...options, header: piece.header });
    }
    return result;
  }

  /** As `deliver`, with the header's bytes in front; they may be too few to be one. */
  deliverRaw(bytes: Uint8Array, options: Omit<DeliverOptions, 'header'> = DEFAULTS): DeliverResult {
    const headerBytes = Math.min(bytes.length, this.#header.length);
    if (this.#options.honoursOffloads === true && headerBytes === this.#header.length) {
      const header = decodeNetHeader(bytes.subarray(0, headerBytes));
      return this.deliver(bytes.subarray(headerBytes), { ...options, header });
    }
    this.#header.set(bytes.subarray(0, headerBytes));
    return this.#receive(headerBytes, bytes.subarray(headerBytes), options.queue ?? 0, options);
  }

  #deliverAs(frame: Uint8Array, options: DeliverOptions): DeliverResult {
    if (!acceptsFrame(this.#control, frame)) {
      this.counters.rxFiltered++;
      return 'filtered';
    }
    const size = this.#header.length;
    if (options.header) this.#header.set(encodeNetHeader(options.header, size));
    else this.#clearHeader();
    const queue = this.#steer(frame, options);
    if (queue === DROPPED) {
      this.counters.rxDropped++;
      return 'no-buffers';
    }
    return this.#receive(size, frame, queue, options);
  }

  /** The queue of a frame, or DROPPED; its hash goes into the header where there is room for one. */
  #steer(frame: Uint8Array, options: DeliverOptions): number {
    const { steer } = this.#options;
    if (!steer) {
      const steered = this.#steering.queueOf(frame);
      this.#writeHash(this.#steering.hash, this.#steering.report);
      return options.queue ?? steered;
    }
    if (options.queue !== undefined) return options.queue;
    const { queue, hashValue = 0, hashReport = 0 } = steer(frame, this.#control);
    this.#writeHash(hashValue, hashReport);
    return queue;
  }

  /** Store by store: `fill` is a call out of JavaScript. */
  #clearHeader(): void {
    const header = this.#header;
    for (let i = 0; i < header.length; i++) header[i] = 0;
  }

  #writeHash(value: number, report: number): void {
    if (this.#header.length <= NET_HEADER_OFFSET.hash_report) return;
    this.#headerView.setUint32(NET_HEADER_OFFSET.hash_value, value, true);
    this.#headerView.setUint16(NET_HEADER_OFFSET.hash_report, report, true);
  }

  /** The frame and in front of it the first bytes of `#header`. */
  #receive(
    headerBytes: number,
    frame: Uint8Array,
    queue: number,
    options: Omit<DeliverOptions, 'header'>,
  ): DeliverResult {
    const rx = this.#queues[2 * queue];
    if (!rx || queue >= this.activePairs) {
      throw new RangeError(`receive queue ${queue} of ${this.activePairs}`);
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
    (this.#framesOf[2 * queue] as number)++;
    this.counters.rxBuffers += chains.count;
    this.#interrupt(rx, 2 * queue);
    return 'delivered';
  }

  /** Position in its ring of the receive buffer that comes next: see `DeviceQueue.position`. */
  receivePosition(queue: number): number {
    const position = this.queuePosition(2 * queue);
    if (position === undefined) {
      throw new RangeError(`receive queue ${queue} of ${this.#config.maxVirtqueuePairs}`);
    }
    return position;
  }

  /** The same of any queue by its index; `undefined`: the driver has not set it up. */
  queuePosition(index: number): number | undefined {
    return this.#queues[index]?.position;
  }

  /**
   * The driver rang the doorbell of a queue. Commands are answered at once; receive and transmit queues
   * are looked at in `deliver` and `runTransmit`.
   */
  notify(index: number): void {
    this.counters.notifications++;
    if (index === this.controlIndex) this.#runControl();
  }

  /** Index of the control queue. */
  get controlIndex(): number {
    return 2 * this.#config.maxVirtqueuePairs;
  }

  #access(index: number): BufferAccess {
    return this.#options.access?.(index) ?? this.#memory;
  }

  #runControl(): void {
    const index = this.controlIndex;
    const queue = this.#queues[index];
    if (!queue || !this.#status.running) return;
    const answer = (request: Uint8Array): ControlAnswer => {
      const result = this.executeCommand(request);
      return { ...result, ack: this.#options.ackOf?.(result.ack) ?? result.ack };
    };
    const { completeCommand } = this.#options;
    const why = runControlQueue(this.#access(index), queue, answer, completeCommand);
    if (why !== undefined) this.fail(why);
    this.#interrupt(queue, index);
  }

  /** Runs one command: class, command, data. */
  protected executeCommand(request: Uint8Array): ControlResult {
    const result: ControlResult = this.#options.refuses?.(request)
      ? { ack: VIRTIO_NET_ERR, why: 'refused', state: this.#control }
      : executeControl(this.#control, request, this.#controlDevice);
    this.#control = result.state;
    this.#steering.configure(result.state.rss);
    this.#commands++;
    if (result.ack === VIRTIO_NET_OK) this.#accepted++;
    this.#options.onControl?.({ request, ack: result.ack, why: result.why });
    return result;
  }

  readonly #statistics = (index: number): Readonly<Record<string, number>> => {
    if (index === this.controlIndex) {
      return { command_num: this.#commands, ok_num: this.#accepted };
    }
    const frames = this.#framesOf[index] ?? 0;
    return index % 2 === 0 ? { rx_packets: frames } : { tx_packets: frames };
  };

  /** Takes up to `budget` frames from the transmit queues. Returns how many. */
  runTransmit(budget = Infinity): number {
    const { length: headerSize } = this.#header;
    let taken = 0;
    for (let pair = 0; pair < this.#config.maxVirtqueuePairs; pair++) {
      const tx = this.#queues[2 * pair + 1];
      if (!tx) continue;
      let completed = false;
      while (taken < budget) {
        const head = this.#take(tx);
        if (head < 0) break;
        const bytes = this.#readable.bytes();
        if (bytes < headerSize) {
          this.fail(`transmit of ${bytes} bytes, shorter than its header`);
          break;
        }
        this.#transmit(bytes, pair);
        tx.push(head, 0);
        completed = true;
        taken++;
        (this.#framesOf[2 * pair + 1] as number)++;
      }
      if (!completed) continue;
      tx.flush();
      this.#interrupt(tx, 2 * pair + 1);
    }
    this.counters.txFrames += taken;
    return taken;
  }

  /** Takes a chain into cleared lists: its head, QUEUE_EMPTY or QUEUE_BROKEN. */
  #take(queue: DeviceQueue): number {
    this.#readable.count = 0;
    this.#writable.count = 0;
    return this.#takeMore(queue);
  }

  #takeMore(queue: DeviceQueue): number {
    if (!this.#status.running) return QUEUE_BROKEN;
    const head = queue.take(this.#readable, this.#writable);
    if (head === QUEUE_BROKEN) this.fail(queue.broken ?? '');
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
      if (head === QUEUE_EMPTY || (chains.count > 0 && !this.#mergeable)) {
        rx.unpop(chains.count + (head === QUEUE_EMPTY ? 0 : 1));
        this.counters.rxDropped++;
        return head === QUEUE_EMPTY ? 'no-buffers' : 'too-big';
      }
      const limit = limits.length === 0 ? left : (limits[chains.count] ?? limits.at(-1) ?? left);
      const share = Math.min(left, limit, writable.bytes(first));
      if (share === 0) return this.fail('receive buffer without writable bytes');
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

  /** The driver broke the device: it needs a reset. */
  protected fail(why: string): 'needs-reset' {
    this.#status.needsReset();
    this.#error = why;
    this.#options.onConfigChange?.();
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
      for (; at + 4 <= headerBytes && target + 4 <= end; at += 4, target += 4) {
        ram.set32(target, this.#headerView.getInt32(at, true));
      }
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

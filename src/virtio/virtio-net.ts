/**
 * A virtio-net device with its driver, for experiments: frames in, verdicts and counters out.
 *
 * The facade over the device model (`net-device.ts`) and the driver (`net-driver.ts`). Reference:
 * drivers/net/virtio_net.c of 6.12. `defineVirtioNet` puts the driver's functions into a kernel once;
 * each `probe` makes a device. The device looks at its transmit queues after each poll, unless
 * `transmit: 'manual'`. Leaves out the control queue: MTU and queue numbers are set directly.
 *
 * Usage:
 *   const net = createVirtioNet(kernel, { rx: 'mergeable' });
 *   net.attachXdp(runner);
 *   net.receive(frame);
 *   net.poll();
 *   net.delivered(); net.transmitted(); net.counters();
 */
import { InputError, KernelError } from '../common/errors.js';
import type { KernelContext, KernelFunction } from '../kernel/function.js';
import { checkQueueSize, type SplitRingLayout } from './split-ring.js';
import { virtqueueIsBroken, virtqueueLayout, VRING_VIRTQUEUE } from './split-ring-driver.js';
import { takeDelivered, type DeliveredFrame } from './net-sink.js';
import {
  VirtioNetDevice,
  type DeliverOptions,
  type DeliverResult,
  type TransmittedFrame,
} from './net-device.js';
import {
  DEV,
  RQ,
  SQ,
  VI,
  pagesOf,
  receiveQueue,
  sendQueue,
  type VirtioNetHost,
  type XdpRunner,
} from './net-driver-common.js';
import { VIRTIO_NET_FEATURES, type VirtioNetFeature } from './net-driver-attach.js';
import { outstanding, probe, remove, virtioNetFunctions } from './net-driver.js';
import { driverCounters } from './net-counters.js';
import { BPF_PROG, NAPIF_STATE_SCHED, NAPI_STRUCT, NETLINK_EXT_ACK } from './net-structs.js';
import { toInt } from './struct.js';

/** How TypeScript code defines kernel functions and calls them. The kernel implements it. */
export interface FunctionCaller {
  define(fn: KernelFunction): void;
  call(name: string, ...args: bigint[]): bigint;
}

export interface VirtioNetOptions {
  /** Receive buffers: one per frame, or several. Default 'mergeable'. */
  readonly rx?: 'small' | 'mergeable';
  /** Entries per ring, a power of two. Default 256. */
  readonly queueSize?: number;
  /** Default 1500; 68 to 65535. */
  readonly mtu?: number;
  /** Default 1. */
  readonly cpus?: number;
  /** Queue pairs in use. Default 1. */
  readonly queuePairs?: number;
  /** Queue pairs there are; XDP takes one per CPU if it can. Default `queuePairs`. */
  readonly maxQueuePairs?: number;
  /** Further negotiated features, beside VERSION_1, EVENT_IDX and what `rx` needs. */
  readonly features?: readonly VirtioNetFeature[];
  /** Default true. */
  readonly eventIdx?: boolean;
  /** Default 52:54:00:00:00:02. */
  readonly mac?: Uint8Array;
  /** Default 2. */
  readonly ifindex?: number;
  /** When the device takes frames to transmit. Default 'after-poll'. */
  readonly transmit?: 'after-poll' | 'manual';
}

/** One xdp:xdp_exception. */
interface XdpException {
  readonly action: number;
}

export interface VirtioNet {
  readonly device: VirtioNetDevice;
  /** Address of `struct net_device`. */
  readonly dev: bigint;
  /** Address of `struct virtnet_info`. */
  readonly vi: bigint;
  /** Attaches a program to all queues, replaces it, or detaches it. Throws KernelError when refused. */
  attachXdp(runner: XdpRunner | undefined): void;
  setMtu(mtu: number): void;
  /** A frame arrives at the device. */
  receive(frame: Uint8Array, options?: DeliverOptions): DeliverResult;
  /** Polls until no queue has anything to do. Returns the packets taken off the rings. */
  poll(): number;
  /** Frames that reached the stack since the last call. */
  delivered(): readonly DeliveredFrame[];
  /** Frames that left the device since the last call. */
  transmitted(): readonly TransmittedFrame[];
  /** xdp:xdp_exception events since the last call. */
  exceptions(): readonly XdpException[];
  /** By the names of ethtool and the net_device: `rx0_xdp_drops`, `rx_xdp_drops`, `dev_rx_dropped`. */
  counters(): Readonly<Record<string, number>>;
  /** Receive buffers posted, frames in transmit rings, page chunks referenced. */
  held(): { readonly rx: number; readonly tx: number; readonly chunks: number };
  /** Where a receive ring lies, and the position in it that the device takes next. */
  receiveRing(queue: number): SplitRingLayout & { readonly next: number };
  /** Whether a device has broken one of the queues. */
  readonly broken: boolean;
  /** Removes the device; frames not read are lost. */
  close(): void;
}

export interface VirtioNetDriver {
  probe(options?: VirtioNetOptions): VirtioNet;
}

/** Device and driver in a kernel that has no virtio-net driver yet. */
export function createVirtioNet(
  kernel: KernelContext & FunctionCaller,
  options: VirtioNetOptions = {},
): VirtioNet {
  return defineVirtioNet(kernel).probe(options);
}

/** Defines the driver's kernel functions; devices are then made with `probe`. */
export function defineVirtioNet(kernel: KernelContext & FunctionCaller): VirtioNetDriver {
  const runners = new Map<bigint, XdpRunner>();
  const nets = new Map<bigint, VirtioNetInstance>();
  const netOf = (vi: bigint): VirtioNetInstance => {
    const net = nets.get(vi);
    if (!net) throw new InputError(`no virtio-net device at 0x${vi.toString(16)}`);
    return net;
  };
  const host: VirtioNetHost = {
    runner: (prog) => {
      const runner = runners.get(prog);
      if (!runner) throw new InputError(`no engine for the program at 0x${prog.toString(16)}`);
      return runner;
    },
    notify: (vq) => {
      const net = netOf(kernel.memory.read64(vq + VRING_VIRTQUEUE.offset.vdev));
      net.device.notify(kernel.memory.read32(vq + VRING_VIRTQUEUE.offset.index));
    },
    setQueuePairs: (vi, pairs) => netOf(vi).device.setQueuePairs(pairs),
    xdpException: (dev, _prog, action) => {
      netOf(kernel.memory.read64(dev + DEV.priv)).noteException(action);
    },
  };
  for (const fn of virtioNetFunctions(host)) kernel.define(fn);
  return {
    probe: (options = {}) => {
      const net = new VirtioNetInstance(kernel, options, runners, () => nets.delete(net.vi));
      nets.set(net.vi, net);
      net.open();
      return net;
    },
  };
}

class VirtioNetInstance implements VirtioNet {
  readonly device: VirtioNetDevice;
  readonly dev: bigint;
  readonly vi: bigint;
  readonly #kernel: KernelContext & FunctionCaller;
  readonly #options: VirtioNetOptions;
  readonly #runners: Map<bigint, XdpRunner>;
  readonly #onClose: () => void;
  #transmitted: TransmittedFrame[] = [];
  #exceptions: XdpException[] = [];
  #prog = 0n;

  constructor(
    kernel: KernelContext & FunctionCaller,
    options: VirtioNetOptions,
    runners: Map<bigint, XdpRunner>,
    onClose: () => void,
  ) {
    const { memory } = kernel;
    const queueSize = options.queueSize ?? 256;
    const queuePairs = options.queuePairs ?? 1;
    const maxQueuePairs = options.maxQueuePairs ?? queuePairs;
    const cpus = options.cpus ?? 1;
    const mergeable = (options.rx ?? 'mergeable') === 'mergeable';
    const eventIdx = options.eventIdx ?? true;
    checkQueueSize(queueSize);
    if (queuePairs < 1 || queuePairs > cpus || maxQueuePairs < queuePairs) {
      throw new InputError(`${queuePairs} of ${maxQueuePairs} queue pairs on ${cpus} CPUs`);
    }
    const names: VirtioNetFeature[] = ['VERSION_1', ...(options.features ?? [])];
    if (mergeable) names.push('MRG_RXBUF');
    if (eventIdx) names.push('EVENT_IDX');
    const features = names.reduce((mask, name) => mask | VIRTIO_NET_FEATURES[name], 0n);

    this.#kernel = kernel;
    this.#options = options;
    this.#runners = runners;
    this.#onClose = onClose;
    this.vi = probe(kernel, {
      name: 'eth0',
      ifindex: options.ifindex ?? 2,
      mac: options.mac ?? Uint8Array.of(0x52, 0x54, 0, 0, 0, 2),
      mtu: checkMtu(options.mtu ?? 1500),
      queueSize,
      queuePairs,
      maxQueuePairs,
      cpus,
      features,
    });
    this.dev = memory.read64(this.vi + VI.dev);
    this.device = new VirtioNetDevice(memory, {
      pairs: Array.from({ length: maxQueuePairs }, (_, i) => ({
        rx: virtqueueLayout(memory, memory.read64(receiveQueue(memory, this.vi, i) + RQ.vq)),
        tx: virtqueueLayout(memory, memory.read64(sendQueue(memory, this.vi, i) + SQ.vq)),
      })),
      activePairs: queuePairs,
      headerSize: memory.read8(this.vi + VI.hdr_len),
      mergeable,
      eventIdx,
      indirect: names.includes('INDIRECT_DESC'),
      onInterrupt: (queue) => this.#interrupt(queue),
      onTransmit: (frame) => this.#transmitted.push(frame),
    });
  }

  /** `virtnet_open`: fills the rings in use. */
  open(): void {
    for (const rq of this.#receiveQueues()) this.#kernel.call('try_fill_recv', this.vi, rq, 0n);
  }

  noteException(action: number): void {
    this.#exceptions.push({ action });
  }

  attachXdp(runner: XdpRunner | undefined): void {
    const kernel = this.#kernel;
    const prog = runner ? kernel.kmalloc(BPF_PROG.size) : 0n;
    if (runner) {
      this.#runners.set(prog, runner);
      const hasFrags = runner.hasFrags ?? false;
      kernel.memory.write32(prog + BPF_PROG.offset.xdp_has_frags, hasFrags ? 1 : 0);
    }
    const extack = kernel.kmalloc(NETLINK_EXT_ACK.size);
    const result = toInt(kernel.call('virtnet_xdp_set', this.dev, prog, extack));
    const text = kernel.memory.readBytes(extack, NETLINK_EXT_ACK.size);
    kernel.kfree(extack);
    if (result < 0) {
      this.#freeProgram(prog);
      const why = new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
      throw new KernelError(result === -95 ? 'EOPNOTSUPP' : 'EINVAL', `virtio_net: ${why}`);
    }
    this.#freeProgram(this.#prog);
    this.#prog = prog;
  }

  setMtu(mtu: number): void {
    this.#kernel.memory.write32(this.dev + DEV.mtu, checkMtu(mtu));
  }

  receive(frame: Uint8Array, options: DeliverOptions = {}): DeliverResult {
    return this.device.deliver(frame, options);
  }

  poll(): number {
    const { memory } = this.#kernel;
    let packets = 0;
    for (let busy = true; busy;) {
      busy = false;
      for (const rq of this.#receiveQueues()) {
        const napi = rq + RQ.napi;
        const state = memory.read32(napi + NAPI_STRUCT.offset.state);
        if ((state & NAPIF_STATE_SCHED) === 0) continue;
        busy = true;
        const weight = memory.read32(napi + NAPI_STRUCT.offset.weight);
        packets += toInt(this.#kernel.call('virtnet_poll', napi, BigInt(weight)));
        if ((this.#options.transmit ?? 'after-poll') === 'after-poll') this.device.runTransmit();
      }
    }
    return packets;
  }

  delivered(): readonly DeliveredFrame[] {
    return takeDelivered(this.#kernel, this.vi);
  }

  transmitted(): readonly TransmittedFrame[] {
    const frames = this.#transmitted;
    this.#transmitted = [];
    return frames;
  }

  exceptions(): readonly XdpException[] {
    const events = this.#exceptions;
    this.#exceptions = [];
    return events;
  }

  counters(): Readonly<Record<string, number>> {
    return driverCounters(this.#kernel.memory, this.vi);
  }

  held(): { readonly rx: number; readonly tx: number; readonly chunks: number } {
    const chunks = pagesOf(this.#kernel, this.vi).live;
    return { ...outstanding(this.#kernel.memory, this.vi), chunks };
  }

  receiveRing(queue: number): SplitRingLayout & { readonly next: number } {
    const { memory } = this.#kernel;
    const vq = memory.read64(receiveQueue(memory, this.vi, queue) + RQ.vq);
    return { ...virtqueueLayout(memory, vq), next: this.device.receivePosition(queue) };
  }

  get broken(): boolean {
    const { memory } = this.#kernel;
    return this.#receiveQueues().some((rq) => virtqueueIsBroken(memory, memory.read64(rq + RQ.vq)));
  }

  close(): void {
    this.delivered();
    remove(this.#kernel, this.vi);
    this.#freeProgram(this.#prog);
    this.#onClose();
  }

  #interrupt(queue: number): void {
    if (queue % 2 !== 0) return;
    const { memory } = this.#kernel;
    const rq = receiveQueue(memory, this.vi, queue >> 1);
    this.#kernel.call('skb_recv_done', memory.read64(rq + RQ.vq));
  }

  #receiveQueues(): readonly bigint[] {
    const { memory } = this.#kernel;
    const active = memory.read16(this.vi + VI.curr_queue_pairs);
    return Array.from({ length: active }, (_, i) => receiveQueue(memory, this.vi, i));
  }

  #freeProgram(prog: bigint): void {
    if (prog === 0n) return;
    this.#runners.delete(prog);
    this.#kernel.kfree(prog);
  }
}

function checkMtu(mtu: number): number {
  if (Number.isInteger(mtu) && mtu >= 68 && mtu <= 65535) return mtu;
  throw new InputError(`mtu ${mtu} is not between 68 and 65535`);
}

/**
 * A virtio-net device with its driver, for experiments: frames in, verdicts and counters out.
 *
 * The facade over the device model (`device/`) and the driver (`driver/`). Reference:
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
import { hex64 } from '../common/bytes.js';
import { InputError, KernelError } from '../common/errors.js';
import type { Ram } from '../cpu/ram.js';
import { connectMaps, stackFunctions } from '../stack/redirect-targets.js';
import { NetStack, type NetStackOptions, type StackKernel } from '../stack/net-stack.js';
import type { XdpRunner } from '../stack/xdp-program.js';
import { checkQueueSize, type SplitRingLayout } from './ring/split-ring.js';
import { virtqueueIsBroken, virtqueueLayout, VRING_VIRTQUEUE } from './ring/split-ring-driver.js';
import {
  drainDelivered,
  takeDelivered,
  type DeliveredFrame,
  type FrameVisitor,
} from './driver/sink.js';
import { VirtioNetDevice, type DeliverOptions, type DeliverResult } from './device/net-device.js';
import {
  DEV,
  RQ,
  SQ,
  VI,
  pagesOf,
  receiveQueue,
  sendQueue,
  type VirtioNetHost,
} from './driver/common.js';
import { VIRTIO_NET_FEATURES, type VirtioNetFeature } from './driver/attach.js';
import { outstanding, probe, remove, virtioNetFunctions } from './driver/functions.js';
import { driverCounters } from './driver/counters.js';
import { livePages } from '../stack/pages.js';
import { NAPIF_STATE_SCHED, NAPI_STRUCT, NETLINK_EXT_ACK } from './driver/structs.js';

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
  /** Default eth0. */
  readonly name?: string;
  /** When the device takes frames to transmit. Default 'after-poll'. */
  readonly transmit?: 'after-poll' | 'manual';
  /** Sees transmitted frames in place of `transmitted()`, which then has none. */
  readonly onTransmit?: FrameVisitor;
}

/** A frame that left the guest. */
export interface TransmittedFrame {
  /** Queue pair. */
  readonly queue: number;
  /** The virtio_net_hdr the driver put in front. */
  readonly header: Uint8Array;
  readonly frame: Uint8Array;
}

/** One xdp:xdp_exception. */
interface XdpException {
  readonly action: number;
}

const NO_EXCEPTIONS: readonly XdpException[] = [];

export interface VirtioNet {
  readonly device: VirtioNetDevice;
  /** Address of `struct net_device`. */
  readonly dev: bigint;
  /** Address of `struct virtnet_info`. */
  readonly vi: bigint;
  /** Receive queues in use, those that only XDP sends on included. */
  readonly queuePairs: number;
  /** Attaches a program to all queues, replaces it, or detaches it. Throws KernelError when refused. */
  attachXdp(runner: XdpRunner | undefined): void;
  setMtu(mtu: number): void;
  /** A frame arrives at the device. */
  receive(frame: Uint8Array, options?: DeliverOptions): DeliverResult;
  /** Polls until no queue has anything to do. Returns the packets taken off the rings. */
  poll(): number;
  /** Frames that reached the stack since the last call. */
  delivered(): readonly DeliveredFrame[];
  /** The same without objects: shows each frame to `visit`; returns how many there were. */
  drain(visit?: FrameVisitor): number;
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
  /** Devices, maps' targets, sockets, tracepoints of the kernel that the driver is in. */
  readonly stack: NetStack;
  probe(options?: VirtioNetOptions): VirtioNet;
}

/** Device and driver in a kernel that has no virtio-net driver yet. */
export function createVirtioNet(kernel: StackKernel, options: VirtioNetOptions = {}): VirtioNet {
  return defineVirtioNet(kernel, { cpus: options.cpus ?? 1 }).probe(options);
}

/**
 * Defines the driver's kernel functions and those of the stack around it; devices are then made with
 * `probe`.
 */
export function defineVirtioNet(
  kernel: StackKernel,
  options: NetStackOptions = {},
): VirtioNetDriver {
  const { ram } = kernel.memory;
  const stack = new NetStack(kernel, options);
  // by physical address of virtnet_info
  const nets = new Map<number, VirtioNetInstance>();
  const netOf = (vi: number): VirtioNetInstance => {
    const net = nets.get(vi);
    if (!net) throw new InputError(`no virtio-net device at ${hex64(ram.physToVirt(vi))}`);
    return net;
  };
  const host: VirtioNetHost = {
    stack,
    notify: (vq) => {
      const net = netOf(ram.pointer(vq + VRING_VIRTQUEUE.offset.vdev));
      net.device.notify(ram.u32(vq + VRING_VIRTQUEUE.offset.index));
    },
    setQueuePairs: (vi, pairs) => netOf(vi).device.setQueuePairs(pairs),
    xdpException: (dev, _prog, action) => {
      netOf(ram.pointer(dev + DEV.priv)).noteException(action);
    },
  };
  for (const fn of stackFunctions(stack)) kernel.define(fn);
  for (const fn of virtioNetFunctions(host)) kernel.define(fn);
  connectMaps(stack);
  return {
    stack,
    probe: (deviceOptions = {}) => {
      const net = new VirtioNetInstance(stack, deviceOptions, (vi) => nets.delete(vi));
      nets.set(ram.virtToPhys(net.vi), net);
      net.open();
      return net;
    },
  };
}

class VirtioNetInstance implements VirtioNet {
  readonly device: VirtioNetDevice;
  readonly dev: bigint;
  readonly vi: bigint;
  /** Physical addresses of the same. */
  readonly #dev: number;
  readonly #vi: number;
  readonly #ram: Ram;
  readonly #kernel: StackKernel;
  readonly #stack: NetStack;
  readonly #options: VirtioNetOptions;
  readonly #endWork: () => void;
  readonly #onClose: (vi: number) => void;
  #transmitted: TransmittedFrame[] = [];
  #exceptions: XdpException[] = [];
  #prog = 0;

  constructor(stack: NetStack, options: VirtioNetOptions, onClose: (vi: number) => void) {
    const { kernel } = stack;
    const { memory } = kernel;
    const { ram } = memory;
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

    this.#ram = ram;
    this.#kernel = kernel;
    this.#stack = stack;
    this.#options = options;
    this.#onClose = onClose;
    const vi = probe(kernel, {
      name: options.name ?? 'eth0',
      ifindex: options.ifindex ?? 2,
      mac: options.mac ?? Uint8Array.of(0x52, 0x54, 0, 0, 0, 2),
      mtu: checkMtu(options.mtu ?? 1500),
      queueSize,
      queuePairs,
      maxQueuePairs,
      cpus,
      features,
      pages: stack.pages,
    });
    this.#vi = vi;
    this.#dev = ram.pointer(vi + VI.dev);
    stack.registerNetdevice(
      this.#dev,
      { ndo_xdp_xmit: 'virtnet_xdp_xmit' },
      Math.max(cpus, stack.cpus),
    );
    this.#endWork = stack.addWorker(() => this.#transmit());
    this.vi = ram.physToVirt(vi);
    this.dev = ram.physToVirt(this.#dev);
    this.device = new VirtioNetDevice(memory, {
      pairs: Array.from({ length: maxQueuePairs }, (_, i) => ({
        rx: virtqueueLayout(memory, ram.pointer(receiveQueue(ram, vi, i) + RQ.vq)),
        tx: virtqueueLayout(memory, ram.pointer(sendQueue(ram, vi, i) + SQ.vq)),
      })),
      activePairs: queuePairs,
      headerSize: ram.u8(vi + VI.hdr_len),
      mergeable,
      eventIdx,
      indirect: names.includes('INDIRECT_DESC'),
      onInterrupt: (queue) => this.#interrupt(queue),
      onTransmit: options.onTransmit ?? this.#keepTransmitted,
    });
  }

  /** `virtnet_open`: fills the rings in use. */
  open(): void {
    for (let i = 0; i < this.#activePairs; i++) {
      this.#kernel.invoke('try_fill_recv', this.#vi, receiveQueue(this.#ram, this.#vi, i), 0);
    }
  }

  noteException(action: number): void {
    this.#exceptions.push({ action });
  }

  attachXdp(runner: XdpRunner | undefined): void {
    const { physical } = this.#kernel;
    const { programs } = this.#stack;
    const ram = this.#ram;
    const prog = runner ? programs.add(runner) : 0;
    const extack = physical.alloc(NETLINK_EXT_ACK.size);
    const result = this.#kernel.invoke('virtnet_xdp_set', this.#dev, prog, extack);
    const text = ram.slice(extack, NETLINK_EXT_ACK.size);
    physical.free(extack);
    if (result < 0) {
      programs.remove(prog);
      const why = new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
      throw new KernelError(result === -95 ? 'EOPNOTSUPP' : 'EINVAL', `virtio_net: ${why}`);
    }
    programs.remove(this.#prog);
    this.#prog = prog;
  }

  setMtu(mtu: number): void {
    this.#ram.set32(this.#dev + DEV.mtu, checkMtu(mtu));
  }

  receive(frame: Uint8Array, options?: DeliverOptions): DeliverResult {
    return this.device.deliver(frame, options);
  }

  poll(): number {
    const ram = this.#ram;
    const afterPoll = (this.#options.transmit ?? 'after-poll') === 'after-poll';
    let packets = 0;
    for (let busy = true; busy;) {
      busy = false;
      for (let i = 0; i < this.#activePairs; i++) {
        const napi = receiveQueue(ram, this.#vi, i) + RQ.napi;
        if ((ram.u32(napi + NAPI_STRUCT.offset.state) & NAPIF_STATE_SCHED) === 0) continue;
        busy = true;
        const weight = ram.u32(napi + NAPI_STRUCT.offset.weight);
        packets += this.#kernel.invoke('virtnet_poll', napi, weight);
        if (afterPoll) this.device.runTransmit();
      }
    }
    this.#stack.settle();
    return packets;
  }

  delivered(): readonly DeliveredFrame[] {
    return takeDelivered(this.#kernel, this.#vi);
  }

  drain(visit?: FrameVisitor): number {
    return drainDelivered(this.#kernel, this.#vi, visit);
  }

  transmitted(): readonly TransmittedFrame[] {
    const frames = this.#transmitted;
    this.#transmitted = [];
    return frames;
  }

  exceptions(): readonly XdpException[] {
    if (this.#exceptions.length === 0) return NO_EXCEPTIONS;
    const events = this.#exceptions;
    this.#exceptions = [];
    return events;
  }

  counters(): Readonly<Record<string, number>> {
    return driverCounters(this.#ram, this.#vi);
  }

  held(): { readonly rx: number; readonly tx: number; readonly chunks: number } {
    const chunks = livePages(this.#ram, pagesOf(this.#ram, this.#vi));
    return { ...outstanding(this.#kernel.memory, this.#vi), chunks };
  }

  receiveRing(queue: number): SplitRingLayout & { readonly next: number } {
    const layout = virtqueueLayout(this.#kernel.memory, this.#receiveVq(queue));
    return { ...layout, next: this.device.receivePosition(queue) };
  }

  get queuePairs(): number {
    return this.#activePairs;
  }

  get broken(): boolean {
    const { memory } = this.#kernel;
    for (let i = 0; i < this.#activePairs; i++) {
      if (virtqueueIsBroken(memory, this.#receiveVq(i))) return true;
    }
    return false;
  }

  close(): void {
    this.drain();
    this.#endWork();
    this.#stack.unregisterNetdevice(this.#dev, () => remove(this.#kernel, this.#vi));
    this.#stack.programs.remove(this.#prog);
    this.#onClose(this.#vi);
  }

  readonly #keepTransmitted: FrameVisitor = (bytes, start, end, queue) => {
    const headerEnd = start + this.#ram.u8(this.#vi + VI.hdr_len);
    const header = bytes.slice(start, headerEnd);
    this.#transmitted.push({ queue, header, frame: bytes.slice(headerEnd, end) });
  };

  /** What other devices' packets left in the transmit rings. */
  #transmit(): boolean {
    const afterPoll = (this.#options.transmit ?? 'after-poll') === 'after-poll';
    return afterPoll && this.device.runTransmit() > 0;
  }

  #interrupt(queue: number): void {
    if (queue % 2 === 0) this.#kernel.invoke('skb_recv_done', this.#receiveVq(queue >> 1));
  }

  get #activePairs(): number {
    return this.#ram.u16(this.#vi + VI.curr_queue_pairs);
  }

  #receiveVq(queue: number): number {
    return this.#ram.pointer(receiveQueue(this.#ram, this.#vi, queue) + RQ.vq);
  }
}

function checkMtu(mtu: number): number {
  if (Number.isInteger(mtu) && mtu >= 68 && mtu <= 65535) return mtu;
  throw new InputError(`mtu ${mtu} is not between 68 and 65535`);
}

/**
 * A virtio-net device with its driver, for experiments: frames in, verdicts and counters out.
 *
 * The facade over the device model (`device/`) and the driver (`driver/`). Reference:
 * drivers/net/virtio_net.c of 6.12. `defineVirtioNet` puts the driver's functions into a kernel once;
 * each `probe` makes a device. The device looks at its transmit queues after each poll, unless
 * `transmit: 'manual'`. What a user sets with ip and ethtool is in `settings.ts`.
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
import type { Memory } from '../cpu/memory.js';
import type { Ram } from '../cpu/ram.js';
import { connectMaps, stackFunctions } from '../stack/redirect-targets.js';
import { NetStack, type NetStackOptions, type StackKernel } from '../stack/net-stack.js';
import type { XdpRunner } from '../stack/xdp-program.js';
import type { RingLayout } from './ring/open-device-queue.js';
import { checkPackedQueueSize } from './ring/packed-ring.js';
import { checkQueueSize } from './ring/split-ring.js';
import { virtqueueIsBroken, virtqueueLayout } from './ring/virtqueue.js';
import { VRING_VIRTQUEUE } from './ring/vring-virtqueue.js';
import {
  drainDelivered,
  takeDelivered,
  type DeliveredFrame,
  type FrameVisitor,
} from './driver/sink.js';
import {
  VirtioNetDevice,
  type ControlLogEntry,
  type DeliverOptions,
  type DeliverResult,
  type NetDeviceOptions,
} from './device/net-device.js';
import type { NetConfig } from './net-config.js';
import { featureMask, type VirtioNetFeature } from './net-features.js';
import {
  netdevFeature,
  setMacAddress,
  setNetdevFeature,
  setRxMode,
  type NetdevFeature,
  type NetdevFeatureState,
  type RxSettings,
} from './settings.js';
import { errnoName } from '../common/errno.js';
import { IFF_UP } from '../stack/net-device.js';
import { DEV, RQ, VI, pagesOf, receiveQueue, type VirtioNetHost } from './driver/common.js';
import { virtioNetFunctions } from './driver/functions.js';
import { defaultRssKey, outstanding, probe, remove, restore } from './driver/probe.js';
import { getRss, setHashTunnel, setRss, type RssSettings } from './driver/rss.js';
import type { RssFault } from './driver/rss-faults.js';
import { resetVirtqueue, virtqueueOf } from './driver/queue-reset.js';
import type { DriverBug } from './driver/bugs.js';
import { driverCounters } from './driver/counters.js';
import { DRIVER_PROFILES, type VirtioNetVersion, type XdpChecksum } from './driver/profiles.js';
import { netStackFunctions } from '../stack/functions.js';
import type { StackHost } from '../stack/host.js';
import type { Network } from '../stack/network.js';
import { NET } from '../stack/net.js';
import { ifindexOf } from '../stack/netdev.js';
import { livePages } from '../stack/pages.js';
import { NAPIF_STATE_SCHED, NAPI_STRUCT, NETLINK_EXT_ACK } from './driver/structs.js';

export interface VirtioNetOptions {
  /** The driver's version. Default '6.12'. */
  readonly version?: VirtioNetVersion;
  /** How checksum offload and XDP live together. Default: as in that version. */
  readonly xdpChecksum?: XdpChecksum;
  /** Bugs of the driver's hashing code. Default: those of that version. */
  readonly rssFaults?: readonly RssFault[];
  /** The hash key that the driver starts with. Default: spread bits, the same each time. */
  readonly rssKey?: Uint8Array;
  /** Historical bugs to put back. Default none. */
  readonly bugs?: readonly DriverBug[];
  /**
   * Receive buffers: one per frame, several, or pages. Default 'mergeable'. 'big' is what a device without
   * MRG_RXBUF gets that offers segmentation, so it offers GUEST_TSO4, GUEST_TSO6, what they need, and
   * CTRL_GUEST_OFFLOADS.
   */
  readonly rx?: 'small' | 'mergeable' | 'big';
  /** Layout of the rings. Default 'split'. */
  readonly ring?: 'split' | 'packed';
  /** IN_ORDER: the device completes in order, and tells of batches by one used element. Default false. */
  readonly inOrder?: boolean;
  /** INDIRECT_DESC: frames in several pieces take one descriptor of a transmit ring. Default false. */
  readonly indirect?: boolean;
  /** Entries per ring, a power of two; with packed rings any number up to 32768. Default 256. */
  readonly queueSize?: number;
  /** Default 1500; 68 to 65535. */
  readonly mtu?: number;
  /** Default 1. */
  readonly cpus?: number;
  /** Queue pairs in use. Default 1. */
  readonly queuePairs?: number;
  /** Queue pairs there are; XDP takes one per CPU if it can. Default `queuePairs`. */
  readonly maxQueuePairs?: number;
  /**
   * Further features of the device, beside VERSION_1, EVENT_IDX, what `rx` needs and, with several queue
   * pairs, MQ and CTRL_VQ.
   */
  readonly features?: readonly VirtioNetFeature[];
  /** The device does not offer VERSION_1. Default false. */
  readonly legacy?: boolean;
  /** Fields of the device's configuration space, beside those that other options give. */
  readonly config?: Partial<NetConfig>;
  /** Default false: the device takes commands about offloads and changes nothing. */
  readonly deviceHonoursOffloads?: boolean;
  /** Hashing and steering deviate from the standard where QEMU does. Default false. */
  readonly qemuHashing?: boolean;
  /** Chooses the receive queue of each frame, and its hash. Default: as the driver has configured. */
  readonly steer?: NetDeviceOptions['steer'];
  /** Commands that the device refuses, a fault. Default none. */
  readonly deviceRefuses?: (request: Uint8Array) => boolean;
  /** Makes the device that the driver talks to, of the options given. Default: a VirtioNetDevice. */
  readonly createDevice?: (memory: Memory, options: NetDeviceOptions) => VirtioNetDevice;
  /** Default true. */
  readonly eventIdx?: boolean;
  /** Default 52:54:00:00:00:02. */
  readonly mac?: Uint8Array;
  /** The network that the device is in. Default: none, frames end in `delivered()`. */
  readonly network?: Network;
  /** Default: the lowest that no device has, from 2 on. */
  readonly ifindex?: number;
  /** Default eth0 for ifindex 2, eth1 for 3, ... */
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
  /** The same in generic mode, on skbs. */
  attachGenericXdp(runner: XdpRunner | undefined): void;
  setMtu(mtu: number): void;
  /** Features in use by both sides. */
  readonly features: bigint;
  /** Control commands and their answers since the last call. */
  controlLog(): readonly ControlLogEntry[];
  feature(name: NetdevFeature): NetdevFeatureState;
  /** `ethtool -K`: 0, ETHTOOL_F_WISH, or -EOPNOTSUPP. */
  setFeature(name: NetdevFeature, on: boolean): number;
  /** `ethtool -L combined`. Throws KernelError when refused. */
  setQueuePairs(pairs: number): void;
  /** `ethtool -x`: what the driver has set; undefined without RSS and HASH_REPORT. */
  rss(): Required<RssSettings> | undefined;
  /** `ethtool -X`: indirection table, key, hash types. Throws KernelError when refused. */
  setRss(settings: RssSettings): void;
  /** HASH_TUNNEL_SET: tunnels whose inner headers are hashed. Throws KernelError when refused. */
  setHashTunnel(types: number): void;
  /** Promiscuous mode and address lists, all of them. */
  setRxMode(settings: RxSettings): void;
  /** Throws KernelError when refused. */
  setMac(mac: Uint8Array): void;
  /** Adds or removes a VLAN of the device's filter. Throws KernelError when refused. */
  setVlan(id: number, on: boolean): void;
  /** `ethtool -K tx on|off`: checksums of what is sent are left to the device, or software completes them. */
  setTxChecksum(on: boolean): void;
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
  receiveRing(queue: number): RingLayout & { readonly next: number };
  /** Whether a device has broken one of the queues in use. */
  readonly broken: boolean;
  /** Resets one queue (RING_RESET; rx of pair i is 2i, tx is 2i+1): what it held is freed, and it works again. */
  resetQueue(queue: number): void;
  /**
   * Resets the device and all queues: a broken one works again, an error of the device is gone. Of what commands
   * told the device, only queue pairs and filter are told again.
   */
  reset(): void;
  /** Removes the device; frames not read are lost. */
  close(): void;
}

/** Called with physical addresses of sk_buff and net_device. */
export type StackTracepoints = Partial<
  Omit<StackHost, 'runXdp' | 'xdpException' | 'resetsNetworkHeader'>
>;

export interface DefineOptions extends NetStackOptions {
  readonly tracepoints?: StackTracepoints;
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

/** Defines the driver's kernel functions; devices are then made with `probe`. */
export function defineVirtioNet(kernel: StackKernel, options: DefineOptions = {}): VirtioNetDriver {
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
    xdpException: (dev, _prog, action) => {
      netOf(ram.pointer(dev + DEV.priv)).noteException(action);
    },
  };
  const { tracepoints } = options;
  const stackHost: StackHost = {
    runXdp: (_context, prog, xdp) => stack.runXdp(prog, xdp),
    resetsNetworkHeader: options.resetsNetworkHeader ?? true,
    kfreeSkb: (skb, reason, location) => tracepoints?.kfreeSkb?.(skb, reason, location),
    netDevStartXmit: (skb, dev) => tracepoints?.netDevStartXmit?.(skb, dev),
    napiGroReceiveEntry: (skb) => tracepoints?.napiGroReceiveEntry?.(skb),
    nfLocalIn: (skb) => tracepoints?.nfLocalIn?.(skb),
    xdpException: host.xdpException,
  };
  for (const fn of virtioNetFunctions(host)) kernel.define(fn);
  for (const fn of netStackFunctions(stackHost)) kernel.define(fn);
  for (const fn of stackFunctions(stack)) kernel.define(fn);
  connectMaps(stack);
  return {
    stack,
    probe: (deviceOptions = {}) => new VirtioNetInstance(stack, deviceOptions, nets),
  };
}

class VirtioNetInstance implements VirtioNet {
  readonly device: VirtioNetDevice;
  /** Physical addresses of net_device and virtnet_info. */
  #dev = 0;
  #vi = 0;
  readonly #ram: Ram;
  readonly #kernel: StackKernel;
  readonly #options: VirtioNetOptions;
  readonly #stack: NetStack;
  readonly #ifindex: number;
  #endWork: () => void = () => undefined;
  /** All devices, by `virtnet_info`. */
  readonly #nets: Map<number, VirtioNetInstance>;
  #transmitted: TransmittedFrame[] = [];
  #exceptions: XdpException[] = [];
  #commands: ControlLogEntry[] = [];
  #prog = 0;
  #genericProg = 0;

  constructor(stack: NetStack, options: VirtioNetOptions, nets: Map<number, VirtioNetInstance>) {
    const { kernel } = stack;
    const { memory } = kernel;
    const queuePairs = options.queuePairs ?? 1;
    const maxQueuePairs = options.maxQueuePairs ?? queuePairs;
    const cpus = options.cpus ?? 1;
    if (queuePairs < 1 || queuePairs > cpus || maxQueuePairs < queuePairs) {
      throw new InputError(`${queuePairs} of ${maxQueuePairs} queue pairs on ${cpus} CPUs`);
    }
    this.#ram = memory.ram;
    this.#kernel = kernel;
    this.#options = options;
    this.#stack = stack;
    this.#nets = nets;
    this.#ifindex = options.ifindex ?? stack.devices.newIndex();
    const { steer, deviceRefuses, deviceHonoursOffloads } = options;
    const createDevice = options.createDevice ?? ((...args) => new VirtioNetDevice(...args));
    this.device = createDevice(memory, {
      features: offeredFeatures(options, maxQueuePairs),
      config: {
        ...(options.mac ? { mac: options.mac } : {}),
        ...options.config,
        maxVirtqueuePairs: maxQueuePairs,
      },
      honoursOffloads: deviceHonoursOffloads ?? false,
      qemuHashing: options.qemuHashing ?? false,
      ...(steer ? { steer } : {}),
      ...(deviceRefuses ? { refuses: deviceRefuses } : {}),
      onControl: (entry) => this.#commands.push(entry),
      onInterrupt: (queue) => this.#interrupt(queue),
      onTransmit: options.onTransmit ?? this.#keepTransmitted,
    });
    this.#bind();
  }

  get dev(): bigint {
    return this.#ram.physToVirt(this.#dev);
  }

  get vi(): bigint {
    return this.#ram.physToVirt(this.#vi);
  }

  /** Probes the device and opens it. */
  #bind(): void {
    const options = this.#options;
    const queueSize = options.queueSize ?? 256;
    if (options.ring === 'packed') checkPackedQueueSize(queueSize);
    else checkQueueSize(queueSize);
    const ram = this.#ram;
    const probeOptions = {
      name: options.name ?? `eth${this.#ifindex - 2}`,
      ifindex: this.#ifindex,
      queueSize,
      queuePairs: options.queuePairs ?? 1,
      cpus: options.cpus ?? 1,
      version: options.version ?? '6.12',
      xdpChecksum: options.xdpChecksum,
      rssFaults: options.rssFaults,
      bugs: options.bugs ?? [],
      rssKey: options.rssKey ?? defaultRssKey(),
      net: options.network?.net ?? 0,
      pages: options.network
        ? this.#stack.usePages(ram.pointer(options.network.net + NET.offset.pages))
        : this.#stack.pages,
    } as const;
    probe(this.#kernel, this.device, probeOptions, (vi) => {
      this.#vi = vi;
      this.#dev = ram.pointer(vi + VI.dev);
      this.#nets.set(vi, this);
    });
    const profile = DRIVER_PROFILES[probeOptions.version];
    ram.set8(this.#dev + DEV.xdp_as_6_1, profile.xdpCoreAs61 ? 1 : 0);
    const xdpMetadata = profile.xdpMetadata && ram.pointer(this.#vi + VI.rss) !== 0;
    const ops = {
      ndo_xdp_xmit: 'virtnet_xdp_xmit',
      ndo_start_xmit: 'start_xmit',
      ...(xdpMetadata ? { xmo_rx_hash: 'virtnet_xdp_rx_hash' } : {}),
    };
    this.#stack.registerNetdevice(this.#dev, ops, Math.max(options.cpus ?? 1, this.#stack.cpus));
    this.#endWork = this.#stack.addWorker(() => this.#transmit());
    if (options.mtu !== undefined) this.setMtu(options.mtu);
    this.#open();
  }

  /** `dev_open`, `virtnet_open`: fills the rings in use, sets the device's filter. */
  #open(): void {
    const ram = this.#ram;
    ram.set32(this.#dev + DEV.flags, ram.u32(this.#dev + DEV.flags) | IFF_UP);
    for (let i = 0; i < this.#activePairs; i++) this.#fill(i);
    this.#kernel.invoke('virtnet_set_rx_mode', this.#dev);
  }

  resetQueue(queue: number): void {
    const pairs = this.#ram.u16(this.#vi + VI.max_queue_pairs);
    if (!Number.isInteger(queue) || queue < 0 || queue >= 2 * pairs) {
      throw new InputError(`queue ${queue} of ${2 * pairs}`);
    }
    this.device.resetQueue(queue);
    this.#restartQueue(queue);
  }

  reset(): void {
    restore(this.#kernel, this.device, this.#vi);
    this.#open();
  }

  noteException(action: number): void {
    this.#exceptions.push({ action });
  }

  attachXdp(runner: XdpRunner | undefined): void {
    const { physical } = this.#kernel;
    const ram = this.#ram;
    const { programs } = this.#stack;
    if (typeof runner?.boundTo === 'number' && runner.boundTo !== ifindexOf(ram, this.#dev)) {
      throw new KernelError('EINVAL', 'Program bound to different device');
    }
    const before = this.#activePairs;
    const prog = runner ? programs.add(runner) : 0;
    const extack = physical.alloc(NETLINK_EXT_ACK.size);
    const result = this.#kernel.invoke('virtnet_xdp_set', this.#dev, prog, extack);
    const text = ram.slice(extack, NETLINK_EXT_ACK.size);
    physical.free(extack);
    if (result < 0) {
      programs.remove(prog);
      const why = new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
      const said = why === '' ? 'virtio_net: the device refuses the queue pairs' : why;
      throw new KernelError(errnoName(result) ?? 'EINVAL', said);
    }
    programs.remove(this.#prog);
    this.#prog = prog;
    // the refill work that virtnet_set_queues schedules
    for (let i = before; i < this.#activePairs; i++) this.#fill(i);
  }

  attachGenericXdp(runner: XdpRunner | undefined): void {
    const { programs } = this.#stack;
    if (runner?.boundTo !== undefined) {
      throw new KernelError('EINVAL', "Can't attach device-bound programs in generic mode");
    }
    const prog = runner ? programs.add(runner) : 0;
    this.#ram.setPointer(this.#dev + DEV.xdp_prog, prog);
    if (runner && this.#genericProg === 0) this.#kernel.invoke('dev_disable_gro_hw', this.#dev);
    programs.remove(this.#genericProg);
    this.#genericProg = prog;
  }

  setMtu(mtu: number): void {
    this.#ram.set32(this.#dev + DEV.mtu, checkMtu(mtu));
  }

  get features(): bigint {
    return this.device.features;
  }

  controlLog(): readonly ControlLogEntry[] {
    const entries = this.#commands;
    this.#commands = [];
    return entries;
  }

  feature(name: NetdevFeature): NetdevFeatureState {
    return netdevFeature(this.#ram, this.#dev, name);
  }

  setFeature(name: NetdevFeature, on: boolean): number {
    return setNetdevFeature(this.#kernel, this.#dev, name, on);
  }

  setQueuePairs(pairs: number): void {
    demand(this.#kernel.invoke('virtnet_set_channels', this.#dev, pairs), `${pairs} queue pairs`);
    for (let i = 0; i < this.#activePairs; i++) this.#fill(i);
  }

  rss(): Required<RssSettings> | undefined {
    return getRss(this.#ram, this.#vi);
  }

  setRss(settings: RssSettings): void {
    demand(setRss(this.#kernel, this.#vi, settings), 'RSS settings');
  }

  setHashTunnel(types: number): void {
    demand(setHashTunnel(this.#kernel, this.#vi, types), 'tunnel types');
  }

  setRxMode(settings: RxSettings): void {
    setRxMode(this.#kernel, this.#dev, settings);
  }

  setMac(mac: Uint8Array): void {
    demand(setMacAddress(this.#kernel, this.#dev, mac), 'MAC address');
  }

  setVlan(id: number, on: boolean): void {
    const name = on ? 'virtnet_vlan_rx_add_vid' : 'virtnet_vlan_rx_kill_vid';
    demand(this.#kernel.invoke(name, this.#dev, 0x0081, id), `VLAN ${id}`);
  }

  setTxChecksum(on: boolean): void {
    this.setFeature('tx-checksum-ip-generic', on);
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

  receiveRing(queue: number): RingLayout & { readonly next: number } {
    const layout = virtqueueLayout(this.#kernel.memory, this.#receiveVq(queue));
    return { ...layout, next: this.device.receivePosition(queue) };
  }

  get queuePairs(): number {
    return this.#activePairs;
  }

  get broken(): boolean {
    const { memory } = this.#kernel;
    for (let queue = 0; queue < 2 * this.#activePairs; queue++) {
      if (virtqueueIsBroken(memory, virtqueueOf(this.#kernel, this.#vi, queue))) return true;
    }
    return false;
  }

  close(): void {
    this.drain();
    this.#endWork();
    this.#stack.unregisterNetdevice(this.#dev, () => remove(this.#kernel, this.#vi));
    this.#stack.programs.remove(this.#prog);
    this.#stack.programs.remove(this.#genericProg);
    this.#nets.delete(this.#vi);
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

  /** The device does not use the queue: it is emptied, told to the device anew, and filled. */
  #restartQueue(queue: number): void {
    resetVirtqueue(this.#kernel, this.#vi, queue);
    const vq = virtqueueOf(this.#kernel, this.#vi, queue);
    this.device.startQueue(queue, virtqueueLayout(this.#kernel.memory, vq));
    if (queue % 2 === 0 && queue >> 1 < this.#activePairs) this.#fill(queue >> 1);
  }

  #fill(pair: number): void {
    this.#kernel.invoke('try_fill_recv', this.#vi, receiveQueue(this.#ram, this.#vi, pair), 0);
  }

  #interrupt(queue: number): void {
    const pair = queue >> 1;
    if (queue % 2 !== 0 || pair >= this.#ram.u16(this.#vi + VI.max_queue_pairs)) return;
    this.#kernel.invoke('skb_recv_done', this.#receiveVq(pair));
  }

  get #activePairs(): number {
    return this.#ram.u16(this.#vi + VI.curr_queue_pairs);
  }

  #receiveVq(queue: number): number {
    return this.#ram.pointer(receiveQueue(this.#ram, this.#vi, queue) + RQ.vq);
  }
}

/** What the device offers. */
function offeredFeatures(options: VirtioNetOptions, maxQueuePairs: number): bigint {
  const names: VirtioNetFeature[] = [...(options.features ?? [])];
  if (options.legacy !== true) names.push('VERSION_1');
  if (options.eventIdx ?? true) names.push('EVENT_IDX');
  if (options.ring === 'packed') names.push('RING_PACKED');
  if (options.inOrder ?? false) names.push('IN_ORDER');
  if (options.indirect ?? false) names.push('INDIRECT_DESC');
  if (maxQueuePairs > 1) names.push('CTRL_VQ', 'MQ');
  switch (options.rx ?? 'mergeable') {
    case 'mergeable':
      names.push('MRG_RXBUF');
      break;
    case 'big':
      names.push('GUEST_CSUM', 'GUEST_TSO4', 'GUEST_TSO6', 'CTRL_VQ', 'CTRL_GUEST_OFFLOADS');
      break;
    case 'small':
      break;
  }
  return featureMask(names);
}

function demand(result: number, what: string): void {
  if (result >= 0) return;
  throw new KernelError(errnoName(result) ?? 'EINVAL', `virtio_net: ${what} refused`);
}

function checkMtu(mtu: number): number {
  if (Number.isInteger(mtu) && mtu >= 68 && mtu <= 65535) return mtu;
  throw new InputError(`mtu ${mtu} is not between 68 and 65535`);
}

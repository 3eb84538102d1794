/**
 * One virtio-net device bound to its driver: what `VirtioNet` promises, done through the driver's functions.
 *
 * Probes and opens the device (`virtnet_probe`, `dev_open`), polls (`virtnet_poll`, as the softirq would),
 * attaches programs (`virtnet_xdp_set`, `generic_xdp_install`), and keeps what left the device until it is read.
 * All other state lies in kernel memory. Interrupts schedule NAPI and nothing else; the refill work runs at once.
 *
 * Usage: new VirtioNetInstance(stack, { rx: 'mergeable' }, nets), where `nets` has all devices by `virtnet_info`.
 */
import { InputError, KernelError } from '../common/errors.js';
import type { Ram } from '../cpu/ram.js';
import { Callee } from '../kernel/function.js';
import { NetStack, type StackKernel } from '../stack/net-stack.js';
import type { XdpRunner } from '../stack/xdp-program.js';
import type { RingLayout } from './ring/open-device-queue.js';
import { checkPackedQueueSize } from './ring/packed-ring.js';
import { checkQueueSize } from './ring/split-ring.js';
import { virtqueueIsBroken, virtqueueLayout } from './ring/virtqueue.js';
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
} from './device/net-device.js';
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
import { IFF_UP, NET_DEVICE } from '../stack/net-device.js';
import { pagesOf, receiveQueue, sendQueue } from './driver/common.js';
import { defaultRssKey, outstanding, probe, remove, restore } from './driver/probe.js';
import { getRss, setHashTunnel, setRss, type RssSettings } from './driver/rss.js';
import { resetVirtqueue, virtqueueOf } from './driver/queue-reset.js';
import { driverCounters } from './driver/counters.js';
import { DRIVER_PROFILES } from './driver/profiles.js';
import { NET } from '../stack/net.js';
import { ifindexOf } from '../stack/netdev.js';
import { livePages } from '../stack/pages.js';
import {
  NAPIF_STATE_SCHED,
  NAPI_STRUCT,
  NETLINK_EXT_ACK,
  RECEIVE_QUEUE,
  SEND_QUEUE,
  VIRTNET_INFO,
} from './driver/structs.js';
import type { TransmittedFrame, VirtioNet, XdpException } from './net-handle.js';
import { offeredFeatures, type VirtioNetOptions } from './net-options.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const SQ = SEND_QUEUE.offset;
const VI = VIRTNET_INFO.offset;

const VIRTNET_POLL = new Callee('virtnet_poll');
const VIRTNET_POLL_TX = new Callee('virtnet_poll_tx');
const TRY_FILL_RECV = new Callee('try_fill_recv');
const SKB_XMIT_DONE = new Callee('skb_xmit_done');
const SKB_RECV_DONE = new Callee('skb_recv_done');

const NO_EXCEPTIONS: readonly XdpException[] = [];

export class VirtioNetInstance implements VirtioNet {
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
      features: offeredFeatures(options),
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
      napiTx: options.napiTx ?? true,
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
      ...(profile.xskZeroCopy ? { ndo_bpf: 'virtnet_xsk_pool_setup' } : {}),
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

  resetQueue(queue: number, emptied?: () => void): void {
    const pairs = this.#ram.u16(this.#vi + VI.max_queue_pairs);
    if (!Number.isInteger(queue) || queue < 0 || queue >= 2 * pairs) {
      throw new InputError(`queue ${queue} of ${2 * pairs}`);
    }
    this.device.resetQueue(queue);
    this.#restartQueue(queue, emptied);
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
    // refill_work, which comes half a second later
    for (let i = 0; i < this.#activePairs; i++) {
      if (ram.u8(receiveQueue(ram, this.#vi, i) + RQ.refill_due) !== 0) this.#fill(i);
    }
    for (let busy = true; busy;) {
      busy = false;
      for (let i = 0; i < this.#activePairs; i++) {
        const napi = receiveQueue(ram, this.#vi, i) + RQ.napi;
        if ((ram.u32(napi + NAPI_STRUCT.offset.state) & NAPIF_STATE_SCHED) === 0) continue;
        busy = true;
        const weight = ram.u32(napi + NAPI_STRUCT.offset.weight);
        packets += this.#kernel.invoke(VIRTNET_POLL, napi, weight);
        if (afterPoll) this.device.runTransmit();
      }
      if (this.#pollTransmit()) busy = true;
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
    const taken = afterPoll ? this.device.runTransmit() : 0;
    this.#pollTransmit();
    return taken > 0;
  }

  /** Polls the send queues whose interrupt came; whether there was one. */
  #pollTransmit(): boolean {
    const ram = this.#ram;
    let polled = false;
    for (let i = 0; i < ram.u16(this.#vi + VI.max_queue_pairs); i++) {
      const napi = sendQueue(ram, this.#vi, i) + SQ.napi;
      if ((ram.u32(napi + NAPI_STRUCT.offset.state) & NAPIF_STATE_SCHED) === 0) continue;
      polled = true;
      this.#kernel.invoke(VIRTNET_POLL_TX, napi, ram.u32(napi + NAPI_STRUCT.offset.weight));
    }
    return polled;
  }

  /** The device does not use the queue: it is emptied, told to the device anew, and filled. */
  #restartQueue(queue: number, emptied?: () => void): void {
    resetVirtqueue(this.#kernel, this.#vi, queue);
    emptied?.();
    const vq = virtqueueOf(this.#kernel, this.#vi, queue);
    this.device.startQueue(queue, virtqueueLayout(this.#kernel.memory, vq));
    if (queue % 2 === 0 && queue >> 1 < this.#activePairs) this.#fill(queue >> 1);
  }

  #fill(pair: number): void {
    const rq = receiveQueue(this.#ram, this.#vi, pair);
    const filled = this.#kernel.invoke(TRY_FILL_RECV, this.#vi, rq, 0);
    this.#ram.set8(rq + RQ.refill_due, filled === 0 ? 1 : 0);
  }

  #interrupt(queue: number): void {
    const pair = queue >> 1;
    if (pair >= this.#ram.u16(this.#vi + VI.max_queue_pairs)) return;
    const sq = sendQueue(this.#ram, this.#vi, pair);
    if (queue % 2 === 0) this.#kernel.invoke(SKB_RECV_DONE, this.#receiveVq(pair));
    else this.#kernel.invoke(SKB_XMIT_DONE, this.#ram.pointer(sq + SQ.vq));
  }

  get #activePairs(): number {
    return this.#ram.u16(this.#vi + VI.curr_queue_pairs);
  }

  #receiveVq(queue: number): number {
    return this.#ram.pointer(receiveQueue(this.#ram, this.#vi, queue) + RQ.vq);
  }
}

function demand(result: number, what: string): void {
  if (result >= 0) return;
  throw new KernelError(errnoName(result) ?? 'EINVAL', `virtio_net: ${what} refused`);
}

function checkMtu(mtu: number): number {
  if (Number.isInteger(mtu) && mtu >= 68 && mtu <= 65535) return mtu;
  throw new InputError(`mtu ${mtu} is not between 68 and 65535`);
}

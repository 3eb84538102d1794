/**
 * What an experiment may do with one virtio-net device: frames in and out, programs, ip and ethtool, counters.
 *
 * The interface alone; `net-instance.ts` is what stands behind it. Errors that the kernel would return are
 * KernelError with its errno; addresses are virtual ones.
 *
 * Usage:
 *   net.receive(frame);
 *   net.poll();
 *   net.delivered(); net.transmitted(); net.counters();
 */
import type { XdpRunner } from '../stack/xdp-program.js';
import type { RingLayout } from './ring/open-device-queue.js';
import type { DeliveredFrame, FrameVisitor } from './driver/sink.js';
import type {
  VirtioNetDevice,
  ControlLogEntry,
  DeliverOptions,
  DeliverResult,
} from './device/net-device.js';
import type { NetdevFeature, NetdevFeatureState, RxSettings } from './settings.js';
import type { RssSettings } from './driver/rss.js';

/** A frame that left the guest. */
export interface TransmittedFrame {
  /** Queue pair. */
  readonly queue: number;
  /** The virtio_net_hdr the driver put in front. */
  readonly header: Uint8Array;
  readonly frame: Uint8Array;
}

/** One xdp:xdp_exception. */
export interface XdpException {
  readonly action: number;
}

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

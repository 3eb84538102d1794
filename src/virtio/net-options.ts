/**
 * What a virtio-net device and its driver are made with, and the features that the device then offers.
 *
 * The device's side follows the virtio standard 1.3, 5.1 (features, configuration space); the driver's is
 * its version and what deviates from it. What changes later (ip, ethtool) is in `settings.ts`.
 *
 * Usage:
 *   const options: VirtioNetOptions = { rx: 'mergeable', queuePairs: 4, cpus: 4 };
 *   offeredFeatures(options);     // MRG_RXBUF, CTRL_VQ, MQ, ...
 */
import type { Memory } from '../cpu/memory.js';
import type { FrameVisitor } from './driver/sink.js';
import type { NetDeviceOptions, VirtioNetDevice } from './device/net-device.js';
import type { NetConfig } from './net-config.js';
import { featureMask, type VirtioNetFeature } from './net-features.js';
import type { RssFault } from './driver/rss-faults.js';
import type { DriverBug } from './driver/bugs.js';
import type { VirtioNetVersion, XdpChecksum } from './driver/profiles.js';
import type { Network } from '../stack/network.js';

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
  /** Module parameter napi_tx: sent skbs are taken back by a poll. Default true. */
  readonly napiTx?: boolean;
  /** When the device takes frames to transmit. Default 'after-poll'. */
  readonly transmit?: 'after-poll' | 'manual';
  /** Sees transmitted frames in place of `transmitted()`, which then has none. */
  readonly onTransmit?: FrameVisitor;
}

/** What the device offers. */
export function offeredFeatures(options: VirtioNetOptions): bigint {
  const maxQueuePairs = options.maxQueuePairs ?? options.queuePairs ?? 1;
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

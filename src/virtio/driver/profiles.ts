/**
 * What differs between versions of the virtio-net driver, as data.
 *
 * Reference: drivers/net/virtio_net.c and include/linux/virtio_net.h of 6.1, 6.12 and 6.18, as far as
 * guests of these versions showed it (test/vectors/virtio); that queue pairs go out as an RSS command is
 * read, not measured. Functions of the driver ask the profile of
 * their device (`profileOf`) in place of a version. Leaves out what no measured guest shows.
 *
 *                                        6.1                    6.12                 6.18
 *   checksums beside XDP                 base                   upstream             upstream
 *   XDP programs with frags              as without             several buffers      several buffers
 *   MTU a program may be attached at     4064, any program      3506, without frags  the same
 *   adjust_head room, mergeable          216                    228                  228
 *   frames that XDP passes, mergeable    page_to_skb, copies    build_skb            build_skb
 *   NEEDS_CSUM with csum_start < 20      accepted               refused              refused
 *   segmentation type UDP_L4             refused                known                known
 *   cookie of a small buffer             its allocation         virtio_net_hdr       virtio_net_hdr
 *   truesize of an XDP-sized buffer      3520                   4096                 4096
 *   head of a copied frame               1024 bytes             1024                 640
 *   first bytes of a page chunk          free                   free                 16 for DMA
 *   commands are sent by                 virtnet_send_command   ..._command_reply    ..._command_reply
 *   queue pairs, with RSS                MQ command             RSS command, too     RSS command, too
 *   RSS command, pieces                  4                      2                    2
 *   RSS key reaches the device           right                  one byte late        right
 *   max_tx_vq follows queue pairs        never                  always               always
 *   bpf_xdp_metadata_rx_hash             -EOPNOTSUPP            from the header      from the header
 *   generic XDP, frags programs             made linear            fragments            fragments
 *   frames of several buffers go to        cpumaps                any map, device      any map, device
 *   AF_XDP without a copy                -EOPNOTSUPP            receiving              receiving
 *   XDP transmit stops a full queue        no                     yes                  yes
 *   counters of queue 0                  rx_queue_0_drops       rx0_drops rx_drops   rx0_drops rx_drops
 *
 * Usage:
 *   createVirtioNet(kernel, { version: '6.1' });
 *   createVirtioNet(kernel, { xdpChecksum: 'v4-literal' });   // the v4 patch on 6.12
 */
import type { Ram } from '../../cpu/ram.js';
import { mergeableRoom } from './geometry.js';
import { setRssFaults, type RssFault } from './rss-faults.js';
import { VIRTNET_INFO } from './structs.js';

export const VIRTIO_NET_VERSIONS = ['6.1', '6.12', '6.18'] as const;
export type VirtioNetVersion = (typeof VIRTIO_NET_VERSIONS)[number];

/**
 * How checksum offload and XDP live together.
 *
 * - `base`: a frame that went through a program has no checksum state.
 * - `v4-literal`: the unmerged fourth version of the patch, with its defects.
 * - `v4-fixed`: the same without them.
 * - `upstream`: what was merged: NEEDS_CSUM frames do not reach a program, DATA_VALID survives it.
 */
export const XDP_CHECKSUMS = ['base', 'v4-literal', 'v4-fixed', 'upstream'] as const;
export type XdpChecksum = (typeof XDP_CHECKSUMS)[number];

export interface DriverProfile {
  readonly version: VirtioNetVersion;
  readonly xdpChecksum: XdpChecksum;
  /** Frames of several buffers reach a program with frags support as they are. */
  readonly xdpFrags: boolean;
  /** Largest MTU a program may be attached at; with `xdpFrags` one with frags support is exempt. */
  readonly xdpMaximumMtu: number;
  /** What the refusal says to the user, and to the log in front of the limit. */
  readonly mtuRefusal: { readonly extack: string; readonly log: string };
  /** In mergeable mode hard_start lies 256 bytes below the header (true) or below the frame (false). */
  readonly hardStartAtBuffer: boolean;
  /** Frames that XDP passes in mergeable mode become skbs by page_to_skb, which copies short ones. */
  readonly passesByPageToSkb: boolean;
  /** NEEDS_CSUM with csum_start in front of the transport header's least offset is refused. */
  readonly checksCsumStart: boolean;
  /** VIRTIO_NET_HDR_GSO_UDP_L4 is known. */
  readonly knowsUdpL4: boolean;
  /** The cookie of a small-mode buffer: the buffer's allocation, or the header in it. */
  readonly smallCookie: 'allocation' | 'header';
  /** The context of a mergeable buffer counts headroom and skb_shared_info as part of its truesize. */
  readonly contextHasRoom: boolean;
  /** Bytes of an skb head that a short frame is copied into, skb_shared_info included. */
  readonly copyHeadSize: number;
  /** Bytes at the start of a page chunk that hold its DMA state. */
  readonly chunkHeader: number;
  /** The function that every control command goes through. */
  readonly sendCommand: 'virtnet_send_command' | 'virtnet_send_command_reply';
  /** A new number of queue pairs goes out as an RSS command while the user has set no table. */
  readonly rssFollowsQueues: boolean;
  /** Pieces of an RSS command: head, table, trailer and key, or head with table and trailer with key. */
  readonly rssPieces: 4 | 2;
  readonly rssFaults: readonly RssFault[];
  /** XDP in the core of that kernel: `xdp_as_6_1` of the net_device. */
  readonly xdpCoreAs61: boolean;
  /** `net_device.xdp_metadata_ops`: programs may ask for the hash of a packet. */
  readonly xdpMetadata: boolean;
  /** Receive queues may have chunks of a UMEM as buffers. */
  readonly xskZeroCopy: boolean;
  /** XDP transmit on a queue of the stack's stops it when it is nearly full. */
  readonly xdpStopsQueue: boolean;
  /** Names of a queue's counters: `rx_queue_0_drops`, or `rx0_drops` and the total `rx_drops`. */
  readonly counterNames: 'queue' | 'short';
}

const V6_1: DriverProfile = {
  version: '6.1',
  xdpChecksum: 'base',
  xdpFrags: false,
  xdpMaximumMtu: 4064,
  mtuRefusal: {
    extack: 'MTU too large to enable XDP',
    log: 'XDP requires MTU less than',
  },
  hardStartAtBuffer: false,
  passesByPageToSkb: true,
  checksCsumStart: false,
  knowsUdpL4: false,
  smallCookie: 'allocation',
  contextHasRoom: false,
  copyHeadSize: 1024,
  chunkHeader: 0,
  sendCommand: 'virtnet_send_command',
  rssFollowsQueues: false,
  rssPieces: 4,
  rssFaults: ['stale-max-tx-vq'],
  xdpCoreAs61: true,
  xdpMetadata: false,
  xskZeroCopy: false,
  xdpStopsQueue: false,
  counterNames: 'queue',
};

const V6_12: DriverProfile = {
  version: '6.12',
  xdpChecksum: 'upstream',
  xdpFrags: true,
  xdpMaximumMtu: 3506,
  mtuRefusal: {
    extack: 'MTU too large to enable XDP without frags',
    log: 'single-buffer XDP requires MTU less than',
  },
  hardStartAtBuffer: true,
  passesByPageToSkb: false,
  checksCsumStart: true,
  knowsUdpL4: true,
  smallCookie: 'header',
  contextHasRoom: true,
  copyHeadSize: 1024,
  chunkHeader: 0,
  sendCommand: 'virtnet_send_command_reply',
  rssFollowsQueues: true,
  rssPieces: 2,
  // 6.12.107
  rssFaults: ['late-key'],
  xdpCoreAs61: false,
  xdpMetadata: true,
  xskZeroCopy: true,
  xdpStopsQueue: true,
  counterNames: 'short',
};

const V6_18: DriverProfile = {
  ...V6_12,
  version: '6.18',
  copyHeadSize: 640,
  chunkHeader: 16,
  rssFaults: [],
};

export const DRIVER_PROFILES: Readonly<Record<VirtioNetVersion, DriverProfile>> = {
  '6.1': V6_1,
  '6.12': V6_12,
  '6.18': V6_18,
};

const BY_NUMBER: readonly DriverProfile[] = VIRTIO_NET_VERSIONS.map((v) => DRIVER_PROFILES[v]);
const VI = VIRTNET_INFO.offset;

/** Writes version, checksum variant and faults of a device into its `virtnet_info`. */
export function setProfile(
  ram: Ram,
  vi: number,
  version: VirtioNetVersion,
  xdpChecksum: XdpChecksum = DRIVER_PROFILES[version].xdpChecksum,
  rssFaults: readonly RssFault[] = DRIVER_PROFILES[version].rssFaults,
): void {
  setRssFaults(ram, vi, rssFaults);
  ram.set8(vi + VI.profile, VIRTIO_NET_VERSIONS.indexOf(version));
  ram.set8(vi + VI.xdp_checksum, XDP_CHECKSUMS.indexOf(xdpChecksum));
}

/** The version that the driver of a device behaves as. */
export function profileOf(ram: Ram, vi: number): DriverProfile {
  return BY_NUMBER[ram.u8(vi + VI.profile)] as DriverProfile;
}

/** The checksum variant of a device: its version's own unless another was chosen. */
export function xdpChecksumOf(ram: Ram, vi: number): XdpChecksum {
  return XDP_CHECKSUMS[ram.u8(vi + VI.xdp_checksum)] as XdpChecksum;
}

/** What of a mergeable buffer's truesize, as its context has it, was not posted. */
export function contextRoom(ram: Ram, vi: number, headroom: number): number {
  return profileOf(ram, vi).contextHasRoom ? mergeableRoom(headroom) : 0;
}

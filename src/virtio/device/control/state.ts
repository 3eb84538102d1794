/**
 * What control commands leave behind in a virtio-net device, and its values after a reset.
 *
 * Reference: virtio 1.4, "Control Virtqueue"; the defaults are QEMU's virtio_net_reset. Values are not
 * changed in place: a command gives a new state, so that a refused one leaves the old.
 *
 * Usage:
 *   let state = resetControlState({ features, config });
 */
import { resetRssState, type RssState } from '../../../net/rss/config.js';
import type { NetConfig } from '../../net-config.js';
import type { RssContexts } from './rss-context.js';
import { hasFeature, VIRTIO_NET_F, type VirtioNetFeature } from '../../net-features.js';

/** What the commands are judged by. */
export interface ControlDevice {
  /** Negotiated features. */
  readonly features: bigint;
  readonly config: NetConfig;
  /** Counters of a queue for STATS_GET, by the names of the standard. Default: all 0. */
  readonly statistics?: (vq: number) => Readonly<Record<string, number>>;
  /** A refused command of class MQ turns steering by hash off, as in QEMU. Default false. */
  readonly qemuDisableOnError?: boolean;
}

export interface RxMode {
  readonly promisc: boolean;
  readonly allmulti: boolean;
  readonly alluni: boolean;
  readonly nomulti: boolean;
  readonly nouni: boolean;
  readonly nobcast: boolean;
}

export interface MacTable {
  readonly unicast: readonly Uint8Array[];
  readonly multicast: readonly Uint8Array[];
  /** More addresses than the table holds were given: all of the kind are accepted. */
  readonly uniOverflow: boolean;
  readonly multiOverflow: boolean;
}

export interface Coalescing {
  readonly maxPackets: number;
  readonly maxUsecs: number;
}

export interface ControlState {
  readonly rx: RxMode;
  readonly mac: Uint8Array;
  readonly macTable: MacTable;
  /** `all` while the driver did not negotiate the filter. */
  readonly vlans: 'all' | ReadonlySet<number>;
  /** VIRTIO_NET_S_ANNOUNCE is set: the driver should announce itself. */
  readonly announce: boolean;
  /** Offloads that are on, as a GUEST_OFFLOADS mask. */
  readonly offloads: bigint;
  /** Steering, hashing and queue pairs. */
  readonly rss: RssState;
  readonly rssContexts: RssContexts;
  /** By virtqueue. */
  readonly coalescing: ReadonlyMap<number, Coalescing>;
}

export const EMPTY_MAC_TABLE: MacTable = {
  unicast: [],
  multicast: [],
  uniOverflow: false,
  multiOverflow: false,
};

/** Bits of a GUEST_OFFLOADS mask and the features that they stand for. */
const OFFLOAD_BITS: readonly (readonly [bit: number, feature: VirtioNetFeature])[] = [
  [VIRTIO_NET_F.GUEST_CSUM, 'GUEST_CSUM'],
  [VIRTIO_NET_F.GUEST_TSO4, 'GUEST_TSO4'],
  [VIRTIO_NET_F.GUEST_TSO6, 'GUEST_TSO6'],
  [VIRTIO_NET_F.GUEST_ECN, 'GUEST_ECN'],
  [VIRTIO_NET_F.GUEST_UFO, 'GUEST_UFO'],
  [46, 'GUEST_UDP_TUNNEL_GSO'],
  [47, 'GUEST_UDP_TUNNEL_GSO_CSUM'],
  [VIRTIO_NET_F.GUEST_USO4, 'GUEST_USO4'],
  [VIRTIO_NET_F.GUEST_USO6, 'GUEST_USO6'],
];

/** The mask of all offloads that were negotiated. */
export function negotiatedOffloads(features: bigint): bigint {
  let mask = 0n;
  for (const [bit, feature] of OFFLOAD_BITS) {
    if (hasFeature(features, feature)) mask |= 1n << BigInt(bit);
  }
  return mask;
}

export function resetControlState({ features, config }: ControlDevice): ControlState {
  return {
    rx: {
      promisc: true,
      allmulti: false,
      alluni: false,
      nomulti: false,
      nouni: false,
      nobcast: false,
    },
    mac: config.mac.slice(0, 6),
    macTable: EMPTY_MAC_TABLE,
    vlans: hasFeature(features, 'CTRL_VLAN') ? new Set() : 'all',
    announce: false,
    offloads: negotiatedOffloads(features),
    rss: resetRssState(),
    rssContexts: new Map(),
    coalescing: new Map(),
  };
}

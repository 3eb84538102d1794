/**
 * Feature bits of a virtio-net device: names, what each needs, and the header that follows from them.
 *
 * Reference: virtio 1.4, "Network Device", "Feature bits" and "Feature bit requirements"; "Reserved
 * Feature Bits" for those of the rings. Sets of features are masks (bigint), because bits go past 63.
 * The driver's own rules are in `driver/negotiate.ts`.
 *
 * Usage:
 *   const features = featureMask(['VERSION_1', 'CSUM', 'HOST_TSO4']);
 *   violations(features);              // []
 *   netHeaderSize(features);           // 12
 */
import { InputError } from '../common/errors.js';
import { NET_HEADER_SIZE } from './net-header.js';

/** Bit numbers. */
export const VIRTIO_NET_F = {
  CSUM: 0,
  GUEST_CSUM: 1,
  CTRL_GUEST_OFFLOADS: 2,
  MTU: 3,
  MAC: 5,
  /** Legacy: HOST_TSO4, HOST_TSO6 and HOST_ECN in one. */
  GSO: 6,
  GUEST_TSO4: 7,
  GUEST_TSO6: 8,
  GUEST_ECN: 9,
  GUEST_UFO: 10,
  HOST_TSO4: 11,
  HOST_TSO6: 12,
  HOST_ECN: 13,
  HOST_UFO: 14,
  MRG_RXBUF: 15,
  STATUS: 16,
  CTRL_VQ: 17,
  CTRL_RX: 18,
  CTRL_VLAN: 19,
  CTRL_RX_EXTRA: 20,
  GUEST_ANNOUNCE: 21,
  MQ: 22,
  CTRL_MAC_ADDR: 23,
  /** Legacy devices: header and frame may share a descriptor. */
  ANY_LAYOUT: 27,
  INDIRECT_DESC: 28,
  EVENT_IDX: 29,
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
  RING_PACKED: 34,
  IN_ORDER: 35,
  ORDER_PLATFORM: 36,
  NOTIFICATION_DATA: 38,
  RING_RESET: 40,
  DEVICE_STATS: 50,
  HASH_TUNNEL: 51,
  VQ_NOTF_COAL: 52,
  NOTF_COAL: 53,
  GUEST_USO4: 54,
  GUEST_USO6: 55,
  HOST_USO: 56,
  HASH_REPORT: 57,
  GUEST_HDRLEN: 59,
  RSS: 60,
  RSC_EXT: 61,
  STANDBY: 62,
  SPEED_DUPLEX: 63,
  RSS_CONTEXT: 64,
  GUEST_UDP_TUNNEL_GSO: 65,
  GUEST_UDP_TUNNEL_GSO_CSUM: 66,
  HOST_UDP_TUNNEL_GSO: 67,
  HOST_UDP_TUNNEL_GSO_CSUM: 68,
} as const;

export type VirtioNetFeature = keyof typeof VIRTIO_NET_F;

/** Each feature needs one of every list: `[['CTRL_VQ'], ['RSS', 'HASH_REPORT']]`. */
type Requirement = readonly (readonly VirtioNetFeature[])[];

const CVQ: Requirement = [['CTRL_VQ']];
const GUEST: Requirement = [['GUEST_CSUM']];
const HOST: Requirement = [['CSUM']];
const HOST_TSO: Requirement = [['HOST_TSO4', 'HOST_TSO6']];

const REQUIRES: Readonly<Partial<Record<VirtioNetFeature, Requirement>>> = {
  CTRL_GUEST_OFFLOADS: CVQ,
  GUEST_TSO4: GUEST,
  GUEST_TSO6: GUEST,
  GUEST_ECN: [['GUEST_TSO4', 'GUEST_TSO6']],
  GUEST_UFO: GUEST,
  GUEST_USO4: GUEST,
  GUEST_USO6: GUEST,
  GUEST_UDP_TUNNEL_GSO: [['GUEST_TSO4'], ['GUEST_TSO6'], ['GUEST_USO4'], ['GUEST_USO6']],
  GUEST_UDP_TUNNEL_GSO_CSUM: [['GUEST_UDP_TUNNEL_GSO']],
  HOST_TSO4: HOST,
  HOST_TSO6: HOST,
  HOST_ECN: HOST_TSO,
  HOST_UFO: HOST,
  HOST_USO: HOST,
  HOST_UDP_TUNNEL_GSO: [['HOST_TSO4'], ['HOST_TSO6'], ['HOST_USO']],
  HOST_UDP_TUNNEL_GSO_CSUM: [['HOST_UDP_TUNNEL_GSO']],
  CTRL_RX: CVQ,
  CTRL_VLAN: CVQ,
  CTRL_RX_EXTRA: CVQ,
  GUEST_ANNOUNCE: CVQ,
  MQ: CVQ,
  CTRL_MAC_ADDR: CVQ,
  DEVICE_STATS: CVQ,
  HASH_TUNNEL: [['CTRL_VQ'], ['RSS', 'HASH_REPORT']],
  VQ_NOTF_COAL: CVQ,
  NOTF_COAL: CVQ,
  HASH_REPORT: CVQ,
  RSS: CVQ,
  RSS_CONTEXT: [['CTRL_VQ'], ['RSS']],
  RSC_EXT: HOST_TSO,
};

/** Masks by name. */
export const VIRTIO_NET_FEATURES = Object.fromEntries(
  Object.entries(VIRTIO_NET_F).map(([name, bit]) => [name, 1n << BigInt(bit)]),
) as Readonly<Record<VirtioNetFeature, bigint>>;

const NAMES = Object.keys(VIRTIO_NET_F) as readonly VirtioNetFeature[];

export function featureMask(names: Iterable<VirtioNetFeature>): bigint {
  let mask = 0n;
  for (const name of names) mask |= VIRTIO_NET_FEATURES[name];
  return mask;
}

export function hasFeature(features: bigint, name: VirtioNetFeature): boolean {
  return (features & VIRTIO_NET_FEATURES[name]) !== 0n;
}

/** Names of the features in a mask, by bit; a bit without a name is `bit N`. */
export function featureNames(features: bigint): readonly string[] {
  const names: string[] = [];
  for (let bit = 0; features >> BigInt(bit) !== 0n; bit++) {
    if (((features >> BigInt(bit)) & 1n) === 0n) continue;
    names.push(NAMES.find((name) => VIRTIO_NET_F[name] === bit) ?? `bit ${bit}`);
  }
  return names;
}

/** A feature by the name that `-device` options, `ethtool` and this file give it. */
export function parseFeature(name: string): VirtioNetFeature {
  const known = NAMES.find((each) => each === name.replace(/^VIRTIO_(NET_)?F_/, ''));
  if (known) return known;
  throw new InputError(`no virtio-net feature ${name}`);
}

/** What a device may not accept: `GUEST_TSO4 without GUEST_CSUM`. */
export function violations(features: bigint): readonly string[] {
  return NAMES.filter((name) => hasFeature(features, name)).flatMap((name) =>
    (REQUIRES[name] ?? [])
      .filter((choices) => !choices.some((choice) => hasFeature(features, choice)))
      .map((choices) => `${name} without ${choices.join(' or ')}`),
  );
}

/** Bytes of the header in front of each frame. */
export function netHeaderSize(features: bigint): number {
  if (hasFeature(features, 'GUEST_UDP_TUNNEL_GSO') || hasFeature(features, 'HOST_UDP_TUNNEL_GSO')) {
    return NET_HEADER_SIZE.virtio_net_hdr_v1_hash_tunnel;
  }
  if (hasFeature(features, 'HASH_REPORT')) return NET_HEADER_SIZE.virtio_net_hdr_v1_hash;
  const counted = hasFeature(features, 'MRG_RXBUF') || hasFeature(features, 'VERSION_1');
  return counted ? NET_HEADER_SIZE.virtio_net_hdr_v1 : NET_HEADER_SIZE.virtio_net_hdr;
}

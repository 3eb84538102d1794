/**
 * How the features RSS, HASH_REPORT and HASH_TUNNEL depend on each other, and what each combination
 * does.
 *
 * Reference: virtio 1.4 "Network Device", "Feature bit requirements" and "Hash calculation for incoming
 * packets", "Device configuration layout".
 *
 * Usage:
 *   interplay({ rss: true, hashReport: false, hashTunnel: true }).steering;   // 'inner'
 */
import { viewOf } from '../../common/bytes.js';
import type { RssDevice } from './config.js';
import type { InnerHashForm } from './types.js';

export const VIRTIO_NET_F_CTRL_VQ = 17;
export const VIRTIO_NET_F_MQ = 22;
export const VIRTIO_NET_F_HASH_REPORT = 57;
export const VIRTIO_NET_F_RSS = 60;

/** The feature bit of each form. The standard gave 52 to VQ_NOTF_COAL. */
export const VIRTIO_NET_F_HASH_TUNNEL: Readonly<Record<InnerHashForm, number>> = {
  v7: 52,
  final: 51,
};

export interface HashFeatures {
  readonly rss: boolean;
  readonly hashReport: boolean;
  readonly hashTunnel: boolean;
}

export interface Interplay {
  /** By which control commands the driver configures it. */
  readonly commands: readonly ('RSS_CONFIG' | 'HASH_CONFIG' | 'HASH_TUNNEL_SET')[];
  /** Over which header the hash is that picks the queue; none: automatic steering. */
  readonly steering: 'none' | 'outer' | 'inner';
  /** Over which header the hash is that the header reports. */
  readonly report: 'none' | 'outer' | 'inner';
  /** Bytes of virtio_net_hdr (with VERSION_1). */
  readonly headerSize: 12 | 20;
}

interface InterplayRow extends HashFeatures, Interplay {}

/** Every combination of the final form; HASH_TUNNEL alone must not be offered and is absent. */
export const INTERPLAY: readonly InterplayRow[] = [
  row(false, false, false, [], 'none', 'none'),
  row(true, false, false, ['RSS_CONFIG'], 'outer', 'none'),
  row(false, true, false, ['HASH_CONFIG'], 'none', 'outer'),
  row(true, true, false, ['RSS_CONFIG'], 'outer', 'outer'),
  row(true, false, true, ['RSS_CONFIG', 'HASH_TUNNEL_SET'], 'inner', 'none'),
  row(true, true, true, ['RSS_CONFIG', 'HASH_TUNNEL_SET'], 'inner', 'inner'),
  row(false, true, true, ['HASH_CONFIG', 'HASH_TUNNEL_SET'], 'none', 'inner'),
];

function row(
  rss: boolean,
  hashReport: boolean,
  hashTunnel: boolean,
  commands: Interplay['commands'],
  steering: Interplay['steering'],
  report: Interplay['report'],
): InterplayRow {
  const headerSize = hashReport ? 20 : 12;
  return { rss, hashReport, hashTunnel, commands, steering, report, headerSize };
}

/** What negotiated features do; undefined: a device must not offer this combination. */
export function interplay(features: HashFeatures): Interplay | undefined {
  return INTERPLAY.find(
    (each) =>
      each.rss === features.rss &&
      each.hashReport === features.hashReport &&
      each.hashTunnel === features.hashTunnel,
  );
}

/** Why these feature bits must not be offered or accepted together; undefined: they may. */
export function featureProblem(bits: bigint, form: InnerHashForm): string | undefined {
  const has = (bit: number): boolean => ((bits >> BigInt(bit)) & 1n) === 1n;
  const hash = has(VIRTIO_NET_F_RSS) || has(VIRTIO_NET_F_HASH_REPORT);
  const tunnel = has(VIRTIO_NET_F_HASH_TUNNEL[form]);
  if (!has(VIRTIO_NET_F_CTRL_VQ)) {
    if (has(VIRTIO_NET_F_RSS)) return 'RSS requires CTRL_VQ';
    if (has(VIRTIO_NET_F_HASH_REPORT)) return 'HASH_REPORT requires CTRL_VQ';
    if (has(VIRTIO_NET_F_MQ)) return 'MQ requires CTRL_VQ';
    if (tunnel) return 'HASH_TUNNEL requires CTRL_VQ';
  }
  // the proposal asked for CTRL_VQ only
  if (form === 'final' && tunnel && !hash) return 'HASH_TUNNEL requires RSS or HASH_REPORT';
  return undefined;
}

/** Fields of the device's config space: offset and bytes. */
export const RSS_CONFIG_SPACE = {
  rss_max_key_size: { offset: 17, size: 1 },
  rss_max_indirection_table_length: { offset: 18, size: 2 },
  supported_hash_types: { offset: 20, size: 4 },
  /** There with HASH_TUNNEL only. */
  supported_tunnel_types: { offset: 24, size: 4 },
} as const;

/** Puts them into a config space, whose length says whether it has supported_tunnel_types. */
export function writeRssConfigSpace(space: Uint8Array, device: RssDevice): void {
  const view = viewOf(space);
  const { rss_max_key_size, rss_max_indirection_table_length } = RSS_CONFIG_SPACE;
  const { supported_hash_types, supported_tunnel_types } = RSS_CONFIG_SPACE;
  view.setUint8(rss_max_key_size.offset, device.maxKeySize);
  view.setUint16(rss_max_indirection_table_length.offset, device.maxTableLength, true);
  view.setUint32(supported_hash_types.offset, device.supportedHashTypes, true);
  if (space.length >= supported_tunnel_types.offset + supported_tunnel_types.size) {
    view.setUint32(supported_tunnel_types.offset, device.supportedTunnelTypes, true);
  }
}

/**
 * The configuration space of a virtio-net device.
 *
 * Reference: virtio 1.4, `struct virtio_net_config`: little-endian, packed, so that speed lies at 12.
 * A field means something only with its feature.
 *
 *   mac[6] @0  status @6  max_virtqueue_pairs @8  mtu @10  speed @12  duplex @16  rss_max_key_size @17
 *   rss_max_indirection_table_length @18  supported_hash_types @20  supported_tunnel_types @24
 *
 * Usage:
 *   const bytes = encodeNetConfig({ ...DEFAULT_NET_CONFIG, maxVirtqueuePairs: 4 });
 */
import { viewOf } from '../common/bytes.js';

export const VIRTIO_NET_S_LINK_UP = 1;
export const VIRTIO_NET_S_ANNOUNCE = 2;

export interface NetConfig {
  readonly mac: Uint8Array;
  readonly status: number;
  readonly maxVirtqueuePairs: number;
  readonly mtu: number;
  /** Mbit/s, or 0xffffffff: unknown. */
  readonly speed: number;
  /** 0 half, 1 full, 0xff unknown. */
  readonly duplex: number;
  readonly rssMaxKeySize: number;
  readonly rssMaxIndirectionTableLength: number;
  readonly supportedHashTypes: number;
  readonly supportedTunnelTypes: number;
}

export const DEFAULT_NET_CONFIG: NetConfig = {
  mac: Uint8Array.of(0x52, 0x54, 0, 0, 0, 2),
  status: VIRTIO_NET_S_LINK_UP,
  maxVirtqueuePairs: 1,
  mtu: 1500,
  speed: 0xffffffff,
  duplex: 0xff,
  rssMaxKeySize: 40,
  rssMaxIndirectionTableLength: 128,
  supportedHashTypes: 0x1ff,
  supportedTunnelTypes: 0x1ff,
};

const NET_CONFIG_SIZE = 28;

export function encodeNetConfig(config: NetConfig): Uint8Array {
  const bytes = new Uint8Array(NET_CONFIG_SIZE);
  const view = viewOf(bytes);
  bytes.set(config.mac.subarray(0, 6));
  view.setUint16(6, config.status, true);
  view.setUint16(8, config.maxVirtqueuePairs, true);
  view.setUint16(10, config.mtu, true);
  view.setUint32(12, config.speed, true);
  view.setUint8(16, config.duplex);
  view.setUint8(17, config.rssMaxKeySize);
  view.setUint16(18, config.rssMaxIndirectionTableLength, true);
  view.setUint32(20, config.supportedHashTypes, true);
  view.setUint32(24, config.supportedTunnelTypes, true);
  return bytes;
}

export function decodeNetConfig(bytes: Uint8Array): NetConfig {
  const view = viewOf(bytes);
  return {
    mac: bytes.slice(0, 6),
    status: view.getUint16(6, true),
    maxVirtqueuePairs: view.getUint16(8, true),
    mtu: view.getUint16(10, true),
    speed: view.getUint32(12, true),
    duplex: view.getUint8(16),
    rssMaxKeySize: view.getUint8(17),
    rssMaxIndirectionTableLength: view.getUint16(18, true),
    supportedHashTypes: view.getUint32(20, true),
    supportedTunnelTypes: view.getUint32(24, true),
  };
}

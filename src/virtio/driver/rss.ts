/**
 * The driver's side of receive-side scaling: its default settings, the commands it sends, and what an skb
 * gets of a reported hash.
 *
 * Reference: drivers/net/virtio_net.c, virtnet_init_default_rss, virtnet_commit_rss_command,
 * virtio_skb_set_hash. Where max_tx_vq, the length of the key and the key lie in memory changed:
 * struct virtio_net_ctrl_rss holds them side by side; since "Fix endian with virtio_net_ctrl_rss" they are
 * a struct virtio_net_rss_config_trailer and an array behind it, and the command is sent as one run of
 * bytes over both. The trailer has 3 bytes and is padded to 4, so the pad byte reaches the device as the
 * first byte of the key and the last one is lost (seen in 6.12.107), until the array overlaps
 * the padding (6.18.15). Only little-endian guests: of the endianness bug nothing is seen here.
 *
 * Usage:
 *   const settings = defaultRssSettings(device, 4, key);
 *   const { command, buffers } = buildRssCommand('6.12.107', settings);
 */
import { KernelError } from '../../common/errors.js';
import {
  buildRssConfig,
  VIRTIO_NET_CTRL_MQ_HASH_CONFIG,
  VIRTIO_NET_CTRL_MQ_RSS_CONFIG,
  type RssConfig,
  type RssDevice,
} from '../../net/rss/config.js';
import { defaultTable } from '../../net/rss/steering.js';
import { LINUX_HASH_TYPES, VIRTIO_NET_HASH_REPORT as REPORT } from '../../net/rss/types.js';

export const VIRTIO_NET_RSS_MAX_KEY_SIZE = 40;

export type RssDriverVersion = '6.1' | '6.12.107' | '6.18';

export interface RssDriverProfile {
  /**
   * Where the key starts, counted from max_tx_vq. The device looks for it behind the length, at 3;
   * 4 is the padded trailer.
   */
  readonly keyOffset: 3 | 4;
  /**
   * How the command is cut into buffers: header, table, trailer and key each on its own, or header with
   * table and trailer with key.
   */
  readonly buffers: 4 | 2;
}

export const RSS_DRIVER_PROFILES: Readonly<Record<RssDriverVersion, RssDriverProfile>> = {
  '6.1': { keyOffset: 3, buffers: 4 },
  '6.12.107': { keyOffset: 4, buffers: 2 },
  '6.18': { keyOffset: 3, buffers: 2 },
};

/** What the driver starts with: every type but the _EX ones, entry i names queue i modulo the pairs. */
export function defaultRssSettings(
  device: RssDevice,
  queuePairs: number,
  key: Readonly<Uint8Array>,
): RssConfig {
  if (device.maxKeySize > VIRTIO_NET_RSS_MAX_KEY_SIZE) {
    throw new KernelError(
      'EINVAL',
      `rss_max_key_size=${device.maxKeySize} exceeds the limit ${VIRTIO_NET_RSS_MAX_KEY_SIZE}`,
    );
  }
  return {
    hashTypes: device.supportedHashTypes & LINUX_HASH_TYPES,
    unclassifiedQueue: 0,
    table: defaultTable(device.negotiated.rss ? device.maxTableLength : 1, queuePairs),
    maxTxVq: queuePairs,
    key: Uint8Array.from(key),
  };
}

export interface RssCommand {
  /** Of class VIRTIO_NET_CTRL_MQ. */
  readonly command: number;
  /** The scatterlist behind the command's header. */
  readonly buffers: readonly Uint8Array[];
}

/** RSS_CONFIG; HASH_CONFIG where RSS is not negotiated, with a table of one zero entry and no max_tx_vq. */
export function buildRssCommand(
  version: RssDriverVersion,
  settings: RssConfig,
  hasRss = true,
): RssCommand {
  const { keyOffset, buffers } = RSS_DRIVER_PROFILES[version];
  const sent = hasRss
    ? settings
    : { ...settings, table: new Uint16Array(1), unclassifiedQueue: 0, maxTxVq: 0 };
  const bytes = buildRssConfig({ ...sent, key: keyAsSent(settings.key, keyOffset) });
  const tableEnd = 8 + 2 * sent.table.length;
  const cuts = buffers === 4 ? [0, 8, tableEnd, tableEnd + 3] : [0, tableEnd];
  return {
    command: hasRss ? VIRTIO_NET_CTRL_MQ_RSS_CONFIG : VIRTIO_NET_CTRL_MQ_HASH_CONFIG,
    buffers: cuts.map((from, i) => bytes.slice(from, cuts[i + 1] ?? bytes.length)),
  };
}

/** As many bytes as the key has, from 3 behind max_tx_vq on. */
function keyAsSent(key: Uint8Array, keyOffset: 3 | 4): Uint8Array {
  const memory = new Uint8Array(keyOffset - 3 + key.length);
  memory.set(key, keyOffset - 3);
  return memory.slice(0, key.length);
}

/** What the stack is told a hash covers: `l4_hash` of an skb is set for PKT_HASH_TYPE_L4. */
export type SkbHashType = 'PKT_HASH_TYPE_NONE' | 'PKT_HASH_TYPE_L3' | 'PKT_HASH_TYPE_L4';

const HASH_TYPES: Readonly<Record<number, SkbHashType>> = {
  [REPORT.IPv4]: 'PKT_HASH_TYPE_L3',
  [REPORT.TCPv4]: 'PKT_HASH_TYPE_L4',
  [REPORT.UDPv4]: 'PKT_HASH_TYPE_L4',
  [REPORT.IPv6]: 'PKT_HASH_TYPE_L3',
  [REPORT.TCPv6]: 'PKT_HASH_TYPE_L4',
  [REPORT.UDPv6]: 'PKT_HASH_TYPE_L4',
  [REPORT.IPv6_EX]: 'PKT_HASH_TYPE_L3',
  [REPORT.TCPv6_EX]: 'PKT_HASH_TYPE_L4',
  [REPORT.UDPv6_EX]: 'PKT_HASH_TYPE_L4',
};

/** virtio_skb_set_hash. */
export function skbHashType(hashReport: number): SkbHashType {
  return HASH_TYPES[hashReport] ?? 'PKT_HASH_TYPE_NONE';
}

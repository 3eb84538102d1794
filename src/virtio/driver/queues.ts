/**
 * Telling the device how many queue pairs are in use, and how frames are spread over them.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (virtnet_set_queues, virtnet_commit_rss_command). The state
 * of RSS lies behind `virtnet_info.rss`: a `struct virtio_net_rss_config` as it is sent. The driver of
 * 6.12.107 sends the key from the wrong place: the device sees a zero byte, then all but the last byte
 * (`rssKeyLate`). A queue-pair command ends the device's steering by table; where `rssFollowsQueues`, the
 * pairs are told with the table as long as that is the driver's own. Leaves out real_num_rx_queues.
 */
import { ERRNO } from '../../common/errno.js';
import type { Ram } from '../../cpu/ram.js';
import { atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import {
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_CTRL_MQ_HASH_CONFIG,
  VIRTIO_NET_CTRL_MQ_RSS_CONFIG,
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
} from '../device/control/commands.js';
import type { NetConfig } from '../net-config.js';
import { DEV, VI, negotiated, netdevLog } from './common.js';
import { controlData, sendCommand, type ControlPiece } from './control.js';
import { profileOf } from './profiles.js';

/** IP_EX, TCP_EX and UDP_EX, which the driver does not enable. */
const UNSUPPORTED_HASH_TYPES = 0x1c0;
export const VIRTIO_NET_RSS_MAX_KEY_SIZE = 40;
/** hash_types u32, mask u16, unclassified_queue u16. */
const RSS_HEAD = 8;

/** Where the parts of the configuration lie behind `virtnet_info.rss`. */
interface RssPlaces {
  readonly head: number;
  readonly table: number;
  /** max_tx_vq u16, key length u8. */
  readonly trailer: number;
  readonly key: number;
  readonly keySize: number;
  readonly tableSize: number;
}

function places(ram: Ram, vi: number): RssPlaces {
  const head = ram.pointer(vi + VI.rss);
  const tableSize = ram.u16(vi + VI.rss_indir_table_size);
  const table = head + RSS_HEAD;
  const trailer = table + 2 * tableSize;
  return {
    head,
    table,
    trailer,
    // behind a byte of padding
    key: trailer + 4,
    keySize: ram.u8(vi + VI.rss_key_size),
    tableSize,
  };
}

/** At probe: an even table, all hash types but those the driver leaves out, and a key of random bytes. */
export function initRss(
  kernel: KernelContext,
  vi: number,
  config: NetConfig,
  key: Uint8Array,
): void {
  const { ram } = kernel.memory;
  const hasRss = negotiated(ram, vi, 'RSS');
  const hasReport = negotiated(ram, vi, 'HASH_REPORT');
  if (!hasRss && !hasReport) return;
  const tableSize = hasRss ? config.rssMaxIndirectionTableLength : 1;
  const keySize = Math.min(config.rssMaxKeySize, VIRTIO_NET_RSS_MAX_KEY_SIZE);
  const types = config.supportedHashTypes & ~UNSUPPORTED_HASH_TYPES;
  ram.set8(vi + VI.has_rss, hasRss ? 1 : 0);
  ram.set8(vi + VI.has_rss_hash_report, hasReport ? 1 : 0);
  ram.set8(vi + VI.rss_key_size, keySize);
  ram.set16(vi + VI.rss_indir_table_size, tableSize);
  ram.set32(vi + VI.rss_hash_types_supported, types);
  ram.set32(vi + VI.rss_hash_types_saved, types);
  const size = RSS_HEAD + 2 * tableSize + 4 + VIRTIO_NET_RSS_MAX_KEY_SIZE;
  ram.setPointer(vi + VI.rss, kernel.physical.alloc(size));
  const { head, trailer, key: keyAt } = places(ram, vi);
  ram.set32(head, types);
  ram.set16(head + 4, hasRss ? tableSize - 1 : 0);
  if (hasRss) fillTable(ram, vi, ram.u16(vi + VI.curr_queue_pairs));
  ram.set8(trailer + 2, keySize);
  ram.bytes.set(key.subarray(0, keySize), keyAt);
}

export interface RssSettings {
  readonly table?: readonly number[];
  readonly key?: Uint8Array;
  readonly hashTypes?: number;
}

/** `virtnet_set_rxfh`: what `ethtool -X` sets. Returns 0, -EOPNOTSUPP or -EINVAL. */
export function setRss(kernel: KernelContext, vi: number, settings: RssSettings): number {
  const { ram } = kernel.memory;
  if (ram.pointer(vi + VI.rss) === 0) return -ERRNO.EOPNOTSUPP;
  const { head, table, key, keySize, tableSize } = places(ram, vi);
  if (settings.table && ram.u8(vi + VI.has_rss) === 0) return -ERRNO.EOPNOTSUPP;
  if (settings.table && settings.table.length !== tableSize) return -ERRNO.EINVAL;
  if (settings.key && settings.key.length !== keySize) return -ERRNO.EINVAL;
  for (const [i, queue] of (settings.table ?? []).entries()) ram.set16(table + 2 * i, queue);
  if (settings.table) ram.set8(vi + VI.rss_configured, 1);
  if (settings.key) ram.bytes.set(settings.key, key);
  if (settings.hashTypes !== undefined) ram.set32(head, settings.hashTypes);
  return kernel.invoke('virtnet_commit_rss_command', vi) === 0 ? -ERRNO.EINVAL : 0;
}

function commitRssCommand(kernel: KernelContext, vi: number): number {
  const { ram } = kernel.memory;
  const { head, table, trailer, key, keySize, tableSize } = places(ram, vi);
  const late = profileOf(ram, vi).rssKeyLate;
  const pieces: ControlPiece[] = [
    [head, RSS_HEAD],
    [table, 2 * tableSize],
    [trailer, 3],
    [late ? key - 1 : key, keySize],
  ];
  const hasRss = ram.u8(vi + VI.has_rss) !== 0;
  const command = hasRss ? VIRTIO_NET_CTRL_MQ_RSS_CONFIG : VIRTIO_NET_CTRL_MQ_HASH_CONFIG;
  if (sendCommand(kernel, vi, VIRTIO_NET_CTRL_MQ, command, pieces)) return 1;
  const dev = ram.pointer(vi + VI.dev);
  netdevLog(kernel, dev, 'VIRTIONET issue with committing RSS sgs');
  return 0;
}

/** The driver's own table over `pairs` queues, and max_tx_vq. */
function fillTable(ram: Ram, vi: number, pairs: number): void {
  const { table, trailer, tableSize } = places(ram, vi);
  for (let i = 0; i < tableSize; i++) ram.set16(table + 2 * i, i % pairs);
  ram.set16(trailer, pairs);
}

function spread(kernel: KernelContext, vi: number, pairs: number): number {
  const { ram } = kernel.memory;
  fillTable(ram, vi, pairs);
  if (kernel.invoke('virtnet_commit_rss_command', vi) === 0) {
    fillTable(ram, vi, ram.u16(vi + VI.curr_queue_pairs));
    const dev = ram.pointer(vi + VI.dev);
    netdevLog(
      kernel,
      dev,
      `Fail to set num of queue pairs to ${pairs}, because committing RSS failed`,
    );
    return -ERRNO.EINVAL;
  }
  ram.set16(vi + VI.curr_queue_pairs, pairs);
  return 0;
}

function setQueues(kernel: KernelContext, vi: number, pairs: number): number {
  const { ram } = kernel.memory;
  if (ram.u8(vi + VI.has_cvq) === 0 || !negotiated(ram, vi, 'MQ')) return 0;
  const own = ram.u8(vi + VI.has_rss) !== 0 && ram.u8(vi + VI.rss_configured) === 0;
  if (own && profileOf(ram, vi).rssFollowsQueues) return spread(kernel, vi, pairs);
  const data = controlData(ram, vi);
  ram.set16(data, pairs);
  const sent = sendCommand(kernel, vi, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, [
    [data, 2],
  ]);
  if (!sent) {
    netdevLog(kernel, ram.pointer(vi + VI.dev), `Fail to set num of queue pairs to ${pairs}`);
    return -ERRNO.EINVAL;
  }
  ram.set16(vi + VI.curr_queue_pairs, pairs);
  return 0;
}

/** `ethtool -L`: what the user may choose while no program is attached. */
function setChannels(kernel: KernelContext, dev: number, pairs: number): number {
  const { ram } = kernel.memory;
  const vi = ram.pointer(dev + DEV.priv);
  if (pairs < 1 || pairs > ram.u16(vi + VI.max_queue_pairs)) return -ERRNO.EINVAL;
  if (ram.u8(vi + VI.xdp_enabled) !== 0) return -ERRNO.EINVAL;
  return kernel.invoke('virtnet_set_queues', vi, pairs);
}

export const queueFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'bool virtnet_commit_rss_command(struct virtnet_info *vi)',
    calls: true,
    body: commitRssCommand,
  }),
  atomic({
    prototype: 'int _virtnet_set_queues(struct virtnet_info *vi, u16 queue_pairs)',
    calls: true,
    body: setQueues,
  }),
  atomic({
    prototype: 'int virtnet_set_queues(struct virtnet_info *vi, u16 queue_pairs)',
    calls: true,
    body: (kernel, vi, pairs) => kernel.invoke('_virtnet_set_queues', vi, pairs),
  }),
  atomic({
    prototype: 'int virtnet_set_channels(struct net_device *dev, unsigned int combined_count)',
    calls: true,
    body: setChannels,
  }),
];

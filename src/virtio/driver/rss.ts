/**
 * The driver's side of receive-side scaling: its settings in kernel memory, and the command it sends.
 *
 * Reference: drivers/net/virtio_net.c (virtnet_init_default_rss, virtnet_commit_rss_command, virtnet_set_rxfh),
 * net/ethtool (ethtool_set_rxfh). Behind `virtnet_info.rss` lie, as they are sent:
 *
 *   hash_types u32 | mask u16 | unclassified_queue u16 | table u16[] | max_tx_vq u16 | key length u8 | key
 *
 * 6.1 sends it in four pieces; since "Fix endian with virtio_net_ctrl_rss" it goes as head with table, and the
 * rest. In 6.12.107 a byte of padding stands in front of the key and goes with it (`late-key`). The kernel of
 * the lab is little-endian. The user's settings are checked as ethtool does. Leaves out RSS contexts, and
 * hash types by flow type: they are given as a mask.
 *
 * Usage:
 *   initRss(kernel, vi, config, key);
 *   setRss(kernel, vi, { key, table });       // ethtool -X: 0, -EOPNOTSUPP or -EINVAL
 */
import { ERRNO } from '../../common/errno.js';
import { struct } from '../../common/struct.js';
import type { Ram } from '../../cpu/ram.js';
import { atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { LINUX_HASH_TYPES } from '../../net/rss/types.js';
import { NETIF_F_HI, NET_DEVICE } from '../../stack/net-device.js';
import { VIRTIO_NET_CTRL_HASH_TUNNEL_SET } from '../../net/rss/config.js';
import {
  VIRTIO_NET_CTRL_HASH_TUNNEL,
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_CTRL_MQ_HASH_CONFIG,
  VIRTIO_NET_CTRL_MQ_RSS_CONFIG,
} from '../device/control/commands.js';
import type { NetConfig } from '../net-config.js';
import { negotiated, netdevLog } from './common.js';
import { controlData, sendCommand, type ControlPiece } from './control.js';
import { profileOf } from './profiles.js';
import { hasRssFault, type RssFault } from './rss-faults.js';
import { VIRTNET_INFO } from './structs.js';

const DEV = NET_DEVICE.offset;
const VI = VIRTNET_INFO.offset;

export const VIRTIO_NET_RSS_MAX_KEY_SIZE = 40;
/** Entries that the structure had room for before its table was allocated by the device's size. */
const VIRTIO_NET_RSS_MAX_TABLE_LEN = 128;
/** hash_types u32, mask u16, unclassified_queue u16. */
const RSS_HEAD = 8;
/** max_tx_vq u16, key length u8. */
const RSS_TRAILER = 3;

/** What `ethtool -X` hands to the driver; an address of 0 leaves the thing as it is. */
const ETHTOOL_RXFH_PARAM = struct({ indir: 'u64', key: 'u64', indir_size: 'u32', key_size: 'u32' });

/** Where the parts of the configuration lie behind `virtnet_info.rss`. */
interface RssPlaces {
  readonly head: number;
  readonly table: number;
  readonly trailer: number;
  readonly key: number;
  readonly keySize: number;
  readonly tableSize: number;
}

function places(ram: Ram, vi: number): RssPlaces {
  const head = ram.pointer(vi + VI.rss);
  const tableSize = ram.u16(vi + VI.rss_indir_table_size);
  const table = head + RSS_HEAD;
  const room = hasRssFault(ram, vi, 'fixed-table') ? VIRTIO_NET_RSS_MAX_TABLE_LEN : tableSize;
  const trailer = table + 2 * room;
  // a trailer of 3 bytes is padded to 4 by its alignment
  const key = trailer + (hasRssFault(ram, vi, 'late-key') ? 4 : RSS_TRAILER);
  return { head, table, trailer, key, keySize: ram.u8(vi + VI.rss_key_size), tableSize };
}

function set16(ram: Ram, vi: number, at: number, value: number): void {
  ram.set16(at, hasRssFault(ram, vi, 'big-endian') ? swap16(value) : value);
}

function set32(ram: Ram, vi: number, at: number, value: number): void {
  if (!hasRssFault(ram, vi, 'big-endian')) return ram.set32(at, value);
  ram.set16(at, swap16(value >>> 16));
  ram.set16(at + 2, swap16(value & 0xffff));
}

function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

/** Why the driver does not take a device with that key size. */
export function keySizeRefusal(keySize: number, faults: readonly RssFault[]): string | undefined {
  if (keySize <= VIRTIO_NET_RSS_MAX_KEY_SIZE || faults.includes('unchecked-key-size')) {
    return undefined;
  }
  return `rss_max_key_size=${keySize} exceeds the limit ${VIRTIO_NET_RSS_MAX_KEY_SIZE}`;
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
  if (!hasRss && !hasReport) {
    if (hasRssFault(ram, vi, 'commit-without-rss')) allocate(kernel, vi, 1);
    return;
  }
  const keySize = config.rssMaxKeySize;
  const types = config.supportedHashTypes & LINUX_HASH_TYPES;
  ram.set8(vi + VI.has_rss, hasRss ? 1 : 0);
  ram.set8(vi + VI.has_rss_hash_report, hasReport ? 1 : 0);
  ram.set8(vi + VI.rss_key_size, keySize);
  ram.set32(vi + VI.rss_hash_types_supported, types);
  ram.set32(vi + VI.rss_hash_types_saved, types);
  allocate(kernel, vi, hasRss ? config.rssMaxIndirectionTableLength : 1);
  const { head, trailer, key: keyAt, tableSize } = places(ram, vi);
  set32(ram, vi, head, types);
  set16(ram, vi, head + 4, tableSize - 1);
  fillTable(ram, vi, ram.u16(vi + VI.curr_queue_pairs));
  ram.set8(trailer + 2, keySize);
  // netdev_rss_key_fill
  for (let i = 0; i < keySize; i++) ram.set8(keyAt + i, key[i % key.length] ?? 0);
}

function allocate(kernel: KernelContext, vi: number, tableSize: number): void {
  const { ram } = kernel.memory;
  ram.set16(vi + VI.rss_indir_table_size, tableSize);
  const room = hasRssFault(ram, vi, 'fixed-table') ? VIRTIO_NET_RSS_MAX_TABLE_LEN : tableSize;
  const size = RSS_HEAD + 2 * room + 4 + VIRTIO_NET_RSS_MAX_KEY_SIZE;
  ram.setPointer(vi + VI.rss, kernel.physical.alloc(size));
}

/** The driver's own table over `pairs` queues, and max_tx_vq. Without RSS neither is sent. */
export function fillTable(ram: Ram, vi: number, pairs: number): void {
  const hasRss = ram.u8(vi + VI.has_rss) !== 0;
  const { table, trailer, tableSize } = places(ram, vi);
  for (let i = 0; i < tableSize; i++) {
    set16(ram, vi, table + 2 * i, hasRss ? i % pairs : 0);
  }
  const sent = hasRss || hasRssFault(ram, vi, 'max-tx-vq-in-hash-config');
  set16(ram, vi, trailer, sent ? pairs : 0);
}

/** A queue-pair command is out: the next RSS command must not take it back. */
export function syncMaxTxVq(ram: Ram, vi: number, pairs: number): void {
  if (ram.u8(vi + VI.has_rss) === 0 || hasRssFault(ram, vi, 'stale-max-tx-vq')) return;
  set16(ram, vi, places(ram, vi).trailer, pairs);
}

/** hash_types of the commands to come. */
export function setHashTypes(ram: Ram, vi: number, types: number): void {
  set32(ram, vi, ram.pointer(vi + VI.rss), types);
}

export interface RssSettings {
  /** As many entries as the device's table has, each a queue pair in use. */
  readonly table?: readonly number[];
  /** As many bytes as the device takes. */
  readonly key?: Uint8Array;
  /** Sent at once while rx-hashing is on, else when it is turned on. */
  readonly hashTypes?: number;
}

/** `ethtool -x`: what the driver has; undefined without RSS and HASH_REPORT. */
export function getRss(ram: Ram, vi: number): Required<RssSettings> | undefined {
  if (ram.u8(vi + VI.has_rss) === 0 && ram.u8(vi + VI.has_rss_hash_report) === 0) return undefined;
  const { head, table, key, keySize, tableSize } = places(ram, vi);
  return {
    table: Array.from({ length: tableSize }, (_, i) => ram.u16(table + 2 * i)),
    key: ram.slice(key, keySize),
    hashTypes: ram.u32(head),
  };
}

/** `ethtool -X`, and hash types: 0, -EOPNOTSUPP or -EINVAL. A refusal by the device is a line in the log. */
export function setRss(kernel: KernelContext, vi: number, settings: RssSettings): number {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const { table, key, hashTypes } = settings;
  if (table && table.length !== ram.u16(vi + VI.rss_indir_table_size)) return -ERRNO.EINVAL;
  const pairs = ram.u16(vi + VI.curr_queue_pairs);
  if (table?.some((queue) => queue < 0 || queue >= pairs)) return -ERRNO.EINVAL;
  if (key && key.length !== ram.u8(vi + VI.rss_key_size)) return -ERRNO.EINVAL;
  if (hashTypes !== undefined) {
    const result = setUserHashTypes(kernel, vi, hashTypes);
    if (result !== 0 || (!table && !key)) return result;
  }
  const param = physical.alloc(ETHTOOL_RXFH_PARAM.size);
  const { offset } = ETHTOOL_RXFH_PARAM;
  const indir = table ? physical.alloc(4 * table.length) : 0;
  const keyAt = key ? physical.alloc(key.length) : 0;
  for (const [i, queue] of (table ?? []).entries()) ram.set32(indir + 4 * i, queue);
  if (key) ram.bytes.set(key, keyAt);
  ram.setPointer(param + offset.indir, indir);
  ram.setPointer(param + offset.key, keyAt);
  ram.set32(param + offset.indir_size, table?.length ?? 0);
  ram.set32(param + offset.key_size, key?.length ?? 0);
  const dev = ram.pointer(vi + VI.dev);
  const result = kernel.invoke('virtnet_set_rxfh', dev, param, 0);
  // netif_is_rxfh_configured
  if (result === 0 && table) ram.set8(vi + VI.rss_configured, 1);
  for (const each of [param, indir, keyAt]) if (each !== 0) physical.free(each);
  return result;
}

function setUserHashTypes(kernel: KernelContext, vi: number, types: number): number {
  const { ram } = kernel.memory;
  if (ram.pointer(vi + VI.rss) === 0) return -ERRNO.EOPNOTSUPP;
  if ((types & ~ram.u32(vi + VI.rss_hash_types_supported)) !== 0) return -ERRNO.EINVAL;
  ram.set32(vi + VI.rss_hash_types_saved, types);
  setHashTypes(ram, vi, types);
  const features = ram.u32(ram.pointer(vi + VI.dev) + DEV.features_hi);
  if ((features & NETIF_F_HI.RXHASH) === 0) return 0;
  return kernel.invoke('virtnet_commit_rss_command', vi) === 0 ? -ERRNO.EINVAL : 0;
}

function setRxfh(kernel: KernelContext, dev: number, rxfh: number): number {
  const { ram } = kernel.memory;
  const { offset } = ETHTOOL_RXFH_PARAM;
  const vi = ram.pointer(dev + DEV.priv);
  const indir = ram.pointer(rxfh + offset.indir);
  const key = ram.pointer(rxfh + offset.key);
  const hasRss = ram.u8(vi + VI.has_rss) !== 0;
  const unchecked = hasRssFault(ram, vi, 'commit-without-rss');
  if (indir !== 0 && !hasRss) return -ERRNO.EOPNOTSUPP;
  if (key !== 0 && !hasRss && ram.u8(vi + VI.has_rss_hash_report) === 0) return -ERRNO.EOPNOTSUPP;
  const to = places(ram, vi);
  const entries = ram.u32(rxfh + offset.indir_size);
  for (let i = 0; i < entries; i++) set16(ram, vi, to.table + 2 * i, ram.u32(indir + 4 * i));
  if (key !== 0) ram.copy(to.key, key, to.keySize);
  if (indir !== 0 || key !== 0 || unchecked) kernel.invoke('virtnet_commit_rss_command', vi);
  return 0;
}

function commitRssCommand(kernel: KernelContext, vi: number): number {
  const { ram } = kernel.memory;
  const { head, table, trailer, key, keySize, tableSize } = places(ram, vi);
  const pieces: ControlPiece[] =
    profileOf(ram, vi).rssPieces === 4
      ? [
          [head, RSS_HEAD],
          [table, 2 * tableSize],
          [trailer, RSS_TRAILER],
          [key, keySize],
        ]
      : [
          [head, RSS_HEAD + 2 * tableSize],
          [trailer, RSS_TRAILER + keySize],
        ];
  const hasRss = ram.u8(vi + VI.has_rss) !== 0;
  const command = hasRss ? VIRTIO_NET_CTRL_MQ_RSS_CONFIG : VIRTIO_NET_CTRL_MQ_HASH_CONFIG;
  if (sendCommand(kernel, vi, VIRTIO_NET_CTRL_MQ, command, pieces)) return 1;
  const dev = ram.pointer(vi + VI.dev);
  netdevLog(kernel, dev, 'VIRTIONET issue with committing RSS sgs');
  return 0;
}

/**
 * HASH_TUNNEL_SET: of which tunnels the inner header is hashed. Linux has no such setting.
 * Returns 0, -EOPNOTSUPP or -EINVAL.
 */
export function setHashTunnel(kernel: KernelContext, vi: number, types: number): number {
  const { ram } = kernel.memory;
  if (!negotiated(ram, vi, 'HASH_TUNNEL')) return -ERRNO.EOPNOTSUPP;
  const data = controlData(ram, vi);
  ram.set32(data, types);
  const command = VIRTIO_NET_CTRL_HASH_TUNNEL_SET;
  const sent = sendCommand(kernel, vi, VIRTIO_NET_CTRL_HASH_TUNNEL, command, [[data, 4]]);
  return sent ? 0 : -ERRNO.EINVAL;
}

export const rssFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'bool virtnet_commit_rss_command(struct virtnet_info *vi)',
    calls: true,
    body: commitRssCommand,
  }),
  atomic({
    prototype:
      'int virtnet_set_rxfh(struct net_device *dev, struct ethtool_rxfh_param *rxfh, ' +
      'struct netlink_ext_ack *extack)',
    calls: true,
    body: setRxfh,
  }),
];

/**
 * The driver's counters under the names that users know.
 *
 * Reference: `ethtool -S` of virtio_net: in 6.12 `rx0_xdp_drops` per queue and `rx_xdp_drops` in all, in 6.1
 * `rx_queue_0_xdp_drops`, of which here too `rx_xdp_drops` is the sum; and the net_device's statistics as `ip -s link` shows them (virtnet_stats), here with the prefix `dev_`.
 *
 * Usage:
 *   counterTable(driverCounters(ram, vi));   // rows of [name, value], zeros left out
 */
import type { Ram } from '../../cpu/ram.js';
import { receiveQueue, sendQueue } from './common.js';
import { profileOf } from './profiles.js';
import {
  RQ_STATS_NAMES,
  SQ_STATS_NAMES,
  VIRTNET_RQ_STATS,
  VIRTNET_SQ_STATS,
  RECEIVE_QUEUE,
  SEND_QUEUE,
  VIRTNET_INFO,
} from './structs.js';
import { NET_DEVICE } from '../../stack/net-device.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const SQ = SEND_QUEUE.offset;
const VI = VIRTNET_INFO.offset;

/** All counters; totals over the queues have no queue number. */
export function driverCounters(ram: Ram, vi: number): Readonly<Record<string, number>> {
  const short = profileOf(ram, vi).counterNames === 'short';
  const counters: Record<string, number> = {};
  const note = (prefix: 'rx' | 'tx', queue: number, name: string, at: number): void => {
    const value = ram.u53(at);
    counters[`${prefix}_${name}`] = (counters[`${prefix}_${name}`] ?? 0) + value;
    const own = short ? `${prefix}${queue}` : `${prefix}_queue_${queue}`;
    counters[`${own}_${name}`] = value;
  };
  for (let i = 0; i < ram.u16(vi + VI.max_queue_pairs); i++) {
    const rq = receiveQueue(ram, vi, i);
    const sq = sendQueue(ram, vi, i);
    for (const name of RQ_STATS_NAMES) {
      note('rx', i, name, rq + RQ.stats + VIRTNET_RQ_STATS.offset[name]);
    }
    for (const name of SQ_STATS_NAMES) {
      // told by netdev_stat_ops, and not in 6.1
      if (!short && (name === 'stop' || name === 'wake')) continue;
      note('tx', i, name, sq + SQ.stats + VIRTNET_SQ_STATS.offset[name]);
    }
  }
  const dev = ram.pointer(vi + VI.dev);
  counters['dev_rx_packets'] = counters['rx_packets'] ?? 0;
  counters['dev_rx_bytes'] = counters['rx_bytes'] ?? 0;
  counters['dev_tx_packets'] = counters['tx_packets'] ?? 0;
  counters['dev_tx_bytes'] = counters['tx_bytes'] ?? 0;
  counters['dev_rx_dropped'] = counters['rx_drops'] ?? 0;
  counters['dev_rx_length_errors'] = ram.u53(dev + DEV.rx_length_errors);
  counters['dev_rx_frame_errors'] = ram.u53(dev + DEV.rx_frame_errors);
  return counters;
}

/** Rows of name and value; counters that stand at 0 are left out. */
export function counterTable(
  counters: Readonly<Record<string, number>>,
): readonly (readonly [string, number])[] {
  return Object.entries(counters).filter(([, value]) => value !== 0);
}

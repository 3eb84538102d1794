/**
 * VIRTIO_NET_CTRL_STATS: which statistics a device keeps, and their values by virtqueue.
 *
 * Reference: virtio 1.4, "Device Statistics". Of the types, those that every device has: the control
 * queue's, and the basic ones of receive and transmit queues. Leaves out checksum, GSO and speed statistics.
 *
 *   QUERY  -> supported types u64
 *   GET    (vq u16, reserved u16[3], types u64) ... -> (type u8, u8, vq u16, u16, size u16, u64 ...) ...
 */
import { viewOf } from '../../../common/bytes.js';
import { concatBytes } from '../../../net/packet.js';
import { VIRTIO_NET_CTRL_STATS_QUERY } from './commands.js';
import type { ControlDevice } from './state.js';

interface StatisticsType {
  /** Bit in a types mask, and the number in a reply. */
  readonly bit: number;
  readonly queue: 'receive' | 'transmit' | 'control';
  readonly counters: readonly string[];
}

const TYPES: readonly StatisticsType[] = [
  {
    bit: 0,
    queue: 'receive',
    counters: [
      'rx_notifications',
      'rx_packets',
      'rx_bytes',
      'rx_interrupts',
      'rx_drops',
      'rx_drop_overruns',
    ],
  },
  {
    bit: 16,
    queue: 'transmit',
    counters: [
      'tx_notifications',
      'tx_packets',
      'tx_bytes',
      'tx_interrupts',
      'tx_drops',
      'tx_drop_malformed',
    ],
  },
  { bit: 32, queue: 'control', counters: ['command_num', 'ok_num'] },
];

const REQUEST_SIZE = 16;
const HEADER_SIZE = 8;

/** The bytes behind the ack, or why the command is refused. */
export function statisticsReply(
  command: number,
  data: Uint8Array,
  device: ControlDevice,
): Uint8Array | string {
  if (command === VIRTIO_NET_CTRL_STATS_QUERY) {
    const reply = new Uint8Array(8);
    const supported = TYPES.reduce((mask, { bit }) => mask | (1n << BigInt(bit)), 0n);
    viewOf(reply).setBigUint64(0, supported, true);
    return reply;
  }
  if (data.length === 0 || data.length % REQUEST_SIZE !== 0) return `${data.length} bytes`;
  const view = viewOf(data);
  const parts: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += REQUEST_SIZE) {
    const vq = view.getUint16(at, true);
    const queue = queueKind(vq, device.config.maxVirtqueuePairs);
    if (!queue) return `virtqueue ${vq}`;
    const wanted = view.getBigUint64(at + 8, true);
    for (const type of TYPES) {
      const asked = ((wanted >> BigInt(type.bit)) & 1n) !== 0n;
      if (asked && type.queue === queue) parts.push(values(type, vq, device));
    }
  }
  return concatBytes(...parts);
}

function queueKind(vq: number, pairs: number): StatisticsType['queue'] | undefined {
  if (vq === 2 * pairs) return 'control';
  if (vq > 2 * pairs) return undefined;
  return vq % 2 === 0 ? 'receive' : 'transmit';
}

function values(type: StatisticsType, vq: number, device: ControlDevice): Uint8Array {
  const counted = device.statistics?.(vq) ?? {};
  const bytes = new Uint8Array(HEADER_SIZE + 8 * type.counters.length);
  const view = viewOf(bytes);
  view.setUint8(0, type.bit);
  view.setUint16(2, vq, true);
  view.setUint16(6, bytes.length, true);
  for (const [i, name] of type.counters.entries()) {
    view.setBigUint64(HEADER_SIZE + 8 * i, BigInt(counted[name] ?? 0), true);
  }
  return bytes;
}

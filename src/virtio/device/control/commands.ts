/**
 * The commands of the control virtqueue: class, number, data, and the feature each needs.
 *
 * Reference: virtio 1.4, "Control Virtqueue". A command is `class u8, command u8, data`, device-readable;
 * behind it the device writes `ack u8` (OK 0, ERR 1) and, for a few, a reply.
 *
 * Usage:
 *   describeCommand(Uint8Array.of(5, 0, 2, 0, 0, 0, 0, 0, 0, 0));
 *   // 'GUEST_OFFLOADS_SET mask=0x2'
 */
import { viewOf } from '../../../common/bytes.js';
import { formatMac } from '../../../net/address.js';
import type { VirtioNetFeature } from '../../net-features.js';

export const VIRTIO_NET_OK = 0;
export const VIRTIO_NET_ERR = 1;

export const VIRTIO_NET_CTRL_RX = 0;
export const VIRTIO_NET_CTRL_RX_PROMISC = 0;
export const VIRTIO_NET_CTRL_RX_ALLMULTI = 1;
export const VIRTIO_NET_CTRL_MAC = 1;
export const VIRTIO_NET_CTRL_MAC_TABLE_SET = 0;
export const VIRTIO_NET_CTRL_MAC_ADDR_SET = 1;
export const VIRTIO_NET_CTRL_VLAN = 2;
export const VIRTIO_NET_CTRL_VLAN_ADD = 0;
export const VIRTIO_NET_CTRL_VLAN_DEL = 1;
export const VIRTIO_NET_CTRL_ANNOUNCE = 3;
export const VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0;
export const VIRTIO_NET_CTRL_MQ = 4;
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0;
export const VIRTIO_NET_CTRL_MQ_RSS_CONFIG = 1;
export const VIRTIO_NET_CTRL_MQ_HASH_CONFIG = 2;
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5;
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0;
export const VIRTIO_NET_CTRL_NOTF_COAL = 6;
export const VIRTIO_NET_CTRL_NOTF_COAL_TX_SET = 0;
export const VIRTIO_NET_CTRL_NOTF_COAL_RX_SET = 1;
export const VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET = 2;
export const VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET = 3;
export const VIRTIO_NET_CTRL_HASH_TUNNEL = 7;
export const VIRTIO_NET_CTRL_STATS = 8;
export const VIRTIO_NET_CTRL_STATS_QUERY = 0;
export const VIRTIO_NET_CTRL_RSS_CTX = 9;
export const VIRTIO_NET_CTRL_RSS_CTX_CAP_GET = 0;
export const VIRTIO_NET_CTRL_RSS_CTX_ADD = 1;
export const VIRTIO_NET_CTRL_RSS_CTX_DEL = 3;

export interface ControlCommand {
  readonly class: number;
  readonly command: number;
  readonly name: string;
  readonly feature: VirtioNetFeature;
  /** What the data say, in a word or two. */
  readonly describe: (data: Uint8Array) => string;
}

const u8 = (data: Uint8Array): string => `${data[0] ?? '?'}`;
const u16 = (data: Uint8Array): string =>
  data.length >= 2 ? `${viewOf(data).getUint16(0, true)}` : '?';
const nothing = (): string => '';
const bytes = (data: Uint8Array): string => `${data.length} bytes`;
const coalescing = (data: Uint8Array, at: number): string => {
  if (data.length < at + 8) return '?';
  const view = viewOf(data);
  return `max_packets=${view.getUint32(at, true)} max_usecs=${view.getUint32(at + 4, true)}`;
};

function mask(data: Uint8Array): string {
  return data.length >= 8 ? `mask=0x${viewOf(data).getBigUint64(0, true).toString(16)}` : '?';
}

function tables(data: Uint8Array): string {
  if (data.length < 4) return '?';
  const unicast = viewOf(data).getUint32(0, true);
  const at = 4 + 6 * unicast;
  const multicast = data.length >= at + 4 ? viewOf(data).getUint32(at, true) : '?';
  return `unicast=${unicast} multicast=${multicast}`;
}

type Row = readonly [
  commandClass: number,
  command: number,
  name: string,
  feature: VirtioNetFeature,
  describe: (data: Uint8Array) => string,
];

const ROWS: readonly Row[] = [
  [0, 0, 'RX_PROMISC', 'CTRL_RX', u8],
  [0, 1, 'RX_ALLMULTI', 'CTRL_RX', u8],
  [0, 2, 'RX_ALLUNI', 'CTRL_RX_EXTRA', u8],
  [0, 3, 'RX_NOMULTI', 'CTRL_RX_EXTRA', u8],
  [0, 4, 'RX_NOUNI', 'CTRL_RX_EXTRA', u8],
  [0, 5, 'RX_NOBCAST', 'CTRL_RX_EXTRA', u8],
  [1, 0, 'MAC_TABLE_SET', 'CTRL_RX', tables],
  [1, 1, 'MAC_ADDR_SET', 'CTRL_MAC_ADDR', (data) => (data.length === 6 ? formatMac(data) : '?')],
  [2, 0, 'VLAN_ADD', 'CTRL_VLAN', u16],
  [2, 1, 'VLAN_DEL', 'CTRL_VLAN', u16],
  [3, 0, 'ANNOUNCE_ACK', 'GUEST_ANNOUNCE', nothing],
  [4, 0, 'MQ_VQ_PAIRS_SET', 'MQ', u16],
  [4, 1, 'MQ_RSS_CONFIG', 'RSS', bytes],
  [4, 2, 'MQ_HASH_CONFIG', 'HASH_REPORT', bytes],
  [5, 0, 'GUEST_OFFLOADS_SET', 'CTRL_GUEST_OFFLOADS', mask],
  [6, 0, 'NOTF_COAL_TX_SET', 'NOTF_COAL', (data) => coalescing(data, 0)],
  [6, 1, 'NOTF_COAL_RX_SET', 'NOTF_COAL', (data) => coalescing(data, 0)],
  [6, 2, 'NOTF_COAL_VQ_SET', 'VQ_NOTF_COAL', (data) => `vq=${u16(data)} ${coalescing(data, 4)}`],
  [6, 3, 'NOTF_COAL_VQ_GET', 'VQ_NOTF_COAL', (data) => `vq=${u16(data)}`],
  [7, 0, 'HASH_TUNNEL_SET', 'HASH_TUNNEL', bytes],
  [8, 0, 'STATS_QUERY', 'DEVICE_STATS', nothing],
  [8, 1, 'STATS_GET', 'DEVICE_STATS', bytes],
  [9, 0, 'RSS_CTX_CAP_GET', 'RSS_CONTEXT', nothing],
  [9, 1, 'RSS_CTX_ADD', 'RSS_CONTEXT', (data) => `context ${u16(data)}`],
  [9, 2, 'RSS_CTX_MOD', 'RSS_CONTEXT', (data) => `context ${u16(data)}`],
  [9, 3, 'RSS_CTX_DEL', 'RSS_CONTEXT', (data) => `context ${u16(data)}`],
];

export const CONTROL_COMMANDS: readonly ControlCommand[] = ROWS.map(
  ([commandClass, command, name, feature, describe]) => ({
    class: commandClass,
    command,
    name,
    feature,
    describe,
  }),
);

export function findCommand(commandClass: number, command: number): ControlCommand | undefined {
  return CONTROL_COMMANDS.find((row) => row.class === commandClass && row.command === command);
}

/** One line for a command as the driver sent it, class and number first. */
export function describeCommand(request: Uint8Array): string {
  const [commandClass = 0, command = 0] = request;
  const known = findCommand(commandClass, command);
  const data = request.subarray(2);
  if (!known) return `class=${commandClass} cmd=${command} ${bytes(data)}`;
  return `${known.name} ${known.describe(data)}`.trimEnd();
}

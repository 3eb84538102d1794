/**
 * What a virtio-net device does with a control command: a function of state and bytes.
 *
 * Reference: virtio 1.4, "Control Virtqueue"; what is refused is QEMU's choice (virtio_net_handle_rx_mode
 * and its neighbours). It knows no ring and no guest memory: the net device and a vDPA device both use it. A
 * refused command leaves the state as it was.
 *
 * Usage:
 *   const { ack, state: next } = executeControl(state, Uint8Array.of(0, 0, 0), device);
 */
import { viewOf } from '../../../common/bytes.js';
import { applyRssCommand, type RssDevice } from '../../../net/rss/config.js';
import { hasFeature } from '../../net-features.js';
import {
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_CTRL_HASH_TUNNEL,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
  VIRTIO_NET_CTRL_NOTF_COAL,
  VIRTIO_NET_CTRL_NOTF_COAL_RX_SET,
  VIRTIO_NET_CTRL_NOTF_COAL_TX_SET,
  VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET,
  VIRTIO_NET_CTRL_RSS_CTX,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_STATS,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_CTRL_VLAN_ADD,
  VIRTIO_NET_ERR,
  VIRTIO_NET_OK,
  findCommand,
} from './commands.js';
import {
  negotiatedOffloads,
  type Coalescing,
  type ControlDevice,
  type ControlState,
  type MacTable,
  type RxMode,
} from './state.js';
import { commandRssContext } from './rss-context.js';
import { statisticsReply } from './statistics.js';

export interface ControlResult {
  readonly ack: typeof VIRTIO_NET_OK | typeof VIRTIO_NET_ERR;
  /** Why a command was refused. */
  readonly why?: string;
  /** What stands behind the ack. Default nothing. */
  readonly reply?: Uint8Array;
  readonly state: ControlState;
}

/** A class's part: the changed state, with a reply where there is one, or why it is refused. */
type Outcome =
  | { readonly state: ControlState; readonly reply?: Uint8Array }
  | { readonly why: string; readonly state?: ControlState };

type Handler = (
  state: ControlState,
  command: number,
  data: Uint8Array,
  device: ControlDevice,
) => Outcome;

/** Addresses that a device remembers, unicast and multicast together. */
const MAC_TABLE_ENTRIES = 64;
const VLAN_IDS = 4096;

/** In the order of VIRTIO_NET_CTRL_RX's commands. */
const RX_FIELDS: readonly (keyof RxMode)[] = [
  'promisc',
  'allmulti',
  'alluni',
  'nomulti',
  'nouni',
  'nobcast',
];

const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [VIRTIO_NET_CTRL_RX, setRxMode],
  [VIRTIO_NET_CTRL_MAC, setMac],
  [VIRTIO_NET_CTRL_VLAN, setVlan],
  [VIRTIO_NET_CTRL_ANNOUNCE, acknowledgeAnnounce],
  [VIRTIO_NET_CTRL_MQ, (...args) => configureRss(VIRTIO_NET_CTRL_MQ, ...args)],
  [VIRTIO_NET_CTRL_GUEST_OFFLOADS, setOffloads],
  [VIRTIO_NET_CTRL_NOTF_COAL, coalesce],
  [VIRTIO_NET_CTRL_HASH_TUNNEL, (...args) => configureRss(VIRTIO_NET_CTRL_HASH_TUNNEL, ...args)],
  [VIRTIO_NET_CTRL_STATS, statistics],
  [VIRTIO_NET_CTRL_RSS_CTX, changeRssContext],
]);

/** Runs one command: `request` is class, command and data. */
export function executeControl(
  state: ControlState,
  request: Uint8Array,
  device: ControlDevice,
): ControlResult {
  const [commandClass = -1, number = -1] = request;
  const known = findCommand(commandClass, number);
  const handler = HANDLERS.get(commandClass);
  const refused = (why: string, next = state): ControlResult => ({
    ack: VIRTIO_NET_ERR,
    why,
    state: next,
  });
  if (!known || !handler) return refused(`unknown command ${number} of class ${commandClass}`);
  if (!hasFeature(device.features, known.feature)) {
    return refused(`${known.name} without ${known.feature}`);
  }
  const outcome = handler(state, number, request.subarray(2), device);
  if ('why' in outcome) return refused(`${known.name}: ${outcome.why}`, outcome.state);
  return { ack: VIRTIO_NET_OK, ...outcome };
}

function setRxMode(state: ControlState, command: number, data: Uint8Array): Outcome {
  const [on] = data;
  const field = RX_FIELDS[command];
  if (on === undefined || !field) return { why: 'no data' };
  return { state: { ...state, rx: { ...state.rx, [field]: on !== 0 } } };
}

function setMac(state: ControlState, command: number, data: Uint8Array): Outcome {
  if (command === VIRTIO_NET_CTRL_MAC_ADDR_SET) {
    if (data.length !== 6) return { why: `${data.length} bytes, not 6` };
    return { state: { ...state, mac: data.slice() } };
  }
  const macTable = parseMacTable(data);
  return typeof macTable === 'string' ? { why: macTable } : { state: { ...state, macTable } };
}

/** Unicast count and addresses, multicast count and addresses; a text says what is wrong. */
function parseMacTable(data: Uint8Array): MacTable | string {
  const addresses = (from: number, count: number): Uint8Array[] =>
    Array.from({ length: count }, (_, i) => data.slice(from + 6 * i, from + 6 * i + 6));
  const view = viewOf(data);
  if (data.length < 4) return 'no unicast count';
  const unicasts = view.getUint32(0, true);
  const multicastAt = 4 + 6 * unicasts;
  if (multicastAt > data.length) return `${unicasts} unicast addresses in ${data.length} bytes`;
  if (multicastAt + 4 > data.length) return 'no multicast count';
  const multicasts = view.getUint32(multicastAt, true);
  const left = data.length - multicastAt - 4;
  if (6 * multicasts !== left) return `${multicasts} multicast addresses in ${left} bytes`;

  const uniOverflow = unicasts > MAC_TABLE_ENTRIES;
  const unicast = uniOverflow ? [] : addresses(4, unicasts);
  const multiOverflow = multicasts > MAC_TABLE_ENTRIES - unicast.length;
  const multicast = multiOverflow ? [] : addresses(multicastAt + 4, multicasts);
  return { unicast, multicast, uniOverflow, multiOverflow };
}

function setVlan(state: ControlState, command: number, data: Uint8Array): Outcome {
  if (data.length < 2) return { why: 'no VLAN id' };
  const id = viewOf(data).getUint16(0, true);
  if (id >= VLAN_IDS) return { why: `VLAN ${id}` };
  const vlans = new Set(state.vlans === 'all' ? [] : state.vlans);
  if (command === VIRTIO_NET_CTRL_VLAN_ADD) vlans.add(id);
  else vlans.delete(id);
  return { state: { ...state, vlans } };
}

function acknowledgeAnnounce(state: ControlState): Outcome {
  if (!state.announce) return { why: 'no announcement was asked for' };
  return { state: { ...state, announce: false } };
}

function configureRss(
  commandClass: number,
  state: ControlState,
  command: number,
  data: Uint8Array,
  device: ControlDevice,
): Outcome {
  const setsPairs =
    commandClass === VIRTIO_NET_CTRL_MQ && command === VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET;
  if (setsPairs && state.rssContexts.size > 0) {
    return { why: `${state.rssContexts.size} RSS contexts exist` };
  }
  const result = applyRssCommand(state.rss, commandClass, command, data, rssDevice(device));
  const next = { ...state, rss: result.state };
  return result.ack === 'OK' ? { state: next } : { why: result.why, state: next };
}

function changeRssContext(
  state: ControlState,
  command: number,
  data: Uint8Array,
  device: ControlDevice,
): Outcome {
  const outcome = commandRssContext(state.rssContexts, command, data, rssDevice(device));
  if ('why' in outcome) return outcome;
  const { contexts, reply } = outcome;
  return { state: { ...state, rssContexts: contexts }, ...(reply ? { reply } : {}) };
}

function rssDevice({ features, config, qemuDisableOnError }: ControlDevice): RssDevice {
  return {
    qemuDisableOnError: qemuDisableOnError ?? false,
    maxQueuePairs: config.maxVirtqueuePairs,
    maxKeySize: config.rssMaxKeySize,
    maxTableLength: config.rssMaxIndirectionTableLength,
    supportedHashTypes: config.supportedHashTypes,
    supportedTunnelTypes: config.supportedTunnelTypes,
    negotiated: {
      mq: hasFeature(features, 'MQ'),
      rss: hasFeature(features, 'RSS'),
      hashReport: hasFeature(features, 'HASH_REPORT'),
      hashTunnel: hasFeature(features, 'HASH_TUNNEL'),
    },
  };
}

function setOffloads(
  state: ControlState,
  _command: number,
  data: Uint8Array,
  device: ControlDevice,
): Outcome {
  if (data.length !== 8) return { why: `${data.length} bytes, not 8` };
  const offloads = viewOf(data).getBigUint64(0, true);
  const unknown = offloads & ~negotiatedOffloads(device.features);
  if (unknown !== 0n) return { why: `0x${unknown.toString(16)} was not negotiated` };
  return { state: { ...state, offloads } };
}

const NO_COALESCING: Coalescing = { maxPackets: 0, maxUsecs: 0 };

function coalesce(
  state: ControlState,
  command: number,
  data: Uint8Array,
  device: ControlDevice,
): Outcome {
  const pairs = device.config.maxVirtqueuePairs;
  const view = viewOf(data);
  const values = (at: number): Coalescing => ({
    maxPackets: view.getUint32(at, true),
    maxUsecs: view.getUint32(at + 4, true),
  });
  const coalescing = new Map(state.coalescing);
  switch (command) {
    case VIRTIO_NET_CTRL_NOTF_COAL_TX_SET:
    case VIRTIO_NET_CTRL_NOTF_COAL_RX_SET: {
      if (data.length < 8) return { why: `${data.length} bytes, not 8` };
      const odd = command === VIRTIO_NET_CTRL_NOTF_COAL_TX_SET ? 1 : 0;
      for (let i = 0; i < pairs; i++) coalescing.set(2 * i + odd, values(0));
      return { state: { ...state, coalescing } };
    }
    default: {
      const wanted = command === VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET ? 12 : 4;
      if (data.length < wanted) return { why: `${data.length} bytes, not ${wanted}` };
      const vq = view.getUint16(0, true);
      if (vq >= 2 * pairs) return { why: `virtqueue ${vq} of ${2 * pairs}` };
      if (command === VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET) {
        coalescing.set(vq, values(4));
        return { state: { ...state, coalescing } };
      }
      const { maxPackets, maxUsecs } = coalescing.get(vq) ?? NO_COALESCING;
      const reply = new Uint8Array(8);
      viewOf(reply).setUint32(0, maxPackets, true);
      viewOf(reply).setUint32(4, maxUsecs, true);
      return { state, reply };
    }
  }
}

function statistics(
  state: ControlState,
  command: number,
  data: Uint8Array,
  device: ControlDevice,
): Outcome {
  const reply = statisticsReply(command, data, device);
  return typeof reply === 'string' ? { why: reply } : { state, reply };
}

/**
 * The control commands that configure hashing and steering: parse, judge, build.
 *
 * Reference: virtio 1.4 "Automatic receive steering in multiqueue mode", "Receive-side scaling",
 * "Hash calculation"; what a device refuses follows QEMU 10.0 hw/net/virtio-net.c,
 * virtio_net_handle_rss and virtio_net_handle_mq. Class 4 (MQ): VQ_PAIRS_SET 0, RSS_CONFIG 1,
 * HASH_CONFIG 2, of which the last accepted one decides. Class 7 (HASH_TUNNEL): SET 0. Entries of the
 * table are not checked, as in QEMU: steering takes them modulo the pairs in use. Leaves out
 * RSS_CONTEXT.
 *
 *   RSS_CONFIG:  hash_types u32 | mask u16 | unclassified u16 | table u16[mask + 1] | max_tx_vq u16 |
 *                keylen u8 | key                      (mask 127, 40 bytes of key: 307 bytes)
 *   HASH_CONFIG: hash_types u32 | reserved u16[4] | keylen u8 | key      (the same layout, mask 0)
 *
 * Usage:
 *   const state = resetRssState(device);
 *   const { ack, why, state: next } = applyRssCommand(state, 4, 1, bytes, device);
 */
import { viewOf } from '../../common/bytes.js';
import { bitNames, VIRTIO_NET_HASH_TUNNEL_TYPE, VIRTIO_NET_HASH_TYPE } from './types.js';

export const VIRTIO_NET_CTRL_MQ = 4;
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0;
export const VIRTIO_NET_CTRL_MQ_RSS_CONFIG = 1;
export const VIRTIO_NET_CTRL_MQ_HASH_CONFIG = 2;
export const VIRTIO_NET_CTRL_HASH_TUNNEL = 7;
export const VIRTIO_NET_CTRL_HASH_TUNNEL_SET = 0;

export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN = 1;
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX = 0x8000;

/** Bytes in front of the table. */
const TABLE_OFFSET = 8;

/** What the device's config space says, and the features the driver accepted. */
export interface RssDevice {
  /** max_virtqueue_pairs. */
  readonly maxQueuePairs: number;
  /** rss_max_key_size: at least 40. */
  readonly maxKeySize: number;
  /** rss_max_indirection_table_length: at least 128. */
  readonly maxTableLength: number;
  readonly supportedHashTypes: number;
  /** Read with HASH_TUNNEL only. */
  readonly supportedTunnelTypes: number;
  readonly negotiated: {
    readonly mq: boolean;
    readonly rss: boolean;
    readonly hashReport: boolean;
    /** The final form's class 7 exists. The proposal has no command of its own: leave it false there. */
    readonly hashTunnel: boolean;
  };
  /**
   * Every command of class 4 first turns steering by hash off, as in QEMU: a refused one leaves it off.
   * Default false: a refused command changes nothing.
   */
  readonly qemuDisableOnError?: boolean;
}

/** A `struct virtio_net_rss_config`. Receive queues are pair numbers: 3 is receiveq4. */
export interface RssConfig {
  readonly hashTypes: number;
  readonly unclassifiedQueue: number;
  /** Its length is a power of two. */
  readonly table: Uint16Array;
  readonly maxTxVq: number;
  readonly key: Uint8Array;
}

/** A `struct virtio_net_hash_config`. */
export type HashConfig = Pick<RssConfig, 'hashTypes' | 'key'>;

export interface Refusal {
  readonly ack: 'ERR';
  readonly why: string;
}

function refuse(why: string): Refusal {
  return { ack: 'ERR', why };
}

export function isRefusal(value: object): value is Refusal {
  return 'ack' in value && value.ack === 'ERR';
}

/** What the commands left: who picks the receive queue, over which types, how many pairs. */
export interface RssState {
  /**
   * `automatic`: no hash. `hash`: hashes are reported, queues are picked as if automatic. `rss`: the table
   * picks.
   */
  readonly mode: 'automatic' | 'hash' | 'rss';
  /** hash_types, key; with mode `rss` the table too. */
  readonly config: RssConfig;
  /** Pairs in use: by VQ_PAIRS_SET, or max_tx_vq of RSS_CONFIG. */
  readonly queuePairs: number;
  /** enabled_tunnel_types; 0: the hash is over the outer header. */
  readonly tunnelTypes: number;
}

const NO_CONFIG: RssConfig = {
  hashTypes: 0,
  unclassifiedQueue: 0,
  table: new Uint16Array(1),
  maxTxVq: 1,
  key: new Uint8Array(0),
};

/** After a reset: one pair, no types, no tunnels. */
export function resetRssState(): RssState {
  return { mode: 'automatic', config: NO_CONFIG, queuePairs: 1, tunnelTypes: 0 };
}

export type CommandResult =
  | { readonly ack: 'OK'; readonly state: RssState }
  | { readonly ack: 'ERR'; readonly why: string; readonly state: RssState };

/** Does this module answer commands of the class? */
export function isRssClass(commandClass: number): boolean {
  return commandClass === VIRTIO_NET_CTRL_MQ || commandClass === VIRTIO_NET_CTRL_HASH_TUNNEL;
}

/**
 * One command of class 4 or 7. `bytes` is what the driver sent behind class and command.
 */
export function applyRssCommand(
  state: RssState,
  commandClass: number,
  command: number,
  bytes: Uint8Array,
  device: RssDevice,
): CommandResult {
  if (commandClass === VIRTIO_NET_CTRL_HASH_TUNNEL) {
    const types = parseHashTunnelSet(command, bytes, device);
    if (typeof types !== 'number') return { ...types, state };
    return { ack: 'OK', state: { ...state, tunnelTypes: types } };
  }
  if (commandClass !== VIRTIO_NET_CTRL_MQ) {
    return { ...refuse(`class ${commandClass} is neither MQ nor HASH_TUNNEL`), state };
  }
  const changed = mqState(state, command, bytes, device);
  if (!isRefusal(changed)) return { ack: 'OK', state: changed };
  return { ...changed, state: device.qemuDisableOnError ? disabled(state) : state };
}

/** Steering by hash off, the pairs and tunnels as they were. */
function disabled(state: RssState): RssState {
  return { ...state, mode: 'automatic', config: NO_CONFIG };
}

function mqState(
  state: RssState,
  command: number,
  bytes: Uint8Array,
  device: RssDevice,
): RssState | Refusal {
  switch (command) {
    case VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: {
      const pairs = parseVqPairsSet(bytes, device);
      return typeof pairs === 'number' ? { ...disabled(state), queuePairs: pairs } : pairs;
    }
    case VIRTIO_NET_CTRL_MQ_RSS_CONFIG: {
      const config = parseRssConfig(bytes, device);
      if (isRefusal(config)) return config;
      const mode = config.key.length === 0 ? 'automatic' : 'rss';
      return { ...state, mode, config, queuePairs: config.maxTxVq };
    }
    case VIRTIO_NET_CTRL_MQ_HASH_CONFIG: {
      const config = parseHashConfig(bytes, device);
      if (isRefusal(config)) return config;
      const mode = config.key.length === 0 ? 'automatic' : 'hash';
      return { ...state, mode, config: { ...NO_CONFIG, ...config } };
    }
    default:
      return refuse(`command ${command} of class MQ is unknown`);
  }
}

export function parseVqPairsSet(bytes: Uint8Array, device: RssDevice): number | Refusal {
  if (!device.negotiated.mq) return refuse('VQ_PAIRS_SET without MQ');
  if (bytes.length !== 2) return refuse(`VQ_PAIRS_SET of ${bytes.length} bytes, not 2`);
  const pairs = viewOf(bytes).getUint16(0, true);
  const most = Math.min(device.maxQueuePairs, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX);
  if (pairs < VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN || pairs > most) {
    return refuse(`${pairs} queue pairs, not 1 to ${most}`);
  }
  return pairs;
}

export function parseRssConfig(bytes: Uint8Array, device: RssDevice): RssConfig | Refusal {
  if (!device.negotiated.rss) return refuse('RSS_CONFIG without RSS');
  if (bytes.length < TABLE_OFFSET) return refuse(tooShort('RSS_CONFIG', bytes, TABLE_OFFSET));
  const view = viewOf(bytes);
  const length = view.getUint16(4, true) + 1;
  if ((length & (length - 1)) !== 0) return refuse(`table of ${length} entries, no power of two`);
  if (length > device.maxTableLength) {
    return refuse(`table of ${length} entries, more than ${device.maxTableLength}`);
  }
  const unclassifiedQueue = view.getUint16(6, true);
  if (unclassifiedQueue >= device.maxQueuePairs) {
    return refuse(`unclassified queue ${unclassifiedQueue} of ${device.maxQueuePairs}`);
  }
  const end = TABLE_OFFSET + 2 * length;
  if (bytes.length < end) return refuse(tooShort('table', bytes, end));
  const table = Uint16Array.from({ length }, (_, i) => view.getUint16(TABLE_OFFSET + 2 * i, true));
  if (bytes.length < end + 3) return refuse(tooShort('max_tx_vq and key length', bytes, end + 3));
  const maxTxVq = view.getUint16(end, true);
  if (maxTxVq === 0 || maxTxVq > device.maxQueuePairs) {
    return refuse(`max_tx_vq ${maxTxVq}, not 1 to ${device.maxQueuePairs}`);
  }
  const hashTypes = view.getUint32(0, true);
  const key = parseKey(bytes, end + 2, hashTypes, device);
  return isRefusal(key) ? key : { hashTypes, unclassifiedQueue, table, maxTxVq, key };
}

export function parseHashConfig(bytes: Uint8Array, device: RssDevice): HashConfig | Refusal {
  if (!device.negotiated.hashReport) return refuse('HASH_CONFIG without HASH_REPORT');
  const keyLengthAt = TABLE_OFFSET + 4;
  if (bytes.length <= keyLengthAt) {
    return refuse(tooShort('HASH_CONFIG', bytes, keyLengthAt + 1));
  }
  const hashTypes = viewOf(bytes).getUint32(0, true);
  const key = parseKey(bytes, keyLengthAt, hashTypes, device);
  return isRefusal(key) ? key : { hashTypes, key };
}

/** keylen u8 at `at`, then the key. An empty one turns hashing off, so it goes with no types only. */
function parseKey(
  bytes: Uint8Array,
  at: number,
  hashTypes: number,
  device: RssDevice,
): Uint8Array | Refusal {
  const length = bytes[at] ?? 0;
  if (length > device.maxKeySize) {
    return refuse(`key of ${length} bytes, more than ${device.maxKeySize}`);
  }
  if (length === 0 && hashTypes !== 0) {
    return refuse(`hash types 0x${hashTypes.toString(16)} without a key`);
  }
  if (bytes.length < at + 1 + length) return refuse(tooShort('key', bytes, at + 1 + length));
  return bytes.slice(at + 1, at + 1 + length);
}

function tooShort(what: string, bytes: Uint8Array, needed: number): string {
  return `${what} cut: ${needed} bytes needed, ${bytes.length} sent`;
}

/** enabled_tunnel_types of a class 7 command. A device knows no other bits than it supports. */
export function parseHashTunnelSet(
  command: number,
  bytes: Uint8Array,
  device: RssDevice,
): number | Refusal {
  if (!device.negotiated.hashTunnel) return refuse('class 7 without HASH_TUNNEL');
  if (command !== VIRTIO_NET_CTRL_HASH_TUNNEL_SET) {
    return refuse(`command ${command} of class HASH_TUNNEL is unknown`);
  }
  if (bytes.length < 4) return refuse(tooShort('enabled_tunnel_types', bytes, 4));
  const types = viewOf(bytes).getUint32(0, true);
  const unknown = types & ~device.supportedTunnelTypes;
  if (unknown !== 0) {
    const names = bitNames(unknown, VIRTIO_NET_HASH_TUNNEL_TYPE).join(', ');
    return refuse(`tunnel types not supported: ${names}`);
  }
  return types;
}

/** Payload of VQ_PAIRS_SET. */
export function buildVqPairsSet(pairs: number): Uint8Array {
  return Uint8Array.of(pairs & 0xff, pairs >>> 8);
}

/** Payload of RSS_CONFIG: 8 + 2 * entries + 3 + key bytes. */
export function buildRssConfig(config: RssConfig): Uint8Array {
  const end = TABLE_OFFSET + 2 * config.table.length;
  const bytes = new Uint8Array(end + 3 + config.key.length);
  const view = viewOf(bytes);
  view.setUint32(0, config.hashTypes, true);
  view.setUint16(4, config.table.length - 1, true);
  view.setUint16(6, config.unclassifiedQueue, true);
  for (const [i, queue] of config.table.entries())
    view.setUint16(TABLE_OFFSET + 2 * i, queue, true);
  view.setUint16(end, config.maxTxVq, true);
  bytes[end + 2] = config.key.length;
  bytes.set(config.key, end + 3);
  return bytes;
}

/** Payload of HASH_CONFIG: 13 + key bytes. */
export function buildHashConfig(config: HashConfig): Uint8Array {
  const bytes = new Uint8Array(TABLE_OFFSET + 5 + config.key.length);
  viewOf(bytes).setUint32(0, config.hashTypes, true);
  bytes[TABLE_OFFSET + 4] = config.key.length;
  bytes.set(config.key, TABLE_OFFSET + 5);
  return bytes;
}

/** Payload of HASH_TUNNEL_SET. */
export function buildHashTunnelSet(types: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, types, true);
  return bytes;
}

/** What a driver must not send, though a device may take it: the first broken rule. */
export function driverProblem(config: RssConfig, device: RssDevice): string | undefined {
  const { length } = config.table;
  if (length === 0 || (length & (length - 1)) !== 0) {
    return `table of ${length} entries, no power of two`;
  }
  if (length > device.maxTableLength) {
    return `table of ${length} entries, more than ${device.maxTableLength}`;
  }
  const entry = config.table.findIndex((queue) => queue >= device.maxQueuePairs);
  if (entry >= 0) {
    return `table entry ${entry} names queue ${config.table[entry]} of ${device.maxQueuePairs}`;
  }
  const unknown = config.hashTypes & ~device.supportedHashTypes;
  if (unknown !== 0) {
    return `hash types not supported: ${bitNames(unknown, VIRTIO_NET_HASH_TYPE).join(', ')}`;
  }
  if (config.key.length > device.maxKeySize) {
    return `key of ${config.key.length} bytes, more than ${device.maxKeySize}`;
  }
  return undefined;
}

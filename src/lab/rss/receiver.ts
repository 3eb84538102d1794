/**
 * A device with receive-side scaling as the command line describes it: commands sent, frames steered.
 *
 * The settings go the way that a driver's go: RSS_CONFIG, and for inner hash HASH_TUNNEL_SET or, in the
 * v7 form, bits of hash_types. What the device refuses, or a driver must not send, is an InputError.
 *
 * Usage:
 *   const receiver = new RssReceiver({ ...DEFAULT_SETTINGS, tunnelTypes: 1 });
 *   receiver.queueOf(frame);
 *   receiver.result.inner;
 */
import { InputError } from '../../common/errors.js';
import {
  applyRssCommand,
  buildHashTunnelSet,
  buildRssConfig,
  driverProblem,
  resetRssState,
  VIRTIO_NET_CTRL_HASH_TUNNEL,
  VIRTIO_NET_CTRL_HASH_TUNNEL_SET,
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_CTRL_MQ_RSS_CONFIG,
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX,
  type RssDevice,
  type RssState,
} from '../../net/rss/config.js';
import { ReceiveHasher, v7HashTypes, type ReceiveHash } from '../../net/rss/receive-hash.js';
import { defaultTable, Steering } from '../../net/rss/steering.js';
import { MICROSOFT_KEY } from '../../net/rss/toeplitz.js';
import type { TunnelPorts } from '../../net/rss/tunnel.js';
import {
  ALL_HASH_TYPES,
  ALL_TUNNEL_TYPES,
  VIRTIO_NET_HASH_TYPE_INNER,
  type InnerHashForm,
} from '../../net/rss/types.js';

export interface RssSettings {
  /** Receive queues: queue pairs of the device, all in use. */
  readonly queues: number;
  readonly key: Readonly<Uint8Array>;
  readonly hashTypes: number;
  /** Tunnels whose inner headers are hashed; 0: none. */
  readonly tunnelTypes: number;
  readonly form: InnerHashForm;
  /** Default: `tableLength` entries, entry i names queue i modulo the queues. */
  readonly table?: readonly number[];
  /** Default 128. */
  readonly tableLength?: number;
  /** Where frames without a hash go. Default 0. */
  readonly unclassifiedQueue?: number;
  /** Default: the assigned ones. */
  readonly ports?: TunnelPorts;
  /** Hash IPv6 as QEMU does: _EX types preferred, ports of atomic fragments hidden. Default false. */
  readonly qemu?: boolean;
}

/** What section "Hash calculation" starts from: eight queues, all types, no inner hash. */
export const DEFAULT_SETTINGS: RssSettings = {
  queues: 8,
  key: MICROSOFT_KEY,
  hashTypes: ALL_HASH_TYPES,
  tunnelTypes: 0,
  form: 'final',
};

const V7_BITS = Object.values(VIRTIO_NET_HASH_TYPE_INNER).reduce((all, bit) => all | bit, 0);

export class RssReceiver {
  readonly state: RssState;
  readonly #hasher: ReceiveHasher;
  readonly #steering: Steering;

  constructor(settings: RssSettings) {
    this.state = configure(settings);
    this.#hasher = new ReceiveHasher({
      key: this.state.config.key,
      hashTypes: this.state.config.hashTypes,
      form: settings.form,
      tunnelTypes: this.state.tunnelTypes,
      qemuIpv6ExQuirk: settings.qemu ?? false,
      qemuAtomicFragments: settings.qemu ?? false,
      ...(settings.ports ? { ports: settings.ports } : {}),
    });
    this.#steering = new Steering(this.state);
  }

  /** Of the last frame. */
  get result(): ReceiveHash {
    return this.#hasher.result;
  }

  queueOf(frame: Uint8Array): number {
    return this.#steering.queueOf(this.#hasher.compute(frame));
  }
}

/** A device that can do all that virtio allows. */
function deviceOf({ queues, form }: RssSettings): RssDevice {
  return {
    maxQueuePairs: queues,
    maxKeySize: 255,
    maxTableLength: VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX,
    supportedHashTypes: form === 'v7' ? ALL_HASH_TYPES | V7_BITS : ALL_HASH_TYPES,
    supportedTunnelTypes: ALL_TUNNEL_TYPES,
    negotiated: { mq: true, rss: true, hashReport: true, hashTunnel: form === 'final' },
  };
}

function configure(settings: RssSettings): RssState {
  const { queues, form, tunnelTypes } = settings;
  const device = deviceOf(settings);
  if (settings.key.length > device.maxKeySize) {
    throw new InputError(`key of ${settings.key.length} bytes: at most ${device.maxKeySize} fit`);
  }
  const big = settings.table?.find((queue) => queue > 0xffff);
  if (big !== undefined) throw new InputError(`table names queue ${big} of ${queues}`);
  const config = {
    hashTypes: settings.hashTypes | (form === 'v7' ? v7HashTypes(tunnelTypes) : 0),
    unclassifiedQueue: settings.unclassifiedQueue ?? 0,
    table: settings.table
      ? Uint16Array.from(settings.table)
      : defaultTable(settings.tableLength ?? 128, queues),
    maxTxVq: queues,
    key: Uint8Array.from(settings.key),
  };
  const problem = driverProblem(config, device);
  if (problem !== undefined) throw new InputError(`RSS_CONFIG: ${problem}`);
  const commands = [
    ['RSS_CONFIG', VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_RSS_CONFIG, buildRssConfig(config)],
    [
      'HASH_TUNNEL_SET',
      VIRTIO_NET_CTRL_HASH_TUNNEL,
      VIRTIO_NET_CTRL_HASH_TUNNEL_SET,
      buildHashTunnelSet(tunnelTypes),
    ],
  ] as const;
  let state = resetRssState();
  for (const [name, commandClass, command, bytes] of commands) {
    if (commandClass === VIRTIO_NET_CTRL_HASH_TUNNEL && form !== 'final') continue;
    const result = applyRssCommand(state, commandClass, command, bytes, device);
    if (result.ack === 'ERR') throw new InputError(`${name}: ${result.why}`);
    ({ state } = result);
  }
  return state;
}

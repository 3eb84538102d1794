/**
 * The commands that give a device the state which a guest programmed: live migration, start after stop.
 *
 * Reference: QEMU 10.0 net/vhost-vdpa.c (vhost_vdpa_net_cvq_load and the functions it calls). What a device has
 * after a reset is not sent, but for the MAC address and the queue pairs. An overflown address table is
 * restored as what it means, PROMISC or ALLMULTI. QEMU leaves RSS out when MQ was not negotiated, and RSS with
 * no hash types always. Leaves out, as QEMU: coalescing, announcements, HASH_TUNNEL, statistics.
 *
 * Usage:
 *   for (const command of restoreCommands(state, features, false)) send(command);
 */
import { viewOf } from '../common/bytes.js';
import { concatBytes } from '../net/packet.js';
import { buildHashConfig, buildRssConfig, buildVqPairsSet } from '../net/rss/config.js';
import {
  VIRTIO_NET_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_CTRL_MAC_TABLE_SET,
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_CTRL_MQ_HASH_CONFIG,
  VIRTIO_NET_CTRL_MQ_RSS_CONFIG,
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_CTRL_VLAN_ADD,
} from '../virtio/device/control/commands.js';
import {
  negotiatedOffloads,
  type ControlState,
  type RxMode,
} from '../virtio/device/control/state.js';
import { hasFeature } from '../virtio/net-features.js';

/** Bytes of a hash key in QEMU's state. */
const RSS_KEY_BYTES = 40;

/** Commands of class RX, in the order of their numbers, from the second on. */
const RX_EXTRA: readonly (keyof RxMode)[] = ['alluni', 'nomulti', 'nouni', 'nobcast'];
const FIRST_RX_EXTRA = 2;

type Step = (state: ControlState, features: bigint, needsMq: boolean) => Uint8Array[];

const STEPS: readonly Step[] = [macAddress, macTable, queues, offloads, rxMode, vlans];

/** `needsMq`: RSS is left out without MQ, as QEMU does. */
export function restoreCommands(
  state: ControlState,
  features: bigint,
  needsMq: boolean,
): readonly Uint8Array[] {
  return STEPS.flatMap((step) => step(state, features, needsMq));
}

/** The state that a device has after the commands: that of the source, said in other words. */
export function asRestored(state: ControlState): ControlState {
  const { rx, macTable: table, rss } = state;
  const isHashing = rss.mode !== 'automatic' && rss.config.hashTypes !== 0;
  return {
    ...state,
    rx: {
      ...rx,
      promisc: rx.promisc || table.uniOverflow,
      allmulti: rx.allmulti || table.multiOverflow,
    },
    macTable: { ...table, uniOverflow: false, multiOverflow: false },
    announce: false,
    coalescing: new Map(),
    rss: isHashing
      ? { ...rss, config: { ...rss.config, key: paddedKey(rss.config.key) }, tunnelTypes: 0 }
      : { ...rss, mode: 'automatic', tunnelTypes: 0 },
  };
}

/** Whether two devices do the same with frames. */
export function sameState(a: ControlState, b: ControlState): boolean {
  return plainText(asRestored(a)) === plainText(asRestored(b));
}

function plainText(state: ControlState): string {
  return JSON.stringify(state, (_key, value: unknown) => {
    if (typeof value === 'bigint') return value.toString(16);
    if (value instanceof Set) return [...value].toSorted();
    return value instanceof Map ? [...value] : value;
  });
}

function command(commandClass: number, number: number, ...data: Uint8Array[]): Uint8Array {
  return concatBytes(Uint8Array.of(commandClass, number), ...data);
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value, true);
  return bytes;
}

function paddedKey(key: Uint8Array): Uint8Array {
  const padded = new Uint8Array(RSS_KEY_BYTES);
  padded.set(key.subarray(0, RSS_KEY_BYTES));
  return padded;
}

function macAddress(state: ControlState, features: bigint): Uint8Array[] {
  if (!hasFeature(features, 'CTRL_MAC_ADDR')) return [];
  return [command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, state.mac)];
}

function macTable({ macTable: table }: ControlState, features: bigint): Uint8Array[] {
  const { unicast, multicast } = table;
  if (!hasFeature(features, 'CTRL_RX') || unicast.length + multicast.length === 0) return [];
  const data = [u32(unicast.length), ...unicast, u32(multicast.length), ...multicast];
  return [command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, ...data)];
}

function queues({ rss }: ControlState, features: bigint, needsMq: boolean): Uint8Array[] {
  const commands: Uint8Array[] = [];
  if (hasFeature(features, 'MQ')) {
    const pairs = buildVqPairsSet(rss.queuePairs);
    commands.push(command(VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, pairs));
  } else if (needsMq) {
    return commands;
  }
  const { mode, config } = rss;
  if (mode === 'automatic' || config.hashTypes === 0) return commands;
  const padded = { ...config, key: paddedKey(config.key) };
  if (mode === 'rss' && hasFeature(features, 'RSS')) {
    const data = buildRssConfig(padded);
    commands.push(command(VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_RSS_CONFIG, data));
  } else if (mode === 'hash' && hasFeature(features, 'HASH_REPORT')) {
    const data = buildHashConfig(padded);
    commands.push(command(VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_HASH_CONFIG, data));
  }
  return commands;
}

function offloads(state: ControlState, features: bigint): Uint8Array[] {
  if (!hasFeature(features, 'CTRL_GUEST_OFFLOADS')) return [];
  if (state.offloads === negotiatedOffloads(features)) return [];
  const mask = new Uint8Array(8);
  viewOf(mask).setBigUint64(0, state.offloads, true);
  return [command(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, mask)];
}

function rxMode({ rx, macTable: table }: ControlState, features: bigint): Uint8Array[] {
  const commands: Uint8Array[] = [];
  const set = (number: number, on: number): void =>
    void commands.push(Uint8Array.of(VIRTIO_NET_CTRL_RX, number, on));
  if (hasFeature(features, 'CTRL_RX')) {
    if (!rx.promisc && !table.uniOverflow) set(0, 0);
    if (rx.allmulti || table.multiOverflow) set(1, 1);
  }
  if (hasFeature(features, 'CTRL_RX_EXTRA')) {
    for (const [i, mode] of RX_EXTRA.entries()) if (rx[mode]) set(FIRST_RX_EXTRA + i, 1);
  }
  return commands;
}

function vlans(state: ControlState, features: bigint): Uint8Array[] {
  if (!hasFeature(features, 'CTRL_VLAN') || state.vlans === 'all') return [];
  return [...state.vlans]
    .toSorted((a, b) => a - b)
    .map((id) =>
      command(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, Uint8Array.of(id & 0xff, id >> 8)),
    );
}

/** Addresses of either kind that overflow a device's table. */
const TOO_MANY = 65;

/** A TABLE_SET after which a table counts as overflown: what the model is told for one that was too long. */
export function overflownTable(): Uint8Array {
  const addresses = new Uint8Array(6 * TOO_MANY);
  const part = [u32(TOO_MANY), addresses];
  return command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, ...part, ...part);
}

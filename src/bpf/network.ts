/**
 * The little of a network that helpers and maps ask about: devices, routes, neighbours, sockets.
 *
 * All of it is settable and starts as a machine with nothing but its loopback device. What a routing
 * table decides by is here the longest matching prefix alone. Reference: struct net_device,
 * bpf_fib_lookup in net/core/filter.c. Left out: namespaces, rules, multipath, VLAN devices.
 *
 * Usage:
 *   const network = new Network();
 *   network.addDevice({ ifindex: 2, name: 'eth0', mtu: 1500, mac: hexToBytes('525400123456') });
 *   network.addRoute({ prefix: hexToBytes('0a000000'), length: 8, ifindex: 2 });
 *   network.sockets.add({ protocol: 'tcp', local: { address: new Uint8Array(4), port: 80 } });
 */

import { SocketTable } from './socket-table.js';

export interface NetDevice {
  readonly ifindex: number;
  readonly name: string;
  readonly mtu: number;
  /** 6 bytes. */
  readonly mac: Uint8Array;
  /** Link-layer bytes in front of the MTU. Default: 14. */
  readonly headerLength?: number;
  /** Whether packets that come in here are forwarded. Default: false. */
  readonly forwarding?: boolean;
}

export interface Route {
  /** Network, 4 or 16 bytes. */
  readonly prefix: Uint8Array;
  /** Bits of the prefix. */
  readonly length: number;
  /** Default: forwarded. */
  readonly kind?: 'unicast' | 'local' | 'blackhole' | 'unreachable' | 'prohibit';
  readonly ifindex: number;
  /** Next hop; absent when the destination is on the link. */
  readonly gateway?: Uint8Array;
  /** Default: the device's. */
  readonly mtu?: number;
  /** Source address for BPF_FIB_LOOKUP_SRC. */
  readonly source?: Uint8Array;
}

export interface Neighbour {
  readonly ifindex: number;
  readonly address: Uint8Array;
  /** 6 bytes. */
  readonly mac: Uint8Array;
}

/** What a device knows of a received packet, for the metadata kfuncs. */
export interface RxMetadata {
  /** Nanoseconds. */
  readonly timestamp?: bigint;
  /** null: the device would know, but reports none. */
  readonly hash?: { readonly value: number; readonly type: number } | null;
  /** null: the device would know, but the packet has no tag. */
  readonly vlan?: { readonly protocol: number; readonly tci: number } | null;
}

/** What the drivers of devices answer, for packets that came through one. */
export interface XdpMetadataOps {
  /**
   * `xmo_rx_hash` of the device of the xdp_buff at a physical address: 0 with hash and type at the other two, or a
   * negative errno; undefined: it is of no registered device.
   */
  rxHash(xdp: number, hash: number, rssType: number): number | undefined;
}

const LOOPBACK: NetDevice = { ifindex: 1, name: 'lo', mtu: 65536, mac: new Uint8Array(6) };

export class Network {
  readonly #devices = new Map<number, NetDevice>([[LOOPBACK.ifindex, LOOPBACK]]);
  readonly #routes: Route[] = [];
  readonly #neighbours: Neighbour[] = [];
  readonly sockets = new SocketTable();
  /** net.ipv4.tcp_syncookies: 0 never, 1 when a listener's queue is full, 2 always. */
  synCookies: 0 | 1 | 2 = 1;
  /** Set by the network stack, where there is one. */
  xdpMetadata: XdpMetadataOps | undefined;
  /** Metadata of packets that no driver knows; empty: there is none. */
  rxMetadata: RxMetadata = {};

  get devices(): readonly NetDevice[] {
    return [...this.#devices.values()];
  }

  device(ifindex: number): NetDevice | undefined {
    return this.#devices.get(ifindex);
  }

  addDevice(device: NetDevice): void {
    this.#devices.set(device.ifindex, device);
  }

  removeDevice(ifindex: number): void {
    this.#devices.delete(ifindex);
  }

  addRoute(route: Route): void {
    this.#routes.push(route);
  }

  addNeighbour(neighbour: Neighbour): void {
    this.#neighbours.push(neighbour);
  }

  /** The route with the longest prefix of `address`. */
  route(address: Uint8Array): Route | undefined {
    let best: Route | undefined;
    for (const route of this.#routes) {
      if (route.prefix.length !== address.length || !isPrefix(route, address)) continue;
      if (!best || route.length > best.length) best = route;
    }
    return best;
  }

  neighbour(ifindex: number, address: Uint8Array): Neighbour | undefined {
    return this.#neighbours.find(
      (each) =>
        each.ifindex === ifindex &&
        each.address.length === address.length &&
        each.address.every((byte, i) => byte === address[i]),
    );
  }
}

function isPrefix({ prefix, length }: Route, address: Uint8Array): boolean {
  for (let bit = 0; bit < length; bit += 8) {
    const mask = (0xff00 >> Math.min(8, length - bit)) & 0xff;
    if ((((prefix[bit / 8] ?? 0) ^ (address[bit / 8] ?? 0)) & mask) !== 0) return false;
  }
  return true;
}

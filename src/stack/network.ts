/**
 * A network namespace for experiments: addresses, routes, sockets in; datagrams and counters out.
 *
 * The facade over `net.ts`. Devices join it when they are made. Text addresses: `10.0.0.2`, `fd00::2`.
 *
 * Usage:
 *   const network = createNetwork(kernel);
 *   network.addAddress('10.0.0.2');
 *   network.addRoute({ to: '10.0.9.0/24', dev, neighbour: mac });
 *   network.bindUdp(2000);
 *   network.received();    // [{ length: 12, data }]
 *   network.counters();    // { IpInReceives: 1, ... }
 */
import { InputError } from '../common/errors.js';
import type { KernelContext } from '../kernel/function.js';
import { parseIpv4, parseIpv6 } from '../net/address.js';
import { createPageTable, livePages } from './pages.js';
import { IPPROTO } from './headers.js';
import { NET_DEVICE } from './net-device.js';
import {
  AF_INET,
  AF_INET6,
  FIB_INFO,
  IN_IFADDR,
  NET,
  SOCK,
  addToList,
  mib,
  type MibName,
} from './net.js';
import { freeSkb, skbBytes } from './skb.js';

export interface NetworkOptions {
  /** As 6.8 and later count what is sent. Default true. */
  readonly outTransmits?: boolean;
}

export interface Route {
  /** Address with prefix length: `10.0.9.0/24`. */
  readonly to: string;
  /** Physical address of the net_device. */
  readonly dev: number;
  /** Ethernet address of the next hop. */
  readonly neighbour: Uint8Array;
}

export class Network {
  /** Physical address of `struct net`. */
  readonly net: number;
  readonly #kernel: KernelContext;
  readonly #sockets: number[] = [];

  /** Use `createNetwork`. */
  constructor(kernel: KernelContext, options: NetworkOptions) {
    const { ram } = kernel.memory;
    this.#kernel = kernel;
    this.net = kernel.physical.alloc(NET.size);
    ram.setPointer(this.net + NET.offset.pages, createPageTable(kernel));
    ram.set8(this.net + NET.offset.out_transmits, (options.outTransmits ?? true) ? 1 : 0);
  }

  /** An address of this host. */
  addAddress(address: string): void {
    const { ram } = this.#kernel.memory;
    const bytes = addressBytes(address);
    const entry = addToList(this.#kernel, this.net + NET.offset.addresses, IN_IFADDR.size);
    ram.set16(entry + IN_IFADDR.offset.family, familyOf(bytes));
    ram.bytes.set(bytes, entry + IN_IFADDR.offset.address);
  }

  addRoute({ to, dev, neighbour }: Route): void {
    const { ram } = this.#kernel.memory;
    const [address = '', length] = to.split('/');
    const bytes = addressBytes(address);
    const prefix = length === undefined ? 8 * bytes.length : Number(length);
    if (!Number.isInteger(prefix) || prefix < 0 || prefix > 8 * bytes.length) {
      throw new InputError(`route ${to}: prefix of ${length} bits`);
    }
    const route = addToList(this.#kernel, this.net + NET.offset.routes, FIB_INFO.size);
    ram.setPointer(route + FIB_INFO.offset.dev, dev);
    ram.set16(route + FIB_INFO.offset.family, familyOf(bytes));
    ram.set8(route + FIB_INFO.offset.prefix, prefix);
    ram.bytes.set(bytes, route + FIB_INFO.offset.address);
    ram.bytes.set(neighbour.subarray(0, 6), route + FIB_INFO.offset.neighbour);
  }

  /** A UDP socket on a port, any address. */
  bindUdp(port: number): void {
    this.#sockets.push(this.#socket(IPPROTO.UDP, port));
  }

  /** A TCP listener on a port, any address. */
  listenTcp(port: number): void {
    this.#socket(IPPROTO.TCP, port);
  }

  /** IPIP packets to this host are taken apart. */
  openTunnel(): void {
    const { memory, physical } = this.#kernel;
    const dev = physical.alloc(NET_DEVICE.size);
    memory.ram.bytes.set(new TextEncoder().encode('tunl0'), dev + NET_DEVICE.offset.name);
    memory.ram.setPointer(dev + NET_DEVICE.offset.nd_net, this.net);
    memory.ram.setPointer(this.net + NET.offset.tunnel, dev);
  }

  /** Reads all datagrams that have arrived. */
  received(): readonly Uint8Array[] {
    const { ram } = this.#kernel.memory;
    const pages = ram.pointer(this.net + NET.offset.pages);
    const datagrams: Uint8Array[] = [];
    for (const sock of this.#sockets) {
      for (;;) {
        const skb = this.#kernel.invoke('udp_recvmsg', sock);
        if (skb === 0) break;
        datagrams.push(skbBytes(ram, skb));
        freeSkb(this.#kernel, pages, skb);
      }
    }
    return datagrams;
  }

  /** So much time passes that a SYN which nobody followed up is forgotten. */
  expireRequests(): void {
    this.#clear('requests');
  }

  counters(): Readonly<Record<MibName, number>> {
    return mib(this.#kernel.memory.ram, this.net);
  }

  /** Page chunks that have references. */
  get chunks(): number {
    const { ram } = this.#kernel.memory;
    return livePages(ram, ram.pointer(this.net + NET.offset.pages));
  }

  /** Gives everything back; its devices are closed before. */
  close(): void {
    this.received();
    const { memory, physical } = this.#kernel;
    const { ram } = memory;
    for (const list of ['addresses', 'routes', 'sockets', 'requests'] as const) this.#clear(list);
    const tunnel = ram.pointer(this.net + NET.offset.tunnel);
    if (tunnel !== 0) physical.free(tunnel);
    physical.free(ram.pointer(this.net + NET.offset.pages));
    physical.free(this.net);
  }

  #clear(list: 'addresses' | 'routes' | 'sockets' | 'requests'): void {
    const { memory, physical } = this.#kernel;
    const { ram } = memory;
    const head = this.net + NET.offset[list];
    for (let entry = ram.pointer(head); entry !== 0;) {
      const next = ram.pointer(entry);
      physical.free(entry);
      entry = next;
    }
    ram.setPointer(head, 0);
  }

  #socket(protocol: number, port: number): number {
    const { ram } = this.#kernel.memory;
    const sock = addToList(this.#kernel, this.net + NET.offset.sockets, SOCK.size);
    ram.set8(sock + SOCK.offset.protocol, protocol);
    ram.set16(sock + SOCK.offset.port, port);
    return sock;
  }
}

export function createNetwork(kernel: KernelContext, options: NetworkOptions = {}): Network {
  return new Network(kernel, options);
}

function addressBytes(text: string): Uint8Array {
  return text.includes(':') ? parseIpv6(text) : parseIpv4(text);
}

function familyOf(bytes: Uint8Array): number {
  return bytes.length === 4 ? AF_INET : AF_INET6;
}

/**
 * `struct net`: what a network namespace knows. Addresses, routes, sockets, SNMP counters.
 *
 * Everything lies in kernel memory, in lists that the experiment fills (`network.ts`). A route names
 * its device and the neighbour's Ethernet address, so that no ARP is needed. Counters have the names of
 * /proc/net/snmp and snmp6 with their group in front, as nstat prints them. Leaves out per-CPU counters,
 * policy routing, route caches.
 *
 * Usage:
 *   const route = fibLookup(ram, net, AF_INET, iph + IPV4.daddr);   // 0: none
 *   count(ram, net, 'IpInReceives');
 */
import { struct } from '../common/struct.js';
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';

export const AF_INET = 2;
export const AF_INET6 = 10;

/** SNMP counters, u64 each. */
export const MIB_NAMES = [
  'IpInReceives',
  'IpInHdrErrors',
  'IpInAddrErrors',
  'IpForwDatagrams',
  'IpInUnknownProtos',
  'IpInDiscards',
  'IpInDelivers',
  'IpOutRequests',
  'IpOutTransmits',
  'IpFragFails',
  'IpExtInTruncatedPkts',
  'IpExtInCsumErrors',
  'TcpInSegs',
  'TcpOutSegs',
  'TcpRetransSegs',
  'TcpInErrs',
  'TcpInCsumErrors',
  'UdpInDatagrams',
  'UdpNoPorts',
  'UdpInErrors',
  'UdpInCsumErrors',
  'Ip6InReceives',
  'Ip6InHdrErrors',
  'Ip6InTooBigErrors',
  'Ip6InTruncatedPkts',
  'Ip6InAddrErrors',
  'Ip6InUnknownProtos',
  'Ip6InDelivers',
  'Ip6OutForwDatagrams',
  'Ip6OutRequests',
  'Ip6OutTransmits',
  'Udp6InDatagrams',
  'Udp6NoPorts',
  'Udp6InErrors',
  'Udp6InCsumErrors',
] as const;

export type MibName = (typeof MIB_NAMES)[number];

const MIB = struct(
  Object.fromEntries(MIB_NAMES.map((name) => [name, 'u64'])) as Record<MibName, 'u64'>,
);

export const NET = struct({
  /** Root of the table of page chunks that all skbs of the namespace use. */
  pages: 'u64',
  /** Lists: `struct in_ifaddr`, `struct fib_info`, `struct sock`, `struct request_sock`. */
  addresses: 'u64',
  routes: 'u64',
  sockets: 'u64',
  requests: 'u64',
  /** net_device of the IPIP tunnel, or 0. */
  tunnel: 'u64',
  /** Since 6.8 what is sent counts as OutTransmits, forwarded packets are no OutRequests. */
  out_transmits: 'u8',
  /** Sequence number of the next SYN-ACK. */
  isn: 'u32',
  mib: MIB.size,
});

/** An address of this host; 16 bytes, IPv4 in the first four. */
export const IN_IFADDR = struct({ next: 'u64', family: 'u16', address: 16 });

/** A route with its neighbour. */
export const FIB_INFO = struct({
  next: 'u64',
  dev: 'u64',
  family: 'u16',
  prefix: 'u8',
  address: 16,
  neighbour: 8,
});

/** A bound UDP socket or TCP listener; any address, both families. */
export const SOCK = struct({
  next: 'u64',
  protocol: 'u8',
  port: 'u16',
  /** Received skbs, linked by sk_buff.next. */
  queue_head: 'u64',
  queue_tail: 'u64',
});

const N = NET.offset;

/** Counts `by` more. */
export function count(ram: Ram, net: number, name: MibName, by = 1): void {
  ram.add64(net + N.mib + MIB.offset[name], by);
}

export function mib(ram: Ram, net: number): Readonly<Record<MibName, number>> {
  const at = net + N.mib;
  return Object.fromEntries(
    MIB_NAMES.map((name) => [name, ram.u53(at + MIB.offset[name])]),
  ) as Record<MibName, number>;
}

/** Adds a zeroed object of `size` bytes, whose first field is `next`, to the list at `list`. */
export function addToList({ memory, physical }: KernelContext, list: number, size: number): number {
  const { ram } = memory;
  const object = physical.alloc(size);
  ram.setPointer(object, ram.pointer(list));
  ram.setPointer(list, object);
  return object;
}

/** Whether the address at `address` is one of this host. */
export function isLocal(ram: Ram, net: number, family: number, address: number): boolean {
  const bytes = family === AF_INET ? 4 : 16;
  const A = IN_IFADDR.offset;
  for (let entry = ram.pointer(net + N.addresses); entry !== 0; entry = ram.pointer(entry)) {
    if (ram.u16(entry + A.family) !== family) continue;
    if (samePrefix(ram, entry + A.address, address, 8 * bytes)) return true;
  }
  return false;
}

/** `fib_lookup`: the route with the longest prefix that covers the address at `address`; 0: none. */
export function fibLookup(ram: Ram, net: number, family: number, address: number): number {
  const F = FIB_INFO.offset;
  let best = 0;
  for (let route = ram.pointer(net + N.routes); route !== 0; route = ram.pointer(route)) {
    if (ram.u16(route + F.family) !== family) continue;
    const prefix = ram.u8(route + F.prefix);
    if (!samePrefix(ram, route + F.address, address, prefix)) continue;
    if (best === 0 || prefix > ram.u8(best + F.prefix)) best = route;
  }
  return best;
}

/** The socket that a datagram or a SYN to a port goes to; 0: none. */
export function findSocket(ram: Ram, net: number, protocol: number, port: number): number {
  const S = SOCK.offset;
  for (let sock = ram.pointer(net + N.sockets); sock !== 0; sock = ram.pointer(sock)) {
    if (ram.u8(sock + S.protocol) === protocol && ram.u16(sock + S.port) === port) return sock;
  }
  return 0;
}

function samePrefix(ram: Ram, a: number, b: number, bits: number): boolean {
  const whole = bits >>> 3;
  for (let i = 0; i < whole; i++) if (ram.u8(a + i) !== ram.u8(b + i)) return false;
  const rest = bits & 7;
  if (rest === 0) return true;
  return ((ram.u8(a + whole) ^ ram.u8(b + whole)) & (0xff << (8 - rest)) & 0xff) === 0;
}

/**
 * IPv4: receive, deliver to a protocol, forward, send.
 *
 * Reference: net/ipv4/ip_input.c (ip_rcv_core, ip_rcv, ip_local_deliver, ip_protocol_deliver_rcu),
 * ip_forward.c (ip_forward), ip_output.c (ip_output, __ip_local_out). The header checksum is always
 * verified in software. Leaves out options, reassembly and fragmentation, ICMP, netfilter, multicast.
 */
import type { Ram } from '../cpu/ram.js';
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { ipFastCsum, ipSendCheck } from './checksum.js';
import { PACKET } from './ethernet.js';
import { IPPROTO, IPV4, IP_MF_OFFSET, be16 } from './headers.js';
import { skbNet, skbPages, type StackHost } from './host.js';
import { NET_DEVICE } from './net-device.js';
import { AF_INET, FIB_INFO, NET, count, fibLookup, isLocal } from './net.js';
import { NET_RX_SUCCESS, refuseOn } from './refuse.js';
import {
  CHECKSUM_COMPLETE,
  CHECKSUM_NONE,
  SKB_SHARED_INFO,
  SK_BUFF,
  skbHeadroom,
  skbMayPull,
  skbPull,
  skbShinfo,
  skbTrim,
} from './skb.js';

const SKB = SK_BUFF.offset;
const DEV = NET_DEVICE.offset;
const ROUTE = FIB_INFO.offset;

/** `skb_network_header`. */
function networkHeader(ram: Ram, skb: number): number {
  return ram.pointer(skb + SKB.head) + ram.u16(skb + SKB.network_header);
}

export function ipFunctions(host: StackHost): readonly KernelFunction[] {
  const refuse = refuseOn(host);

  /** `ip_rcv_core`: the header is sound, and the skb as long as it says. */
  function ipRcv(kernel: KernelContext, skb: number, _dev: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    const pages = skbPages(kernel, skb);
    const core = 'ip_rcv_core';
    if (ram.u8(skb + SKB.pkt_type) === PACKET.OTHERHOST) {
      return refuse(kernel, skb, undefined, 'OTHERHOST', core);
    }
    count(ram, net, 'IpInReceives');
    if (!skbMayPull(kernel, pages, skb, IPV4.size)) {
      return refuse(kernel, skb, 'IpInHdrErrors', 'IP_INHDR', core);
    }
    const first = ram.u8(networkHeader(ram, skb));
    const header = (first & 15) * 4;
    if (first >> 4 !== 4 || header < IPV4.size || !skbMayPull(kernel, pages, skb, header)) {
      return refuse(kernel, skb, 'IpInHdrErrors', 'IP_INHDR', core);
    }
    const iph = networkHeader(ram, skb);
    if (ipFastCsum(ram, iph, header) !== 0) {
      count(ram, net, 'IpExtInCsumErrors');
      return refuse(kernel, skb, 'IpInHdrErrors', 'IP_CSUM', core);
    }
    const total = be16(ram, iph + IPV4.tot_len);
    if (ram.u32(skb + SKB.len) < total) {
      return refuse(kernel, skb, 'IpExtInTruncatedPkts', 'PKT_TOO_SMALL', core);
    }
    if (total < header) return refuse(kernel, skb, 'IpInHdrErrors', 'IP_INHDR', core);
    trimRcsum(kernel, pages, skb, total);
    ram.set16(skb + SKB.transport_header, skbHeadroom(ram, skb) + header);
    return kernel.invoke('ip_rcv_finish', skb);
  }

  /** Routes: to this host, or on. */
  function ipRcvFinish(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    const daddr = ram.pointer(skb + SKB.data) + IPV4.daddr;
    if (isLocal(ram, net, AF_INET, daddr)) return kernel.invoke('ip_local_deliver', skb);
    const route = fibLookup(ram, net, AF_INET, daddr);
    if (route === 0) {
      return refuse(kernel, skb, 'IpInAddrErrors', 'IP_INADDRERRORS', 'ip_rcv_finish_core');
    }
    ram.setPointer(skb + SKB.dst, route);
    return kernel.invoke('ip_forward', skb);
  }

  function ipLocalDeliver(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    const iph = ram.pointer(skb + SKB.data);
    host.nfLocalIn(skb);
    if ((be16(ram, iph + IPV4.frag_off) & IP_MF_OFFSET) !== 0) {
      return refuse(kernel, skb, undefined, 'FRAG_REASM_TIMEOUT', 'ip_defrag');
    }
    const header = (ram.u8(iph) & 15) * 4;
    skbPull(ram, skb, header);
    switch (ram.u8(iph + IPV4.protocol)) {
      case IPPROTO.TCP:
        count(ram, net, 'IpInDelivers');
        kernel.invoke('tcp_v4_rcv', skb);
        return NET_RX_SUCCESS;
      case IPPROTO.UDP:
        count(ram, net, 'IpInDelivers');
        kernel.invoke('udp_rcv', skb);
        return NET_RX_SUCCESS;
      case IPPROTO.IPIP:
        if (ram.pointer(net + NET.offset.tunnel) === 0) break;
        count(ram, net, 'IpInDelivers');
        kernel.invoke('tunnel4_rcv', skb);
        return NET_RX_SUCCESS;
      default:
        break;
    }
    return refuse(kernel, skb, 'IpInUnknownProtos', 'IP_NOPROTO', 'ip_protocol_deliver_rcu');
  }

  function ipForward(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    if (ram.u8(skb + SKB.pkt_type) !== PACKET.HOST) {
      return refuse(kernel, skb, undefined, 'NOT_SPECIFIED', 'ip_forward');
    }
    // skb_forward_csum: a sum over the packet does not hold for what leaves
    if (ram.u8(skb + SKB.ip_summed) === CHECKSUM_COMPLETE) {
      ram.set8(skb + SKB.ip_summed, CHECKSUM_NONE);
    }
    const iph = ram.pointer(skb + SKB.data);
    if (ram.u8(iph + IPV4.ttl) <= 1) {
      return refuse(kernel, skb, 'IpInHdrErrors', 'IP_INHDR', 'ip_forward');
    }
    const route = ram.pointer(skb + SKB.dst);
    if (exceedsMtu(kernel, skb, route)) {
      return refuse(kernel, skb, 'IpFragFails', 'PKT_TOO_BIG', 'ip_forward');
    }
    ram.set8(iph + IPV4.ttl, ram.u8(iph + IPV4.ttl) - 1);
    ipSendCheck(ram, iph);
    count(ram, net, 'IpForwDatagrams');
    return kernel.invoke('ip_output', skb);
  }

  /** The packet leaves: `ip_output` with ip_finish_output2. */
  function ipOutput(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    // before 6.8 forwarded packets count as requests too, others were counted when they were made
    if (ram.u8(net + NET.offset.out_transmits) !== 0) count(ram, net, 'IpOutTransmits');
    else count(ram, net, 'IpOutRequests');
    return kernel.invoke('neigh_resolve_output', skb);
  }

  /** `__ip_local_out`: a packet of this host; its header lies at the data. */
  function ipLocalOut(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    if (ram.u8(net + NET.offset.out_transmits) !== 0) count(ram, net, 'IpOutRequests');
    ipSendCheck(ram, ram.pointer(skb + SKB.data));
    return kernel.invoke('ip_output', skb);
  }

  return [
    atomic({
      prototype: 'int ip_rcv(struct sk_buff *skb, struct net_device *dev)',
      calls: true,
      body: ipRcv,
    }),
    atomic({
      prototype: 'int ip_rcv_finish(struct sk_buff *skb)',
      calls: true,
      body: ipRcvFinish,
    }),
    atomic({
      prototype: 'int ip_local_deliver(struct sk_buff *skb)',
      calls: true,
      body: ipLocalDeliver,
    }),
    atomic({ prototype: 'int ip_forward(struct sk_buff *skb)', calls: true, body: ipForward }),
    atomic({ prototype: 'int ip_output(struct sk_buff *skb)', calls: true, body: ipOutput }),
    atomic({ prototype: 'int ip_local_out(struct sk_buff *skb)', calls: true, body: ipLocalOut }),
  ];
}

/** `pskb_trim_rcsum`: a checksum over the whole packet does not hold for a part of it. */
export function trimRcsum(kernel: KernelContext, pages: number, skb: number, len: number): void {
  const { ram } = kernel.memory;
  if (len >= ram.u32(skb + SKB.len)) return;
  if (ram.u8(skb + SKB.ip_summed) === CHECKSUM_COMPLETE) {
    ram.set8(skb + SKB.ip_summed, CHECKSUM_NONE);
  }
  skbTrim(kernel, pages, skb, len);
}

/** `ip_exceeds_mtu`: segments are measured one by one when they are made. */
export function exceedsMtu(kernel: KernelContext, skb: number, route: number): boolean {
  const { ram } = kernel.memory;
  const mtu = ram.u32(ram.pointer(route + ROUTE.dev) + DEV.mtu);
  if (ram.u32(skb + SKB.len) <= mtu) return false;
  return ram.u16(skbShinfo(ram, skb) + SKB_SHARED_INFO.offset.gso_size) === 0;
}

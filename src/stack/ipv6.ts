/**
 * IPv6: receive, walk the extension headers, deliver, forward.
 *
 * Reference: net/ipv6/ip6_input.c (ip6_rcv_core, ip6_input, ip6_protocol_deliver_rcu), ip6_output.c
 * (ip6_forward, ip6_output), exthdrs.c, reassembly.c for the atomic fragment, which goes on at once. Leaves
 * out options' meaning, reassembly, ICMPv6, routing headers with segments left.
 */
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { PACKET } from './ethernet.js';
import { IP6_MF_OFFSET, IPPROTO, IPV6, be16 } from './headers.js';
import { skbNet, skbPages, type StackHost } from './host.js';
import { exceedsMtu, trimRcsum } from './ip.js';
import { AF_INET6, NET, count, fibLookup, isLocal } from './net.js';
import { NET_RX_SUCCESS, refuseOn } from './refuse.js';
import {
  CHECKSUM_COMPLETE,
  CHECKSUM_NONE,
  SK_BUFF,
  skbHeadroom,
  skbMayPull,
  skbPull,
} from './skb.js';

const SKB = SK_BUFF.offset;

export function ipv6Functions(host: StackHost): readonly KernelFunction[] {
  const refuse = refuseOn(host);

  function ipv6Rcv(kernel: KernelContext, skb: number, _dev: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    const pages = skbPages(kernel, skb);
    const core = 'ip6_rcv_core';
    if (ram.u8(skb + SKB.pkt_type) === PACKET.OTHERHOST) {
      return refuse(kernel, skb, undefined, 'OTHERHOST', core);
    }
    count(ram, net, 'Ip6InReceives');
    if (!skbMayPull(kernel, pages, skb, IPV6.size)) {
      return refuse(kernel, skb, 'Ip6InHdrErrors', 'IP_INHDR', core);
    }
    const header = ram.pointer(skb + SKB.data);
    if (ram.u8(header) >> 4 !== 6) return refuse(kernel, skb, 'Ip6InHdrErrors', 'IP_INHDR', core);
    const payload = be16(ram, header + IPV6.payload_len);
    // length 0 with a hop-by-hop header is a jumbogram, whose length stands there
    const jumbo = payload === 0 && ram.u8(header + IPV6.nexthdr) === IPPROTO.HOPOPTS;
    if (!jumbo) {
      if (payload + IPV6.size > ram.u32(skb + SKB.len)) {
        return refuse(kernel, skb, 'Ip6InTruncatedPkts', 'PKT_TOO_SMALL', core);
      }
      trimRcsum(kernel, pages, skb, payload + IPV6.size);
    }
    ram.set16(skb + SKB.transport_header, skbHeadroom(ram, skb) + IPV6.size);
    return kernel.invoke('ip6_rcv_finish', skb);
  }

  function ip6RcvFinish(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    const daddr = ram.pointer(skb + SKB.data) + IPV6.daddr;
    if (isLocal(ram, net, AF_INET6, daddr)) return kernel.invoke('ip6_input', skb);
    const route = fibLookup(ram, net, AF_INET6, daddr);
    if (route === 0) {
      return refuse(kernel, skb, 'Ip6InAddrErrors', 'IP_INADDRERRORS', 'ip6_pkt_drop');
    }
    ram.setPointer(skb + SKB.dst, route);
    return kernel.invoke('ip6_forward', skb);
  }

  function ip6Input(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    const pages = skbPages(kernel, skb);
    host.nfLocalIn(skb);
    let next = ram.u8(ram.pointer(skb + SKB.data) + IPV6.nexthdr);
    skbPull(ram, skb, IPV6.size);
    for (;;) {
      switch (next) {
        case IPPROTO.TCP:
        case IPPROTO.UDP:
          count(ram, net, 'Ip6InDelivers');
          kernel.invoke(next === IPPROTO.TCP ? 'tcp_v6_rcv' : 'udpv6_rcv', skb);
          return NET_RX_SUCCESS;
        case IPPROTO.HOPOPTS:
        case IPPROTO.ROUTING:
        case IPPROTO.DSTOPTS:
        case IPPROTO.FRAGMENT:
          break;
        default: {
          const counter = 'Ip6InUnknownProtos';
          return refuse(kernel, skb, counter, 'IP_NOPROTO', 'ip6_protocol_deliver_rcu');
        }
      }
      if (!skbMayPull(kernel, pages, skb, 8)) {
        return refuse(kernel, skb, 'Ip6InHdrErrors', 'IPV6_BAD_EXTHDR', 'ip6_input');
      }
      const at = ram.pointer(skb + SKB.data);
      const fragment = next === IPPROTO.FRAGMENT;
      if (fragment && (be16(ram, at + 2) & IP6_MF_OFFSET) !== 0) {
        return refuse(kernel, skb, undefined, 'FRAG_REASM_TIMEOUT', 'ipv6_frag_rcv');
      }
      const bytes = fragment ? 8 : (ram.u8(at + 1) + 1) * 8;
      if (!skbMayPull(kernel, pages, skb, bytes)) {
        return refuse(kernel, skb, 'Ip6InHdrErrors', 'IPV6_BAD_EXTHDR', 'ip6_input');
      }
      next = ram.u8(ram.pointer(skb + SKB.data));
      skbPull(ram, skb, bytes);
      ram.set16(skb + SKB.transport_header, skbHeadroom(ram, skb));
    }
  }

  function ip6Forward(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    if (ram.u8(skb + SKB.pkt_type) !== PACKET.HOST) {
      return refuse(kernel, skb, undefined, 'NOT_SPECIFIED', 'ip6_forward');
    }
    if (ram.u8(skb + SKB.ip_summed) === CHECKSUM_COMPLETE) {
      ram.set8(skb + SKB.ip_summed, CHECKSUM_NONE);
    }
    const header = ram.pointer(skb + SKB.data);
    if (ram.u8(header + IPV6.hop_limit) <= 1) {
      return refuse(kernel, skb, 'Ip6InHdrErrors', 'IP_INHDR', 'ip6_forward');
    }
    if (exceedsMtu(kernel, skb, ram.pointer(skb + SKB.dst))) {
      return refuse(kernel, skb, 'Ip6InTooBigErrors', 'PKT_TOO_BIG', 'ip6_forward');
    }
    ram.set8(header + IPV6.hop_limit, ram.u8(header + IPV6.hop_limit) - 1);
    count(ram, net, 'Ip6OutForwDatagrams');
    return kernel.invoke('ip6_output', skb);
  }

  function ip6Output(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    if (ram.u8(net + NET.offset.out_transmits) !== 0) count(ram, net, 'Ip6OutTransmits');
    else count(ram, net, 'Ip6OutRequests');
    return kernel.invoke('neigh_resolve_output', skb);
  }

  function ip6LocalOut(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    if (ram.u8(net + NET.offset.out_transmits) !== 0) count(ram, net, 'Ip6OutRequests');
    return kernel.invoke('ip6_output', skb);
  }

  return [
    atomic({
      prototype: 'int ipv6_rcv(struct sk_buff *skb, struct net_device *dev)',
      calls: true,
      body: ipv6Rcv,
    }),
    atomic({
      prototype: 'int ip6_rcv_finish(struct sk_buff *skb)',
      calls: true,
      body: ip6RcvFinish,
    }),
    atomic({ prototype: 'int ip6_input(struct sk_buff *skb)', calls: true, body: ip6Input }),
    atomic({ prototype: 'int ip6_forward(struct sk_buff *skb)', calls: true, body: ip6Forward }),
    atomic({ prototype: 'int ip6_output(struct sk_buff *skb)', calls: true, body: ip6Output }),
    atomic({ prototype: 'int ip6_local_out(struct sk_buff *skb)', calls: true, body: ip6LocalOut }),
  ];
}

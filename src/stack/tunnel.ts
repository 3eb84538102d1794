/**
 * IPIP tunnels: taking the outer header off.
 *
 * Reference: net/ipv4/tunnel4.c (tunnel4_rcv), ipip.c (ipip_rcv), ip_tunnel.c (ip_tunnel_rcv), which hands
 * the inner packet to GRO as received by the tunnel's device. What is known of the checksum survives: an
 * UNNECESSARY skb stays so, csum_start of a PARTIAL one counts from the head. Leaves out encapsulation,
 * the tunnel's addresses: it takes every IPIP packet.
 */
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { PACKET } from './ethernet.js';
import { ETH_P_IP } from './headers.js';
import { skbNet } from './host.js';
import { NET } from './net.js';
import { SK_BUFF, skbHeadroom } from './skb.js';

const SKB = SK_BUFF.offset;

function tunnel4Rcv(kernel: KernelContext, skb: number): number {
  const { ram } = kernel.memory;
  const tunnel = ram.pointer(skbNet(kernel, skb) + NET.offset.tunnel);
  ram.setPointer(skb + SKB.dev, tunnel);
  ram.set16(skb + SKB.network_header, skbHeadroom(ram, skb));
  ram.set16(skb + SKB.mac_header, skbHeadroom(ram, skb));
  ram.set16(skb + SKB.protocol, ETH_P_IP);
  ram.set8(skb + SKB.pkt_type, PACKET.HOST);
  kernel.invoke('napi_gro_receive', 0, skb);
  return 0;
}

export const tunnelFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'int tunnel4_rcv(struct sk_buff *skb)',
    calls: true,
    body: tunnel4Rcv,
  }),
];

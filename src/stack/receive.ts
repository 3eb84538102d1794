/**
 * The way of a received skb from the driver to its protocol.
 *
 * Reference: net/core/gro.c (napi_gro_receive, dev_gro_receive), net/ipv4/tcp_offload.c and
 * udp_offload.c (tcp4_gro_receive, udp4_gro_receive and their IPv6 twins), net/core/dev.c
 * (__netif_receive_skb_core). GRO here merges nothing, but it verifies: a TCP or UDP packet whose checksum
 * holds goes on as UNNECESSARY, one whose does not as it came. With generic XDP it is left out, as
 * netif_elide_gro has it. A device without a stack has its skbs linked into a list. Leaves out taps,
 * ingress qdiscs, RPS.
 */
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { fold } from '../net/checksum.js';
import {
  csumUnnecessary,
  incrChecksumUnnecessary,
  ipFastCsum,
  pseudoSum,
  skbChecksum,
} from './checksum.js';
import { isVlan, vlanUntag } from './ethernet.js';
import {
  ETH_P_IP,
  ETH_P_IPV6,
  IPPROTO,
  IPV4,
  IPV6,
  IP_MF_OFFSET,
  TCP,
  UDP,
  be16,
} from './headers.js';
import { dropSkb, type StackHost } from './host.js';
import { NET_DEVICE } from './net-device.js';
import { AF_INET, AF_INET6 } from './net.js';
import { SKB_SHARED_INFO, SK_BUFF, skbHeadlen, skbHeadroom, skbShinfo } from './skb.js';

const NET_RX_SUCCESS = 0;
const NET_RX_DROP = 1;
const GRO_NORMAL = 3;

const SKB = SK_BUFF.offset;
const DEV = NET_DEVICE.offset;

/** Where L4 begins, and what it is; family 0: GRO does not look into it. */
interface Flow {
  family: number;
  offset: number;
  protocol: number;
}

function dissect(kernel: KernelContext, skb: number): Flow | undefined {
  const { ram } = kernel.memory;
  const iph = ram.pointer(skb + SKB.data);
  const linear = skbHeadlen(ram, skb);
  const len = ram.u32(skb + SKB.len);
  switch (ram.u16(skb + SKB.protocol)) {
    case ETH_P_IP: {
      if (linear < IPV4.size || ram.u8(iph) !== 0x45) return undefined;
      if ((be16(ram, iph + IPV4.frag_off) & IP_MF_OFFSET) !== 0) return undefined;
      if (ipFastCsum(ram, iph, IPV4.size) !== 0) return undefined;
      if (be16(ram, iph + IPV4.tot_len) !== len) return undefined;
      return { family: AF_INET, offset: IPV4.size, protocol: ram.u8(iph + IPV4.protocol) };
    }
    case ETH_P_IPV6: {
      if (linear < IPV6.size) return undefined;
      if (be16(ram, iph + IPV6.payload_len) !== len - IPV6.size) return undefined;
      return { family: AF_INET6, offset: IPV6.size, protocol: ram.u8(iph + IPV6.nexthdr) };
    }
    default:
      return undefined;
  }
}

/** `skb_gro_checksum_validate`: marks what holds; a failure changes nothing. */
function groValidate(kernel: KernelContext, skb: number): void {
  const { ram } = kernel.memory;
  const shinfo = skbShinfo(ram, skb);
  if (ram.u16(shinfo + SKB_SHARED_INFO.offset.gso_size) !== 0) return;
  if (ram.pointer(shinfo + SKB_SHARED_INFO.offset.frag_list) !== 0) return;
  const flow = dissect(kernel, skb);
  if (!flow || csumUnnecessary(ram, skb)) return;
  const { family, offset, protocol } = flow;
  const size = protocol === IPPROTO.TCP ? TCP.size : UDP.size;
  if (protocol !== IPPROTO.TCP && protocol !== IPPROTO.UDP) return;
  if (skbHeadlen(ram, skb) < offset + size) return;
  const iph = ram.pointer(skb + SKB.data);
  const unchecked = protocol === IPPROTO.UDP && be16(ram, iph + offset + UDP.check) === 0;
  const len = ram.u32(skb + SKB.len) - offset;
  const pseudo = pseudoSum(ram, family, iph, protocol, len);
  if (!unchecked && skbChecksum(ram, skb, offset, len, fold(pseudo)) !== 0xffff) return;
  incrChecksumUnnecessary(ram, skb);
}

export function receiveStackFunctions(host: StackHost): readonly KernelFunction[] {
  function napiGroReceive(kernel: KernelContext, _napi: number, skb: number): number {
    const { ram } = kernel.memory;
    const dev = ram.pointer(skb + SKB.dev);
    host.napiGroReceiveEntry(skb);
    if (ram.pointer(dev + DEV.nd_net) === 0) {
      const tail = ram.pointer(dev + DEV.sink_tail);
      ram.setPointer(skb + SKB.next, 0);
      ram.setPointer(tail === 0 ? dev + DEV.sink_head : tail + SKB.next, skb);
      ram.setPointer(dev + DEV.sink_tail, skb);
      return GRO_NORMAL;
    }
    kernel.invoke('dev_gro_receive', skb);
    kernel.invoke('netif_receive_skb', skb);
    return GRO_NORMAL;
  }

  function netifReceiveSkb(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const dev = ram.pointer(skb + SKB.dev);
    const prog = ram.pointer(dev + DEV.xdp_prog);
    if (prog !== 0 && kernel.invoke('do_xdp_generic', prog, skb) === 0) return NET_RX_DROP;
    let protocol = ram.u16(skb + SKB.protocol);
    if (isVlan(protocol)) {
      if (vlanUntag(kernel, skb) !== 0) return unhandled(kernel, skb);
      protocol = ram.u16(skb + SKB.protocol);
    }
    ram.set16(skb + SKB.network_header, skbHeadroom(ram, skb));
    switch (protocol) {
      case ETH_P_IP:
        return kernel.invoke('ip_rcv', skb, dev);
      case ETH_P_IPV6:
        return kernel.invoke('ipv6_rcv', skb, dev);
      default:
        return unhandled(kernel, skb);
    }
  }

  function unhandled(kernel: KernelContext, skb: number): number {
    dropSkb(kernel, host, skb, 'UNHANDLED_PROTO', '__netif_receive_skb_core');
    return NET_RX_DROP;
  }

  return [
    atomic({
      prototype: 'gro_result_t napi_gro_receive(struct napi_struct *napi, struct sk_buff *skb)',
      calls: true,
      body: napiGroReceive,
    }),
    atomic({
      prototype: 'int dev_gro_receive(struct sk_buff *skb)',
      body: (kernel, skb) => {
        const { ram } = kernel.memory;
        const dev = ram.pointer(skb + SKB.dev);
        if (ram.pointer(dev + DEV.xdp_prog) === 0) groValidate(kernel, skb);
        return NET_RX_SUCCESS;
      },
    }),
    atomic({
      prototype: 'int netif_receive_skb(struct sk_buff *skb)',
      calls: true,
      body: netifReceiveSkb,
    }),
  ];
}

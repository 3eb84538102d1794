/**
 * The way out: Ethernet header, what the device cannot do in software, the driver.
 *
 * Reference: net/core/neighbour.c (neigh_resolve_output), net/core/dev.c (__dev_queue_xmit,
 * validate_xmit_skb, skb_csum_hwoffload_help, dev_hard_start_xmit, skb_checksum_help). UNNECESSARY and NONE
 * go out as they are. PARTIAL is left to a device with HW_CSUM, or with IP_CSUM / IPV6_CSUM where the field
 * is that of TCP or UDP; otherwise software completes it. Leaves out queues: every skb goes to the driver
 * at once.
 */
import { ERRNO } from '../common/errno.js';
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { checksumHelp } from './checksum.js';
import { ETH, ETH_P_IP, ETH_P_IPV6, IPPROTO, IPV6, TCP, UDP, setBe16 } from './headers.js';
import { consumeSkb, dropSkb, skbPages, type StackHost } from './host.js';
import { skbLinearize } from './linearize.js';
import {
  NETIF_F_GSO_ROBUST,
  NETIF_F_HW_CSUM,
  NETIF_F_IPV6_CSUM,
  NETIF_F_IP_CSUM,
  NETIF_F_TSO,
  NETIF_F_TSO6,
  NETIF_F_TSO_ECN,
  NET_DEVICE,
} from './net-device.js';
import { FIB_INFO } from './net.js';
import { SKB_GSO_DODGY, SKB_GSO_TCPV4, SKB_GSO_TCPV6, SKB_GSO_TCP_ECN } from './segment.js';
import { ETH_HLEN } from './skb-geometry.js';
import {
  CHECKSUM_PARTIAL,
  CHECKSUM_UNNECESSARY,
  SKB_SHARED_INFO,
  SK_BUFF,
  pskbExpandHead,
  skbHeadroom,
  skbPush,
  skbShinfo,
} from './skb.js';

/** LL_MAX_HEADER, rounded: what an skb that leaves gets in front when it has too little. */
const MORE_HEADROOM = 64;

const SKB = SK_BUFF.offset;
const DEV = NET_DEVICE.offset;
const SHINFO = SKB_SHARED_INFO.offset;
const ROUTE = FIB_INFO.offset;

/** Which feature a kind of segments needs. */
const GSO_FEATURES: readonly (readonly [number, number])[] = [
  [SKB_GSO_TCPV4, NETIF_F_TSO],
  [SKB_GSO_DODGY, NETIF_F_GSO_ROBUST],
  [SKB_GSO_TCP_ECN, NETIF_F_TSO_ECN],
  [SKB_GSO_TCPV6, NETIF_F_TSO6],
];

/** `netif_needs_gso`: software has to make the segments. */
function needsGso(kernel: KernelContext, skb: number, features: number): boolean {
  const { ram } = kernel.memory;
  const shinfo = skbShinfo(ram, skb);
  if (ram.u16(shinfo + SHINFO.gso_size) === 0) return false;
  let type = ram.u32(shinfo + SHINFO.gso_type);
  for (const [bit, feature] of GSO_FEATURES) {
    if ((type & bit) !== 0 && (features & feature) !== 0) type &= ~bit;
  }
  const summed = ram.u8(skb + SKB.ip_summed);
  return type !== 0 || (summed !== CHECKSUM_PARTIAL && summed !== CHECKSUM_UNNECESSARY);
}

/** `skb_csum_hwoffload_help`: the device completes this skb's checksum. */
function deviceCompletes(kernel: KernelContext, skb: number, features: number): boolean {
  const { ram } = kernel.memory;
  if ((features & NETIF_F_HW_CSUM) !== 0) return true;
  const offset = ram.u16(skb + SKB.csum_offset);
  if (offset !== TCP.check && offset !== UDP.check) return false;
  const protocol = ram.u16(skb + SKB.protocol);
  if (protocol === ETH_P_IP) return (features & NETIF_F_IP_CSUM) !== 0;
  if (protocol !== ETH_P_IPV6 || (features & NETIF_F_IPV6_CSUM) === 0) return false;
  const next = ram.u8(
    ram.pointer(skb + SKB.head) + ram.u16(skb + SKB.network_header) + IPV6.nexthdr,
  );
  return next === IPPROTO.TCP || next === IPPROTO.UDP;
}

export function transmitFunctions(host: StackHost): readonly KernelFunction[] {
  function neighResolveOutput(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const route = ram.pointer(skb + SKB.dst);
    const dev = ram.pointer(route + ROUTE.dev);
    if (skbHeadroom(ram, skb) < ETH_HLEN) {
      pskbExpandHead(kernel, skbPages(kernel, skb), skb, MORE_HEADROOM, 0);
    }
    const header = skbPush(ram, skb, ETH_HLEN);
    ram.set16(skb + SKB.mac_header, skbHeadroom(ram, skb));
    ram.copy(header + ETH.destination, route + ROUTE.neighbour, 6);
    ram.copy(header + ETH.source, dev + DEV.dev_addr, 6);
    setBe16(ram, header + ETH.protocol, ram.u16(skb + SKB.protocol));
    ram.setPointer(skb + SKB.dev, dev);
    return kernel.invoke('dev_queue_xmit', skb);
  }

  function devQueueXmit(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const dev = ram.pointer(skb + SKB.dev);
    let next = kernel.invoke('validate_xmit_skb', skb, dev);
    if (next === 0) {
      ram.add64(dev + DEV.tx_dropped, 1);
      return -ERRNO.ENOMEM;
    }
    while (next !== 0) {
      const one = next;
      next = ram.pointer(one + SKB.next);
      ram.setPointer(one + SKB.next, 0);
      ram.set8(dev + DEV.xmit_more, next === 0 ? 0 : 1);
      kernel.invoke('dev_hard_start_xmit', one, dev);
    }
    return 0;
  }

  /** What the driver gets: the skb, the list of its segments, or 0 when it was dropped. */
  function validateXmitSkb(kernel: KernelContext, skb: number, dev: number): number {
    const { ram } = kernel.memory;
    const features = ram.u32(dev + DEV.features);
    if (needsGso(kernel, skb, features)) {
      const segments = kernel.invoke('skb_gso_segment', skb, features);
      if (segments === 0) {
        dropSkb(kernel, host, skb, 'SKB_GSO_SEG', 'validate_xmit_skb');
        return 0;
      }
      consumeSkb(kernel, skb);
      for (let segment = segments; segment !== 0; segment = ram.pointer(segment + SKB.next)) {
        completeOrLeave(kernel, segment, features);
      }
      return segments;
    }
    const fragList = ram.pointer(skbShinfo(ram, skb) + SHINFO.frag_list) !== 0;
    // scatter-gather goes with checksum offload
    const gathers = (features & (NETIF_F_HW_CSUM | NETIF_F_IP_CSUM)) !== 0;
    if (fragList || (ram.u32(skb + SKB.data_len) > 0 && !gathers)) {
      skbLinearize(kernel, skbPages(kernel, skb), skb);
    }
    if (completeOrLeave(kernel, skb, features)) return skb;
    dropSkb(kernel, host, skb, 'SKB_CSUM', 'validate_xmit_skb');
    return 0;
  }

  /** False: a checksum that neither device nor software can complete. */
  function completeOrLeave(kernel: KernelContext, skb: number, features: number): boolean {
    const { ram } = kernel.memory;
    if (ram.u8(skb + SKB.ip_summed) !== CHECKSUM_PARTIAL) return true;
    if (deviceCompletes(kernel, skb, features)) return true;
    return kernel.invoke('skb_checksum_help', skb) === 0;
  }

  return [
    atomic({
      prototype: 'int neigh_resolve_output(struct sk_buff *skb)',
      calls: true,
      body: neighResolveOutput,
    }),
    atomic({
      prototype: 'int dev_queue_xmit(struct sk_buff *skb)',
      calls: true,
      body: devQueueXmit,
    }),
    atomic({
      prototype: 'struct sk_buff *validate_xmit_skb(struct sk_buff *skb, struct net_device *dev)',
      calls: true,
      body: validateXmitSkb,
    }),
    atomic({
      prototype: 'int skb_checksum_help(struct sk_buff *skb)',
      body: (kernel, skb) => (checksumHelp(kernel, skbPages(kernel, skb), skb) ? 0 : -ERRNO.EINVAL),
    }),
    atomic({
      prototype: 'int dev_hard_start_xmit(struct sk_buff *skb, struct net_device *dev)',
      calls: true,
      body: (kernel, skb, dev) => {
        host.netDevStartXmit(skb, dev);
        return kernel.invoke('start_xmit', skb, dev);
      },
    }),
  ];
}

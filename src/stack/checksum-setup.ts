/**
 * `skb_checksum_setup`: finds the checksum of a PARTIAL skb whose csum_start and csum_offset are lost.
 *
 * Reference: net/core/skbuff.c (skb_checksum_setup_ip, skb_checksum_setup_ipv6, skb_maybe_pull_tail). Data
 * points at the network header. TCP and UDP only; fragments, other protocols and other ethertypes are
 * -EPROTO. With `recalculate` the field is made the pseudo-header's sum again, with the length that the
 * skb has, not the one its IP header tells: padding behind the packet counts.
 *
 * Usage:
 *   if (checksumSetup(kernel, pages, skb, true) < 0) drop();
 */
import { ERRNO } from '../common/errno.js';
import type { KernelContext } from '../kernel/function.js';
import { fold } from '../net/checksum.js';
import { pseudoSum, skbPartialCsumSet } from './checksum.js';
import {
  ETH_P_IP,
  ETH_P_IPV6,
  IP6_MF_OFFSET,
  IPPROTO,
  IPV4,
  IPV6,
  IP_MF_OFFSET,
  TCP,
  UDP,
  be16,
  setBe16,
} from './headers.js';
import { AF_INET, AF_INET6 } from './net.js';
import { SK_BUFF, skbHeadlen, skbMayPull } from './skb.js';

const MAX_IP_HDR_LEN = 128;
const MAX_IPV6_HDR_LEN = 256;
const MAX_TCP_HDR_LEN = 60;

const SKB = SK_BUFF.offset;

export function checksumSetup(
  kernel: KernelContext,
  pages: number,
  skb: number,
  recalculate: boolean,
): number {
  const { ram } = kernel.memory;
  switch (ram.u16(skb + SKB.protocol)) {
    case ETH_P_IP:
      return setupIp(kernel, pages, skb, recalculate);
    case ETH_P_IPV6:
      return setupIpv6(kernel, pages, skb, recalculate);
    default:
      return -ERRNO.EPROTO;
  }
}

function setupIp(kernel: KernelContext, pages: number, skb: number, recalculate: boolean): number {
  const { ram } = kernel.memory;
  if (!maybePullTail(kernel, pages, skb, IPV4.size, MAX_IP_HDR_LEN)) return -ERRNO.EPROTO;
  const iph = ram.pointer(skb + SKB.data);
  const fragment = (be16(ram, iph + IPV4.frag_off) & IP_MF_OFFSET) !== 0;
  if (fragment) return -ERRNO.EPROTO;
  const offset = (ram.u8(iph) & 15) * 4;
  const protocol = ram.u8(iph + IPV4.protocol);
  return setupL4(kernel, pages, skb, AF_INET, protocol, offset, recalculate);
}

/**
 * Walks the extension headers: hop-by-hop, routing and destination options ((length + 1) * 8 bytes),
 * authentication ((length + 2) * 4), fragment (8). A fragment header that says "whole packet" is fine.
 */
function setupIpv6(
  kernel: KernelContext,
  pages: number,
  skb: number,
  recalculate: boolean,
): number {
  const { ram } = kernel.memory;
  const pull = (bytes: number): boolean =>
    maybePullTail(kernel, pages, skb, bytes, MAX_IPV6_HDR_LEN);
  if (!pull(IPV6.size)) return -ERRNO.EPROTO;
  const header = (): number => ram.pointer(skb + SKB.data);
  const end = IPV6.size + be16(ram, header() + IPV6.payload_len);
  let next = ram.u8(header() + IPV6.nexthdr);
  let offset: number = IPV6.size;
  let fragment = false;
  let done = false;
  while (offset <= end && !done) {
    const at = offset;
    switch (next) {
      case IPPROTO.HOPOPTS:
      case IPPROTO.ROUTING:
      case IPPROTO.DSTOPTS:
        if (!pull(at + 2)) return -ERRNO.EPROTO;
        offset += (ram.u8(header() + at + 1) + 1) * 8;
        break;
      case IPPROTO.AH:
        if (!pull(at + 12)) return -ERRNO.EPROTO;
        offset += (ram.u8(header() + at + 1) + 2) * 4;
        break;
      case IPPROTO.FRAGMENT:
        if (!pull(at + 8)) return -ERRNO.EPROTO;
        if ((be16(ram, header() + at + 2) & IP6_MF_OFFSET) !== 0) fragment = true;
        offset += 8;
        break;
      default:
        done = true;
        continue;
    }
    next = ram.u8(header() + at);
  }
  if (!done || fragment) return -ERRNO.EPROTO;
  return setupL4(kernel, pages, skb, AF_INET6, next, offset, recalculate);
}

function setupL4(
  kernel: KernelContext,
  pages: number,
  skb: number,
  family: number,
  protocol: number,
  offset: number,
  recalculate: boolean,
): number {
  const { ram } = kernel.memory;
  let field: number;
  let most: number;
  if (protocol === IPPROTO.TCP) {
    field = TCP.check;
    most = offset + MAX_TCP_HDR_LEN;
    if (!maybePullTail(kernel, pages, skb, offset + TCP.size, most)) return -ERRNO.EPROTO;
  } else if (protocol === IPPROTO.UDP) {
    field = UDP.check;
    most = offset + UDP.size;
    if (!maybePullTail(kernel, pages, skb, most, most)) return -ERRNO.EPROTO;
  } else {
    return -ERRNO.EPROTO;
  }
  if (!skbPartialCsumSet(ram, skb, offset, field)) return -ERRNO.EPROTO;
  if (recalculate) {
    const iph = ram.pointer(skb + SKB.data);
    const sum = pseudoSum(ram, family, iph, protocol, ram.u32(skb + SKB.len) - offset);
    setBe16(ram, iph + offset + field, fold(sum));
  }
  return 0;
}

/** `skb_maybe_pull_tail`: `bytes` linear bytes, up to `most` if the tail has to be pulled anyway. */
function maybePullTail(
  kernel: KernelContext,
  pages: number,
  skb: number,
  bytes: number,
  most: number,
): boolean {
  const { ram } = kernel.memory;
  if (skbHeadlen(ram, skb) >= bytes) return true;
  const all = ram.u32(skb + SKB.len);
  skbMayPull(kernel, pages, skb, Math.min(most, all));
  return skbHeadlen(ram, skb) >= bytes;
}

/**
 * Software segmentation: one large skb becomes a list of skbs that fit.
 *
 * Reference: net/core/gso.c (skb_mac_gso_segment), net/ipv4/tcp_offload.c (tcp_gso_segment), udp_offload.c
 * (__udp_gso_segment), af_inet.c (inet_gso_segment). Headers are copied; lengths, IPv4 id and checksum, TCP
 * sequence number and flags follow. The L4 field of a PARTIAL skb is moved on by the difference in length,
 * so that a wrong pseudo-header sum stays as wrong as it was. Every segment has all its bytes in its head
 * and is PARTIAL. Leaves out UFO (fragmentation offload), tunnels and page fragments of segments.
 */
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { fold } from '../net/checksum.js';
import { ipSendCheck, pseudoSum } from './checksum.js';
import {
  IPPROTO,
  IPV4,
  IPV6,
  TCP,
  TCP_FLAG,
  UDP,
  be16,
  be32,
  setBe16,
  setBe32,
} from './headers.js';
import { AF_INET, AF_INET6 } from './net.js';
import { SKB_SHARED_INFO_SIZE } from '../bpf/xdp-buff.js';
import { skbDataAlign } from './skb-geometry.js';
import {
  CHECKSUM_PARTIAL,
  SKB_SHARED_INFO,
  SK_BUFF,
  allocSkbHead,
  skbCopyBits,
  skbHeadroom,
  skbPut,
  skbShinfo,
} from './skb.js';

/** Bits of `skb_shared_info.gso_type`. */
export const SKB_GSO_TCPV4 = 1 << 0;
export const SKB_GSO_DODGY = 1 << 1;
export const SKB_GSO_TCP_ECN = 1 << 2;
export const SKB_GSO_TCPV6 = 1 << 4;
export const SKB_GSO_UDP = 1 << 16;
export const SKB_GSO_UDP_L4 = 1 << 17;

const SKB = SK_BUFF.offset;
const SHINFO = SKB_SHARED_INFO.offset;

/** First of the list of segments; 0 when the skb cannot be taken apart. The skb itself stays. */
function gsoSegment(kernel: KernelContext, skb: number, _features: number): number {
  const { ram } = kernel.memory;
  const shinfo = skbShinfo(ram, skb);
  const mss = ram.u16(shinfo + SHINFO.gso_size);
  const type = ram.u32(shinfo + SHINFO.gso_type);
  const head = ram.pointer(skb + SKB.head);
  const mac = ram.u16(skb + SKB.mac_header);
  const network = ram.u16(skb + SKB.network_header);
  const transport = ram.u16(skb + SKB.transport_header);
  const iph = head + network;
  const l4 = head + transport;
  const family = ram.u8(iph) >> 4 === 6 ? AF_INET6 : AF_INET;
  const protocol = ram.u8(iph + (family === AF_INET ? IPV4.protocol : IPV6.nexthdr));
  const tcp = protocol === IPPROTO.TCP;
  if (!tcp && (protocol !== IPPROTO.UDP || (type & SKB_GSO_UDP_L4) === 0)) return 0;
  const l4Bytes = tcp ? (ram.u8(l4 + TCP.doff) >> 4) * 4 : UDP.size;
  const field = tcp ? TCP.check : UDP.check;
  const headers = transport - mac + l4Bytes;
  // bytes behind the L4 header, wherever the data begins
  const skip = transport + l4Bytes - skbHeadroom(ram, skb);
  const payload = ram.u32(skb + SKB.len) - skip;
  if (mss === 0 || payload <= 0) return 0;

  let check = be16(ram, l4 + field);
  if (ram.u8(skb + SKB.ip_summed) !== CHECKSUM_PARTIAL) {
    check = fold(pseudoSum(ram, family, iph, protocol, l4Bytes + payload));
  }
  const id = family === AF_INET ? be16(ram, iph + IPV4.id) : 0;
  const seq = tcp ? be32(ram, l4 + TCP.seq) : 0;
  const flags = tcp ? ram.u8(l4 + TCP.flags) : 0;
  let first = 0;
  let last = 0;
  for (let at = 0, i = 0; at < payload; at += mss, i++) {
    const bytes = Math.min(mss, payload - at);
    const size = skbDataAlign(mac + headers + bytes) + SKB_SHARED_INFO_SIZE;
    const segment = allocSkbHead(kernel, size, mac);
    const data = skbPut(kernel, segment, headers + bytes);
    ram.copy(data, head + mac, headers);
    skbCopyBits(ram, skb, skip + at, data + headers, bytes);
    const ownL4 = data + (transport - mac);
    setNetworkHeader(kernel, data + (network - mac), family, transport - network, {
      bytes: l4Bytes + bytes,
      id: id + i,
    });
    if (tcp) {
      setBe32(ram, ownL4 + TCP.seq, (seq + at) % 0x1_0000_0000);
      const final = at + bytes === payload;
      const notLast = final ? 0 : TCP_FLAG.FIN | TCP_FLAG.PSH;
      const notFirst = i === 0 ? 0 : TCP_FLAG.CWR;
      ram.set8(ownL4 + TCP.flags, flags & ~notLast & ~notFirst);
    } else setBe16(ram, ownL4 + UDP.len, UDP.size + bytes);
    // length in the pseudo-header: out with the old one, in with the new one
    setBe16(ram, ownL4 + field, fold(check + (~(l4Bytes + payload) & 0xffff) + l4Bytes + bytes));
    copyState(kernel, skb, segment, field);
    if (first === 0) first = segment;
    else ram.setPointer(last + SKB.next, segment);
    last = segment;
  }
  return first;
}

function setNetworkHeader(
  kernel: KernelContext,
  iph: number,
  family: number,
  headerBytes: number,
  segment: { readonly bytes: number; readonly id: number },
): void {
  const { ram } = kernel.memory;
  if (family === AF_INET) {
    setBe16(ram, iph + IPV4.tot_len, headerBytes + segment.bytes);
    setBe16(ram, iph + IPV4.id, segment.id & 0xffff);
    ipSendCheck(ram, iph);
  } else setBe16(ram, iph + IPV6.payload_len, headerBytes - IPV6.size + segment.bytes);
}

function copyState(kernel: KernelContext, skb: number, segment: number, field: number): void {
  const { ram } = kernel.memory;
  for (const name of ['mac_header', 'network_header', 'transport_header', 'protocol'] as const) {
    ram.set16(segment + SKB[name], ram.u16(skb + SKB[name]));
  }
  ram.set16(segment + SKB.queue_mapping, ram.u16(skb + SKB.queue_mapping));
  ram.set8(segment + SKB.pkt_type, ram.u8(skb + SKB.pkt_type));
  ram.setPointer(segment + SKB.dev, ram.pointer(skb + SKB.dev));
  ram.setPointer(segment + SKB.dst, ram.pointer(skb + SKB.dst));
  ram.set8(segment + SKB.ip_summed, CHECKSUM_PARTIAL);
  ram.set16(segment + SKB.csum_start, ram.u16(skb + SKB.transport_header));
  ram.set16(segment + SKB.csum_offset, field);
}

export const segmentFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'struct sk_buff *skb_gso_segment(struct sk_buff *skb, u32 features)',
    body: gsoSegment,
  }),
];

/**
 * TCP as far as a listener: verify a segment, answer a SYN with a SYN-ACK, once more when it comes again.
 *
 * Reference: net/ipv4/tcp_ipv4.c (tcp_v4_rcv, tcp_v4_do_rcv, tcp_v4_send_synack), net/ipv6/tcp_ipv6.c. A
 * segment of up to 76 bytes is verified in tcp_v4_rcv, a longer one in tcp_v4_do_rcv or, where a SYN of the
 * connection waits for its ACK (`tcp-request.ts`), in tcp_v4_rcv too. Leaves out connections: other segments than
 * SYNs are dropped, and no reset is sent.
 */
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { fold } from '../net/checksum.js';
import { checksumComplete, checksumValidate, csumUnnecessary, pseudoSum } from './checksum.js';
import {
  ETH_P_IP,
  ETH_P_IPV6,
  IPPROTO,
  IPV4,
  IPV6,
  IP_DF,
  TCP,
  TCP_FLAG,
  be16,
  be32,
  setBe16,
  setBe32,
} from './headers.js';
import { consumeSkb, dropSkb, skbNet, skbPages, type StackHost } from './host.js';
import { NET_DEVICE } from './net-device.js';
import { AF_INET, AF_INET6, FIB_INFO, count, fibLookup, findSocket } from './net.js';
import {
  CHECKSUM_PARTIAL,
  SK_BUFF,
  allocSkbHead,
  skbHeadroom,
  skbMayPull,
  skbPush,
  skbPut,
} from './skb.js';
import { TCP_REQUEST_SOCK, addRequest, findRequest, mayAnswerAgain } from './tcp-request.js';

/** Room for all headers, as MAX_TCP_HEADER leaves it; the head with it. */
const SYNACK_HEADROOM = 128;
const SYNACK_HEAD = 768;
/** TCP header with the MSS option. */
const SYNACK_BYTES = 24;
const SYNACK_WINDOW = 64240;
const TTL = 64;

const SKB = SK_BUFF.offset;

export function tcpFunctions(host: StackHost): readonly KernelFunction[] {
  function rcv(kernel: KernelContext, skb: number, family: number, version: string): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    const pages = skbPages(kernel, skb);
    const bad = (reason: 'TCP_CSUM' | 'PKT_TOO_SMALL', where: string): number => {
      if (reason === 'TCP_CSUM') count(ram, net, 'TcpInCsumErrors');
      count(ram, net, 'TcpInErrs');
      dropSkb(kernel, host, skb, reason, where);
      return 0;
    };
    count(ram, net, 'TcpInSegs');
    if (!skbMayPull(kernel, pages, skb, TCP.size)) return bad('PKT_TOO_SMALL', `${version}_rcv`);
    const header = (ram.u8(ram.pointer(skb + SKB.data) + TCP.doff) >> 4) * 4;
    if (header < TCP.size || !skbMayPull(kernel, pages, skb, header)) {
      return bad('PKT_TOO_SMALL', `${version}_rcv`);
    }
    ram.set16(skb + SKB.transport_header, skbHeadroom(ram, skb));
    const tcp = ram.pointer(skb + SKB.data);
    const iph = ram.pointer(skb + SKB.head) + ram.u16(skb + SKB.network_header);
    const pseudo = pseudoSum(ram, family, iph, IPPROTO.TCP, ram.u32(skb + SKB.len));
    const check = be16(ram, tcp + TCP.check);
    if (!checksumValidate(ram, skb, pseudo, false, check)) return bad('TCP_CSUM', `${version}_rcv`);
    const listener = findSocket(ram, net, IPPROTO.TCP, be16(ram, tcp + TCP.dest));
    const request = listener === 0 ? 0 : findRequest(ram, net, family, iph, tcp);
    if (!csumUnnecessary(ram, skb) && !checksumComplete(ram, skb)) {
      const early = listener === 0 || request !== 0;
      return bad('TCP_CSUM', early ? `${version}_rcv` : `${version}_do_rcv`);
    }
    if (listener === 0) {
      dropSkb(kernel, host, skb, 'NO_SOCKET', `${version}_rcv`);
      return 0;
    }
    const flags = ram.u8(tcp + TCP.flags) & (TCP_FLAG.SYN | TCP_FLAG.ACK | TCP_FLAG.RST);
    if (flags === TCP_FLAG.SYN && request !== 0) {
      // tcp_check_req: a retransmitted SYN
      if (mayAnswerAgain(ram, request)) {
        count(ram, net, 'TcpRetransSegs');
        sendSynAck(kernel, skb, family, iph, tcp, request);
      }
      dropSkb(kernel, host, skb, 'NOT_SPECIFIED', `${version}_rcv`);
    } else if (flags === TCP_FLAG.SYN) {
      const asked = addRequest(kernel, net, family, iph, tcp);
      sendSynAck(kernel, skb, family, iph, tcp, asked);
      consumeSkb(kernel, skb);
    } else dropSkb(kernel, host, skb, 'NOT_SPECIFIED', 'tcp_rcv_state_process');
    return 0;
  }

  return [
    atomic({
      prototype: 'int tcp_v4_rcv(struct sk_buff *skb)',
      calls: true,
      body: (kernel, skb) => rcv(kernel, skb, AF_INET, 'tcp_v4'),
    }),
    atomic({
      prototype: 'int tcp_v6_rcv(struct sk_buff *skb)',
      calls: true,
      body: (kernel, skb) => rcv(kernel, skb, AF_INET6, 'tcp_v6'),
    }),
  ];
}

/** `tcp_v4_send_synack`: the answer to the SYN at `tcp`, its checksum left to the device. */
function sendSynAck(
  kernel: KernelContext,
  syn: number,
  family: number,
  iph: number,
  tcp: number,
  request: number,
): void {
  const { ram } = kernel.memory;
  const net = skbNet(kernel, syn);
  const v4 = family === AF_INET;
  const source = v4 ? IPV4.saddr : IPV6.saddr;
  const route = fibLookup(ram, net, family, iph + source);
  if (route === 0) return;
  const dev = ram.pointer(route + FIB_INFO.offset.dev);
  const skb = allocSkbHead(kernel, SYNACK_HEAD, SYNACK_HEADROOM);
  const to = skbPut(kernel, skb, SYNACK_BYTES);
  setBe16(ram, to + TCP.source, be16(ram, tcp + TCP.dest));
  setBe16(ram, to + TCP.dest, be16(ram, tcp + TCP.source));
  setBe32(ram, to + TCP.seq, ram.u32(request + TCP_REQUEST_SOCK.offset.snt_isn));
  setBe32(ram, to + TCP.ack_seq, (be32(ram, tcp + TCP.seq) + 1) % 0x1_0000_0000);
  ram.set8(to + TCP.doff, (SYNACK_BYTES / 4) << 4);
  ram.set8(to + TCP.flags, TCP_FLAG.SYN | TCP_FLAG.ACK);
  setBe16(ram, to + TCP.window, SYNACK_WINDOW);
  // option 2, 4 bytes: MSS
  const headers = (v4 ? IPV4.size : IPV6.size) + TCP.size;
  const mtu = ram.u32(dev + NET_DEVICE.offset.mtu);
  setBe32(ram, to + TCP.size, 0x0204_0000 + Math.min(mtu - headers, 0xffff));

  ram.set16(skb + SKB.transport_header, skbHeadroom(ram, skb));
  ram.set8(skb + SKB.ip_summed, CHECKSUM_PARTIAL);
  ram.set16(skb + SKB.csum_start, skbHeadroom(ram, skb));
  ram.set16(skb + SKB.csum_offset, TCP.check);
  ram.setPointer(skb + SKB.dev, dev);
  ram.setPointer(skb + SKB.dst, route);
  const header = skbPush(ram, skb, v4 ? IPV4.size : IPV6.size);
  ram.zero(header, v4 ? IPV4.size : IPV6.size);
  if (v4) {
    ram.set8(header, 0x45);
    setBe16(ram, header + IPV4.tot_len, IPV4.size + SYNACK_BYTES);
    setBe16(ram, header + IPV4.frag_off, IP_DF);
    ram.set8(header + IPV4.ttl, TTL);
    ram.set8(header + IPV4.protocol, IPPROTO.TCP);
    ram.copy(header + IPV4.saddr, iph + IPV4.daddr, 4);
    ram.copy(header + IPV4.daddr, iph + IPV4.saddr, 4);
  } else {
    ram.set8(header, 0x60);
    setBe16(ram, header + IPV6.payload_len, SYNACK_BYTES);
    ram.set8(header + IPV6.nexthdr, IPPROTO.TCP);
    ram.set8(header + IPV6.hop_limit, TTL);
    ram.copy(header + IPV6.saddr, iph + IPV6.daddr, 16);
    ram.copy(header + IPV6.daddr, iph + IPV6.saddr, 16);
  }
  const pseudo = pseudoSum(ram, family, header, IPPROTO.TCP, SYNACK_BYTES);
  setBe16(ram, to + TCP.check, fold(pseudo));
  ram.set16(skb + SKB.network_header, skbHeadroom(ram, skb));
  ram.set16(skb + SKB.protocol, v4 ? ETH_P_IP : ETH_P_IPV6);
  count(ram, net, 'TcpOutSegs');
  kernel.invoke(v4 ? 'ip_local_out' : 'ip6_local_out', skb);
}

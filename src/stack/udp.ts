/**
 * UDP: verify, find the socket, queue; and reading from it.
 *
 * Reference: net/ipv4/udp.c (__udp4_lib_rcv, udp4_csum_init, udp_queue_rcv_skb, udp_recvmsg) and
 * net/ipv6/udp.c. A datagram of up to 76 bytes is verified when it arrives, a longer one when it is read.
 * Field 0 means unchecked in IPv4 and is wrong in IPv6. Leaves out memory accounting, connected sockets,
 * encapsulation, UDP-Lite.
 */
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { checksumComplete, checksumValidate, csumUnnecessary, pseudoSum } from './checksum.js';
import { trimRcsum } from './ip.js';
import { IPPROTO, UDP, be16 } from './headers.js';
import { consumeSkb, dropSkb, skbNet, skbPages, type StackHost } from './host.js';
import { AF_INET, AF_INET6, SOCK, count, findSocket, type MibName } from './net.js';
import { SKB_SHARED_INFO, SK_BUFF, skbHeadroom, skbMayPull, skbPull, skbShinfo } from './skb.js';
import { SKB_GSO_UDP_L4 } from './segment.js';

interface Family {
  readonly family: number;
  readonly location: string;
  readonly datagrams: MibName;
  readonly noPorts: MibName;
  readonly errors: MibName;
  readonly csumErrors: MibName;
}

const UDP4: Family = {
  family: AF_INET,
  location: '__udp4_lib_rcv',
  datagrams: 'UdpInDatagrams',
  noPorts: 'UdpNoPorts',
  errors: 'UdpInErrors',
  csumErrors: 'UdpInCsumErrors',
};
const UDP6: Family = {
  family: AF_INET6,
  location: '__udp6_lib_rcv',
  datagrams: 'Udp6InDatagrams',
  noPorts: 'Udp6NoPorts',
  errors: 'Udp6InErrors',
  csumErrors: 'Udp6InCsumErrors',
};

const SKB = SK_BUFF.offset;
const S = SOCK.offset;

/** Address of the network header. */
function networkHeader(kernel: KernelContext, skb: number): number {
  const { ram } = kernel.memory;
  return ram.pointer(skb + SKB.head) + ram.u16(skb + SKB.network_header);
}

function familyOf(kernel: KernelContext, skb: number): Family {
  const version = kernel.memory.ram.u8(networkHeader(kernel, skb)) >> 4;
  return version === 6 ? UDP6 : UDP4;
}

export function udpFunctions(host: StackHost): readonly KernelFunction[] {
  function libRcv(kernel: KernelContext, skb: number): number {
    const { ram } = kernel.memory;
    const net = skbNet(kernel, skb);
    const pages = skbPages(kernel, skb);
    const own = familyOf(kernel, skb);
    const csumError = (): number => {
      count(ram, net, own.csumErrors);
      count(ram, net, own.errors);
      dropSkb(kernel, host, skb, 'UDP_CSUM', own.location);
      return 0;
    };
    const short = (): number => {
      count(ram, net, own.errors);
      dropSkb(kernel, host, skb, 'PKT_TOO_SMALL', own.location);
      return 0;
    };
    if (!skbMayPull(kernel, pages, skb, UDP.size)) return short();
    ram.set16(skb + SKB.transport_header, skbHeadroom(ram, skb));
    const udp = ram.pointer(skb + SKB.data);
    const len = be16(ram, udp + UDP.len);
    if (len > ram.u32(skb + SKB.len) || len < UDP.size) return short();
    trimRcsum(kernel, pages, skb, len);
    const check = be16(ram, udp + UDP.check);
    if (own === UDP6 && check === 0) return csumError();
    const pseudo = pseudoSum(ram, own.family, networkHeader(kernel, skb), IPPROTO.UDP, len);
    if (!checksumValidate(ram, skb, pseudo, own === UDP4, check)) return csumError();
    const sock = findSocket(ram, net, IPPROTO.UDP, be16(ram, udp + UDP.dest));
    if (sock !== 0) return kernel.invoke('udp_queue_rcv_skb', sock, skb);
    if (!csumUnnecessary(ram, skb) && !checksumComplete(ram, skb)) return csumError();
    count(ram, net, own.noPorts);
    dropSkb(kernel, host, skb, 'NO_SOCKET', own.location);
    return 0;
  }

  /** A packet that stands for several datagrams is taken apart first. */
  function queueRcvSkb(kernel: KernelContext, sock: number, skb: number): number {
    const { ram } = kernel.memory;
    const type = ram.u32(skbShinfo(ram, skb) + SKB_SHARED_INFO.offset.gso_type);
    if ((type & SKB_GSO_UDP_L4) === 0) {
      enqueue(kernel, sock, skb);
      return 0;
    }
    for (let segment = kernel.invoke('skb_gso_segment', skb, 0); segment !== 0;) {
      const next = ram.pointer(segment + SKB.next);
      const transport = ram.u16(segment + SKB.transport_header) - skbHeadroom(ram, segment);
      skbPull(ram, segment, transport);
      ram.set8(segment + SKB.csum_valid, 1);
      enqueue(kernel, sock, segment);
      segment = next;
    }
    consumeSkb(kernel, skb);
    return 0;
  }

  /**
   * Takes a datagram off a socket, verifying it if nobody has. 0: there is none. The data of the skb that
   * is returned begins at the payload; the caller frees it.
   */
  function recvmsg(kernel: KernelContext, sock: number): number {
    const { ram } = kernel.memory;
    for (;;) {
      const skb = ram.pointer(sock + S.queue_head);
      if (skb === 0) return 0;
      const next = ram.pointer(skb + SKB.next);
      ram.setPointer(sock + S.queue_head, next);
      if (next === 0) ram.setPointer(sock + S.queue_tail, 0);
      const net = skbNet(kernel, skb);
      const own = familyOf(kernel, skb);
      if (csumUnnecessary(ram, skb) || checksumComplete(ram, skb)) {
        count(ram, net, own.datagrams);
        skbPull(ram, skb, UDP.size);
        return skb;
      }
      count(ram, net, own.csumErrors);
      count(ram, net, own.errors);
      dropSkb(kernel, host, skb, 'UDP_CSUM', 'udp_recvmsg');
    }
  }

  return [
    atomic({ prototype: 'int udp_rcv(struct sk_buff *skb)', calls: true, body: libRcv }),
    atomic({ prototype: 'int udpv6_rcv(struct sk_buff *skb)', calls: true, body: libRcv }),
    atomic({
      prototype: 'int udp_queue_rcv_skb(struct sock *sk, struct sk_buff *skb)',
      calls: true,
      body: queueRcvSkb,
    }),
    atomic({
      prototype: 'struct sk_buff *udp_recvmsg(struct sock *sk)',
      calls: true,
      body: recvmsg,
    }),
  ];
}

function enqueue(kernel: KernelContext, sock: number, skb: number): void {
  const { ram } = kernel.memory;
  const tail = ram.pointer(sock + S.queue_tail);
  ram.setPointer(skb + SKB.next, 0);
  ram.setPointer(tail === 0 ? sock + S.queue_head : tail + SKB.next, skb);
  ram.setPointer(sock + S.queue_tail, skb);
}

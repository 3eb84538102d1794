/**
 * SYNs that were answered and wait for their ACK.
 *
 * Reference: struct tcp_request_sock of include/linux/tcp.h, tcp_check_req of net/ipv4/tcp_minisocks.c,
 * tcp_oow_rate_limited of net/ipv4/tcp_input.c. A SYN with the same number is a retransmission: it is answered once
 * more, then not within half a second (tcp_invalid_ratelimit). No time passes here between packets;
 * `Network.expireRequests` lets enough of it pass. Leaves out the timer that answers by itself, and takes a SYN with
 * another number for one of a new connection.
 */
import { struct } from '../common/struct.js';
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';
import { IPV4, IPV6, TCP, be32 } from './headers.js';
import { AF_INET, NET, addToList } from './net.js';

export const TCP_REQUEST_SOCK = struct({
  next: 'u64',
  family: 'u16',
  /** Source and destination address behind each other, then both ports: as in the packet. */
  addresses: 32,
  ports: 'u32',
  rcv_isn: 'u32',
  snt_isn: 'u32',
  /** last_oow_ack_time is set. */
  answered_again: 'u8',
});

const R = TCP_REQUEST_SOCK.offset;

/** The request that the SYN at `tcp` repeats; 0: none. */
export function findRequest(
  ram: Ram,
  net: number,
  family: number,
  iph: number,
  tcp: number,
): number {
  const [from, length] = addressesOf(family, iph);
  for (let each = ram.pointer(net + NET.offset.requests); each !== 0; each = ram.pointer(each)) {
    if (ram.u16(each + R.family) !== family || ram.u32(each + R.ports) !== ram.u32(tcp)) continue;
    if (ram.u32(each + R.rcv_isn) !== be32(ram, tcp + TCP.seq)) continue;
    let at = 0;
    while (at < length && ram.u32(each + R.addresses + at) === ram.u32(from + at)) at += 4;
    if (at === length) return each;
  }
  return 0;
}

/** `inet_reqsk_alloc` for the SYN at `tcp`. */
export function addRequest(
  kernel: KernelContext,
  net: number,
  family: number,
  iph: number,
  tcp: number,
): number {
  const { ram } = kernel.memory;
  const request = addToList(kernel, net + NET.offset.requests, TCP_REQUEST_SOCK.size);
  const [from, length] = addressesOf(family, iph);
  const isn = net + NET.offset.isn;
  ram.set32(isn, ram.u32(isn) + 64000);
  ram.set16(request + R.family, family);
  ram.copy(request + R.addresses, from, length);
  ram.set32(request + R.ports, ram.u32(tcp));
  ram.set32(request + R.rcv_isn, be32(ram, tcp + TCP.seq));
  ram.set32(request + R.snt_isn, ram.u32(isn));
  return request;
}

/** `tcp_oow_rate_limited`, inverted. */
export function mayAnswerAgain(ram: Ram, request: number): boolean {
  if (ram.u8(request + R.answered_again) !== 0) return false;
  ram.set8(request + R.answered_again, 1);
  return true;
}

/** Where both addresses of a packet lie, and how many bytes they are. */
function addressesOf(family: number, iph: number): readonly [number, number] {
  return family === AF_INET ? [iph + IPV4.saddr, 8] : [iph + IPV6.saddr, 32];
}

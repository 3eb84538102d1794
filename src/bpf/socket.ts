/**
 * `struct sock` as this lab keeps it in memory, and what a socket is told by.
 *
 * The part that all sockets share (`struct sock_common`) lies as on an arm64 6.12 with IPv6 and network
 * namespaces; where mark, priority, type, protocol and TCP's fields lie in `struct sock` is this lab's choice, because
 * it changes with version and configuration. Programs written against the uapi's `struct bpf_sock` are
 * rewritten on loading to read these fields (`object/sock-rewrite.ts`). Reference: include/net/sock.h.
 * Left out: queues, timers, everything that sockets do by themselves.
 *
 * Usage:
 *   host.network.sockets.add({ protocol: 'tcp', state: 'LISTEN', local: { address: ipv4, port: 80 } });
 */
import type { BpfHost } from './host.js';

/** Byte offsets; those up to `refcnt` are `struct sock_common`'s, all a request or timewait socket has. */
export const SOCK = {
  /** be32 */
  daddr: 0,
  rcvSaddr: 4,
  /** be16, and the local port as a u16 of the host */
  dport: 12,
  num: 14,
  /** u16 */
  family: 16,
  /** u8 */
  state: 18,
  /** s32 */
  boundDevIf: 20,
  /** 16 bytes */
  v6Daddr: 56,
  v6RcvSaddr: 72,
  /** u16 */
  rxQueueMapping: 122,
  /** s32 */
  refcnt: 128,
  commonSize: 136,
  /** u32 */
  mark: 136,
  priority: 140,
  /** u16 */
  type: 144,
  protocol: 146,
  /** What TCP keeps behind: a pointer, and two u32. */
  icskCaOps: 152,
  sndCwnd: 160,
  sndSsthresh: 164,
  size: 168,
} as const;

export const AF_INET = 2;
export const AF_INET6 = 10;

/** include/net/tcp_states.h */
export const TCP_STATE = {
  ESTABLISHED: 1,
  SYN_SENT: 2,
  SYN_RECV: 3,
  FIN_WAIT1: 4,
  FIN_WAIT2: 5,
  TIME_WAIT: 6,
  CLOSE: 7,
  CLOSE_WAIT: 8,
  LAST_ACK: 9,
  LISTEN: 10,
  CLOSING: 11,
  NEW_SYN_RECV: 12,
} as const;

export type TcpState = keyof typeof TCP_STATE;

/** `rx_queue_mapping` of a socket that no queue is known of: it reads as -1. */
const NO_QUEUE_MAPPING = 0xffff;

export interface SocketAddress {
  /** 4 or 16 bytes; all zero for any address. */
  readonly address: Uint8Array;
  readonly port: number;
}

export interface Socket {
  readonly protocol: 'tcp' | 'udp';
  readonly local: SocketAddress;
  /** The other end; none of a listening or unconnected socket. */
  readonly remote?: SocketAddress;
  /** Default: LISTEN or ESTABLISHED for TCP, CLOSE or ESTABLISHED for UDP, by whether there is a remote end. */
  readonly state?: TcpState;
  /** Interface that it is bound to. Default: 0, any. */
  readonly boundDevice?: number;
  /** An IPv6 socket that takes no IPv4 packets. Default: false. */
  readonly ipv6Only?: boolean;
  /** Number of the network namespace it is in. Default: the one that packets come in to. */
  readonly namespace?: number;
  readonly mark?: number;
  readonly priority?: number;
  readonly rxQueue?: number;
  /** NEW_SYN_RECV: the listening socket that the request is for. */
  readonly listener?: Socket;
  /** LISTEN: the queue of requests is full, so that SYN cookies are sent. Default: false. */
  readonly requestQueueFull?: boolean;
}

export function stateOf({ protocol, state, remote }: Socket): TcpState {
  if (state !== undefined) return state;
  if (remote) return 'ESTABLISHED';
  return protocol === 'tcp' ? 'LISTEN' : 'CLOSE';
}

export function familyOf({ local }: Socket): number {
  return local.address.length === 4 ? AF_INET : AF_INET6;
}

/** Request and timewait sockets are `struct sock_common` only (sk_fullsock). */
export function isFullSocket(socket: Socket): boolean {
  const state = stateOf(socket);
  return state !== 'TIME_WAIT' && state !== 'NEW_SYN_RECV';
}

/** Listening TCP and all UDP sockets live on by RCU (SOCK_RCU_FREE): look-ups take no reference. */
export function isCounted(socket: Socket): boolean {
  return socket.protocol === 'tcp' && stateOf(socket) !== 'LISTEN';
}

/** Puts a socket into memory of its own; its address. */
export function placeSocket(socket: Socket, { memory, allocate }: Placement): bigint {
  const full = isFullSocket(socket);
  const { address: at } = allocate('sock', full ? SOCK.size : SOCK.commonSize);
  const { local, remote } = socket;
  const put16 = (offset: number, value: number): void =>
    memory.write16(at + BigInt(offset), value & 0xffff);
  const put32 = (offset: number, value: number): void => memory.write32(at + BigInt(offset), value);
  const isV4 = local.address.length === 4;
  memory.writeBytes(at + BigInt(isV4 ? SOCK.rcvSaddr : SOCK.v6RcvSaddr), local.address);
  if (remote) {
    memory.writeBytes(at + BigInt(isV4 ? SOCK.daddr : SOCK.v6Daddr), remote.address);
    put16(SOCK.dport, ((remote.port & 0xff) << 8) | (remote.port >> 8));
  }
  put16(SOCK.num, local.port);
  put16(SOCK.family, familyOf(socket));
  memory.write8(at + BigInt(SOCK.state), TCP_STATE[stateOf(socket)]);
  put32(SOCK.boundDevIf, socket.boundDevice ?? 0);
  put16(SOCK.rxQueueMapping, socket.rxQueue ?? NO_QUEUE_MAPPING);
  put32(SOCK.refcnt, 1);
  if (!full) return at;
  const isTcp = socket.protocol === 'tcp';
  put32(SOCK.mark, socket.mark ?? 0);
  put32(SOCK.priority, socket.priority ?? 0);
  // SOCK_STREAM, SOCK_DGRAM; IPPROTO_TCP, IPPROTO_UDP
  put16(SOCK.type, isTcp ? 1 : 2);
  put16(SOCK.protocol, isTcp ? 6 : 17);
  return at;
}

type Placement = Pick<BpfHost, 'memory'> & {
  readonly allocate: (name: string, size: number) => { readonly address: bigint };
};

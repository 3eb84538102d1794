/**
 * TCP's side of a socket, where calls on one that fell back go, and what SMC itself asks of its TCP socket.
 *
 * Reference: net/ipv4/af_inet.c, tcp_sendmsg, tcp_recvmsg, tcp_poll in net/ipv4/tcp.c of 6.12, as far as SMC
 * comes through here. Streams are those of `tcp.ts`. A call that would sleep gives -EAGAIN.
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelFunction } from '../../kernel/function.js';
import { MSG, POLL, RCV_SHUTDOWN, SEND_SHUTDOWN, SHUTDOWN_MASK } from '../constants.js';
import type { SmcContext } from '../context.js';
import { S } from '../core/fields.js';
import {
  MSGHDR,
  SOCKADDR_IN,
  SOCKET,
  SOCK_RCVBUF_LOCK,
  SOCK_SNDBUF_LOCK,
  SOCK_URGINLINE,
  TCP_SOCK,
} from '../structs.js';
import type { TcpSocket } from './tcp.js';

const M = MSGHDR.offset;
const A = SOCKADDR_IN.offset;

export function inetFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, tcp } = smc;
  const sockOf = (socket: number): number => ram.pointer(socket + SOCKET.offset.sk);
  const ofSock = (sock: number): TcpSocket => tcp.ofSock(sock);

  function recvmsg(socket: TcpSocket, msg: number, length: number, flags: number): number {
    if (!socket.peer) return -ERRNO.ENOTCONN;
    if (socket.unread === 0 && length > 0) {
      if (socket.error !== 0) return -socket.takeError();
      return socket.ended ? 0 : -ERRNO.EAGAIN;
    }
    const bytes = socket.read(length, (flags & MSG.PEEK) !== 0);
    smc.user.set(bytes, ram.u32(msg + M.iov_offset));
    return bytes.length;
  }

  function poll(socket: TcpSocket): number {
    const hasShut = (bit: number): boolean => (socket.shutdown & bit) !== 0;
    let mask = 0;
    if (socket.error !== 0) mask |= POLL.ERR;
    if (socket.unread > 0) mask |= POLL.IN;
    if (socket.ended || hasShut(RCV_SHUTDOWN)) mask |= POLL.IN | POLL.RDHUP;
    if (socket.sendSpace > 0 || hasShut(SEND_SHUTDOWN)) mask |= POLL.OUT;
    if (socket.shutdown === SHUTDOWN_MASK) mask |= POLL.HUP;
    return mask;
  }

  function connect(socket: TcpSocket, address: number): number {
    if (socket.peer) return -ERRNO.EISCONN;
    tcp.prepare(socket, {
      address: ram.view.getUint32(address + A.sin_addr),
      port: ram.view.getUint16(address + A.sin_port),
    });
    const hasOption = kernel.invoke('smc_set_option', socket.address) !== 0;
    return tcp.connect(socket, hasOption);
  }

  return [
    atomic({
      prototype:
        'int inet_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)',
      calls: true,
      body: (_kernel, socket, address) => connect(ofSock(sockOf(socket)), address),
    }),
    atomic({
      prototype: 'int inet_sendmsg(struct socket *sock, struct msghdr *msg, size_t size)',
      calls: true,
      body: (_kernel, socket, msg, size) => kernel.invoke('tcp_sendmsg', sockOf(socket), msg, size),
    }),
    atomic({
      prototype: 'int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)',
      body: (_kernel, sock, msg, size) => {
        const start = ram.u32(msg + M.iov_offset);
        return ofSock(sock).send(smc.user.subarray(start, start + size));
      },
    }),
    atomic({
      prototype:
        'int inet_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)',
      calls: true,
      body: (_kernel, socket, msg, size, flags) =>
        kernel.invoke('tcp_recvmsg', sockOf(socket), msg, size, flags, 0),
    }),
    atomic({
      prototype:
        'int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags, int *addr_len)',
      body: (_kernel, sock, msg, length, flags) => recvmsg(ofSock(sock), msg, length, flags),
    }),
    atomic({
      prototype: 'int inet_shutdown(struct socket *sock, int how)',
      body: (_kernel, socket, how) => {
        if (how < 0 || how > 2) return -ERRNO.EINVAL;
        return ofSock(sockOf(socket)).shut(how);
      },
    }),
    atomic({
      prototype:
        'unsigned int tcp_poll(struct file *file, struct socket *sock, struct poll_table_struct *wait)',
      body: (_kernel, _file, socket) => poll(ofSock(sockOf(socket))),
    }),
    atomic({
      prototype: 'int inet_release(struct socket *sock)',
      body: (_kernel, socket) => {
        tcp.release(tcp.of(socket));
        return 0;
      },
    }),
  ];
}

/** smc_copy_sock_settings_to_clc: sizes of buffers only if somebody asked for them. */
export function copySettingsToClc({ ram }: SmcContext, smcSock: number): void {
  const sock = ram.pointer(ram.pointer(smcSock + S.clcsock) + SOCKET.offset.sk);
  const locks = ram.u8(smcSock + S.sk_userlocks);
  const T = TCP_SOCK.offset;
  if ((locks & SOCK_RCVBUF_LOCK) !== 0) {
    ram.set32(sock + T.sk_rcvbuf, ram.u32(smcSock + S.sk_rcvbuf));
  }
  if ((locks & SOCK_SNDBUF_LOCK) !== 0) {
    ram.set32(sock + T.sk_sndbuf, ram.u32(smcSock + S.sk_sndbuf));
  }
  ram.set8(sock + T.sk_flags, ram.u8(smcSock + S.sk_flags) & SOCK_URGINLINE);
  // TCP_NODELAY and TCP_CORK were set in both
  ram.set32(sock + T.nonagle, ram.u32(smcSock + S.nonagle));
}

/** kernel_sendmsg: the bytes lie where those of a caller would. 0 or a negative errno. */
export function kernelSendmsg(smc: SmcContext, socket: number, bytes: Uint8Array): number {
  const sent = withBytes(smc, bytes, () =>
    smc.kernel.invoke('inet_sendmsg', socket, smc.kernelMsg, bytes.length),
  );
  return Math.min(sent, 0);
}

/** sock_recvmsg of what is known to have arrived. */
export function kernelRecvmsg(
  smc: SmcContext,
  socket: number,
  size: number,
  flags: number,
): Uint8Array {
  const bytes = new Uint8Array(size);
  withBytes(smc, bytes, () =>
    smc.kernel.invoke('inet_recvmsg', socket, smc.kernelMsg, size, flags),
  );
  return bytes;
}

function withBytes(smc: SmcContext, bytes: Uint8Array, call: () => number): number {
  const { user } = smc;
  smc.user = bytes;
  try {
    return call();
  } finally {
    smc.user = user;
  }
}

/**
 * The socket layer: what system calls on an SMC socket end up in, and falling back to TCP.
 *
 * Reference: net/smc/af_smc.c of 6.12; update_socket_protocol in net/socket.c. A call that would sleep in Linux
 * gives -EAGAIN: who calls waits first (`smc-socket.ts`).
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelFunction } from '../../kernel/function.js';
import {
  MSG,
  POLL,
  RCV_SHUTDOWN,
  SEND_SHUTDOWN,
  SHUTDOWN_MASK,
  SMC_CLC_DECL,
  SMC_STATE,
  URG_STATE,
} from '../constants.js';
import type { SmcContext } from '../context.js';
import { C, S, connOf, hasBits, setBits, setSkState, skState } from '../core/fields.js';
import { noteNoSpace } from '../core/tx.js';
import { countFallback, countPayload } from '../core/statistics.js';
import {
  FILE,
  INET_REQUEST_SOCK,
  MSGHDR,
  SMC_HS_CTRL,
  SOCKET,
  SOCK_DEAD,
  TCP_SOCK,
} from '../structs.js';
import { copySettingsToClc } from './inet.js';
import { storeAddresses, type Endpoint, type TcpSocket } from './tcp.js';

const SHUT = { RD: 0, WR: 1, RDWR: 2 } as const;
const M = MSGHDR.offset;

export function socketFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, tcp } = smc;

  const sockOfSocket = (socket: number): number => ram.pointer(socket + SOCKET.offset.sk);
  const isFallback = (smcSock: number): boolean => ram.u8(smcSock + S.use_fallback) !== 0;
  const clcsockOf = (smcSock: number): TcpSocket | undefined => {
    const clcsock = ram.pointer(smcSock + S.clcsock);
    return clcsock === 0 ? undefined : tcp.of(clcsock);
  };

  function switchToFallback(smcSock: number, reason: number): number {
    const clcsock = ram.pointer(smcSock + S.clcsock);
    if (clcsock === 0) return -ERRNO.EBADF;
    ram.set8(smcSock + S.use_fallback, 1);
    ram.set32(smcSock + S.fallback_rsn, reason);
    countFallback(smc, smcSock);
    const socket = ram.pointer(smcSock + S.sk_socket);
    if (socket !== 0) handOver(socket, clcsock);
    smc.wake(smcSock);
    return 0;
  }

  /** The file is TCP's from now on: calls on it do not come to SMC any more, but for `close`. */
  function handOver(socket: number, clcsock: number): void {
    const file = ram.pointer(socket + SOCKET.offset.file);
    if (file === 0) return;
    ram.setPointer(clcsock + SOCKET.offset.file, file);
    ram.setPointer(file + FILE.offset.private_data, clcsock);
  }

  function sendmsg(smcSock: number, msg: number, length: number): number {
    const state = skState(ram, smcSock);
    if ((ram.u32(msg + M.msg_flags) & MSG.FASTOPEN) !== 0) {
      if (state !== SMC_STATE.INIT || ram.u8(smcSock + S.connect_nonblock) !== 0) {
        return -ERRNO.EINVAL;
      }
      const rc = kernel.invoke('smc_switch_to_fallback', smcSock, SMC_CLC_DECL.OPTUNSUPP);
      if (rc !== 0) return rc;
    } else if (
      state !== SMC_STATE.ACTIVE &&
      state !== SMC_STATE.APPCLOSEWAIT1 &&
      state !== SMC_STATE.INIT
    ) {
      return -ERRNO.EPIPE;
    }
    if (isFallback(smcSock)) {
      return kernel.invoke('inet_sendmsg', ram.pointer(smcSock + S.clcsock), msg, length);
    }
    const sent = kernel.invoke('smc_tx_sendmsg', smcSock, msg, length);
    countPayload(smc, 'tx', length, sent);
    return sent;
  }

  function recvmsg(smcSock: number, msg: number, length: number, flags: number): number {
    const state = skState(ram, smcSock);
    const isShut = hasBits(ram, smcSock + S.sk_shutdown, RCV_SHUTDOWN);
    if (state === SMC_STATE.CLOSED && isShut) return 0;
    switch (state) {
      case SMC_STATE.INIT:
      case SMC_STATE.LISTEN:
      case SMC_STATE.CLOSED:
        return -ERRNO.ENOTCONN;
      case SMC_STATE.PEERFINCLOSEWAIT:
        return 0;
      default:
        break;
    }
    if (isFallback(smcSock)) {
      return kernel.invoke('inet_recvmsg', ram.pointer(smcSock + S.clcsock), msg, length, flags);
    }
    const got = kernel.invoke('smc_rx_recvmsg', smcSock, msg, 0, length, flags);
    countPayload(smc, 'rx', got, got);
    return got;
  }

  function shutdown(smcSock: number, how: number): number {
    if (how < SHUT.RD || how > SHUT.RDWR) return -ERRNO.EINVAL;
    const state = skState(ram, smcSock);
    const isConnected =
      state === SMC_STATE.ACTIVE ||
      (state >= SMC_STATE.PEERCLOSEWAIT1 && state <= SMC_STATE.APPFINCLOSEWAIT);
    if (!isConnected) return -ERRNO.ENOTCONN;
    const clcsock = ram.pointer(smcSock + S.clcsock);
    if (isFallback(smcSock)) {
      const rc = kernel.invoke('inet_shutdown', clcsock, how);
      const shut = clcsockOf(smcSock)?.shutdown ?? SHUTDOWN_MASK;
      ram.set8(smcSock + S.sk_shutdown, shut);
      if (shut === SHUTDOWN_MASK) setSkState(ram, smcSock, SMC_STATE.CLOSED);
      return rc;
    }
    let rc = 0;
    if (how === SHUT.RDWR) rc = kernel.invoke('smc_close_active', smcSock);
    if (how === SHUT.WR) rc = kernel.invoke('smc_close_shutdown_write', smcSock);
    if (clcsock !== 0) kernel.invoke('inet_shutdown', clcsock, how);
    setBits(ram, smcSock + S.sk_shutdown, how + 1);
    smc.wake(smcSock);
    return rc;
  }

  /** __smc_release */
  function release(smcSock: number): number {
    let rc = 0;
    if (!isFallback(smcSock)) {
      rc = kernel.invoke('smc_close_active', smcSock);
      setBits(ram, smcSock + S.sk_flags, SOCK_DEAD);
      setBits(ram, smcSock + S.sk_shutdown, SHUTDOWN_MASK);
    } else {
      setSkState(ram, smcSock, SMC_STATE.CLOSED);
      smc.wake(smcSock);
    }
    if (skState(ram, smcSock) === SMC_STATE.CLOSED) {
      kernel.invoke('smc_clcsock_release', smcSock);
      if (!isFallback(smcSock)) kernel.invoke('smc_conn_free', connOf(smcSock));
    }
    smc.released(smcSock);
    return rc;
  }

  function poll(smcSock: number): number {
    const state = skState(ram, smcSock);
    const clcsock = clcsockOf(smcSock);
    if (isFallback(smcSock) && clcsock) {
      const mask = kernel.invoke('tcp_poll', 0, clcsock.socket, 0);
      ram.set32(smcSock + S.sk_err, clcsock.error);
      return mask;
    }
    if (state === SMC_STATE.LISTEN) {
      return ram.pointer(smcSock + S.accept_head) === 0 ? 0 : POLL.IN;
    }
    const conn = connOf(smcSock);
    const shut = ram.u8(smcSock + S.sk_shutdown);
    let mask = 0;
    if (ram.u32(smcSock + S.sk_err) !== 0) mask |= POLL.ERR;
    if (shut === SHUTDOWN_MASK || state === SMC_STATE.CLOSED) mask |= POLL.HUP;
    const isWritable = state !== SMC_STATE.INIT && ram.u32(conn + C.sndbuf_space) > 0;
    if (isWritable || (shut & SEND_SHUTDOWN) !== 0) mask |= POLL.OUT;
    else noteNoSpace(smc, smcSock);
    if (ram.u32(conn + C.bytes_to_rcv) > 0) mask |= POLL.IN;
    if ((shut & RCV_SHUTDOWN) !== 0) mask |= POLL.IN | POLL.RDHUP;
    if (state === SMC_STATE.APPCLOSEWAIT1) mask |= POLL.IN;
    if (ram.u8(conn + C.urg_state) === URG_STATE.VALID) mask |= POLL.PRI;
    return mask;
  }

  function enqueue(parent: number, child: number): void {
    smc.handshakes--;
    if (skState(ram, parent) !== SMC_STATE.LISTEN) {
      kernel.invoke('smc_close_non_accepted', child);
      return;
    }
    const tail = ram.pointer(parent + S.accept_tail);
    ram.setPointer(tail === 0 ? parent + S.accept_head : tail + S.accept_next, child);
    ram.setPointer(parent + S.accept_tail, child);
    smc.wake(parent);
  }

  /** The next connection; those that failed before they were accepted are dropped now. */
  function dequeue(parent: number, newSocket: number): number {
    for (;;) {
      const child = ram.pointer(parent + S.accept_head);
      if (child === 0) return 0;
      const next = ram.pointer(child + S.accept_next);
      ram.setPointer(parent + S.accept_head, next);
      if (next === 0) ram.setPointer(parent + S.accept_tail, 0);
      ram.setPointer(child + S.accept_next, 0);
      if (skState(ram, child) === SMC_STATE.CLOSED && newSocket !== 0) {
        kernel.invoke('smc_clcsock_release', child);
        kernel.invoke('smc_conn_free', connOf(child));
        smc.released(child);
        continue;
      }
      if (newSocket !== 0) {
        ram.setPointer(newSocket + SOCKET.offset.sk, child);
        ram.setPointer(child + S.sk_socket, newSocket);
        if (isFallback(child)) handOver(newSocket, ram.pointer(child + S.clcsock));
      }
      return child;
    }
  }

  /** smc_clcsock_accept: a TCP connection that becomes an SMC socket of its own. */
  function clcsockAccept(parent: number, clcsock: TcpSocket): void {
    if (skState(ram, parent) !== SMC_STATE.LISTEN) {
      tcp.release(clcsock);
      return;
    }
    const child = smc.newSock(clcsock);
    ram.setPointer(child + S.listen_smc, parent);
    ram.set32(child + S.sk_rcvbuf, ram.u32(parent + S.sk_rcvbuf));
    ram.set32(child + S.sk_sndbuf, ram.u32(parent + S.sk_sndbuf));
    storeAddresses(kernel, child, clcsock.local, clcsock.remote);
    clcsock.onEvent = () => smc.wake(child);
    if (isFallback(parent)) {
      ram.set8(child + S.use_fallback, 1);
      ram.set32(child + S.fallback_rsn, ram.u32(parent + S.fallback_rsn));
    }
    smc.handshakes++;
    smc.startWork('smc_listen_work', child + S.smc_listen_work);
  }

  function listen(smcSock: number): number {
    if (skState(ram, smcSock) !== SMC_STATE.INIT) return -ERRNO.EINVAL;
    const clcsock = clcsockOf(smcSock);
    if (!clcsock) return -ERRNO.EINVAL;
    copySettingsToClc(smc, smcSock);
    if (!isFallback(smcSock)) tcp.setSynSmc(clcsock, true);
    tcp.listen(clcsock, (connection) => smc.defer(() => clcsockAccept(smcSock, connection)));
    storeAddresses(kernel, smcSock, clcsock.local, undefined);
    setSkState(ram, smcSock, SMC_STATE.LISTEN);
    return 0;
  }

  /** smc_call_hsbpf: what a policy in net.smc.hs_ctrl says; without one the option is sent. */
  function askPolicy(member: number, tp: number, request?: number): number {
    const image = smc.hsCtrl === 0 ? 0n : ram.u64(smc.hsCtrl + member);
    if (image === 0n) return 1;
    return smc.callText(image, tp, ...(request === undefined ? [] : [request]));
  }

  const request = kernel.physical.alloc(INET_REQUEST_SOCK.size);
  tcp.synackOption = (listener: TcpSocket, from: Endpoint, to: Endpoint): boolean => {
    // smc_hs_congested
    if (smc.handshakes >= smc.handshakeLimit) return false;
    ram.zero(request, INET_REQUEST_SOCK.size);
    storeAddresses(kernel, request, to, from);
    ram.set8(request + INET_REQUEST_SOCK.offset.smc_ok, 1);
    return kernel.invoke('smc_set_option_cond', listener.address, request) !== 0;
  };

  return [
    atomic({
      prototype: 'int update_socket_protocol(int family, int type, int protocol)',
      body: (_kernel, _family, _type, protocol) => protocol,
    }),
    atomic({
      prototype: 'int smc_set_option(const struct tcp_sock *tp)',
      calls: true,
      body: (_kernel, tp) =>
        ram.u8(tp + TCP_SOCK.offset.syn_smc) !== 0 && askPolicy(SMC_HS_CTRL.syn_option, tp) !== 0
          ? 1
          : 0,
    }),
    atomic({
      prototype:
        'int smc_set_option_cond(const struct tcp_sock *tp, struct inet_request_sock *ireq)',
      calls: true,
      body: (_kernel, tp, ireq) =>
        ram.u8(tp + TCP_SOCK.offset.syn_smc) !== 0 &&
        ram.u8(ireq + INET_REQUEST_SOCK.offset.smc_ok) !== 0 &&
        askPolicy(SMC_HS_CTRL.synack_option, tp, ireq) !== 0
          ? 1
          : 0,
    }),
    atomic({
      prototype: 'int smc_switch_to_fallback(struct smc_sock *smc, int reason_code)',
      body: (_kernel, smcSock, reason) => switchToFallback(smcSock, reason),
    }),
    atomic({
      prototype: 'int smc_listen(struct socket *sock, int backlog)',
      calls: true,
      body: (_kernel, socket) => listen(sockOfSocket(socket)),
    }),
    atomic({
      prototype:
        'int smc_accept(struct socket *sock, struct socket *new_sock, struct proto_accept_arg *arg)',
      calls: true,
      body: (_kernel, socket, newSocket) => {
        const parent = sockOfSocket(socket);
        if (skState(ram, parent) !== SMC_STATE.LISTEN) return -ERRNO.EINVAL;
        const child = kernel.invoke('smc_accept_dequeue', parent, newSocket);
        if (child === 0) return -ERRNO.EAGAIN;
        const error = ram.u32(child + S.sk_err);
        ram.set32(child + S.sk_err, 0);
        return -error;
      },
    }),
    atomic({
      prototype: 'void smc_accept_enqueue(struct sock *parent, struct sock *sk)',
      calls: true,
      body: (_kernel, parent, child) => enqueue(parent, child),
    }),
    atomic({
      prototype: 'struct sock *smc_accept_dequeue(struct sock *parent, struct socket *new_sock)',
      calls: true,
      body: (_kernel, parent, newSocket) => dequeue(parent, newSocket),
    }),
    atomic({
      prototype: 'void smc_close_non_accepted(struct sock *sk)',
      calls: true,
      body: (_kernel, smcSock) => void release(smcSock),
    }),
    atomic({
      prototype: 'void smc_clcsock_release(struct smc_sock *smc)',
      calls: true,
      body: (_kernel, smcSock) => {
        const clcsock = ram.pointer(smcSock + S.clcsock);
        if (clcsock !== 0) kernel.invoke('inet_release', clcsock);
        ram.setPointer(smcSock + S.clcsock, 0);
      },
    }),
    atomic({
      prototype: 'int smc_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)',
      calls: true,
      body: (_kernel, socket, msg, length) => sendmsg(sockOfSocket(socket), msg, length),
    }),
    atomic({
      prototype: 'int smc_recvmsg(struct socket *sock, struct msghdr *msg, size_t len, int flags)',
      calls: true,
      body: (_kernel, socket, msg, length, flags) =>
        recvmsg(sockOfSocket(socket), msg, length, flags),
    }),
    atomic({
      prototype: 'int smc_shutdown(struct socket *sock, int how)',
      calls: true,
      body: (_kernel, socket, how) => shutdown(sockOfSocket(socket), how),
    }),
    atomic({
      prototype: 'int smc_release(struct socket *sock)',
      calls: true,
      body: (_kernel, socket) => {
        const smcSock = sockOfSocket(socket);
        if (smcSock === 0) return 0;
        const isConnecting =
          ram.u8(smcSock + S.connect_nonblock) !== 0 && skState(ram, smcSock) === SMC_STATE.INIT;
        if (isConnecting) clcsockOf(smcSock)?.abort(ERRNO.ECONNABORTED);
        const rc = release(smcSock);
        ram.setPointer(smcSock + S.sk_socket, 0);
        ram.setPointer(socket + SOCKET.offset.sk, 0);
        return rc;
      },
    }),
    atomic({
      prototype:
        'unsigned int smc_poll(struct file *file, struct socket *sock, struct poll_table_struct *wait)',
      body: (_kernel, _file, socket) => poll(sockOfSocket(socket)),
    }),
  ];
}

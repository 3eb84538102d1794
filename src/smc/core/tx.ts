/**
 * Sending: user bytes into the send ring, from there into the peer's, and when a window update goes out.
 *
 * Reference: net/smc/smc_tx.c of 6.12. Nothing waits in here: where Linux sleeps the caller gets -EAGAIN, and
 * the socket above (`smc-socket.ts`) waits before it calls. smc_tx_rdma_writes, smc_tx_prepared_sends and
 * smc_tx_advance_cursors are inline in Linux and have no symbol here. Auto-corking looks at pending SMC-R
 * completions and never happens with SMC-D.
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelFunction } from '../../kernel/function.js';
import {
  CDC_SIZE,
  MSG,
  PROD_FLAG,
  SEND_SHUTDOWN,
  SMC_STATE,
  STATE_FLAG,
  TCP_NAGLE_CORK,
} from '../constants.js';
import type { SmcContext } from '../context.js';
import { cursAdd, cursCount, cursDiff, cursDiffLarge, cursWrap } from '../cursor.js';
import { MSGHDR, SOCKET, SOCK_NOSPACE } from '../structs.js';
import { lockSend, peerSize, preparedSends, unlockSend } from './cdc.js';
import {
  BUF,
  C,
  LGR,
  RX,
  S,
  TX,
  bufLen,
  clearBits,
  connOf,
  hasBits,
  rxedAnyClose,
  setBits,
  skState,
  sockOf,
} from './fields.js';
import { count, countBuffer } from './statistics.js';

const M = MSGHDR.offset;

export function txFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, stats, devices } = smc;

  /** Copies user bytes to where tx_curs_prep is, in one or two pieces. */
  function copyToSndbuf(conn: number, from: number, size: number): void {
    const desc = ram.pointer(conn + C.sndbuf_desc);
    const base = ram.pointer(desc + BUF.cpu_addr);
    const at = cursCount(ram, conn + C.tx_curs_prep);
    const first = Math.min(size, ram.u32(desc + BUF.len) - at);
    ram.bytes.set(smc.user.subarray(from, from + first), base + at);
    if (first < size) ram.bytes.set(smc.user.subarray(from + first, from + size), base);
    stats.userToKernel += size;
  }

  function sendmsg(smcSock: number, msg: number, length: number): number {
    const conn = connOf(smcSock);
    const flags = ram.u32(msg + M.msg_flags);
    const isOob = (flags & MSG.OOB) !== 0;
    if (ram.u32(smcSock + S.sk_err) !== 0 || hasBits(ram, smcSock + S.sk_shutdown, SEND_SHUTDOWN)) {
      return -ERRNO.EPIPE;
    }
    if (skState(ram, smcSock) === SMC_STATE.INIT) return -ERRNO.ENOTCONN;
    if (length > bufLen(ram, conn, 'sndbuf_desc')) countBuffer(smc, 'rmb_tx', 'buf_size_small_cnt');
    if (length > peerSize(smc, conn)) countBuffer(smc, 'rmb_tx', 'buf_size_small_peer_cnt');
    if (isOob) count(smc, 'urg_data_cnt');
    const start = ram.u32(msg + M.iov_offset);
    let done = 0;
    while (done < length) {
      if (isCut(smcSock, conn)) return -ERRNO.EPIPE;
      if (rxedAnyClose(ram, conn)) return done > 0 ? done : -ERRNO.ECONNRESET;
      if (isOob) setBits(ram, conn + TX.prodFlags, PROD_FLAG.URG_DATA_PENDING);
      const space = ram.u32(conn + C.sndbuf_space);
      if (space === 0 || ram.u8(conn + C.urg_tx_pend) !== 0) {
        if (done > 0) return done;
        noteNoSpace(smc, smcSock);
        return -ERRNO.EAGAIN;
      }
      const size = Math.min(length - done, space);
      copyToSndbuf(conn, start + done, size);
      cursAdd(ram, bufLen(ram, conn, 'sndbuf_desc'), conn + C.tx_curs_prep, size);
      ram.set32(conn + C.sndbuf_space, space - size);
      done += size;
      if (isOob && done === length) ram.set8(conn + C.urg_tx_pend, 1);
      const isCorked =
        (flags & MSG.MORE) !== 0 || (ram.u32(smcSock + S.nonagle) & TCP_NAGLE_CORK) !== 0;
      if (!isCorked || ram.u32(conn + C.sndbuf_space) === 0) {
        // like Linux: what the device says is not looked at
        kernel.invoke('smc_tx_sndbuf_nonempty', conn);
      }
    }
    return done;
  }

  function isCut(smcSock: number, conn: number): boolean {
    return (
      hasBits(ram, smcSock + S.sk_shutdown, SEND_SHUTDOWN) ||
      ram.u32(smcSock + S.sk_err) === ERRNO.ECONNABORTED ||
      ram.u8(conn + C.killed) !== 0
    );
  }

  /** smc_tx_rdma_writes: as much as the peer has room for. */
  function writes(conn: number): number {
    const ring = bufLen(ram, conn, 'sndbuf_desc');
    const toSend = cursDiff(ram, ring, conn + C.tx_curs_sent, conn + C.tx_curs_prep);
    const space = ram.u32(conn + C.peer_rmbe_space);
    if (toSend <= 0) return 0;
    if (space <= 0) {
      countBuffer(smc, 'rmb_tx', 'buf_full_peer_cnt');
      return 0;
    }
    if (toSend >= space) setBits(ram, conn + TX.prodFlags, PROD_FLAG.WRITE_BLOCKED);
    else clearBits(ram, conn + TX.prodFlags, PROD_FLAG.WRITE_BLOCKED);
    const len = Math.min(toSend, space);
    const peer = peerSize(smc, conn);
    const prod = cursCount(ram, conn + TX.prod);
    const isSameRound = cursWrap(ram, conn + TX.prod) === cursWrap(ram, conn + RX.cons);
    const dstLen = isSameRound ? Math.min(peer - prod, len) : len;
    const sent = cursCount(ram, conn + C.tx_curs_sent);
    const srcLen = Math.min(dstLen, ring - sent);
    const rc = kernel.invoke('smcd_tx_rdma_writes', conn, len, sent, srcLen, prod, dstLen);
    if (rc !== 0) return rc;
    if (ram.u8(conn + C.urg_tx_pend) !== 0 && len === toSend) {
      setBits(ram, conn + TX.prodFlags, PROD_FLAG.URG_DATA_PRESENT);
    }
    cursAdd(ram, peer, conn + TX.prod, len);
    ram.set32(conn + C.peer_rmbe_space, space - len);
    cursAdd(ram, ring, conn + C.tx_curs_sent, len);
    return 0;
  }

  /** Up to two pieces of the peer's ring, each of up to two of the send ring. */
  function rdmaWrites(
    conn: number,
    len: number,
    srcOff: number,
    srcLen: number,
    dstOff: number,
    dstLen: number,
  ): number {
    const desc = ram.pointer(conn + C.sndbuf_desc);
    const base = ram.pointer(desc + BUF.cpu_addr);
    const ring = ram.u32(desc + BUF.len);
    let [src, dst, piece] = [srcOff, dstOff, srcLen];
    let [leftHere, leftAll] = [dstLen, len];
    for (;;) {
      const rc = kernel.invoke('smcd_tx_ism_write', conn, base + src, piece, dst + CDC_SIZE, 0);
      if (rc !== 0) return rc;
      src = (src + piece) % ring;
      dst += piece;
      leftHere -= piece;
      leftAll -= piece;
      if (leftAll === 0) return 0;
      if (leftHere === 0) {
        dst = 0;
        leftHere = leftAll;
      }
      piece = Math.min(leftHere, ring - src);
    }
  }

  function consumerUpdate(conn: number, force: boolean): void {
    if (ram.u8(conn + C.killed) !== 0) return;
    const ring = bufLen(ram, conn, 'rmb_desc');
    const limit = ram.u32(conn + C.rmbe_update_limit);
    const confirmed = conn + C.rx_curs_confirmed;
    const toConfirm = cursDiff(ram, ring, confirmed, conn + TX.cons);
    let senderFree = ring;
    if (toConfirm > limit) senderFree = ring - cursDiffLarge(ram, ring, confirmed, conn + RX.prod);
    const isBlocked = hasBits(ram, conn + RX.prodFlags, PROD_FLAG.WRITE_BLOCKED);
    if (
      force ||
      hasBits(ram, conn + RX.prodFlags, PROD_FLAG.CONS_CURS_UPD_REQ) ||
      (toConfirm > limit && (senderFree <= ring / 2 || isBlocked))
    ) {
      if (hasBits(ram, conn + RX.stateFlags, STATE_FLAG.PEER_CONN_ABORT)) return;
      if (kernel.invoke('smc_cdc_get_slot_and_msg_send', conn) < 0) {
        scheduleTxWork(conn);
        return;
      }
      stats.windowUpdates++;
    }
    if (isBlocked && ram.u32(conn + C.bytes_to_rcv) === 0) {
      clearBits(ram, conn + RX.prodFlags, PROD_FLAG.WRITE_BLOCKED);
    }
  }

  /** conn->tx_work, delayed by SMC_TX_WORK_DELAY (0): tries once more. */
  function scheduleTxWork(conn: number): void {
    if (ram.u8(conn + C.tx_work_pending) !== 0 || ram.u8(conn + C.killed) !== 0) return;
    ram.set8(conn + C.tx_work_pending, 1);
    smc.defer(() => {
      ram.set8(conn + C.tx_work_pending, 0);
      if (ram.pointer(conn + C.lgr) !== 0) kernel.invoke('smc_tx_pending', conn);
    });
  }

  return [
    atomic({
      prototype: 'int smc_tx_sendmsg(struct smc_sock *smc, struct msghdr *msg, size_t len)',
      calls: true,
      body: (_kernel, smcSock, msg, length) => sendmsg(smcSock, msg, length),
    }),
    atomic({
      prototype:
        'int smcd_tx_ism_write(struct smc_connection *conn, void *data, size_t len, u32 offset, int signal)',
      calls: true,
      body: (_kernel, conn, data, length, offset, signal) => {
        const dev = ram.pointer(ram.pointer(conn + C.lgr) + LGR.smcd);
        const rc = kernel.invoke(
          devices.of(dev).ops.move_data,
          dev,
          ram.u53(conn + C.peer_token),
          ram.u32(conn + C.peer_rmbe_idx),
          signal === 0 ? 0 : 1,
          ram.u32(conn + C.tx_off) + offset,
          data,
          length,
        );
        if (rc !== 0) setBits(ram, conn + TX.stateFlags, STATE_FLAG.PEER_CONN_ABORT);
        return rc;
      },
    }),
    atomic({
      prototype:
        'int smcd_tx_rdma_writes(struct smc_connection *conn, size_t len, size_t src_off, ' +
        'size_t src_len, size_t dst_off, size_t dst_len)',
      calls: true,
      body: (_kernel, conn, len, srcOff, srcLen, dstOff, dstLen) =>
        rdmaWrites(conn, len, srcOff, srcLen, dstOff, dstLen),
    }),
    atomic({
      prototype: 'int smc_tx_sndbuf_nonempty(struct smc_connection *conn)',
      calls: true,
      body: (_kernel, conn) => {
        if (preparedSends(smc, conn) <= 0) return 0;
        if (ram.u32(conn + C.peer_rmbe_space) === 0) {
          countBuffer(smc, 'rmb_tx', 'buf_full_peer_cnt');
          return 0;
        }
        const isAborted = hasBits(ram, conn + RX.stateFlags, STATE_FLAG.PEER_CONN_ABORT);
        if (ram.u8(conn + C.killed) !== 0 || isAborted) return -ERRNO.EPIPE;
        return kernel.invoke('smcd_tx_sndbuf_nonempty', conn);
      },
    }),
    atomic({
      prototype: 'int smcd_tx_sndbuf_nonempty(struct smc_connection *conn)',
      calls: true,
      body: (_kernel, conn) => {
        lockSend(smc, conn);
        try {
          const present = conn + TX.prodFlags;
          let rc = hasBits(ram, present, PROD_FLAG.URG_DATA_PRESENT) ? 0 : writes(conn);
          if (rc === 0) rc = kernel.invoke('smcd_cdc_msg_send', conn);
          if (rc === 0 && hasBits(ram, present, PROD_FLAG.URG_DATA_PRESENT)) {
            clearBits(ram, present, PROD_FLAG.URG_DATA_PENDING | PROD_FLAG.URG_DATA_PRESENT);
          }
          return rc;
        } finally {
          unlockSend(smc, conn);
        }
      },
    }),
    atomic({
      prototype: 'void smc_tx_pending(struct smc_connection *conn)',
      calls: true,
      body: (_kernel, conn) => {
        if (ram.u32(sockOf(conn) + S.sk_err) !== 0) return;
        const rc = kernel.invoke('smc_tx_sndbuf_nonempty', conn);
        const isBlocked = hasBits(ram, conn + RX.prodFlags, PROD_FLAG.WRITE_BLOCKED);
        if (rc === 0 && isBlocked && ram.u32(conn + C.bytes_to_rcv) === 0) {
          clearBits(ram, conn + RX.prodFlags, PROD_FLAG.WRITE_BLOCKED);
        }
      },
    }),
    atomic({
      prototype: 'void smc_tx_consumer_update(struct smc_connection *conn, bool force)',
      calls: true,
      body: (_kernel, conn, force) => consumerUpdate(conn, force !== 0),
    }),
    atomic({
      prototype: 'void smc_tx_sndbuf_nonfull(struct smc_sock *smc)',
      body: (_kernel, smcSock) => {
        if (ram.u32(connOf(smcSock) + C.sndbuf_space) === 0) return;
        const socket = ram.pointer(smcSock + S.sk_socket);
        // smc_tx_write_space
        if (socket !== 0 && hasBits(ram, socket + SOCKET.offset.flags, SOCK_NOSPACE)) {
          countBuffer(smc, 'rmb_tx', 'buf_full_cnt');
          clearBits(ram, socket + SOCKET.offset.flags, SOCK_NOSPACE);
        }
        smc.wake(smcSock);
      },
    }),
  ];
}

/** Somebody waits for room in the send ring, or was told that there is none. */
export function noteNoSpace({ ram }: SmcContext, smcSock: number): void {
  const socket = ram.pointer(smcSock + S.sk_socket);
  if (socket !== 0) setBits(ram, socket + SOCKET.offset.flags, SOCK_NOSPACE);
}

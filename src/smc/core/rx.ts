/**
 * Receiving: bytes out of the own ring, urgent data, and moving the consumer cursor.
 *
 * Reference: net/smc/smc_rx.c of 6.12. Where Linux sleeps the caller gets -EAGAIN; the socket above calls
 * `smc_rx_wait` before it waits. Leaves out splice.
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelFunction } from '../../kernel/function.js';
import { MSG, RCV_SHUTDOWN, SMC_STATE, URG_STATE } from '../constants.js';
import type { SmcContext } from '../context.js';
import {
  cursAdd,
  cursComp,
  cursCopy,
  cursCount,
  cursDiff,
  cursFromValue,
  cursValue,
} from '../cursor.js';
import { MSGHDR, SOCK_DONE, SOCK_URGINLINE } from '../structs.js';
import { BUF, C, S, TX, bufLen, connOf, hasBits, skState } from './fields.js';
import { count, countBuffer } from './statistics.js';

const M = MSGHDR.offset;

export function rxFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, stats } = smc;
  const scratchCons = kernel.physical.alloc(8);

  /** Takes sk_err: sock_error. */
  function takeError(smcSock: number): number {
    const error = ram.u32(smcSock + S.sk_err);
    ram.set32(smcSock + S.sk_err, 0);
    return -error;
  }

  /** What a receive that can read nothing returns. */
  function nothing(smcSock: number): number {
    const conn = connOf(smcSock);
    if (ram.u8(conn + C.killed) !== 0) return 0;
    if (hasBits(ram, smcSock + S.sk_shutdown, RCV_SHUTDOWN)) return 0;
    if (ram.u32(smcSock + S.sk_err) !== 0) return takeError(smcSock);
    if (skState(ram, smcSock) === SMC_STATE.CLOSED) {
      return hasBits(ram, smcSock + S.sk_flags, SOCK_DONE) ? 0 : -ERRNO.ENOTCONN;
    }
    return -ERRNO.EAGAIN;
  }

  /** Copies from the ring at the consumer cursor, in one or two pieces. */
  function copyToUser(conn: number, to: number, size: number): void {
    const desc = ram.pointer(conn + C.rmb_desc);
    const base = ram.pointer(desc + BUF.cpu_addr) + ram.u32(conn + C.rx_off);
    const at = cursCount(ram, conn + TX.cons);
    const first = Math.min(size, ram.u32(desc + BUF.len) - at);
    smc.user.set(ram.bytes.subarray(base + at, base + at + first), to);
    if (first < size) smc.user.set(ram.bytes.subarray(base, base + size - first), to + first);
    stats.kernelToUser += size;
  }

  function recvmsg(smcSock: number, msg: number, length: number, flags: number): number {
    const conn = connOf(smcSock);
    if (skState(ram, smcSock) === SMC_STATE.LISTEN) return -ERRNO.ENOTCONN;
    if ((flags & MSG.OOB) !== 0) return receiveUrgent(smcSock, msg, length, flags);
    countFill(conn, length);
    const to = ram.u32(msg + M.iov_offset);
    let done = 0;
    while (done < length) {
      const readable = ram.u32(conn + C.bytes_to_rcv);
      if (ram.u8(conn + C.killed) !== 0 || readable === 0) break;
      const size = Math.min(length - done, readable);
      if ((flags & MSG.TRUNC) === 0) copyToUser(conn, to + done, size);
      done += size;
      if ((flags & MSG.PEEK) !== 0) break;
      ram.set32(conn + C.bytes_to_rcv, readable - size);
      const cons = cursValue(ram, conn + TX.cons);
      if (kernel.invoke('smc_rx_update_consumer', smcSock, cons, size) !== 0) break;
    }
    return done > 0 || length === 0 ? done : nothing(smcSock);
  }

  /** A ring that is full, and a request for less than it has. */
  function countFill(conn: number, length: number): void {
    const readable = ram.u32(conn + C.bytes_to_rcv);
    const desc = ram.pointer(conn + C.rmb_desc);
    if (desc !== 0 && readable >= ram.u32(desc + BUF.len)) {
      countBuffer(smc, 'rmb_rx', 'buf_full_cnt');
    }
    if (length < readable) countBuffer(smc, 'rmb_rx', 'buf_size_small_cnt');
  }

  function receiveUrgent(smcSock: number, msg: number, length: number, flags: number): number {
    const conn = connOf(smcSock);
    const isInline = hasBits(ram, smcSock + S.sk_flags, SOCK_URGINLINE);
    if (isInline || ram.u8(conn + C.urg_state) !== URG_STATE.VALID) return -ERRNO.EINVAL;
    count(smc, 'urg_data_cnt');
    const isPeek = (flags & MSG.PEEK) !== 0;
    if (!isPeek) ram.set8(conn + C.urg_state, URG_STATE.READ);
    if (length === 0) return 0;
    if ((flags & MSG.TRUNC) === 0) {
      smc.user[ram.u32(msg + M.iov_offset)] = ram.u8(conn + C.urg_rx_byte);
      stats.kernelToUser++;
    }
    const ring = bufLen(ram, conn, 'rmb_desc');
    const isAhead = cursDiff(ram, ring, conn + TX.cons, conn + C.urg_curs) > 1;
    if (isAhead) ram.set8(conn + C.urg_rx_skip_pend, 1);
    if (!isPeek) {
      kernel.invoke('smc_rx_update_consumer', smcSock, cursValue(ram, conn + TX.cons), 0);
    }
    return 1;
  }

  /** 1 when the urgent byte was reached inline. */
  function updateConsumer(smcSock: number, cons: number, length: number): number {
    const conn = connOf(smcSock);
    const ring = bufLen(ram, conn, 'rmb_desc');
    cursFromValue(ram, scratchCons, cons);
    cursAdd(ram, ring, scratchCons, length);
    let force = 0;
    let rc = 0;
    const isValid = ram.u8(conn + C.urg_state) === URG_STATE.VALID;
    if (isValid || ram.u8(conn + C.urg_rx_skip_pend) !== 0) {
      const diff = cursComp(ram, ring, scratchCons, conn + C.urg_curs);
      if (hasBits(ram, smcSock + S.sk_flags, SOCK_URGINLINE)) {
        if (diff === 0) {
          force = 1;
          rc = 1;
          ram.set8(conn + C.urg_state, URG_STATE.READ);
        }
      } else if (diff === 1) {
        // the urgent byte is next: skip it
        force = 1;
        cursAdd(ram, ring, scratchCons, 1);
        ram.set8(conn + C.urg_rx_skip_pend, 0);
      } else if (diff < -1) {
        ram.set8(conn + C.urg_state, URG_STATE.READ);
      }
    }
    cursCopy(ram, conn + TX.cons, scratchCons);
    kernel.invoke('smc_tx_consumer_update', conn, force);
    return rc;
  }

  return [
    atomic({
      prototype:
        'int smc_rx_recvmsg(struct smc_sock *smc, struct msghdr *msg, struct pipe_inode_info *pipe, ' +
        'size_t len, int flags)',
      calls: true,
      body: (_kernel, smcSock, msg, _pipe, length, flags) => recvmsg(smcSock, msg, length, flags),
    }),
    {
      ...atomic({
        prototype: 'int smc_rx_update_consumer(struct smc_sock *smc, u64 cons, size_t len)',
        calls: true,
        body: (_kernel, smcSock, cons, length) => updateConsumer(smcSock, cons, length),
      }),
      prototype:
        'int smc_rx_update_consumer(struct smc_sock *smc, struct smc_host_cursor cons, size_t len)',
      structs: { smc_host_cursor: 8 },
    },
    atomic({
      prototype: 'int smc_rx_wait(struct smc_sock *smc, long *timeo, size_t peeked, void *fcrit)',
      // 1: there is something, or nothing will come
      body: (_kernel, smcSock, _timeo, peeked) => {
        const conn = connOf(smcSock);
        return ram.u32(conn + C.bytes_to_rcv) > peeked ||
          ram.u32(smcSock + S.sk_err) !== 0 ||
          hasBits(ram, smcSock + S.sk_shutdown, RCV_SHUTDOWN) ||
          ram.u8(conn + C.killed) !== 0
          ? 1
          : 0;
      },
    }),
  ];
}

/**
 * Closing: what each end tells the other, and the states it goes through.
 *
 * Reference: net/smc/smc_close.c of 6.12. Waiting for unsent data (smc_close_stream_wait) is done by the socket
 * above, before it calls `smc_release` or `smc_shutdown`.
 *
 * Usage:
 *   kernel.invoke('smc_close_active', smc);
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelFunction } from '../../kernel/function.js';
import { SMC_STATE, STATE_FLAG } from '../constants.js';
import type { SmcContext } from '../context.js';
import { SOCK_DEAD } from '../structs.js';
import {
  C,
  RX,
  S,
  TX,
  connOf,
  hasBits,
  rxedAnyClose,
  sentAnyClose,
  setBits,
  setSkState,
  skState,
  sockOf,
} from './fields.js';

const SHUT_RDWR = 2;

export function closeFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, tcp } = smc;

  /** smc_close_final: closed, or abort when something was not read. */
  function closeFinal(conn: number): number {
    const isUnread = ram.u32(conn + C.bytes_to_rcv) > 0;
    const flag = isUnread ? STATE_FLAG.PEER_CONN_ABORT : STATE_FLAG.PEER_CONN_CLOSED;
    setBits(ram, conn + TX.stateFlags, flag);
    if (ram.u8(conn + C.killed) !== 0) return -ERRNO.EPIPE;
    return kernel.invoke('smc_cdc_get_slot_and_msg_send', conn);
  }

  /** smc_close_wr */
  function closeWr(conn: number): number {
    setBits(ram, conn + TX.stateFlags, STATE_FLAG.PEER_DONE_WRITING);
    return kernel.invoke('smc_cdc_get_slot_and_msg_send', conn);
  }

  function sentDoneOnly(conn: number): boolean {
    return (
      hasBits(ram, conn + TX.stateFlags, STATE_FLAG.PEER_DONE_WRITING) && !sentAnyClose(ram, conn)
    );
  }

  function shutClcsock(smcSock: number): void {
    const clcsock = ram.pointer(smcSock + S.clcsock);
    if (clcsock !== 0) kernel.invoke('inet_shutdown', clcsock, SHUT_RDWR);
  }

  function closeActive(smcSock: number): number {
    const conn = connOf(smcSock);
    const before = skState(ram, smcSock);
    let rc = 0;
    switch (before) {
      case SMC_STATE.LISTEN:
        setSkState(ram, smcSock, SMC_STATE.CLOSED);
        smc.wake(smcSock);
        cleanupListen(smcSock);
        break;
      case SMC_STATE.ACTIVE:
        rc = closeFinal(conn);
        setSkState(ram, smcSock, SMC_STATE.PEERCLOSEWAIT1);
        shutClcsock(smcSock);
        break;
      case SMC_STATE.APPFINCLOSEWAIT:
        if (sentDoneOnly(conn)) rc = closeFinal(conn);
        setSkState(ram, smcSock, SMC_STATE.CLOSED);
        break;
      case SMC_STATE.APPCLOSEWAIT1:
      case SMC_STATE.APPCLOSEWAIT2: {
        rc = closeFinal(conn);
        const isOver = rxedAnyClose(ram, conn);
        setSkState(ram, smcSock, isOver ? SMC_STATE.CLOSED : SMC_STATE.PEERFINCLOSEWAIT);
        break;
      }
      case SMC_STATE.PEERCLOSEWAIT1:
      case SMC_STATE.PEERCLOSEWAIT2:
        if (sentDoneOnly(conn)) rc = closeFinal(conn);
        break;
      case SMC_STATE.PROCESSABORT:
        rc = kernel.invoke('smc_close_abort', conn);
        setSkState(ram, smcSock, SMC_STATE.CLOSED);
        break;
      case SMC_STATE.INIT:
      case SMC_STATE.PEERABORTWAIT:
        setSkState(ram, smcSock, SMC_STATE.CLOSED);
        break;
      default: // PEERFINCLOSEWAIT, CLOSED: the peer is next, or nobody
        break;
    }
    if (skState(ram, smcSock) !== before) smc.wake(smcSock);
    return rc;
  }

  /** smc_close_cleanup_listen: nobody will accept what waits in the queue. */
  function cleanupListen(smcSock: number): void {
    for (;;) {
      const child = kernel.invoke('smc_accept_dequeue', smcSock, 0);
      if (child === 0) return;
      kernel.invoke('smc_close_non_accepted', child);
    }
  }

  function shutdownWrite(smcSock: number): number {
    const conn = connOf(smcSock);
    const state = skState(ram, smcSock);
    if (state !== SMC_STATE.ACTIVE && state !== SMC_STATE.APPCLOSEWAIT1) return 0;
    const rc = closeWr(conn);
    const isActive = state === SMC_STATE.ACTIVE;
    setSkState(ram, smcSock, isActive ? SMC_STATE.PEERCLOSEWAIT1 : SMC_STATE.APPCLOSEWAIT2);
    smc.wake(smcSock);
    return rc;
  }

  /** smc_close_passive_abort_received */
  function abortReceived(smcSock: number): void {
    const conn = connOf(smcSock);
    switch (skState(ram, smcSock)) {
      case SMC_STATE.INIT:
      case SMC_STATE.ACTIVE:
      case SMC_STATE.APPCLOSEWAIT1:
      case SMC_STATE.APPFINCLOSEWAIT:
        setSkState(ram, smcSock, SMC_STATE.PROCESSABORT);
        break;
      case SMC_STATE.PEERCLOSEWAIT1:
      case SMC_STATE.PEERCLOSEWAIT2:
        // the record's arrival has set the own abort flag: what comes in over a device always ends in CLOSED
        setSkState(ram, smcSock, sentDoneOnly(conn) ? SMC_STATE.PROCESSABORT : SMC_STATE.CLOSED);
        break;
      case SMC_STATE.APPCLOSEWAIT2:
      case SMC_STATE.PEERFINCLOSEWAIT:
      case SMC_STATE.PEERABORTWAIT:
        setSkState(ram, smcSock, SMC_STATE.CLOSED);
        break;
      default: // PROCESSABORT, CLOSED
        break;
    }
  }

  function closeReceived(smcSock: number): void {
    const conn = connOf(smcSock);
    const isReleased = hasBits(ram, smcSock + S.sk_flags, SOCK_DEAD);
    const state = skState(ram, smcSock);
    switch (state) {
      case SMC_STATE.INIT:
      case SMC_STATE.ACTIVE:
        setSkState(ram, smcSock, SMC_STATE.APPCLOSEWAIT1);
        break;
      case SMC_STATE.PEERCLOSEWAIT1:
      case SMC_STATE.PEERCLOSEWAIT2:
        if (rxedAnyClose(ram, conn)) {
          const isOver = isReleased && sentAnyClose(ram, conn);
          setSkState(ram, smcSock, isOver ? SMC_STATE.CLOSED : SMC_STATE.APPFINCLOSEWAIT);
        } else if (state === SMC_STATE.PEERCLOSEWAIT1) {
          setSkState(ram, smcSock, SMC_STATE.PEERCLOSEWAIT2);
        }
        break;
      case SMC_STATE.PEERFINCLOSEWAIT:
        if (rxedAnyClose(ram, conn)) setSkState(ram, smcSock, SMC_STATE.CLOSED);
        break;
      default: // the application is next, or nobody
        break;
    }
  }

  function passiveWork(conn: number): void {
    ram.set8(conn + C.close_work_pending, 0);
    const smcSock = sockOf(conn);
    const before = skState(ram, smcSock);
    if (hasBits(ram, conn + RX.stateFlags, STATE_FLAG.PEER_CONN_ABORT)) abortReceived(smcSock);
    else closeReceived(smcSock);
    smc.wake(smcSock);
    if (skState(ram, smcSock) === before) return;
    const isGone = hasBits(ram, smcSock + S.sk_flags, SOCK_DEAD);
    if (skState(ram, smcSock) !== SMC_STATE.CLOSED || !isGone) return;
    kernel.invoke('smc_conn_free', conn);
    kernel.invoke('smc_clcsock_release', smcSock);
  }

  function activeAbort(smcSock: number): void {
    const state = skState(ram, smcSock);
    const clcsock = ram.pointer(smcSock + S.clcsock);
    if (state !== SMC_STATE.INIT && clcsock !== 0) {
      ram.set32(smcSock + S.sk_err, ERRNO.ECONNABORTED);
      tcp.of(clcsock).abort(ERRNO.ECONNABORTED);
    }
    switch (state) {
      case SMC_STATE.INIT:
      case SMC_STATE.PEERABORTWAIT:
      case SMC_STATE.CLOSED:
        break;
      default:
        setSkState(ram, smcSock, SMC_STATE.PEERABORTWAIT);
        ram.set8(connOf(smcSock) + C.close_work_pending, 0);
        setSkState(ram, smcSock, SMC_STATE.CLOSED);
    }
    setBits(ram, smcSock + S.sk_flags, SOCK_DEAD);
    smc.wake(smcSock);
  }

  return [
    atomic({
      prototype: 'int smc_close_active(struct smc_sock *smc)',
      calls: true,
      body: (_kernel, smcSock) => closeActive(smcSock),
    }),
    atomic({
      prototype: 'int smc_close_shutdown_write(struct smc_sock *smc)',
      calls: true,
      body: (_kernel, smcSock) => shutdownWrite(smcSock),
    }),
    atomic({
      prototype: 'int smc_close_abort(struct smc_connection *conn)',
      calls: true,
      body: (_kernel, conn) => {
        setBits(ram, conn + TX.stateFlags, STATE_FLAG.PEER_CONN_ABORT);
        return kernel.invoke('smc_cdc_get_slot_and_msg_send', conn);
      },
    }),
    atomic({
      prototype: 'void smc_close_active_abort(struct smc_sock *smc)',
      calls: true,
      body: (_kernel, smcSock) => activeAbort(smcSock),
    }),
    atomic({
      prototype: 'void smc_close_passive_work(struct work_struct *work)',
      calls: true,
      body: (_kernel, work) => passiveWork(work - C.close_work),
    }),
  ];
}

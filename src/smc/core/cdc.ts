/**
 * CDC records: cursors and flags that one end writes to the head of the other's buffer.
 *
 * Reference: smcd_cdc_msg_send, smc_cdc_get_slot_and_msg_send, smcd_cdc_rx_tsklet, smc_cdc_msg_recv,
 * smc_cdc_msg_recv_action, smc_cdc_handle_urg_data_arrival in net/smc/smc_cdc.c of 6.12. There is no sequence
 * number and no queue: a newer record overwrites one that was not read, and the signals coalesce.
 */
import { ERRNO } from '../../common/errno.js';
import { KernelError } from '../../common/errors.js';
import { atomic, type KernelFunction } from '../../kernel/function.js';
import {
  CDC_SIZE,
  PROD_FLAG,
  RCV_SHUTDOWN,
  SMC_CDC_MSG_TYPE,
  STATE_FLAG,
  URG_STATE,
} from '../constants.js';
import type { SmcContext } from '../context.js';
import { cursCopy, cursCount, cursDiff, cursSet, cursWrap } from '../cursor.js';
import { SMCD_CDC_MSG, SOCK_DONE, SOCK_URGINLINE } from '../structs.js';
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
  rxedAnyCloseOrSenddone,
  setBits,
  sockOf,
} from './fields.js';

const MSG = SMCD_CDC_MSG;

/** spin_lock_bh(&conn->send_lock). The lock of a connection that is busy sending is never free here. */
export function lockSend({ ram }: SmcContext, conn: number): void {
  if (ram.u32(conn + C.send_lock) !== 0) {
    throw new KernelError(
      'EDEADLK',
      `BUG: spinlock recursion: send_lock of smc_connection ${conn.toString(16)} is held by this CPU`,
    );
  }
  ram.set32(conn + C.send_lock, 1);
}

export function unlockSend({ ram }: SmcContext, conn: number): void {
  ram.set32(conn + C.send_lock, 0);
}

/** Bytes of the peer's ring. */
export function peerSize({ ram }: SmcContext, conn: number): number {
  return ram.u32(conn + C.peer_rmbe_size);
}

export function cdcFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, stats } = smc;

  function buildRecord(conn: number): number {
    const cdc = conn + C.scratch_cdc_tx;
    ram.zero(cdc, MSG.size);
    ram.set8(cdc + MSG.type, SMC_CDC_MSG_TYPE);
    ram.set16(cdc + MSG.prod_wrap, cursWrap(ram, conn + TX.prod));
    ram.set32(cdc + MSG.prod_count, cursCount(ram, conn + TX.prod));
    ram.set16(cdc + MSG.cons_wrap, cursWrap(ram, conn + TX.cons));
    ram.set32(cdc + MSG.cons_count, cursCount(ram, conn + TX.cons));
    ram.set8(cdc + MSG.prod_flags, ram.u8(conn + TX.prodFlags));
    ram.set8(cdc + MSG.conn_state_flags, ram.u8(conn + TX.stateFlags));
    return cdc;
  }

  function send(conn: number): number {
    const cdc = buildRecord(conn);
    const rc = kernel.invoke('smcd_tx_ism_write', conn, cdc, CDC_SIZE, 0, 1);
    if (rc !== 0) return rc;
    stats.cdcs++;
    cursCopy(ram, conn + C.rx_curs_confirmed, conn + TX.cons);
    clearBits(ram, conn + RX.prodFlags, PROD_FLAG.CONS_CURS_UPD_REQ);
    const dev = ram.pointer(ram.pointer(conn + C.lgr) + LGR.smcd);
    if (kernel.invoke('smc_ism_support_dmb_nocopy', dev) !== 0) return 0;
    // copied: the send ring is free again
    const len = bufLen(ram, conn, 'sndbuf_desc');
    const sent = cursDiff(ram, len, conn + C.tx_curs_fin, conn + C.tx_curs_sent);
    ram.set32(conn + C.sndbuf_space, ram.u32(conn + C.sndbuf_space) + sent);
    cursCopy(ram, conn + C.tx_curs_fin, conn + C.tx_curs_sent);
    kernel.invoke('smc_tx_sndbuf_nonfull', sockOf(conn));
    return 0;
  }

  /** Copies a cursor of the record that arrived. */
  function takeCursor(to: number, cdc: number, wrap: number, count: number): void {
    cursSet(ram, to, ram.u16(cdc + wrap), ram.u32(cdc + count));
  }

  /** The new bytes of payload; one less when an urgent one is among them. */
  function urgentArrived(conn: number, produced: number): number {
    cursCopy(ram, conn + C.urg_curs, conn + RX.prod);
    ram.set8(conn + C.urg_state, URG_STATE.VALID);
    const count = cursCount(ram, conn + C.urg_curs);
    const last = (count === 0 ? bufLen(ram, conn, 'rmb_desc') : count) - 1;
    const base = ram.pointer(ram.pointer(conn + C.rmb_desc) + BUF.cpu_addr);
    ram.set8(conn + C.urg_rx_byte, ram.u8(base + ram.u32(conn + C.rx_off) + last));
    return hasBits(ram, sockOf(conn) + S.sk_flags, SOCK_URGINLINE) ? produced : produced - 1;
  }

  /** The peer has consumed: its ring has room again. */
  function consumed(conn: number, bytes: number): void {
    ram.set32(conn + C.peer_rmbe_space, ram.u32(conn + C.peer_rmbe_space) + bytes);
    const dev = ram.pointer(ram.pointer(conn + C.lgr) + LGR.smcd);
    if (kernel.invoke('smc_ism_support_dmb_nocopy', dev) === 0) return;
    // the send ring is the peer's: only now is it free again
    const desc = ram.pointer(conn + C.sndbuf_desc);
    if (desc === 0) return;
    const fin = conn + C.tx_curs_fin;
    const freed = cursDiff(ram, ram.u32(desc + BUF.len), fin, conn + RX.cons);
    ram.set32(conn + C.sndbuf_space, ram.u32(conn + C.sndbuf_space) + freed);
    cursCopy(ram, fin, conn + RX.cons);
    kernel.invoke('smc_tx_sndbuf_nonfull', sockOf(conn));
  }

  const scratch = {
    prod: kernel.physical.alloc(8),
    cons: kernel.physical.alloc(8),
  };

  function receive(smcSock: number, cdc: number): void {
    const conn = connOf(smcSock);
    cursCopy(ram, scratch.prod, conn + RX.prod);
    cursCopy(ram, scratch.cons, conn + RX.cons);
    takeCursor(conn + RX.prod, cdc, MSG.prod_wrap, MSG.prod_count);
    takeCursor(conn + RX.cons, cdc, MSG.cons_wrap, MSG.cons_count);
    ram.set8(conn + RX.prodFlags, ram.u8(cdc + MSG.prod_flags));
    ram.set8(conn + RX.stateFlags, ram.u8(cdc + MSG.conn_state_flags));

    const diffCons = cursDiff(ram, peerSize(smc, conn), scratch.cons, conn + RX.cons);
    if (diffCons !== 0) consumed(conn, diffCons);
    const ring = bufLen(ram, conn, 'rmb_desc');
    let diffProd = cursDiff(ram, ring, scratch.prod, conn + RX.prod);
    if (diffProd !== 0) {
      if (hasBits(ram, conn + RX.prodFlags, PROD_FLAG.URG_DATA_PRESENT)) {
        diffProd = urgentArrived(conn, diffProd);
      }
      ram.set32(conn + C.bytes_to_rcv, ram.u32(conn + C.bytes_to_rcv) + diffProd);
      smc.wake(smcSock);
    } else {
      if (hasBits(ram, conn + RX.prodFlags, PROD_FLAG.WRITE_BLOCKED)) smc.wake(smcSock);
      if (hasBits(ram, conn + RX.prodFlags, PROD_FLAG.URG_DATA_PENDING)) {
        ram.set8(conn + C.urg_state, URG_STATE.NOTYET);
      }
    }
    answer(smcSock, conn, diffCons);
    noteClose(smcSock, conn);
  }

  function answer(smcSock: number, conn: number, diffCons: number): void {
    const wants =
      (diffCons !== 0 && preparedSends(smc, conn) > 0) ||
      hasBits(ram, conn + RX.prodFlags, PROD_FLAG.CONS_CURS_UPD_REQ | PROD_FLAG.URG_DATA_PENDING);
    if (wants) kernel.invoke('smc_tx_pending', conn);
    if (diffCons !== 0 && ram.u8(conn + C.urg_tx_pend) !== 0) {
      if (ram.u32(conn + C.peer_rmbe_space) === peerSize(smc, conn)) {
        ram.set8(conn + C.urg_tx_pend, 0);
        smc.wake(smcSock);
      }
    }
  }

  function noteClose(smcSock: number, conn: number): void {
    if (hasBits(ram, conn + RX.stateFlags, STATE_FLAG.PEER_CONN_ABORT)) {
      ram.set32(smcSock + S.sk_err, ERRNO.ECONNRESET);
      setBits(ram, conn + TX.stateFlags, STATE_FLAG.PEER_CONN_ABORT);
    }
    if (!rxedAnyCloseOrSenddone(ram, conn)) return;
    setBits(ram, smcSock + S.sk_shutdown, RCV_SHUTDOWN);
    setBits(ram, smcSock + S.sk_flags, SOCK_DONE);
    if (ram.u8(conn + C.close_work_pending) !== 0) return;
    ram.set8(conn + C.close_work_pending, 1);
    smc.defer(() => kernel.invoke('smc_close_passive_work', conn + C.close_work));
  }

  return [
    atomic({
      prototype: 'int smcd_cdc_msg_send(struct smc_connection *conn)',
      calls: true,
      body: (_kernel, conn) => send(conn),
    }),
    atomic({
      prototype: 'int smc_cdc_get_slot_and_msg_send(struct smc_connection *conn)',
      calls: true,
      body: (_kernel, conn) => {
        lockSend(smc, conn);
        try {
          return kernel.invoke('smcd_cdc_msg_send', conn);
        } finally {
          unlockSend(smc, conn);
        }
      },
    }),
    atomic({
      prototype: 'void smcd_cdc_rx_tsklet(struct tasklet_struct *t)',
      calls: true,
      body: (_kernel, tasklet) => {
        const conn = tasklet - C.rx_tsklet;
        const desc = ram.pointer(conn + C.rmb_desc);
        if (ram.u8(conn + C.killed) !== 0 || desc === 0) return;
        stats.tasklets++;
        ram.copy(conn + C.scratch_cdc_rx, ram.pointer(desc + BUF.cpu_addr), CDC_SIZE);
        kernel.invoke('smc_cdc_msg_recv', sockOf(conn), conn + C.scratch_cdc_rx);
      },
    }),
    atomic({
      prototype: 'void smc_cdc_msg_recv(struct smc_sock *smc, struct smc_cdc_msg *cdc)',
      calls: true,
      body: (_kernel, smcSock, cdc) => {
        kernel.invoke('smc_cdc_msg_recv_action', smcSock, cdc);
      },
    }),
    atomic({
      prototype: 'void smc_cdc_msg_recv_action(struct smc_sock *smc, struct smc_cdc_msg *cdc)',
      calls: true,
      body: (_kernel, smcSock, cdc) => receive(smcSock, cdc),
    }),
  ];
}

/** smc_tx_prepared_sends: bytes in the send ring that were not handed to the device. */
export function preparedSends({ ram }: SmcContext, conn: number): number {
  const desc = ram.pointer(conn + C.sndbuf_desc);
  if (desc === 0) return 0;
  return cursDiff(ram, ram.u32(desc + BUF.len), conn + C.tx_curs_sent, conn + C.tx_curs_prep);
}

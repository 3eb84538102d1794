/**
 * Buffers of a connection: the ring it receives in, the ring it sends from, and the ghost of the peer's.
 *
 * Reference: smc_buf_create, __smc_buf_create, smcd_new_buf_create, smcd_buf_attach, smcd_buf_detach,
 * smc_buf_unuse in net/smc/smc_core.c of 6.12. A receive buffer is a DMB with the CDC record in front, so its
 * ring has 32 bytes less; a send buffer is memory of the full size, or, without copy, the peer's DMB behind
 * its CDC record.
 */
import { ERRNO } from '../../common/errno.js';
import { KernelError } from '../../common/errors.js';
import { atomic, type KernelFunction } from '../../kernel/function.js';
import { CDC_SIZE, SOCK_MIN_SNDBUF, compressBufsize, uncompressBufsize } from '../constants.js';
import type { SmcContext } from '../context.js';
import { BUF, C, LGR, S, connOf, sockOf } from './fields.js';
import { setIsmConn } from './ism.js';
import { newBufDesc } from './lgr.js';
import { countBuffer, countBufferLeft, countBufferTaken } from './statistics.js';

export function bufferFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel } = smc;
  const { physical } = kernel;

  /** A free buffer of exactly that size: smc_buf_get_slot. */
  function takeFree(head: number): number {
    let desc = ram.pointer(head);
    while (desc !== 0 && ram.u32(desc + BUF.used) !== 0) desc = ram.pointer(desc + BUF.list);
    if (desc !== 0) ram.set32(desc + BUF.used, 1);
    return desc;
  }

  /** smcd_new_buf_create: a descriptor, or a negative errno. */
  function create(lgr: number, isRmb: boolean, size: number): number {
    const desc = newBufDesc(smc);
    if (isRmb) {
      const length = size + smc.dmbExtra;
      const rc = kernel.invoke('smc_ism_register_dmb', lgr, length, desc);
      if (rc !== 0) {
        physical.free(desc);
        // like smcd_new_buf_create: only ENOSPC and EIO are told apart
        return rc === -ERRNO.ENOSPC || rc === -ERRNO.EIO ? rc : -ERRNO.EAGAIN;
      }
      ram.set32(desc + BUF.len, length - CDC_SIZE);
      return desc;
    }
    const memory = allocate(size);
    if (memory === 0) {
      physical.free(desc);
      return -ERRNO.EAGAIN;
    }
    ram.setPointer(desc + BUF.cpu_addr, memory);
    ram.set32(desc + BUF.len, size);
    return desc;
  }

  function allocate(size: number): number {
    try {
      return physical.alloc(size);
    } catch (error) {
      if (error instanceof KernelError && error.errno === 'ENOMEM') return 0;
      throw error;
    }
  }

  /** __smc_buf_create: from the size the socket asks for down to the smallest. */
  function createOne(smcSock: number, isRmb: boolean): number {
    const conn = connOf(smcSock);
    const lgr = ram.pointer(conn + C.lgr);
    const wanted = ram.u32(smcSock + (isRmb ? S.sk_rcvbuf : S.sk_sndbuf)) / 2;
    const [direction, counts] = isRmb ? (['rx', 'rmb_rx'] as const) : (['tx', 'rmb_tx'] as const);
    let rc = -ERRNO.ENOMEM;
    let isDowngraded = false;
    for (let n = compressBufsize(wanted); n >= 0; n--) {
      const size = uncompressBufsize(n);
      const head = lgr + (isRmb ? LGR.rmbs : LGR.sndbufs) + 8 * n;
      let desc = takeFree(head);
      if (desc !== 0) {
        countBuffer(smc, counts, 'reuse_cnt');
      } else {
        desc = create(lgr, isRmb, size);
        if (desc < 0) {
          rc = desc;
          if (!isDowngraded) countBuffer(smc, counts, 'dgrade_cnt');
          isDowngraded = true;
          continue;
        }
        countBuffer(smc, counts, 'alloc_cnt');
        ram.set32(desc + BUF.used, 1);
        ram.setPointer(desc + BUF.list, ram.pointer(head));
        ram.setPointer(head, desc);
      }
      countBufferTaken(smc, direction, size);
      if (isRmb) useRmb(smcSock, desc, n, size);
      else useSndbuf(smcSock, desc, size);
      return 0;
    }
    return rc;
  }

  function useRmb(smcSock: number, desc: number, n: number, size: number): void {
    const conn = connOf(smcSock);
    ram.setPointer(conn + C.rmb_desc, desc);
    ram.set8(conn + C.rmbe_size_comp, n);
    ram.set32(smcSock + S.sk_rcvbuf, 2 * size);
    ram.set32(conn + C.bytes_to_rcv, 0);
    // smc_rmb_wnd_update_limit
    const tenth = Math.floor(ram.u32(desc + BUF.len) / 10);
    ram.set32(conn + C.rmbe_update_limit, Math.max(tenth, SOCK_MIN_SNDBUF / 2));
    setIsmConn(smc, conn, true);
  }

  function useSndbuf(smcSock: number, desc: number, size: number): void {
    const conn = connOf(smcSock);
    ram.setPointer(conn + C.sndbuf_desc, desc);
    ram.set32(smcSock + S.sk_sndbuf, 2 * size);
    ram.set32(conn + C.sndbuf_space, size);
  }

  /** Gives a buffer back to the pool of its group, cleared: smc_buf_unuse. */
  function unuse(conn: number): void {
    const sndbuf = ram.pointer(conn + C.sndbuf_desc);
    if (sndbuf !== 0) {
      const size = ram.u32(sndbuf + BUF.len);
      ram.zero(ram.pointer(sndbuf + BUF.cpu_addr), size);
      ram.set32(sndbuf + BUF.used, 0);
      countBufferLeft(smc, 'tx', size);
    }
    const rmb = ram.pointer(conn + C.rmb_desc);
    if (rmb !== 0) {
      const size = ram.u32(rmb + BUF.len) + CDC_SIZE;
      ram.zero(ram.pointer(rmb + BUF.cpu_addr), size);
      ram.set32(rmb + BUF.used, 0);
      countBufferLeft(smc, 'rx', size);
    }
  }

  return [
    atomic({
      prototype: 'int smc_buf_create(struct smc_sock *smc, bool is_smcd)',
      calls: true,
      body: (_kernel, smcSock) => {
        const conn = connOf(smcSock);
        const dev = ram.pointer(ram.pointer(conn + C.lgr) + LGR.smcd);
        if (kernel.invoke('smc_ism_support_dmb_nocopy', dev) === 0) {
          const rc = createOne(smcSock, false);
          if (rc !== 0) return rc;
        }
        // what was made for sending stays in the pool
        const rc = createOne(smcSock, true);
        const sndbuf = ram.pointer(conn + C.sndbuf_desc);
        if (rc !== 0 && sndbuf !== 0) {
          ram.set32(sndbuf + BUF.used, 0);
          ram.setPointer(conn + C.sndbuf_desc, 0);
        }
        return rc;
      },
    }),
    atomic({
      prototype: 'int smcd_buf_attach(struct smc_sock *smc)',
      calls: true,
      body: (_kernel, smcSock) => {
        const conn = connOf(smcSock);
        const dev = ram.pointer(ram.pointer(conn + C.lgr) + LGR.smcd);
        const desc = newBufDesc(smc);
        const rc = kernel.invoke('smc_ism_attach_dmb', dev, ram.u53(conn + C.peer_token), desc);
        if (rc !== 0) {
          physical.free(desc);
          return rc;
        }
        const len = ram.u32(desc + BUF.len);
        if (len - CDC_SIZE !== ram.u32(conn + C.peer_rmbe_size)) {
          // Linux does not look: both ends would go round rings of different size
          kernel.invoke('smc_ism_detach_dmb', dev, ram.u53(conn + C.peer_token));
          physical.free(desc);
          return -ERRNO.EINVAL;
        }
        ram.set32(smcSock + S.sk_sndbuf, len);
        ram.setPointer(desc + BUF.cpu_addr, ram.pointer(desc + BUF.cpu_addr) + CDC_SIZE);
        ram.set32(desc + BUF.len, len - CDC_SIZE);
        ram.set32(desc + BUF.used, 1);
        ram.setPointer(conn + C.sndbuf_desc, desc);
        ram.set32(conn + C.sndbuf_space, len - CDC_SIZE);
        return 0;
      },
    }),
    atomic({
      prototype: 'void smcd_buf_detach(struct smc_connection *conn)',
      calls: true,
      body: (_kernel, conn) => {
        const dev = ram.pointer(ram.pointer(conn + C.lgr) + LGR.smcd);
        const desc = ram.pointer(conn + C.sndbuf_desc);
        if (desc === 0 || kernel.invoke('smc_ism_support_dmb_nocopy', dev) === 0) return;
        kernel.invoke('smc_ism_detach_dmb', dev, ram.u53(conn + C.peer_token));
        physical.free(desc);
        ram.setPointer(conn + C.sndbuf_desc, 0);
        smc.wake(sockOf(conn));
      },
    }),
    atomic({
      prototype: 'void smc_buf_unuse(struct smc_connection *conn, struct smc_link_group *lgr)',
      body: (_kernel, conn) => unuse(conn),
    }),
  ];
}

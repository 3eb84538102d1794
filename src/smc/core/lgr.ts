/**
 * Link groups: all connections between two peers over one device, and the buffers they share.
 *
 * Reference: smc_conn_create, smc_conn_free, smc_lgr_create, smcd_lgr_match, smc_conn_kill, smc_smcd_terminate,
 * smc_smcd_terminate_all in net/smc/smc_core.c of 6.12. Client and server register in the same list here, as
 * in Linux, so that the second connection of both finds the first group in it: that of the server.
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelFunction } from '../../kernel/function.js';
import { CDC_SIZE, SMC_CLC_DECL, SMC_LGR_FREE_DELAY, STATE_FLAG, URG_STATE } from '../constants.js';
import type { SmcContext } from '../context.js';
import { BUF_LISTS, SMCD_GID, SMC_BUF_DESC, SMC_LINK_GROUP } from '../structs.js';
import { BUF, C, DEV, INI, LGR, S, TX, connOf, setBits, sockOf } from './fields.js';
import { setIsmConn } from './ism.js';
import { ANY_VLAN } from './ism-events.js';

const ROLE = { CLNT: 0, SERV: 1 } as const;

/** Devices and gids of the slot that was chosen. */
export function selectedDevice({ ram }: SmcContext, ini: number): number {
  return ram.pointer(ini + INI.ism_dev + 8 * ram.u8(ini + INI.ism_selected));
}

function selectedGid({ ram }: SmcContext, ini: number): number {
  return ini + INI.ism_peer_gid + SMCD_GID.size * ram.u8(ini + INI.ism_selected);
}

export function lgrFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, devices } = smc;
  const { physical } = kernel;

  /** smcd_lgr_match, and that it can be used. */
  function matches(lgr: number, ini: number): boolean {
    const gid = selectedGid(smc, ini);
    const isEmulated = devices.of(selectedDevice(smc, ini)).emulated;
    return (
      ram.u64(lgr + LGR.peer_gid) === ram.u64(gid) &&
      (!isEmulated || ram.u64(lgr + LGR.peer_gid + 8) === ram.u64(gid + 8)) &&
      ram.u8(lgr + LGR.sync_err) === 0 &&
      (ram.u8(ini + INI.smcd_version) === 2 ||
        ram.u16(lgr + LGR.vlan_id) === ram.u16(ini + INI.vlan_id))
    );
  }

  function findLgr(ini: number): number {
    let lgr = ram.pointer(selectedDevice(smc, ini) + DEV.lgr_list);
    while (lgr !== 0 && !matches(lgr, ini)) lgr = ram.pointer(lgr + LGR.list);
    return lgr;
  }

  /** A link group, or a reason code. */
  function createLgr(smcSock: number, ini: number): number | { readonly rc: number } {
    const dev = selectedDevice(smc, ini);
    const vlan = ram.u16(ini + INI.vlan_id);
    if (vlan !== 0) {
      const { add_vlan_id: add } = devices.of(dev).ops;
      if (add === undefined || kernel.invoke(add, dev, vlan) !== 0) {
        return { rc: SMC_CLC_DECL.ISMVLANERR };
      }
    }
    const lgr = physical.alloc(SMC_LINK_GROUP.size);
    ram.setPointer(lgr + LGR.smcd, dev);
    ram.copy(lgr + LGR.peer_gid, selectedGid(smc, ini), SMCD_GID.size);
    smc.lgrNumber += 0x100;
    ram.set32(lgr + LGR.id, smc.lgrNumber);
    ram.set32(lgr + LGR.role, ram.pointer(smcSock + S.listen_smc) === 0 ? ROLE.CLNT : ROLE.SERV);
    ram.set16(lgr + LGR.vlan_id, vlan);
    ram.set8(lgr + LGR.smc_version, ram.u8(ini + INI.smcd_version));
    ram.set8(lgr + LGR.peer_smc_release, ram.u8(ini + INI.release_nr));
    ram.copy(lgr + LGR.negotiated_eid, ini + INI.negotiated_eid, 32);
    ram.set32(lgr + LGR.refcnt, 1);
    ram.set32(dev + DEV.lgr_cnt, ram.u32(dev + DEV.lgr_cnt) + 1);
    let link = dev + DEV.lgr_list;
    while (ram.pointer(link) !== 0) link = ram.pointer(link) + LGR.list;
    ram.setPointer(link, lgr);
    return lgr;
  }

  /** smc_lgr_register_conn */
  function register(lgr: number, conn: number): void {
    ram.setPointer(conn + C.lgr, lgr);
    ram.setPointer(conn + C.alert_node, ram.pointer(lgr + LGR.conns_all));
    ram.setPointer(lgr + LGR.conns_all, conn);
    ram.set32(conn + C.alert_token_local, smc.nextAlertToken++);
    ram.set32(lgr + LGR.conns_num, ram.u32(lgr + LGR.conns_num) + 1);
    ram.set32(lgr + LGR.refcnt, ram.u32(lgr + LGR.refcnt) + 1);
  }

  /** smc_lgr_unregister_conn */
  function unregister(lgr: number, conn: number): void {
    if (ram.u32(conn + C.alert_token_local) === 0) return;
    let link = lgr + LGR.conns_all;
    while (ram.pointer(link) !== conn) link = ram.pointer(link) + C.alert_node;
    ram.setPointer(link, ram.pointer(conn + C.alert_node));
    ram.set32(conn + C.alert_token_local, 0);
    ram.set32(lgr + LGR.conns_num, ram.u32(lgr + LGR.conns_num) - 1);
  }

  /** smc_lgr_put: frees the memory with the last reference. */
  function put(lgr: number): void {
    const count = ram.u32(lgr + LGR.refcnt) - 1;
    ram.set32(lgr + LGR.refcnt, count);
    if (count === 0) physical.free(lgr);
  }

  function unlist(lgr: number): void {
    let link = ram.pointer(lgr + LGR.smcd) + DEV.lgr_list;
    while (ram.pointer(link) !== 0 && ram.pointer(link) !== lgr) {
      link = ram.pointer(link) + LGR.list;
    }
    if (ram.pointer(link) === lgr) ram.setPointer(link, ram.pointer(lgr + LGR.list));
    ram.setPointer(lgr + LGR.list, 0);
  }

  /** smc_lgr_free: its buffers go back to the device. */
  function freeLgr(lgr: number): void {
    if (ram.u8(lgr + LGR.freeing) === 0) unlist(lgr);
    ram.set8(lgr + LGR.freeing, 1);
    const dev = ram.pointer(lgr + LGR.smcd);
    for (let n = 0; n < BUF_LISTS; n++) {
      freeList(lgr + LGR.rmbs + 8 * n, (desc) =>
        kernel.invoke('smc_ism_unregister_dmb', dev, desc),
      );
      freeList(lgr + LGR.sndbufs + 8 * n, (desc) =>
        physical.free(ram.pointer(desc + BUF.cpu_addr)),
      );
    }
    ram.set32(dev + DEV.lgr_cnt, ram.u32(dev + DEV.lgr_cnt) - 1);
    put(lgr);
  }

  function freeList(head: number, release: (desc: number) => void): void {
    let desc = ram.pointer(head);
    while (desc !== 0) {
      const next = ram.pointer(desc + BUF.list);
      release(desc);
      physical.free(desc);
      desc = next;
    }
    ram.setPointer(head, 0);
  }

  /** smc_lgr_schedule_free_work */
  function scheduleFree(lgr: number): void {
    ram.set32(lgr + LGR.refcnt, ram.u32(lgr + LGR.refcnt) + 1);
    smc.after(SMC_LGR_FREE_DELAY, () => {
      const isIdle = ram.u32(lgr + LGR.conns_num) === 0 && ram.u8(lgr + LGR.freeing) === 0;
      if (isIdle) freeLgr(lgr);
      put(lgr);
    });
  }

  /** smc_conn_kill */
  function kill(conn: number): void {
    const smcSock = sockOf(conn);
    const lgr = ram.pointer(conn + C.lgr);
    if (ram.u8(lgr + LGR.peer_shutdown) !== 0) {
      setBits(ram, conn + TX.stateFlags, STATE_FLAG.PEER_CONN_ABORT);
    } else {
      kernel.invoke('smc_close_abort', conn);
    }
    ram.set8(conn + C.killed, 1);
    ram.set32(smcSock + S.sk_err, ERRNO.ECONNABORTED);
    smc.wake(smcSock);
    setIsmConn(smc, conn, false);
    kernel.invoke('smcd_buf_detach', conn);
    unregister(lgr, conn);
    kernel.invoke('smc_close_active_abort', smcSock);
    // the buffers go with the group
    ram.setPointer(conn + C.rmb_desc, 0);
    ram.setPointer(conn + C.sndbuf_desc, 0);
  }

  /** __smc_lgr_terminate of a group that is off the list. */
  function terminate(lgr: number): void {
    if (ram.u8(lgr + LGR.terminating) !== 0) return;
    ram.set8(lgr + LGR.terminating, 1);
    let conn = ram.pointer(lgr + LGR.conns_all);
    while (conn !== 0) {
      kill(conn);
      conn = ram.pointer(lgr + LGR.conns_all);
    }
    kernel.invoke('smc_ism_signal_shutdown', lgr);
    freeLgr(lgr);
  }

  /** Takes the groups that `isMeant` off the list and terminates them. */
  function terminateAll(dev: number, isMeant: (lgr: number) => boolean, byPeer = false): void {
    const meant: number[] = [];
    for (let lgr = ram.pointer(dev + DEV.lgr_list); lgr !== 0; lgr = ram.pointer(lgr + LGR.list)) {
      if (isMeant(lgr)) meant.push(lgr);
    }
    for (const lgr of meant) {
      unlist(lgr);
      ram.set8(lgr + LGR.freeing, 1);
      if (byPeer) ram.set8(lgr + LGR.peer_shutdown, 1);
    }
    for (const lgr of meant) terminate(lgr);
  }

  function connCreate(smcSock: number, ini: number): number {
    const conn = connOf(smcSock);
    const isClient = ram.pointer(smcSock + S.listen_smc) === 0;
    const isPeerFirst = ram.u8(ini + INI.first_contact_peer) !== 0;
    ram.set8(ini + INI.first_contact_local, 1);
    let lgr = isClient && isPeerFirst ? 0 : findLgr(ini);
    if (lgr === 0) {
      // the server reuses a group that this end does not have
      if (isClient && !isPeerFirst) return SMC_CLC_DECL.SYNCERR;
      const created = createLgr(smcSock, ini);
      if (typeof created !== 'number') return created.rc;
      lgr = created;
    } else {
      ram.set8(ini + INI.first_contact_local, 0);
    }
    register(lgr, conn);
    ram.set8(conn + C.freed, 0);
    ram.set8(conn + C.urg_state, URG_STATE.READ);
    ram.set32(conn + C.rx_off, CDC_SIZE);
    return 0;
  }

  function connFree(conn: number): void {
    const lgr = ram.pointer(conn + C.lgr);
    if (lgr === 0 || ram.u8(conn + C.freed) !== 0) return;
    ram.set8(conn + C.freed, 1);
    // a killed connection has left its group already
    if (ram.u8(conn + C.killed) === 0) {
      setIsmConn(smc, conn, false);
      kernel.invoke('smcd_buf_detach', conn);
      kernel.invoke('smc_buf_unuse', conn, lgr);
      unregister(lgr, conn);
      if (ram.u32(lgr + LGR.conns_num) === 0) scheduleFree(lgr);
    }
    ram.setPointer(conn + C.rmb_desc, 0);
    ram.setPointer(conn + C.sndbuf_desc, 0);
    ram.setPointer(conn + C.lgr, 0);
    put(lgr);
  }

  return [
    atomic({
      prototype: 'int smc_conn_create(struct smc_sock *smc, struct smc_init_info *ini)',
      calls: true,
      body: (_kernel, smcSock, ini) => connCreate(smcSock, ini),
    }),
    atomic({
      prototype: 'void smc_conn_free(struct smc_connection *conn)',
      calls: true,
      body: (_kernel, conn) => connFree(conn),
    }),
    atomic({
      prototype:
        'void smc_smcd_terminate(struct smcd_dev *dev, struct smcd_gid *peer_gid, unsigned short vlan)',
      calls: true,
      body: (_kernel, dev, gid, vlan) =>
        terminateAll(
          dev,
          (lgr) =>
            ram.u64(lgr + LGR.peer_gid) === ram.u64(gid) &&
            (!devices.of(dev).emulated || ram.u64(lgr + LGR.peer_gid + 8) === ram.u64(gid + 8)) &&
            (vlan === ANY_VLAN || ram.u16(lgr + LGR.vlan_id) === vlan),
          // a GID says that the peer's system has gone: nobody is told
          ram.u64(gid) !== 0n,
        ),
    }),
    atomic({
      prototype: 'void smc_smcd_terminate_all(struct smcd_dev *smcd)',
      calls: true,
      body: (_kernel, dev) => terminateAll(dev, () => true),
    }),
    atomic({
      prototype: 'void smc_lgr_cleanup_early(struct smc_link_group *lgr)',
      calls: true,
      body: (_kernel, lgr) => {
        if (ram.u8(lgr + LGR.freeing) !== 0) return;
        unlist(lgr);
        ram.set8(lgr + LGR.freeing, 1);
        freeLgr(lgr);
      },
    }),
    atomic({
      prototype: 'void smc_lgr_terminate_sched(struct smc_link_group *lgr)',
      calls: true,
      body: (_kernel, lgr) => {
        if (ram.u8(lgr + LGR.freeing) !== 0) return;
        unlist(lgr);
        ram.set8(lgr + LGR.freeing, 1);
        smc.defer(() => terminate(lgr));
      },
    }),
  ];
}

/** A zeroed buffer descriptor. */
export function newBufDesc(smc: SmcContext): number {
  return smc.kernel.physical.alloc(SMC_BUF_DESC.size);
}

/**
 * What smcss and `smcd linkgroup` show: sockets, connections, link groups, devices.
 *
 * Reference: smc_diag (struct smc_diag_msg, smcd_diag_dmbinfo, smc_diag_conninfo) and the generic netlink
 * listings of net/smc/smc_core.c, smc_ism.c. Everything is read from kernel memory.
 *
 * Usage:
 *   for (const sock of listSocks(smc)) print(sock.state, sock.connection?.token);
 */
import { SOCK } from '../bpf/socket.js';
import { smcStateName, type SmcStateName } from './constants.js';
import { C, BUF, DEV, LGR, RX, S, TX, connOf, skState } from './core/fields.js';
import { cursCount, cursWrap } from './cursor.js';
import type { DeviceKind } from './device/devices.js';
import { HOSTNAME } from './handshake/clc.js';
import type { Smc } from './smc.js';
import type { Endpoint } from './socket/tcp.js';

/** [wrap, count] */
export type CursorValue = readonly [wrap: number, count: number];

export interface ConnectionState {
  readonly token: bigint;
  readonly peerToken: bigint;
  readonly sndbufSize: number;
  readonly rmbeSize: number;
  readonly peerRmbeSize: number;
  readonly sndbufSpace: number;
  readonly peerRmbeSpace: number;
  readonly bytesToReceive: number;
  readonly rxProd: CursorValue;
  readonly rxCons: CursorValue;
  readonly txProd: CursorValue;
  readonly txCons: CursorValue;
  readonly txPrep: CursorValue;
  readonly txSent: CursorValue;
  readonly txFin: CursorValue;
  /** cdc_prod_flags and cdc_conn_state_flags, received and sent. */
  readonly flags: {
    readonly rxProd: number;
    readonly rxState: number;
    readonly txProd: number;
    readonly txState: number;
  };
  readonly lgrId: number;
  readonly killed: boolean;
}

export interface SockState {
  /** Physical address of the smc_sock. */
  readonly sock: number;
  readonly state: SmcStateName;
  readonly mode: 'SMCD' | 'TCP' | '-';
  readonly local: Endpoint;
  readonly remote: Endpoint;
  readonly shutdown: number;
  readonly fallbackReason: number;
  readonly peerDiagnosis: number;
  /** Waits for accept, or somebody has it. */
  readonly accepted: boolean;
  readonly connection?: ConnectionState;
}

export interface LinkGroupState {
  readonly id: number;
  readonly device: string;
  readonly role: 'client' | 'server';
  readonly version: number;
  readonly connections: number;
  readonly peerGid: bigint;
  readonly peerGidExt: bigint;
  readonly eid: string;
}

export interface DeviceState {
  readonly name: string;
  readonly kind: DeviceKind;
  readonly gid: bigint;
  readonly gidExt: bigint;
  readonly chid: number;
  readonly pnetid: string;
  readonly dmbs: number;
  readonly linkGroups: number;
  readonly nocopy: boolean;
}

function cursor({ ram }: Smc, at: number): CursorValue {
  return [cursWrap(ram, at), cursCount(ram, at)];
}

/** The state of a connection; undefined when it has no buffers. */
export function connectionState(smc: Smc, conn: number): ConnectionState | undefined {
  const { ram } = smc;
  const lgr = ram.pointer(conn + C.lgr);
  const rmb = ram.pointer(conn + C.rmb_desc);
  if (lgr === 0 || rmb === 0) return undefined;
  const sndbuf = ram.pointer(conn + C.sndbuf_desc);
  return {
    token: ram.u64(rmb + BUF.token),
    peerToken: ram.u64(conn + C.peer_token),
    sndbufSize: sndbuf === 0 ? 0 : ram.u32(sndbuf + BUF.len),
    rmbeSize: ram.u32(rmb + BUF.len),
    peerRmbeSize: ram.u32(conn + C.peer_rmbe_size),
    sndbufSpace: ram.u32(conn + C.sndbuf_space),
    peerRmbeSpace: ram.u32(conn + C.peer_rmbe_space),
    bytesToReceive: ram.u32(conn + C.bytes_to_rcv),
    rxProd: cursor(smc, conn + RX.prod),
    rxCons: cursor(smc, conn + RX.cons),
    txProd: cursor(smc, conn + TX.prod),
    txCons: cursor(smc, conn + TX.cons),
    txPrep: cursor(smc, conn + C.tx_curs_prep),
    txSent: cursor(smc, conn + C.tx_curs_sent),
    txFin: cursor(smc, conn + C.tx_curs_fin),
    flags: {
      rxProd: ram.u8(conn + RX.prodFlags),
      rxState: ram.u8(conn + RX.stateFlags),
      txProd: ram.u8(conn + TX.prodFlags),
      txState: ram.u8(conn + TX.stateFlags),
    },
    lgrId: ram.u32(lgr + LGR.id),
    killed: ram.u8(conn + C.killed) !== 0,
  };
}

/** All SMC sockets, oldest first. */
export function listSocks(smc: Smc): readonly SockState[] {
  const { ram } = smc;
  return [...smc.socks].map((sock) => {
    const connection = connectionState(smc, connOf(sock));
    const isFallback = ram.u8(sock + S.use_fallback) !== 0;
    const mode = isFallback ? 'TCP' : connection ? 'SMCD' : '-';
    return {
      sock,
      state: smcStateName(skState(ram, sock)),
      mode,
      local: {
        address: ram.view.getUint32(sock + SOCK.rcvSaddr),
        port: ram.u16(sock + SOCK.num),
      },
      remote: {
        address: ram.view.getUint32(sock + SOCK.daddr),
        port: ram.view.getUint16(sock + SOCK.dport),
      },
      shutdown: ram.u8(sock + S.sk_shutdown),
      fallbackReason: ram.u32(sock + S.fallback_rsn),
      peerDiagnosis: ram.u32(sock + S.peer_diagnosis),
      accepted: ram.pointer(sock + S.sk_socket) !== 0,
      ...(connection && !isFallback ? { connection } : {}),
    };
  });
}

export function listLinkGroups(smc: Smc): readonly LinkGroupState[] {
  const { ram, devices } = smc;
  const groups: LinkGroupState[] = [];
  for (const { address, name } of devices.list) {
    let lgr = ram.pointer(address + DEV.lgr_list);
    for (; lgr !== 0; lgr = ram.pointer(lgr + LGR.list)) {
      const eid = ram.slice(lgr + LGR.negotiated_eid, 32);
      groups.push({
        id: ram.u32(lgr + LGR.id),
        device: name,
        role: ram.u32(lgr + LGR.role) === 0 ? 'client' : 'server',
        version: ram.u8(lgr + LGR.smc_version),
        connections: ram.u32(lgr + LGR.conns_num),
        peerGid: ram.u64(lgr + LGR.peer_gid),
        peerGidExt: ram.u64(lgr + LGR.peer_gid + 8),
        eid: eid.every((byte) => byte === 0) ? '' : new TextDecoder().decode(eid).trimEnd(),
      });
    }
  }
  return groups;
}

/** All devices, or only those that netlink shows. */
export function listDevices(smc: Smc, all = true): readonly DeviceState[] {
  return smc.devices.list
    .filter(({ listed }) => all || listed)
    .map((device) => ({
      name: device.name,
      kind: device.kind,
      gid: device.gid,
      gidExt: device.gidExt,
      chid: device.chid,
      pnetid: device.pnetid,
      dmbs: smc.dmbCount(device),
      linkGroups: smc.ram.u32(device.address + DEV.lgr_cnt),
      nocopy: device.nocopy,
    }));
}

/** What SMC says of the machine: smc_nl_get_sys_info. */
export interface SystemInfo {
  readonly version: number;
  readonly release: number;
  readonly isIsmV2: boolean;
  readonly hostname: string;
}

export function systemInfo({ release, devices }: Smc): SystemInfo {
  return { version: 2, release, isIsmV2: devices.isV2Capable, hostname: HOSTNAME };
}

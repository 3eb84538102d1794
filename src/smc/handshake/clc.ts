/**
 * Sending CLC messages and waiting for them.
 *
 * Reference: smc_clc_send_proposal, smc_clc_send_accept, smc_clc_send_confirm, smc_clc_send_decline,
 * smc_clc_wait_msg, smc_clc_match_eid in net/smc/smc_clc.c of 6.12. Messages lie in kernel memory while they
 * are looked at; how their bytes come about is in `clc/`.
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type BodyGenerator, type KernelFunction } from '../../kernel/function.js';
import { MSG, SMC_CLC_DECL, uncompressBufsize, CDC_SIZE } from '../constants.js';
import type { SmcContext } from '../context.js';
import { getLocalGid } from '../core/ism.js';
import { BUF, C, INI, LGR, S, connOf } from '../core/fields.js';
import {
  encodeAcceptConfirm,
  encodeDecline,
  encodeProposal,
  type AcceptConfirm,
  type GidChid,
} from '../clc/messages.js';
import {
  CLC_TYPE,
  SMC_CLC_MAX_UEID,
  SMC_FEATURE_MASK,
  SMC_TYPE,
  smcdIndicated,
  smcrIndicated,
} from '../clc/values.js';
import { decodeAcceptConfirm, decodeDecline, messageProblem, readHeader } from '../clc/parse.js';
import { kernelRecvmsg, kernelSendmsg } from '../socket/inet.js';
import { SMCD_GID } from '../structs.js';
import { channelOf, sleeping } from './sleeping.js';

const EID_LEN = 32;
/** utsname of a machine that was given no name. */
export const HOSTNAME = '(none)';
/** Of a v2.1 proposal of SMC-R. */
const MAX_CONNS = 255;
const MAX_LINKS = 2;
const NO_GID = new Uint8Array(16);

export function clcFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, devices, eids, tcp } = smc;
  const gidScratch = kernel.physical.alloc(SMCD_GID.size);

  function gidOf(dev: number): { readonly gid: bigint; readonly ext: bigint } {
    getLocalGid(smc, dev, gidScratch);
    return { gid: ram.u64(gidScratch), ext: ram.u64(gidScratch + 8) };
  }

  function send(smcSock: number, bytes: Uint8Array): number {
    smc.stats.handshakeBytes += bytes.length;
    smc.onClc({ smc: smcSock, bytes });
    const sent = kernelSendmsg(smc, ram.pointer(smcSock + S.clcsock), bytes);
    return sent < 0 ? sent : 0;
  }

  function slotDevice(ini: number, slot: number): number {
    return ram.pointer(ini + INI.ism_dev + 8 * slot);
  }

  /** The (gid, chid) entries of all offered devices: two of an emulated one. */
  function offeredGids(ini: number): GidChid[] {
    const count = ram.u8(ini + INI.ism_offered_cnt);
    return Array.from({ length: count }, (_, i) => slotDevice(ini, i + 1)).flatMap((dev) => {
      const { gid, ext } = gidOf(dev);
      const chid = kernel.invoke('smc_ism_get_chid', dev);
      const first = { gid, chid };
      return devices.of(dev).emulated ? [first, { gid: ext, chid }] : [first];
    });
  }

  function nativeIsm(ini: number): GidChid {
    const dev = slotDevice(ini, 0);
    if (dev === 0) return { gid: 0n, chid: 0 };
    return { gid: gidOf(dev).gid, chid: kernel.invoke('smc_ism_get_chid', dev) };
  }

  function sendProposal(smcSock: number, ini: number): number {
    const typeV2 = ram.u8(ini + INI.smc_type_v2);
    const { prefix } = smc.netdev;
    // smc_clc_prfx_set: without a prefix nothing of version 1 can be proposed
    if (!prefix && typeV2 === SMC_TYPE.N) return SMC_CLC_DECL.CNFERR;
    if (!prefix) ram.set8(ini + INI.smc_type_v1, SMC_TYPE.N);
    const typeV1 = ram.u8(ini + INI.smc_type_v1);
    const [roce] = devices.roce;
    const native = smcrIndicated(typeV1) ? roce : undefined;
    const isSmcrV2 = smcrIndicated(typeV2);
    const hasFeatures = smc.release > 0;
    const bytes = encodeProposal({
      version: typeV2 === SMC_TYPE.N ? 1 : 2,
      typeV1,
      typeV2,
      peerId: native?.systemId ?? new Uint8Array(8),
      roceGid: native?.gid ?? NO_GID,
      mac: native?.mac ?? new Uint8Array(6),
      ism: nativeIsm(ini),
      ...(prefix && typeV1 !== SMC_TYPE.N ? { prefix } : {}),
      ...(typeV2 === SMC_TYPE.N
        ? {}
        : {
            v2: {
              eids: eids.ueids.slice(0, SMC_CLC_MAX_UEID),
              release: smc.release,
              seidIndicated: eids.seidEnabled,
              roceGid: isSmcrV2 ? (roce?.gid ?? NO_GID) : NO_GID,
              maxConns: isSmcrV2 && hasFeatures ? MAX_CONNS : 0,
              maxLinks: isSmcrV2 && hasFeatures ? MAX_LINKS : 0,
              featureMask: hasFeatures ? SMC_FEATURE_MASK : 0,
              ...(smcdIndicated(typeV2)
                ? { smcd: { systemEid: eids.systemEid, gids: offeredGids(ini) } }
                : {}),
            },
          }),
    });
    return send(smcSock, bytes);
  }

  function sendAcceptConfirm(
    type: AcceptConfirm['type'],
    smcSock: number,
    first: boolean,
    version: number,
    eid: number,
    ini: number,
  ): number {
    const conn = connOf(smcSock);
    const lgr = ram.pointer(conn + C.lgr);
    const dev = ram.pointer(lgr + LGR.smcd);
    const { gid, ext } = gidOf(dev);
    const release = ram.u8(ini + INI.release_nr);
    const bytes = encodeAcceptConfirm({
      type,
      version,
      gid,
      token: ram.u64(ram.pointer(conn + C.rmb_desc) + BUF.token),
      dmbeIdx: 0,
      dmbeSize: ram.u8(conn + C.rmbe_size_comp),
      linkId: ram.u32(lgr + LGR.id),
      firstContact: first,
      ...(version === 1
        ? {}
        : {
            v2: {
              chid: kernel.invoke('smc_ism_get_chid', dev),
              eid: ram.slice(eid, EID_LEN),
              gidExt: devices.of(dev).emulated ? ext : 0n,
              ...(first
                ? {
                    firstContact: {
                      release,
                      hostname: HOSTNAME,
                      featureMask: ram.u16(ini + INI.feature_mask),
                    },
                  }
                : {}),
            },
          }),
    });
    return send(smcSock, bytes);
  }

  function sendDecline(smcSock: number, diagnosis: number, version: number): number {
    const isAssigned = ram.pointer(connOf(smcSock) + C.lgr) !== 0;
    return send(
      smcSock,
      encodeDecline({
        version,
        peerId: (isAssigned ? undefined : devices.roce[0]?.systemId) ?? new Uint8Array(8),
        diagnosis,
        outOfSync: diagnosis === SMC_CLC_DECL.SYNCERR,
      }),
    );
  }

  /** Waits until `size` bytes are there, the stream has ended, or the time is over; whether it is. */
  function* waitForBytes(smcSock: number, size: number, deadline: number): BodyGenerator<boolean> {
    const clcsock = tcp.of(ram.pointer(smcSock + S.clcsock));
    const channel = channelOf(kernel, smcSock);
    while (clcsock.unread < size && !clcsock.ended) {
      if (smc.now() >= deadline) return false;
      const cancel = smc.after(deadline - smc.now(), () => smc.wake(smcSock));
      yield { kind: 'sleep', channel };
      cancel();
    }
    return true;
  }

  function* waitMsg(
    smcSock: number,
    buf: number,
    size: number,
    expected: number,
    timeout: number,
  ): BodyGenerator<number> {
    const clcsock = tcp.of(ram.pointer(smcSock + S.clcsock));
    const fail = (error: number): number => {
      ram.set32(smcSock + S.sk_err, error);
      return -error;
    };
    const deadline = smc.now() + timeout;
    if (!(yield* waitForBytes(smcSock, 8, deadline))) return fail(ERRNO.EAGAIN);
    if (clcsock.error !== 0) return fail(clcsock.error);
    if (clcsock.unread === 0) return fail(ERRNO.ECONNRESET);
    if (clcsock.unread < 8) return fail(ERRNO.EPROTO);
    const head = kernelRecvmsg(smc, clcsock.socket, 8, MSG.PEEK);
    const header = readHeader(head);
    const isExpected = header.type === CLC_TYPE.DECLINE || header.type === expected;
    if (header.version < 1 || !isExpected || header.length > size) return fail(ERRNO.EPROTO);
    if (!(yield* waitForBytes(smcSock, header.length, deadline))) return fail(ERRNO.EAGAIN);
    if (clcsock.error !== 0) return fail(clcsock.error);
    const bytes = kernelRecvmsg(smc, clcsock.socket, header.length, 0);
    if (messageProblem(bytes) !== undefined) return fail(ERRNO.EPROTO);
    ram.bytes.set(bytes, buf);
    if (header.type !== CLC_TYPE.DECLINE) return 0;
    const decline = decodeDecline(bytes);
    ram.set32(smcSock + S.peer_diagnosis, decline.diagnosis);
    const lgr = ram.pointer(connOf(smcSock) + C.lgr);
    if (decline.outOfSync && lgr !== 0) {
      ram.set8(lgr + LGR.sync_err, 1);
      kernel.invoke('smc_lgr_terminate_sched', lgr);
    }
    return SMC_CLC_DECL.PEERDECL;
  }

  const eidIsSet = (at: number): boolean => ram.u8(at) !== 0;
  const sameEid = (a: number, b: number): boolean =>
    ram.bytes.subarray(a, a + EID_LEN).every((byte, i) => byte === ram.u8(b + i));

  /** The SEID when both have it, else the first user EID of the peer that is known here. */
  function matchEid(negotiated: number, extension: number, peerEid: number, eid: number): boolean {
    const isOffered = (ram.u8(extension + 3) & 1) !== 0;
    if (isOffered && eids.seidEnabled && eidIsSet(eid) && sameEid(peerEid, eid)) {
      ram.copy(negotiated, eid, EID_LEN);
      return true;
    }
    for (let i = 0; i < ram.u8(extension); i++) {
      const at = extension + 40 + EID_LEN * i;
      if (!eids.has(ram.slice(at, EID_LEN))) continue;
      ram.copy(negotiated, at, EID_LEN);
      return true;
    }
    return false;
  }

  return [
    atomic({
      prototype: 'int smc_clc_send_proposal(struct smc_sock *smc, struct smc_init_info *ini)',
      calls: true,
      body: (_kernel, smcSock, ini) => sendProposal(smcSock, ini),
    }),
    atomic({
      prototype:
        'int smc_clc_send_accept(struct smc_sock *smc, bool srv_first_contact, u8 version, ' +
        'u8 *negotiated_eid, struct smc_init_info *ini)',
      calls: true,
      body: (_kernel, smcSock, first, version, eid, ini) =>
        sendAcceptConfirm(CLC_TYPE.ACCEPT, smcSock, first !== 0, version, eid, ini),
    }),
    atomic({
      prototype:
        'int smc_clc_send_confirm(struct smc_sock *smc, bool clnt_first_contact, u8 version, ' +
        'u8 *eid, struct smc_init_info *ini)',
      calls: true,
      body: (_kernel, smcSock, first, version, eid, ini) =>
        sendAcceptConfirm(CLC_TYPE.CONFIRM, smcSock, first !== 0, version, eid, ini),
    }),
    atomic({
      prototype: 'int smc_clc_send_decline(struct smc_sock *smc, u32 peer_diag_info, u8 version)',
      calls: true,
      body: (_kernel, smcSock, diagnosis, version) => sendDecline(smcSock, diagnosis, version),
    }),
    sleeping(
      'int smc_clc_wait_msg(struct smc_sock *smc, void *buf, int buflen, u8 expected_type, ' +
        'unsigned long timeout)',
      (smcSock = 0, buf = 0, size = 0, expected = 0, timeout = 0) =>
        waitMsg(smcSock, buf, size, expected, timeout),
    ),
    atomic({
      prototype:
        'bool smc_clc_match_eid(u8 *negotiated_eid, struct smc_clc_v2_extension *smc_v2_ext, ' +
        'u8 *peer_eid, u8 *eid)',
      body: (_kernel, negotiated, extension, peerEid, eid) =>
        matchEid(negotiated, extension, peerEid, eid) ? 1 : 0,
    }),
  ];
}

/** The message that lies at `buf`. */
export function messageAt({ ram }: SmcContext, buf: number): Uint8Array {
  const { length } = readHeader(ram.bytes.subarray(buf, buf + 8));
  return ram.slice(buf, length);
}

/** smcd_conn_save_peer_info */
export function savePeerInfo(smc: SmcContext, smcSock: number, buf: number): void {
  const { ram } = smc;
  const conn = connOf(smcSock);
  const message = decodeAcceptConfirm(messageAt(smc, buf));
  const size = uncompressBufsize(message.dmbeSize) + smc.dmbExtra;
  ram.set32(conn + C.peer_rmbe_idx, message.dmbeIdx);
  ram.set64(conn + C.peer_token, message.token);
  ram.set32(conn + C.peer_rmbe_size, size - CDC_SIZE);
  ram.set32(conn + C.peer_rmbe_space, size - CDC_SIZE);
  ram.set32(conn + C.tx_off, size * message.dmbeIdx);
}

/** smc_conn_abort */
export function abortConn({ ram, kernel }: SmcContext, smcSock: number, localFirst: boolean): void {
  const conn = connOf(smcSock);
  const lgr = ram.pointer(conn + C.lgr);
  if (lgr === 0) return;
  kernel.invoke('smc_conn_free', conn);
  if (localFirst) kernel.invoke('smc_lgr_cleanup_early', lgr);
}

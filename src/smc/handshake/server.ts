/**
 * The server's side of the handshake: read the proposal, choose a device, accept or decline.
 *
 * Reference: smc_listen_work, smc_listen_v2_check, smc_listen_find_device, smc_find_ism_v2_device_serv,
 * smc_check_ism_v2_match, smc_listen_ism_init in net/smc/af_smc.c of 6.12. The first device that can be set up
 * is taken, in the order of the proposal. SMC-R is looked for and never found.
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type BodyGenerator, type KernelFunction } from '../../kernel/function.js';
import { CLC_WAIT_TIME, SMC_CLC_DECL, SMC_STATE } from '../constants.js';
import type { SmcContext } from '../context.js';
import { C, DEV, INI, LGR, S, connOf, setSkState } from '../core/fields.js';
import { ISM_RESERVED_VLANID } from '../core/ism.js';
import { countHandshakeError, countSuccess } from '../core/statistics.js';
import { type Proposal } from '../clc/messages.js';
import { CLC_TYPE, SMC_FEATURE_MASK, smcdIndicated, smcrIndicated } from '../clc/values.js';
import {
  CLC_BUFFER_SIZE,
  decodeAcceptConfirm,
  decodeProposal,
  partsOfProposal,
} from '../clc/parse.js';
import { ISM_SLOTS, SMCD_GID, SMC_INIT_INFO } from '../structs.js';
import { abortConn, messageAt, savePeerInfo } from './clc.js';
import { callSleeping, sleeping } from './sleeping.js';

const V1 = 1;
const V2 = 2;
/** SMC_CONN_PER_LGR_MIN, SMC_LINKS_ADD_LNK_MIN: what a v2.1 peer of SMC-R has to offer. */
const MIN_CONNS = 16;
const MIN_LINKS = 1;

export function serverFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, devices, tcp } = smc;
  const gidScratch = kernel.physical.alloc(SMCD_GID.size);
  const eidScratch = kernel.physical.alloc(8);

  /** smc_find_ism_store_rc: the first reason counts. */
  function storeRc(rc: number, ini: number): void {
    if (ram.u32(ini + INI.rc) === 0) ram.set32(ini + INI.rc, rc);
  }

  function remembered(ini: number): number {
    return ram.s32(ini + INI.rc);
  }

  /** smc_listen_v2_check: what is left of the versions, or why nothing is. */
  function checkV2(proposal: Proposal, ini: number): number {
    const { typeV1, typeV2, v2 } = proposal;
    let smcd = smcdIndicated(typeV1) ? V1 : 0;
    let smcr = smcrIndicated(typeV1) ? V1 : 0;
    if (proposal.version > 1) {
      if (smcdIndicated(typeV2)) smcd |= V2;
      if (smcrIndicated(typeV2)) smcr |= V2;
    }
    let rc: number = SMC_CLC_DECL.PEERNOSMC;
    if (((smcd | smcr) & V2) !== 0 && !v2) {
      smcd &= ~V2;
      smcr &= ~V2;
      rc = SMC_CLC_DECL.NOV2EXT;
    } else if (v2) {
      const problem = (smcd & V2) === 0 ? 0 : smcdV2Problem(v2);
      if (problem !== 0) {
        smcd &= ~V2;
        rc = problem;
      }
      if ((smcr & V2) !== 0 && v2.eids.length === 0) {
        smcr &= ~V2;
        rc = SMC_CLC_DECL.NOUEID;
      }
      ram.set8(ini + INI.release_nr, Math.min(v2.release, smc.release));
    }
    ram.set8(ini + INI.smc_type_v1, typeV1);
    ram.set8(ini + INI.smc_type_v2, typeV2);
    ram.set8(ini + INI.smcd_version, smcd);
    ram.set8(ini + INI.smcr_version, smcr);
    ram.set16(ini + INI.feature_mask, SMC_FEATURE_MASK);
    return smcd === 0 && smcr === 0 ? rc : 0;
  }

  function smcdV2Problem(v2: NonNullable<Proposal['v2']>): number {
    if (kernel.invoke('smc_ism_is_v2_capable') === 0) return SMC_CLC_DECL.NOISM2SUPP;
    if (!v2.smcd) return SMC_CLC_DECL.NOV2DEXT;
    return v2.eids.length === 0 && !v2.seidIndicated ? SMC_CLC_DECL.NOUEID : 0;
  }

  /** smc_clc_srv_v2x_features_validate */
  function checkFeatures({ v2 }: Proposal, ini: number): number {
    if (!v2 || ram.u8(ini + INI.release_nr) < 1) return 0;
    if ((ram.u8(ini + INI.smcr_version) & V2) === 0) return 0;
    if (v2.maxConns < MIN_CONNS) return SMC_CLC_DECL.MAXCONNERR;
    return v2.maxLinks < MIN_LINKS ? SMC_CLC_DECL.MAXLINKERR : 0;
  }

  /** Takes the first local device of that fabric that reaches the peer's; goes to the next slot. */
  function checkMatch(ini: number, chid: number, gid: number, matches: number): void {
    const count = ram.u32(matches);
    if (count >= ISM_SLOTS) return;
    const taken = Array.from({ length: count }, (_, i) => ram.pointer(ini + INI.ism_dev + 8 * i));
    for (const { address } of devices.list) {
      if (ram.u8(address + DEV.going_away) !== 0 || taken.includes(address)) continue;
      if (kernel.invoke('smc_ism_get_chid', address) !== chid) continue;
      if (kernel.invoke('smc_ism_cantalk', gid, ISM_RESERVED_VLANID, address) !== 0) continue;
      ram.setPointer(ini + INI.ism_dev + 8 * count, address);
      ram.set16(ini + INI.ism_chid + 2 * count, chid);
      ram.copy(ini + INI.ism_peer_gid + SMCD_GID.size * count, gid, SMCD_GID.size);
      ram.set32(matches, count + 1);
      return;
    }
  }

  function tryGid(ini: number, chid: number, gid: bigint, ext: bigint, matches: number): void {
    ram.set64(gidScratch, gid);
    ram.set64(gidScratch + 8, ext);
    kernel.invoke('smc_check_ism_v2_match', ini, chid, gidScratch, matches);
  }

  /** All candidates in the order of the proposal. */
  function collect(proposal: Proposal, ini: number, matches: number): void {
    const { ism, v2 } = proposal;
    if (ism.chid !== 0) tryGid(ini, ism.chid, ism.gid, 0n, matches);
    const gids = v2?.smcd?.gids ?? [];
    for (let i = 0; i < gids.length; i++) {
      const { gid, chid } = gids[i] ?? { gid: 0n, chid: 0 };
      const next = gids[i + 1];
      let ext = 0n;
      if (devices.isEmulated(chid)) {
        // gid_ext follows, with the same CHID
        if (next?.chid !== chid) continue;
        ext = next.gid;
        i++;
      }
      tryGid(ini, chid, gid, ext, matches);
    }
  }

  function findIsmV2(smcSock: number, buf: number, ini: number): void {
    const isFound = (ram.u8(ini + INI.smcd_version) & V2) !== 0 && tryIsmV2(smcSock, buf, ini);
    if (isFound) return;
    ram.set8(ini + INI.smcd_version, ram.u8(ini + INI.smcd_version) & ~V2);
    ram.zero(ini + INI.ism_dev, 8 * ISM_SLOTS);
    ram.zero(ini + INI.negotiated_eid, 32);
    ram.set8(ini + INI.is_smcd, 0);
  }

  function tryIsmV2(smcSock: number, buf: number, ini: number): boolean {
    const bytes = messageAt(smc, buf);
    const matches = kernel.physical.alloc(8);
    collect(decodeProposal(bytes), ini, matches);
    const count = ram.u32(matches);
    kernel.physical.free(matches);
    if (count === 0) {
      storeRc(SMC_CLC_DECL.NOSMCD2DEV, ini);
      return false;
    }
    const { v2: extension = 0, smcd: peerEid = 0 } = partsOfProposal(bytes);
    kernel.invoke('smc_ism_get_system_eid', eidScratch);
    const eid = ram.pointer(eidScratch);
    const negotiated = ini + INI.negotiated_eid;
    if (!kernel.invoke('smc_clc_match_eid', negotiated, buf + extension, buf + peerEid, eid)) {
      return false;
    }
    const version = ram.u8(ini + INI.smcd_version);
    for (let slot = 0; slot < count; slot++) {
      ram.set8(ini + INI.smcd_version, V2);
      ram.set8(ini + INI.is_smcd, 1);
      ram.set8(ini + INI.ism_selected, slot);
      const rc = kernel.invoke('smc_listen_ism_init', smcSock, ini);
      if (rc === 0) return true;
      storeRc(rc, ini);
    }
    ram.set8(ini + INI.smcd_version, version);
    return false;
  }

  /** smc_find_ism_v1_device_serv */
  function findIsmV1(smcSock: number, proposal: Proposal, ini: number): boolean {
    if ((ram.u8(ini + INI.smcd_version) & V1) === 0) return false;
    const { pnetid } = smc.netdev;
    const device = devices.list.find(
      (each) =>
        ram.u8(each.address + DEV.going_away) === 0 &&
        (each.v1 || (pnetid !== '' && each.pnetid === pnetid)),
    );
    let rc: number = SMC_CLC_DECL.NOSMCDDEV;
    if (device) {
      const gid = ini + INI.ism_peer_gid;
      ram.set64(gid, proposal.ism.gid);
      ram.set64(gid + 8, 0n);
      ram.setPointer(ini + INI.ism_dev, device.address);
      ram.set16(ini + INI.ism_chid, kernel.invoke('smc_ism_get_chid', device.address));
      const vlan = ram.u16(ini + INI.vlan_id);
      const canTalk = kernel.invoke('smc_ism_cantalk', gid, vlan, device.address) === 0;
      if (canTalk) {
        ram.set8(ini + INI.is_smcd, 1);
        ram.set8(ini + INI.ism_selected, 0);
        ram.set8(ini + INI.smcd_version, V1);
        rc = kernel.invoke('smc_listen_ism_init', smcSock, ini);
        if (rc === 0) return true;
      }
    }
    storeRc(rc, ini);
    ram.setPointer(ini + INI.ism_dev, 0);
    ram.set8(ini + INI.is_smcd, 0);
    return false;
  }

  /** smc_clc_prfx_match */
  function prefixMatches({ prefix }: Proposal): boolean {
    if (!prefix) return true;
    const own = smc.netdev.prefix;
    return prefix.length === own?.length && prefix.subnet >>> 0 === own.subnet >>> 0;
  }

  /** Version 2 of SMC-R needs a user EID in common before it looks for a device. */
  function sharesUeid({ v2 }: Proposal): boolean {
    return v2?.eids.some((eid) => smc.eids.has(eid)) === true;
  }

  /** Why an InfiniBand device does not do, or why there is none. */
  function roceRefusal(version: number): number {
    const [device] = devices.roce;
    if (device) return SMC_CLC_DECL[device.refusal ?? 'NOSMCRDEV'];
    return version === V2 ? SMC_CLC_DECL.NOSMCRDEV : SMC_CLC_DECL.NOSMCDEV;
  }

  function findDevice(smcSock: number, buf: number, ini: number): number {
    kernel.invoke('smc_find_ism_v2_device_serv', smcSock, buf, ini);
    if (ram.pointer(ini + INI.ism_dev) !== 0) return 0;
    const proposal = decodeProposal(messageAt(smc, buf));
    const isSamePrefix = prefixMatches(proposal);
    if (!isSamePrefix) storeRc(SMC_CLC_DECL.DIFFPREFIX, ini);
    if (smc.netdev.vlanFails) return remembered(ini) || SMC_CLC_DECL.GETVLANERR;
    ram.set16(ini + INI.vlan_id, smc.netdev.vlan);
    if (isSamePrefix && findIsmV1(smcSock, proposal, ini)) return 0;
    if (!smcrIndicated(proposal.typeV1) && !smcrIndicated(proposal.typeV2)) {
      return remembered(ini) || SMC_CLC_DECL.NOSMCDDEV;
    }
    const version = ram.u8(ini + INI.smcr_version);
    if ((version & V2) !== 0 && sharesUeid(proposal)) storeRc(roceRefusal(V2), ini);
    if (!isSamePrefix) return SMC_CLC_DECL.DIFFPREFIX;
    storeRc((version & V1) === 0 ? SMC_CLC_DECL.NOSMCDEV : roceRefusal(V1), ini);
    return remembered(ini);
  }

  /** smc_listen_out_connected, smc_listen_out_err: into the queue that accept takes from. */
  function out(smcSock: number, state: number): void {
    setSkState(ram, smcSock, state);
    kernel.invoke('smc_accept_enqueue', ram.pointer(smcSock + S.listen_smc), smcSock);
  }

  /** smc_listen_out_err */
  function outError(smcSock: number): void {
    countHandshakeError(smc, 'srv');
    out(smcSock, SMC_STATE.CLOSED);
  }

  /** smc_listen_decline */
  function decline(smcSock: number, reason: number, localFirst: boolean, version: number): void {
    abortConn(smc, smcSock, localFirst);
    if (reason < 0) {
      outError(smcSock);
      return;
    }
    kernel.invoke('smc_switch_to_fallback', smcSock, reason);
    if (reason !== SMC_CLC_DECL.PEERDECL) {
      const rc = kernel.invoke('smc_clc_send_decline', smcSock, reason, version);
      if (rc < 0) {
        outError(smcSock);
        return;
      }
    }
    out(smcSock, SMC_STATE.ACTIVE);
  }

  function* wait(smcSock: number, buf: number, type: number): BodyGenerator<number> {
    return yield* callSleeping(
      kernel,
      'smc_clc_wait_msg',
      { to: smcSock },
      { to: buf },
      CLC_BUFFER_SIZE,
      type,
      CLC_WAIT_TIME,
    );
  }

  /** Accept, confirm: 0, or why not. */
  function* finish(smcSock: number, buf: number, ini: number): BodyGenerator<number> {
    const first = ram.u8(ini + INI.first_contact_local);
    const version = ram.u8(ini + INI.smcd_version);
    const eid = ini + INI.negotiated_eid;
    const rc = kernel.invoke('smc_clc_send_accept', smcSock, first, version, eid, ini);
    if (rc !== 0) return rc;
    const waited = yield* wait(smcSock, buf, CLC_TYPE.CONFIRM);
    if (waited !== 0) return waited;
    const { v2, version: confirmed, firstContact } = decodeAcceptConfirm(messageAt(smc, buf));
    if (confirmed > 1 && firstContact) {
      // smc_clc_v2x_features_confirm_check
      if (v2?.firstContact?.release !== ram.u8(ini + INI.release_nr)) {
        return SMC_CLC_DECL.RELEASEERR;
      }
      ram.set16(ini + INI.feature_mask, v2.firstContact.featureMask);
    }
    savePeerInfo(smc, smcSock, buf);
    const dev = ram.pointer(ram.pointer(connOf(smcSock) + C.lgr) + LGR.smcd);
    if (kernel.invoke('smc_ism_support_dmb_nocopy', dev) === 0) return 0;
    return kernel.invoke('smcd_buf_attach', smcSock);
  }

  function* listenWork(smcSock: number): BodyGenerator<void> {
    if (ram.u8(smcSock + S.use_fallback) !== 0) {
      out(smcSock, SMC_STATE.ACTIVE);
      return;
    }
    const clcsock = tcp.of(ram.pointer(smcSock + S.clcsock));
    if (!tcp.synSmc(clcsock)) {
      kernel.invoke('smc_switch_to_fallback', smcSock, SMC_CLC_DECL.PEERNOSMC);
      out(smcSock, SMC_STATE.ACTIVE);
      return;
    }
    const ini = kernel.physical.alloc(SMC_INIT_INFO.size);
    const buf = kernel.physical.alloc(CLC_BUFFER_SIZE);
    let version = V1;
    try {
      let rc = yield* wait(smcSock, buf, CLC_TYPE.PROPOSAL);
      if (rc === 0) {
        const proposal = decodeProposal(messageAt(smc, buf));
        if (proposal.version > 1) version = V2;
        rc = smc.netdev.ipsec ? SMC_CLC_DECL.IPSEC : 0;
        rc ||= checkV2(proposal, ini) || checkFeatures(proposal, ini);
        if (rc === 0) rc = kernel.invoke('smc_listen_find_device', smcSock, buf, ini);
        if (rc === 0) rc = yield* finish(smcSock, buf, ini);
      }
      if (rc === 0) {
        const isV2 = (ram.u8(ini + INI.smcd_version) & V2) !== 0;
        countSuccess(smc, 'srv', isV2 ? 2 : 1);
        out(smcSock, SMC_STATE.ACTIVE);
      } else decline(smcSock, rc, ram.u8(ini + INI.first_contact_local) !== 0, version);
    } finally {
      kernel.physical.free(ini);
      kernel.physical.free(buf);
    }
  }

  return [
    atomic({
      prototype:
        'void smc_check_ism_v2_match(struct smc_init_info *ini, u16 proposed_chid, ' +
        'struct smcd_gid *proposed_gid, unsigned int *matches)',
      calls: true,
      body: (_kernel, ini, chid, gid, matches) => checkMatch(ini, chid, gid, matches),
    }),
    atomic({
      prototype:
        'void smc_find_ism_v2_device_serv(struct smc_sock *new_smc, ' +
        'struct smc_clc_msg_proposal *pclc, struct smc_init_info *ini)',
      calls: true,
      body: (_kernel, smcSock, buf, ini) => findIsmV2(smcSock, buf, ini),
    }),
    atomic({
      prototype: 'int smc_listen_ism_init(struct smc_sock *new_smc, struct smc_init_info *ini)',
      calls: true,
      body: (_kernel, smcSock, ini) => {
        const rc = kernel.invoke('smc_conn_create', smcSock, ini);
        if (rc !== 0) return rc;
        const made = kernel.invoke('smc_buf_create', smcSock, 1);
        if (made === 0) return 0;
        abortConn(smc, smcSock, ram.u8(ini + INI.first_contact_local) !== 0);
        return made === -ERRNO.ENOSPC ? SMC_CLC_DECL.MAX_DMB : SMC_CLC_DECL.MEM;
      },
    }),
    atomic({
      prototype:
        'int smc_listen_find_device(struct smc_sock *new_smc, struct smc_clc_msg_proposal *pclc, ' +
        'struct smc_init_info *ini)',
      calls: true,
      body: (_kernel, smcSock, buf, ini) => findDevice(smcSock, buf, ini),
    }),
    sleeping('void smc_listen_work(struct work_struct *work)', (work = 0) =>
      listenWork(work - S.smc_listen_work),
    ),
  ];
}

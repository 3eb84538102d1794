/**
 * The client's side of the handshake: connect TCP, propose devices, take the server's choice.
 *
 * Reference: smc_connect, __smc_connect, smc_find_proposal_devices, smc_find_ism_v2_device_clnt,
 * smc_connect_check_aclc, smc_connect_ism, smc_v2_determine_accepted_chid in net/smc/af_smc.c of 6.12. An
 * InfiniBand device is proposed and never connected: SMC-R ends here.
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type BodyGenerator, type KernelFunction } from '../../kernel/function.js';
import { CLC_WAIT_TIME, SMC_CLC_DECL, SMC_STATE } from '../constants.js';
import type { SmcContext } from '../context.js';
import { C, DEV, INI, LGR, S, connOf, setSkState, skState } from '../core/fields.js';
import { countHandshakeError, countSuccess } from '../core/statistics.js';
import type { SmcdDevice } from '../device/devices.js';
import {
  CLC_TYPE,
  SMC_FEATURE_MASK,
  SMC_FIRST_CONTACT_MASK,
  SMC_TYPE,
  indicatedType,
} from '../clc/values.js';
import { CLC_BUFFER_SIZE, decodeAcceptConfirm, readHeader } from '../clc/parse.js';
import { SMCD_GID, SMC_INIT_INFO, SOCKADDR_IN, SOCKET } from '../structs.js';
import { abortConn, messageAt, savePeerInfo } from './clc.js';
import { callSleeping, sleeping } from './sleeping.js';
import { copySettingsToClc } from '../socket/inet.js';
import { storeAddresses } from '../socket/tcp.js';

const V1 = 1;
const V2 = 2;
const BOTH = 3;
/** SMCD_CLC_MAX_V2_GID_ENTRIES */
const MAX_GID_ENTRIES = 8;
/** MSG_FASTOPEN's way of connecting (TCP_FASTOPEN_CONNECT): a flag of smc_connect here. */
export const CONNECT_FASTOPEN = 0x20000000;
export const O_NONBLOCK = 0x800;

export function clientFunctions(smc: SmcContext): readonly KernelFunction[] {
  const { ram, kernel, devices, tcp, eids } = smc;

  function goingAway(device: SmcdDevice): boolean {
    return ram.u8(device.address + DEV.going_away) !== 0;
  }

  function setSlot(ini: number, slot: number, device: SmcdDevice): void {
    ram.setPointer(ini + INI.ism_dev + 8 * slot, device.address);
    const chid = kernel.invoke('smc_ism_get_chid', device.address);
    ram.set16(ini + INI.ism_chid + 2 * slot, chid);
  }

  /** smc_find_ism_device with the VLAN set up: the device of v1 goes to slot 0. */
  function findV1(ini: number): boolean {
    const { pnetid } = smc.netdev;
    const device = devices.list.find(
      (each) => !goingAway(each) && (each.v1 || (pnetid !== '' && each.pnetid === pnetid)),
    );
    if (!device) return false;
    const vlan = ram.u16(ini + INI.vlan_id);
    const { add_vlan_id: add } = device.ops;
    if (vlan !== 0 && (add === undefined || kernel.invoke(add, device.address, vlan) !== 0)) {
      return false;
    }
    setSlot(ini, 0, device);
    return true;
  }

  /** 0 when there is one. */
  function findV2(ini: number): number {
    let slot = 1;
    let entry = 1;
    const chids = new Set<number>();
    const first = ram.pointer(ini + INI.ism_dev);
    for (const device of devices.list) {
      if (device.address === first || goingAway(device) || !device.supportsV2) continue;
      if (chids.has(device.chid)) continue;
      if (device.pnetid !== '' && device.pnetid !== smc.netdev.pnetid) continue;
      if (device.emulated && entry === MAX_GID_ENTRIES) continue;
      setSlot(ini, slot++, device);
      chids.add(device.chid);
      entry += device.emulated ? 2 : 1;
      if (entry > MAX_GID_ENTRIES) break;
    }
    ram.set8(ini + INI.ism_offered_cnt, slot - 1);
    return slot > 1 || first !== 0 ? 0 : SMC_CLC_DECL.NOSMCDDEV;
  }

  /** Version 1 goes by PNETID, version 2 by route. */
  function findRoce(version: number): boolean {
    const { pnetid } = smc.netdev;
    return devices.roce.some((each) => version === V2 || (pnetid !== '' && each.pnetid === pnetid));
  }

  /** smc_find_proposal_devices */
  function findDevices(smcSock: number, ini: number): number {
    let smcd: number = BOTH;
    let smcr: number = BOTH;
    if (smc.netdev.vlanFails) {
      smcd &= ~V1;
      smcr = 0;
    }
    if ((smcd & V1) === 0 || !findV1(ini)) smcd &= ~V1;
    if ((smcr & V1) === 0 || !findRoce(V1)) smcr &= ~V1;
    const isV2 = kernel.invoke('smc_ism_is_v2_capable') !== 0;
    if (!isV2 || kernel.invoke('smc_find_ism_v2_device_clnt', smcSock, ini) !== 0) smcd &= ~V2;
    if ((smcr & V2) === 0 || eids.ueids.length === 0 || !findRoce(V2)) smcr &= ~V2;
    const typeV1 = indicatedType((smcd & V1) !== 0, (smcr & V1) !== 0);
    const typeV2 = indicatedType((smcd & V2) !== 0, (smcr & V2) !== 0);
    ram.set8(ini + INI.smcd_version, smcd);
    ram.set8(ini + INI.smcr_version, smcr);
    ram.set8(ini + INI.smc_type_v1, typeV1);
    ram.set8(ini + INI.smc_type_v2, typeV2);
    return typeV1 === SMC_TYPE.N && typeV2 === SMC_TYPE.N ? SMC_CLC_DECL.NOSMCDEV : 0;
  }

  /** smc_connect_check_aclc: was proposed what was accepted? */
  function checkAccept(ini: number, buf: number): number {
    const { version, typeV1 } = readHeader(messageAt(smc, buf));
    const bit = version === 1 ? V1 : V2;
    const field = typeV1 === SMC_TYPE.R ? INI.smcr_version : INI.smcd_version;
    return (ram.u8(ini + field) & bit) === 0 ? SMC_CLC_DECL.MODEUNSUPP : 0;
  }

  /** smc_v2_determine_accepted_chid: an empty slot is no device, whatever its CHID of 0 says. */
  function acceptedSlot(ini: number, chid: number): number | undefined {
    for (let slot = 0; slot <= ram.u8(ini + INI.ism_offered_cnt); slot++) {
      const isTaken = ram.pointer(ini + INI.ism_dev + 8 * slot) !== 0;
      if (isTaken && ram.u16(ini + INI.ism_chid + 2 * slot) === chid) return slot;
    }
    return undefined;
  }

  /** smc_connect_ism up to where something has to be undone when it fails. */
  function chooseDevice(buf: number, ini: number): number {
    const accept = decodeAcceptConfirm(messageAt(smc, buf));
    ram.set8(ini + INI.is_smcd, 1);
    ram.set8(ini + INI.first_contact_peer, accept.firstContact ? SMC_FIRST_CONTACT_MASK : 0);
    ram.set8(ini + INI.smcd_version, accept.version === 1 ? V1 : V2);
    ram.set8(ini + INI.ism_selected, 0);
    if (accept.v2) {
      const extension = accept.v2.firstContact;
      if (accept.firstContact && !extension) return -ERRNO.EPROTO;
      ram.set8(ini + INI.release_nr, extension?.release ?? 0);
      if (accept.firstContact && ram.u8(ini + INI.release_nr) > smc.release) {
        return SMC_CLC_DECL.VERSMISMAT;
      }
      const common = (extension?.featureMask ?? 0) & SMC_FEATURE_MASK;
      ram.set16(ini + INI.feature_mask, common);
      const slot = acceptedSlot(ini, accept.v2.chid);
      if (slot === undefined) return -ERRNO.EPROTO;
      ram.set8(ini + INI.ism_selected, slot);
      ram.bytes.set(accept.v2.eid, ini + INI.negotiated_eid);
    }
    const gid = ini + INI.ism_peer_gid + SMCD_GID.size * ram.u8(ini + INI.ism_selected);
    ram.set64(gid, accept.gid);
    ram.set64(gid + 8, accept.v2 && devices.isEmulated(accept.v2.chid) ? accept.v2.gidExt : 0n);
    return 0;
  }

  /** smc_connect_rdma: the device can be chosen, and is never connected. */
  function connectRdma(): number {
    return SMC_CLC_DECL[devices.roce[0]?.refusal ?? 'NOSMCRDEV'];
  }

  function connectIsm(smcSock: number, buf: number, ini: number): number {
    const conn = connOf(smcSock);
    const chosen = chooseDevice(buf, ini);
    if (chosen !== 0) return chosen;
    let rc = kernel.invoke('smc_conn_create', smcSock, ini);
    if (rc !== 0) return rc;
    rc = kernel.invoke('smc_buf_create', smcSock, 1);
    if (rc !== 0) {
      rc = rc === -ERRNO.ENOSPC ? SMC_CLC_DECL.MAX_DMB : SMC_CLC_DECL.MEM;
    } else {
      savePeerInfo(smc, smcSock, buf);
      const dev = ram.pointer(ram.pointer(conn + C.lgr) + LGR.smcd);
      const isShared = kernel.invoke('smc_ism_support_dmb_nocopy', dev) !== 0;
      if (isShared && kernel.invoke('smcd_buf_attach', smcSock) !== 0) rc = SMC_CLC_DECL.MEM;
    }
    if (rc === 0) {
      const first = ram.u8(ini + INI.first_contact_local);
      const { version } = readHeader(messageAt(smc, buf));
      const eid = ini + INI.negotiated_eid;
      rc = kernel.invoke('smc_clc_send_confirm', smcSock, first, version, eid, ini);
    }
    if (rc !== 0) {
      abortConn(smc, smcSock, ram.u8(ini + INI.first_contact_local) !== 0);
      return rc;
    }
    activate(smcSock);
    return 0;
  }

  function activate(smcSock: number): void {
    ram.set8(smcSock + S.connect_nonblock, 0);
    if (skState(ram, smcSock) === SMC_STATE.INIT) setSkState(ram, smcSock, SMC_STATE.ACTIVE);
    smc.wake(smcSock);
  }

  function isFallenBack(smcSock: number): boolean {
    return ram.u8(smcSock + S.use_fallback) !== 0;
  }

  /** smc_connect_fallback */
  function fallBack(smcSock: number, reason: number): number {
    const rc = kernel.invoke('smc_switch_to_fallback', smcSock, reason);
    if (rc !== 0) {
      countHandshakeError(smc, 'clnt');
      return rc;
    }
    copySettingsToClc(smc, smcSock);
    activate(smcSock);
    return 0;
  }

  /** smc_connect_decline_fallback */
  function declineOrFail(smcSock: number, reason: number, version: number): number {
    if (reason < 0) {
      countHandshakeError(smc, 'clnt');
      return reason;
    }
    if (reason !== SMC_CLC_DECL.PEERDECL) {
      const rc = kernel.invoke('smc_clc_send_decline', smcSock, reason, version);
      if (rc < 0) {
        countHandshakeError(smc, 'clnt');
        return rc;
      }
    }
    return fallBack(smcSock, reason);
  }

  function* handshake(smcSock: number, ini: number, buf: number): BodyGenerator<number> {
    const rc = kernel.invoke('smc_clc_send_proposal', smcSock, ini);
    if (rc !== 0) return rc;
    const waited = yield* callSleeping(
      kernel,
      'smc_clc_wait_msg',
      { to: smcSock },
      { to: buf },
      CLC_BUFFER_SIZE,
      CLC_TYPE.ACCEPT,
      CLC_WAIT_TIME,
    );
    if (waited === -ERRNO.EAGAIN) {
      ram.set32(smcSock + S.sk_err, ERRNO.ETIMEDOUT);
      return -ERRNO.ETIMEDOUT;
    }
    return waited;
  }

  /** __smc_connect */
  function* connectSmc(smcSock: number): BodyGenerator<number> {
    const clcsock = tcp.of(ram.pointer(smcSock + S.clcsock));
    if (!tcp.synSmc(clcsock)) return fallBack(smcSock, SMC_CLC_DECL.PEERNOSMC);
    let version: typeof V1 | typeof V2 = kernel.invoke('smc_ism_is_v2_capable') !== 0 ? V2 : V1;
    if (smc.netdev.ipsec) return declineOrFail(smcSock, SMC_CLC_DECL.IPSEC, version);
    const ini = kernel.physical.alloc(SMC_INIT_INFO.size);
    const buf = kernel.physical.alloc(CLC_BUFFER_SIZE);
    try {
      ram.set16(ini + INI.vlan_id, smc.netdev.vlan);
      let rc = findDevices(smcSock, ini);
      if (rc === 0) rc = yield* handshake(smcSock, ini, buf);
      if (rc === 0) {
        const header = readHeader(messageAt(smc, buf));
        const isSmcr = header.typeV1 === SMC_TYPE.R;
        version = header.version === 1 ? V1 : V2;
        rc = checkAccept(ini, buf);
        if (rc === 0) {
          rc = isSmcr ? connectRdma() : kernel.invoke('smc_connect_ism', smcSock, buf, ini);
        }
      }
      if (rc !== 0) return declineOrFail(smcSock, rc, version);
      countSuccess(smc, 'clnt', version);
      return 0;
    } finally {
      kernel.physical.free(ini);
      kernel.physical.free(buf);
    }
  }

  function* connect(smcSock: number, address: number, flags: number): BodyGenerator<number> {
    const state = skState(ram, smcSock);
    if (state === SMC_STATE.ACTIVE) return -ERRNO.EISCONN;
    if (state !== SMC_STATE.INIT) return -ERRNO.EINVAL;
    const clcsock = tcp.of(ram.pointer(smcSock + S.clcsock));
    if (clcsock.peer !== undefined) return -ERRNO.EALREADY;
    if ((flags & CONNECT_FASTOPEN) !== 0) {
      kernel.invoke('smc_switch_to_fallback', smcSock, SMC_CLC_DECL.OPTUNSUPP);
    }
    copySettingsToClc(smc, smcSock);
    const isFallback = isFallenBack(smcSock);
    if (!isFallback) tcp.setSynSmc(clcsock, true);
    clcsock.onEvent = () => smc.wake(smcSock);
    const rc = kernel.invoke(
      'inet_stream_connect',
      clcsock.socket,
      address,
      SOCKADDR_IN.size,
      flags,
    );
    storeAddresses(kernel, smcSock, clcsock.local, clcsock.remote);
    // what fell back before it connected is TCP's from now on, and stays in INIT
    if (rc !== 0 || isFallback) return rc;
    return yield* connectSmc(smcSock);
  }

  return [
    atomic({
      prototype: 'int smc_find_ism_v2_device_clnt(struct smc_sock *smc, struct smc_init_info *ini)',
      calls: true,
      body: (_kernel, _smcSock, ini) => findV2(ini),
    }),
    atomic({
      prototype:
        'int smc_connect_ism(struct smc_sock *smc, struct smc_clc_msg_accept_confirm *aclc, ' +
        'struct smc_init_info *ini)',
      calls: true,
      body: (_kernel, smcSock, buf, ini) => connectIsm(smcSock, buf, ini),
    }),
    sleeping(
      'int smc_connect(struct socket *sock, struct sockaddr *addr, int alen, int flags)',
      function* (socket = 0, address = 0, _length = 0, flags = 0) {
        const smcSock = ram.pointer(socket + SOCKET.offset.sk);
        const isNonblock = (flags & O_NONBLOCK) !== 0;
        if (isNonblock) ram.set8(smcSock + S.connect_nonblock, 1);
        const rc = yield* connect(smcSock, address, flags);
        // what smc_connect_work does of a connect that nobody waits for
        if (isNonblock && rc < 0) ram.set32(smcSock + S.sk_err, -rc);
        smc.wake(smcSock);
        return rc;
      },
    ),
  ];
}

/**
 * The catalogue of reasons: who falls back to TCP with which code, and when.
 *
 * Reference: SMC_CLC_DECL_* in net/smc/smc_clc.h and the places of net/smc that return them, 6.12. What a
 * connection over RDMA hardware ends with is marked: such a device can be chosen here, and says with
 * `RoceDevice.refusal` which of these it is. Two codes nothing in 6.12 returns.
 *
 * Usage:
 *   for (const { name, when } of DECLINE_REASONS) print(name, when);
 */
import { SMC_CLC_DECL } from './constants.js';

/** Whose decision it is; `roce`: that of SMC-R's own connection setup. */
export type DeclinedBy = 'client' | 'server' | 'both' | 'roce' | 'nobody';

export interface DeclineReason {
  readonly code: number;
  readonly name: keyof typeof SMC_CLC_DECL;
  readonly by: DeclinedBy;
  readonly when: string;
}

const WHEN: Readonly<Record<keyof typeof SMC_CLC_DECL, readonly [by: DeclinedBy, when: string]>> = {
  MEM: ['both', 'no memory for buffers; client: no buffer with the token of the accept'],
  TIMEOUT_CL: ['roce', 'the first link was not confirmed in time'],
  TIMEOUT_AL: ['roce', 'a second link was not added in time'],
  CNFERR: ['client', 'version 1 only, and no address prefix to propose'],
  PEERNOSMC: ['both', 'no SMC option in SYN or SYN-ACK; server: a proposal of no type'],
  IPSEC: ['both', 'the route has an IPsec policy'],
  NOSMCDEV: ['both', 'no device; server: none of SMC-Rv1'],
  NOSMCDDEV: ['server', 'no SMC-D device, or no EID in common'],
  NOSMCRDEV: ['server', 'no SMC-R device'],
  NOISM2SUPP: ['server', 'no device of SMC-Dv2'],
  NOV2EXT: [
    'nobody',
    'the v2 extension is missing: 6.12 takes that for malformed before it gets here',
  ],
  NOV2DEXT: ['server', 'the SMC-Dv2 extension is missing'],
  NOSEID: ['nobody', 'defined, and returned by nothing'],
  NOSMCD2DEV: ['server', 'no local device has the CHID and reaches the GID'],
  NOUEID: ['server', 'no EID offered'],
  RELEASEERR: ['server', 'the confirm names another release than the accept'],
  MAXCONNERR: ['server', 'SMC-Rv2.1 with less than 16 connections in a link group'],
  MAXLINKERR: ['server', 'SMC-Rv2.1 with no link in a link group'],
  MODEUNSUPP: ['client', 'accepted what was not proposed'],
  RMBE_EC: ['roce', 'the peer rejected the link confirmation'],
  OPTUNSUPP: ['both', 'TCP_FASTOPEN_CONNECT, MSG_FASTOPEN'],
  DIFFPREFIX: ['server', 'version 1, and the networks differ'],
  GETVLANERR: ['server', 'version 1, and the VLAN cannot be found out'],
  ISMVLANERR: ['both', 'the device has no VLANs and the interface is in one'],
  NOACTLINK: ['roce', 'no link of the group is active'],
  NOSRVLINK: ['roce', "no link of the group is the server's"],
  VERSMISMAT: ['client', 'the accept names a release that is newer than its own'],
  MAX_DMB: ['both', 'the device has no slot for a buffer'],
  NOROUTE: ['roce', 'SMC-Rv2 has no route to the peer'],
  NOINDIRECT: ['roce', 'the peer says there is a gateway between, and there is none'],
  SYNCERR: ['client', 'the server reuses a link group that is not here'],
  PEERDECL: ['both', "the peer declined; its code is the peer's diagnosis"],
  INTERR: ['roce', 'a queue pair or link group could not be made'],
  ERR_RTOK: ['roce', 'the key of a remote buffer could not be stored'],
  ERR_RDYLNK: ['roce', 'a queue pair did not become ready'],
  ERR_REGBUF: ['roce', 'a buffer could not be registered'],
};

export const DECLINE_REASONS: readonly DeclineReason[] = Object.entries(WHEN).map(
  ([key, [by, when]]) => {
    const name = key as keyof typeof SMC_CLC_DECL;
    return { code: SMC_CLC_DECL[name], name, by, when };
  },
);

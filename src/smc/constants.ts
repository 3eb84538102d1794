/**
 * Numbers of SMC that the wire, user space and the state machine share, by their kernel names.
 *
 * Reference: net/smc/smc.h, smc_clc.h, smc_cdc.h, smc_core.h of 6.12. Leaves out SMC-R's own.
 */

/** sk_state of an SMC socket. */
export const SMC_STATE = {
  ACTIVE: 1,
  INIT: 2,
  CLOSED: 7,
  LISTEN: 10,
  PEERCLOSEWAIT1: 20,
  PEERCLOSEWAIT2: 21,
  APPCLOSEWAIT1: 22,
  APPCLOSEWAIT2: 23,
  APPFINCLOSEWAIT: 24,
  PEERFINCLOSEWAIT: 25,
  PEERABORTWAIT: 26,
  PROCESSABORT: 27,
} as const;

export type SmcStateName = keyof typeof SMC_STATE;

export function smcStateName(state: number): SmcStateName {
  for (const [name, value] of Object.entries(SMC_STATE)) {
    if (value === state) return name as SmcStateName;
  }
  throw new RangeError(`${state} is no state of an SMC socket`);
}

/** Why a handshake ends in TCP: the diagnosis of a decline, smc_sock.fallback_rsn. */
export const SMC_CLC_DECL = {
  MEM: 0x01010000,
  TIMEOUT_CL: 0x02010000,
  TIMEOUT_AL: 0x02020000,
  CNFERR: 0x03000000,
  PEERNOSMC: 0x03010000,
  IPSEC: 0x03020000,
  NOSMCDEV: 0x03030000,
  NOSMCDDEV: 0x03030001,
  NOSMCRDEV: 0x03030002,
  NOISM2SUPP: 0x03030003,
  NOV2EXT: 0x03030004,
  NOV2DEXT: 0x03030005,
  NOSEID: 0x03030006,
  NOSMCD2DEV: 0x03030007,
  NOUEID: 0x03030008,
  RELEASEERR: 0x03030009,
  MAXCONNERR: 0x0303000a,
  MAXLINKERR: 0x0303000b,
  MODEUNSUPP: 0x03040000,
  RMBE_EC: 0x03050000,
  OPTUNSUPP: 0x03060000,
  DIFFPREFIX: 0x03070000,
  GETVLANERR: 0x03080000,
  ISMVLANERR: 0x03090000,
  NOACTLINK: 0x030a0000,
  NOSRVLINK: 0x030b0000,
  VERSMISMAT: 0x030c0000,
  MAX_DMB: 0x030d0000,
  NOROUTE: 0x030e0000,
  NOINDIRECT: 0x030f0000,
  SYNCERR: 0x04000000,
  PEERDECL: 0x05000000,
  INTERR: 0x09990000,
  ERR_RTOK: 0x09990001,
  ERR_RDYLNK: 0x09990002,
  ERR_REGBUF: 0x09990003,
} as const;

/** `SMC_CLC_DECL_NOUEID`, or the number of a code that is not known. */
export function declineName(code: number): string {
  for (const [name, value] of Object.entries(SMC_CLC_DECL)) {
    if (value === code) return `SMC_CLC_DECL_${name}`;
  }
  return `0x${code.toString(16).padStart(8, '0')}`;
}

/** cdc_prod_flags */
export const PROD_FLAG = {
  WRITE_BLOCKED: 0x80,
  URG_DATA_PENDING: 0x40,
  URG_DATA_PRESENT: 0x20,
  CONS_CURS_UPD_REQ: 0x10,
} as const;

/** cdc_conn_state_flags */
export const STATE_FLAG = {
  PEER_DONE_WRITING: 0x80,
  PEER_CONN_CLOSED: 0x40,
  PEER_CONN_ABORT: 0x20,
} as const;

export const SMC_CDC_MSG_TYPE = 0xfe;
/** sizeof(struct smcd_cdc_msg): what the payload ring of a DMB starts behind. */
export const CDC_SIZE = 32;

/** smc_connection.urg_state */
export const URG_STATE = { VALID: 1, NOTYET: 2, READ: 3 } as const;

/** sk_shutdown */
export const RCV_SHUTDOWN = 1;
export const SEND_SHUTDOWN = 2;
export const SHUTDOWN_MASK = 3;

/** msg_flags */
export const MSG = {
  OOB: 0x1,
  PEEK: 0x2,
  TRUNC: 0x20,
  DONTWAIT: 0x40,
  WAITALL: 0x100,
  MORE: 0x8000,
  FASTOPEN: 0x20000000,
} as const;

/** poll(2) */
export const POLL = { IN: 1, PRI: 2, OUT: 4, ERR: 8, HUP: 0x10, RDHUP: 0x2000 } as const;

export const AF_SMC = 43;
export const IPPROTO_SMC = 256;
export const SOCK_STREAM = 1;

/** Milliseconds: CLC_WAIT_TIME, SMC_MAX_STREAM_WAIT_TIMEOUT, SMC_LGR_FREE_DELAY_SERV. */
export const CLC_WAIT_TIME = 6000;
export const SMC_MAX_STREAM_WAIT_TIMEOUT = 2000;
export const SMC_LGR_FREE_DELAY = 600_000;

/** net.smc.rmem, net.smc.wmem; net.core.rmem_max, net.core.wmem_max. */
export const SMC_SYSCTL_MEM = 65536;
export const CORE_MEM_MAX = 212992;
/** Bits of tcp_sock.nonagle. */
export const TCP_NAGLE_OFF = 1;
export const TCP_NAGLE_CORK = 2;

/** SOCK_MIN_RCVBUF, SOCK_MIN_SNDBUF of a 64-bit 6.12: measured. */
export const SOCK_MIN_RCVBUF = 2304;
export const SOCK_MIN_SNDBUF = 4608;

/** Bytes of a buffer are SMC_BUF_MIN_SIZE << n. */
export const SMC_BUF_MIN_SIZE = 16384;
/** SMCD_DMBE_SIZES: largest n. */
export const SMCD_DMBE_SIZES = 6;

/** Compressed size of a buffer: smc_compress_bufsize with SMC-D's limit. */
export function compressBufsize(size: number): number {
  if (size <= SMC_BUF_MIN_SIZE) return 0;
  const units = (size - 1) >>> 14;
  return Math.min(32 - Math.clz32(units), SMCD_DMBE_SIZES);
}

export function uncompressBufsize(compressed: number): number {
  return SMC_BUF_MIN_SIZE << compressed;
}

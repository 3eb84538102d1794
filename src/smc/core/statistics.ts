/**
 * What a namespace counts of SMC: requests and their sizes, buffers, handshakes, and why sockets fell back.
 *
 * Reference: net/smc/smc_stats.h, smc_stat_fallback in net/smc/af_smc.c of 6.12. Linux counts on each CPU and
 * adds up when it is asked; here is the sum. The part of SMC-R stays 0. `netlink.ts` tells the counts as the
 * kernel does.
 *
 * Usage:
 *   countPayload(smc, 'tx', length, sent);
 *   countBuffer(smc, 'rmb_tx', 'alloc_cnt');
 */
import { struct } from '../../common/struct.js';
import type { SmcContext } from '../context.js';
import { S } from './fields.js';

/** SMC_BUF_8K .. SMC_BUF_512K, SMC_BUF_1024K, SMC_BUF_G_1024K */
const SMC_BUF_MAX = 9;
const SMC_MAX_FBACK_RSN_CNT = 36;

export const SMC_STATS_RMBCNT = struct({
  buf_size_small_peer_cnt: 'u64',
  buf_size_small_cnt: 'u64',
  buf_full_peer_cnt: 'u64',
  buf_full_cnt: 'u64',
  reuse_cnt: 'u64',
  alloc_cnt: 'u64',
  dgrade_cnt: 'u64',
});

export const SMC_STATS_TECH = struct({
  tx_rmbsize: 8 * SMC_BUF_MAX,
  rx_rmbsize: 8 * SMC_BUF_MAX,
  tx_pd: 8 * SMC_BUF_MAX,
  rx_pd: 8 * SMC_BUF_MAX,
  rmb_tx: SMC_STATS_RMBCNT.size,
  rmb_rx: SMC_STATS_RMBCNT.size,
  clnt_v1_succ_cnt: 'u64',
  clnt_v2_succ_cnt: 'u64',
  srv_v1_succ_cnt: 'u64',
  srv_v2_succ_cnt: 'u64',
  urg_data_cnt: 'u64',
  splice_cnt: 'u64',
  cork_cnt: 'u64',
  ndly_cnt: 'u64',
  rx_bytes: 'u64',
  tx_bytes: 'u64',
  rx_cnt: 'u64',
  tx_cnt: 'u64',
  rx_rmbuse: 'u64',
  tx_rmbuse: 'u64',
});

/** `smc` of SMC_TYPE_R (0) and SMC_TYPE_D (1). */
export const SMC_STATS = struct({
  smcr: SMC_STATS_TECH.size,
  smcd: SMC_STATS_TECH.size,
  clnt_hshake_err_cnt: 'u64',
  srv_hshake_err_cnt: 'u64',
});

const SMC_STATS_FBACK = struct({ fback_code: 'u32', count: 'u16' });

export const SMC_STATS_RSN = struct({
  srv: SMC_STATS_FBACK.size * SMC_MAX_FBACK_RSN_CNT,
  clnt: SMC_STATS_FBACK.size * SMC_MAX_FBACK_RSN_CNT,
  srv_fback_cnt: 'u64',
  clnt_fback_cnt: 'u64',
});

export type Side = 'clnt' | 'srv';
export type Direction = 'tx' | 'rx';

const T = SMC_STATS_TECH.offset;
const SMCD = SMC_STATS.offset.smcd;
const FBACK = SMC_STATS_FBACK.offset;

const OF = {
  tx: {
    cnt: SMCD + T.tx_cnt,
    bytes: SMCD + T.tx_bytes,
    pd: SMCD + T.tx_pd,
    rmbsize: SMCD + T.tx_rmbsize,
    rmbuse: SMCD + T.tx_rmbuse,
  },
  rx: {
    cnt: SMCD + T.rx_cnt,
    bytes: SMCD + T.rx_bytes,
    pd: SMCD + T.rx_pd,
    rmbsize: SMCD + T.rx_rmbsize,
    rmbuse: SMCD + T.rx_rmbuse,
  },
} as const;

/** fls((size - 1) >> 13), at most the last. */
function sizeClass(size: number): number {
  return Math.min(32 - Math.clz32((size - 1) >>> 13), SMC_BUF_MAX - 1);
}

/** SMC_STAT_INC */
export function count(
  { ram, smcStats }: SmcContext,
  what: 'urg_data_cnt' | 'cork_cnt' | 'ndly_cnt',
): void {
  ram.add64(smcStats + SMCD + T[what], 1);
}

/** SMC_STAT_TX_PAYLOAD, SMC_STAT_RX_PAYLOAD: a request of `length` bytes that came to `rc`. */
export function countPayload(
  { ram, smcStats }: SmcContext,
  direction: Direction,
  length: number,
  rc: number,
): void {
  const of = OF[direction];
  ram.add64(smcStats + of.cnt, 1);
  if (rc <= 0 || length <= 0) return;
  ram.add64(smcStats + of.pd + 8 * sizeClass(length), 1);
  ram.add64(smcStats + of.bytes, rc);
}

/** SMC_STAT_RMB and what is made of it. */
export function countBuffer(
  { ram, smcStats }: SmcContext,
  which: 'rmb_tx' | 'rmb_rx',
  what: keyof typeof SMC_STATS_RMBCNT.offset,
): void {
  ram.add64(smcStats + SMCD + T[which] + SMC_STATS_RMBCNT.offset[what], 1);
}

/** SMC_STAT_RMB_SIZE of a buffer that is taken. */
export function countBufferTaken(
  { ram, smcStats }: SmcContext,
  direction: Direction,
  size: number,
): void {
  const of = OF[direction];
  ram.add64(smcStats + of.rmbsize + 8 * sizeClass(size), 1);
  ram.add64(smcStats + of.rmbuse, size);
}

/** SMC_STAT_RMB_SIZE of a buffer that is given back. */
export function countBufferLeft(
  { ram, smcStats }: SmcContext,
  direction: Direction,
  size: number,
): void {
  ram.add64(smcStats + OF[direction].rmbuse, -size);
}

/** SMC_STAT_CLNT_SUCC_INC, SMC_STAT_SERV_SUCC_INC */
export function countSuccess({ ram, smcStats }: SmcContext, side: Side, version: 1 | 2): void {
  ram.add64(smcStats + SMCD + T[`${side}_v${version}_succ_cnt`], 1);
}

export function countHandshakeError({ ram, smcStats }: SmcContext, side: Side): void {
  ram.add64(smcStats + SMC_STATS.offset[`${side}_hshake_err_cnt`], 1);
}

/** smc_stat_fallback: a reason beyond the 36th is in the total only. */
export function countFallback({ ram, fbackRsn }: SmcContext, smcSock: number): void {
  const side: Side = ram.pointer(smcSock + S.listen_smc) === 0 ? 'clnt' : 'srv';
  const reason = ram.u32(smcSock + S.fallback_rsn);
  ram.add64(fbackRsn + SMC_STATS_RSN.offset[`${side}_fback_cnt`], 1);
  for (let i = 0; i < SMC_MAX_FBACK_RSN_CNT; i++) {
    const entry = fbackEntry(fbackRsn, side, i);
    const code = ram.u32(entry + FBACK.fback_code);
    if (code !== reason && code !== 0) continue;
    ram.set32(entry + FBACK.fback_code, reason);
    ram.set16(entry + FBACK.count, ram.u16(entry + FBACK.count) + 1);
    return;
  }
}

function fbackEntry(fbackRsn: number, side: Side, index: number): number {
  return fbackRsn + SMC_STATS_RSN.offset[side] + SMC_STATS_FBACK.size * index;
}

export interface FallbackCount {
  readonly code: number;
  readonly count: number;
}

/** Why sockets fell back, in the order in which each reason came first. */
export function fallbackCounts({ ram, fbackRsn }: SmcContext, side: Side): FallbackCount[] {
  const counts: FallbackCount[] = [];
  for (let i = 0; i < SMC_MAX_FBACK_RSN_CNT; i++) {
    const entry = fbackEntry(fbackRsn, side, i);
    const code = ram.u32(entry + FBACK.fback_code);
    if (code === 0) break;
    counts.push({ code, count: ram.u16(entry + FBACK.count) });
  }
  return counts;
}

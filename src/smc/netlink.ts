/**
 * The counts of SMC as generic netlink tells them: SMC_NETLINK_GET_STATS and SMC_NETLINK_GET_FBACK_STATS.
 *
 * Reference: smc_nl_get_stats, smc_nl_get_fback_stats in net/smc/smc_stats.c, attributes of
 * include/uapi/linux/smc.h, 6.12. A message is its attributes, without nlmsghdr and genlmsghdr. A dump that
 * does not fit one skb goes on in the next, which changes no message; that is left out.
 *
 * Usage:
 *   const messages = dumpFallbackStats(smc).map(encodeAttributes);
 */
import type { SmcContext } from './context.js';
import {
  SMC_STATS,
  SMC_STATS_RMBCNT,
  SMC_STATS_RSN,
  SMC_STATS_TECH,
  fallbackCounts,
  type Side,
} from './core/statistics.js';

export type AttributeValue =
  | { readonly u8: number }
  | { readonly u16: number }
  | { readonly u32: number }
  | { readonly u64: bigint }
  | { readonly nested: readonly Attribute[] };
export type Attribute = readonly [type: number, value: AttributeValue];

const NLA_F_NESTED = 0x8000;
const SMC_GEN_STATS = 7;
const SMC_GEN_FBACK_STATS = 8;

const SMC_NLA_STATS = {
  SMCD_TECH: 1,
  SMCR_TECH: 2,
  CLNT_HS_ERR_CNT: 3,
  SRV_HS_ERR_CNT: 4,
} as const;
const SMC_NLA_FBACK_STATS = { TYPE: 1, SRV_CNT: 2, CLNT_CNT: 3, RSN_CODE: 4, RSN_CNT: 5 } as const;

const T = SMC_STATS_TECH.offset;
const R = SMC_STATS_RMBCNT.offset;

/** SMC_NLA_STATS_RMB_*, in the order in which they are put. */
const RMB: readonly (readonly [type: number, at: number])[] = [
  [5, R.reuse_cnt],
  [1, R.buf_size_small_peer_cnt],
  [2, R.buf_size_small_cnt],
  [3, R.buf_full_peer_cnt],
  [4, R.buf_full_cnt],
  [6, R.alloc_cnt],
  [7, R.dgrade_cnt],
];

/** SMC_NLA_STATS_PLOAD_8K .. SMC_NLA_STATS_PLOAD_G_1024K */
const SIZES: readonly (readonly [type: number, at: number])[] = Array.from(
  { length: 9 },
  (_, i) => [i + 1, 8 * i] as const,
);

/** SMC_NLA_STATS_T_*, in the order in which they are put. `uint`: 4 bytes while that is enough. */
const TECH: readonly (readonly [type: number, at: number, is: typeof RMB | 'u64' | 'uint'])[] = [
  [5, T.rmb_tx, RMB],
  [6, T.rmb_rx, RMB],
  [3, T.tx_pd, SIZES],
  [4, T.rx_pd, SIZES],
  [1, T.tx_rmbsize, SIZES],
  [2, T.rx_rmbsize, SIZES],
  [7, T.clnt_v1_succ_cnt, 'u64'],
  [8, T.clnt_v2_succ_cnt, 'u64'],
  [9, T.srv_v1_succ_cnt, 'u64'],
  [10, T.srv_v2_succ_cnt, 'u64'],
  [16, T.rx_bytes, 'u64'],
  [17, T.tx_bytes, 'u64'],
  [20, T.rx_rmbuse, 'uint'],
  [21, T.tx_rmbuse, 'uint'],
  [18, T.rx_cnt, 'u64'],
  [19, T.tx_cnt, 'u64'],
];

/** The rest, behind SMC_NLA_STATS_T_SENDPAGE_CNT, which nothing counts any more. */
const SENDPAGE_CNT = 11;
const SPECIAL: readonly (readonly [type: number, at: number])[] = [
  [13, T.cork_cnt],
  [14, T.ndly_cnt],
  [12, T.splice_cnt],
  [15, T.urg_data_cnt],
];

function counters(
  { ram }: SmcContext,
  base: number,
  fields: readonly (readonly [type: number, at: number])[],
): Attribute[] {
  return fields.map(([type, at]) => [type, { u64: ram.u64(base + at) }]);
}

function techAttributes(smc: SmcContext, base: number): Attribute[] {
  const first = TECH
    // net.smc's usage of buffers came with release 1
    .filter(([, , is]) => is !== 'uint' || smc.release > 0)
    .map(([type, at, is]): Attribute => {
      const value = smc.ram.u64(base + at);
      if (is === 'u64') return [type, { u64: value }];
      if (is !== 'uint') return [type, { nested: counters(smc, base + at, is) }];
      return [type, value > 0xffffffffn ? { u64: value } : { u32: Number(value) }];
    });
  return [...first, [SENDPAGE_CNT, { u64: 0n }], ...counters(smc, base, SPECIAL)];
}

/** SMC_NETLINK_GET_STATS: one message. */
export function dumpStats(smc: SmcContext): Attribute[] {
  const { ram, smcStats } = smc;
  const S = SMC_STATS.offset;
  return [
    [
      SMC_GEN_STATS,
      {
        nested: [
          [SMC_NLA_STATS.SMCD_TECH, { nested: techAttributes(smc, smcStats + S.smcd) }],
          [SMC_NLA_STATS.SMCR_TECH, { nested: techAttributes(smc, smcStats + S.smcr) }],
          [SMC_NLA_STATS.CLNT_HS_ERR_CNT, { u64: ram.u64(smcStats + S.clnt_hshake_err_cnt) }],
          [SMC_NLA_STATS.SRV_HS_ERR_CNT, { u64: ram.u64(smcStats + S.srv_hshake_err_cnt) }],
        ],
      },
    ],
  ];
}

/** SMC_NETLINK_GET_FBACK_STATS: a message for each reason, server and client in turns; the first has the totals. */
export function dumpFallbackStats(smc: SmcContext): Attribute[][] {
  const { ram, fbackRsn } = smc;
  const sides: readonly Side[] = ['srv', 'clnt'];
  const counts = { srv: fallbackCounts(smc, 'srv'), clnt: fallbackCounts(smc, 'clnt') };
  const A = SMC_NLA_FBACK_STATS;
  const F = SMC_STATS_RSN.offset;
  const totals: readonly Attribute[] = [
    [A.SRV_CNT, { u64: ram.u64(fbackRsn + F.srv_fback_cnt) }],
    [A.CLNT_CNT, { u64: ram.u64(fbackRsn + F.clnt_fback_cnt) }],
  ];
  const messages: Attribute[][] = [];
  for (let i = 0; i < Math.max(counts.srv.length, counts.clnt.length); i++) {
    for (const side of sides) {
      const entry = counts[side][i];
      if (!entry) continue;
      const nested: readonly Attribute[] = [
        [A.TYPE, { u8: side === 'srv' ? 1 : 0 }],
        ...(messages.length === 0 ? totals : []),
        [A.RSN_CODE, { u32: entry.code }],
        [A.RSN_CNT, { u16: entry.count }],
      ];
      messages.push([[SMC_GEN_FBACK_STATS, { nested }]]);
    }
  }
  return messages;
}

/** struct nlattr, one after the other, each padded to 4 bytes. */
export function encodeAttributes(attributes: readonly Attribute[]): Uint8Array {
  const parts = attributes.map(([type, value]) => encodeAttribute(type, value));
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function encodeAttribute(type: number, value: AttributeValue): Uint8Array {
  const payload = encodeValue(value);
  const bytes = new Uint8Array((4 + payload.length + 3) & ~3);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 4 + payload.length, true);
  view.setUint16(2, 'nested' in value ? type | NLA_F_NESTED : type, true);
  bytes.set(payload, 4);
  return bytes;
}

function encodeValue(value: AttributeValue): Uint8Array {
  if ('nested' in value) return encodeAttributes(value.nested);
  const view = new DataView(new ArrayBuffer(8));
  if ('u8' in value) {
    view.setUint8(0, value.u8);
    return new Uint8Array(view.buffer, 0, 1);
  }
  if ('u16' in value) {
    view.setUint16(0, value.u16, true);
    return new Uint8Array(view.buffer, 0, 2);
  }
  if ('u32' in value) {
    view.setUint32(0, value.u32, true);
    return new Uint8Array(view.buffer, 0, 4);
  }
  view.setBigUint64(0, value.u64, true);
  return new Uint8Array(view.buffer);
}

/**
 * The counts of SMC as a record: what `smcd stats` reads. Everything comes from kernel memory.
 *
 * Usage:
 *   const { smcd, fallback } = smcStatistics(smc);
 *   print(smcd.tx_cnt, fallback.clnt.reasons);
 */
import {
  SMC_STATS,
  SMC_STATS_RMBCNT,
  SMC_STATS_RSN,
  SMC_STATS_TECH,
  fallbackCounts,
  type FallbackCount,
  type Side,
} from './core/statistics.js';
import type { Smc } from './smc.js';

/** Requests or buffers of up to 8, 16 .. 1024 KiB, and of more. */
export type SizeCounts = readonly number[];
type RmbCounts = Readonly<Record<keyof typeof SMC_STATS_RMBCNT.offset, number>>;
type TechField = keyof typeof SMC_STATS_TECH.offset;
type SizeField = 'tx_rmbsize' | 'rx_rmbsize' | 'tx_pd' | 'rx_pd';
type RmbField = 'rmb_tx' | 'rmb_rx';

/** struct smc_stats_tech */
export type TechStatistics = Readonly<Record<SizeField, SizeCounts>> &
  Readonly<Record<RmbField, RmbCounts>> &
  Readonly<Record<Exclude<TechField, SizeField | RmbField>, number>>;

export interface FallbackStatistics {
  readonly total: number;
  readonly reasons: readonly FallbackCount[];
}

export interface SmcStatistics {
  readonly smcd: TechStatistics;
  readonly handshakeErrors: Readonly<Record<Side, number>>;
  readonly fallback: Readonly<Record<Side, FallbackStatistics>>;
}

export function smcStatistics(smc: Smc): SmcStatistics {
  const { ram, smcStats, fbackRsn } = smc;
  const tech = smcStats + SMC_STATS.offset.smcd;
  const value = (at: number): number => ram.u53(at);
  const rmb = (at: number): RmbCounts => mapValues(SMC_STATS_RMBCNT.offset, (of) => value(at + of));
  const field = (of: number, bytes: number | string): unknown => {
    if (typeof bytes === 'string') return value(tech + of);
    if (bytes === SMC_STATS_RMBCNT.size) return rmb(tech + of);
    return Array.from({ length: bytes / 8 }, (_, i) => value(tech + of + 8 * i));
  };
  const { types } = SMC_STATS_TECH;
  const fallbackOf = (side: Side): FallbackStatistics => ({
    total: value(fbackRsn + SMC_STATS_RSN.offset[`${side}_fback_cnt`]),
    reasons: fallbackCounts(smc, side),
  });
  const errorsOf = (side: Side): number =>
    value(smcStats + SMC_STATS.offset[`${side}_hshake_err_cnt`]);
  return {
    smcd: mapValues(SMC_STATS_TECH.offset, (of, name) =>
      field(of, types[name]),
    ) as unknown as TechStatistics,
    handshakeErrors: { clnt: errorsOf('clnt'), srv: errorsOf('srv') },
    fallback: { clnt: fallbackOf('clnt'), srv: fallbackOf('srv') },
  };
}

function mapValues<Name extends string, Value>(
  of: Readonly<Record<Name, number>>,
  map: (value: number, name: Name) => Value,
): Record<Name, Value> {
  const entries = (Object.keys(of) as Name[]).map((name) => [name, map(of[name], name)] as const);
  return Object.fromEntries(entries) as Record<Name, Value>;
}

/** What `trampolab rss` prints: experiments, and a capture with outer and inner hash side by side. */
import type { CaptureRunReport, ExperimentResult, FlowSpreadReport, Spread } from '../index.js';
import { table } from './command.js';

function figures(spread: Spread): Record<string, number | readonly number[]> {
  return {
    packets_per_queue: spread.counts,
    max_over_mean: rounded(spread.maxOverMean),
    entropy: rounded(spread.entropy),
    chi_square: rounded(spread.chiSquare),
    speedup: rounded(spread.speedup),
  };
}

function rounded(value: number): number {
  return Math.round(value * 1e6) / 1e6;
}

export function experimentLines(results: readonly ExperimentResult[]): string[] {
  return table([
    ['experiment', 'traffic', 'device', 'max/mean', 'entropy', 'flows on one queue'],
    ...results.map(({ experiment, spread, flows, stableFlows }) => [
      experiment.name,
      experiment.traffic,
      experiment.receiver,
      spread.maxOverMean.toFixed(3),
      spread.entropy.toFixed(3),
      `${stableFlows} of ${flows}`,
    ]),
  ]);
}

const MAX_LISTED = 16;

export function experimentDetail(result: ExperimentResult): string[] {
  const { experiment, spread, queues, flows, stableFlows } = result;
  const { counts } = spread;
  const lines = [
    `${experiment.traffic}, ${experiment.receiver}`,
    '',
    ...table([
      ['queue', 'packets'],
      ...counts.map((count, queue) => [String(queue), String(count)]),
    ]),
    '',
    ...table([...spreadRows(spread), ['flows on one queue', `${stableFlows} of ${flows}`]]),
  ];
  if (queues.length <= MAX_LISTED) lines.push(`queue of each packet: ${queues.join(' ')}`);
  return lines;
}

export function experimentJson(result: ExperimentResult): object {
  const { experiment, spread, queues, flows, stableFlows } = result;
  const { name, traffic, receiver } = experiment;
  return {
    name,
    traffic,
    receiver,
    ...figures(spread),
    flows,
    one_queue_flows: stableFlows,
    queues,
  };
}

function spreadRows(spread: Spread): readonly (readonly [string, string])[] {
  const queues = spread.counts.length;
  return [
    ['max/mean', spread.maxOverMean.toFixed(3)],
    [`entropy (even: ${Math.log2(queues).toFixed(3)})`, spread.entropy.toFixed(3)],
    [`chi-square (${queues - 1} degrees)`, spread.chiSquare.toFixed(2)],
    ['speed-up over one queue', spread.speedup.toFixed(2)],
  ];
}

function flowRows(spread: FlowSpreadReport): readonly (readonly [string, string])[] {
  const rows: (readonly [string, string])[] = [
    ...spreadRows(spread),
    ['flows', String(spread.flows)],
    ['flows on one queue', String(spread.stableFlows)],
    ['packets on another queue than before', String(spread.queueChanges)],
    ['packets out of order', String(spread.reordered)],
  ];
  if (spread.notFollowed > 0) rows.push(['of flows not followed', String(spread.notFollowed)]);
  return rows;
}

function listed(counts: ReadonlyMap<string, number>): string {
  return [...counts].map(([name, count]) => `${name} ${count}`).join(', ');
}

/** Rows of queues beyond this many are left out when they had no packets. */
const MANY_QUEUES = 64;

export function captureLines(report: CaptureRunReport): string[] {
  const { outer, inner, packets, tunnels, reports, moved } = report;
  const outerRows = flowRows(outer);
  const innerRows = flowRows(inner);
  const queueRows = inner.counts.flatMap((count, queue) => {
    const before = outer.counts[queue] ?? 0;
    if (inner.counts.length > MANY_QUEUES && count + before === 0) return [];
    const flows = [outer.flowsPerQueue[queue], inner.flowsPerQueue[queue]] as const;
    return [[queue, before, flows[0] ?? 0, count, flows[1] ?? 0].map(String)];
  });
  return [
    `${packets} packets; in tunnels: ${listed(tunnels) || 'none'}`,
    `hashes reported with inner hash: ${listed(reports)}`,
    `inner hash sends ${moved} packets to another queue`,
    '',
    ...table([['queue', 'outer hash', 'flows', 'inner hash', 'flows'], ...queueRows]),
    '',
    ...table([
      ['', 'outer hash', 'inner hash'],
      ...outerRows.map(([name, value], i) => [name, value, innerRows[i]?.[1] ?? '']),
    ]),
  ];
}

function flowFigures(spread: FlowSpreadReport): object {
  return {
    ...figures(spread),
    flows_per_queue: spread.flowsPerQueue,
    flows: spread.flows,
    one_queue_flows: spread.stableFlows,
    queue_changes: spread.queueChanges,
    out_of_order: spread.reordered,
    not_followed: spread.notFollowed,
  };
}

export function captureJson(report: CaptureRunReport): object {
  return {
    packets: report.packets,
    tunnels: Object.fromEntries(report.tunnels),
    reports: Object.fromEntries(report.reports),
    moved: report.moved,
    outer: flowFigures(report.outer),
    inner: flowFigures(report.inner),
  };
}

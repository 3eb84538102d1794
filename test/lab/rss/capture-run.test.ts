/** Captures by queue: flows, order, tunnels; against counts made in other ways. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CaptureRun } from '../../../src/lab/rss/capture-run.js';
import { FlowReader } from '../../../src/lab/rss/flow-key.js';
import { FlowSpread } from '../../../src/lab/rss/flow-spread.js';
import { DEFAULT_SETTINGS, RssReceiver } from '../../../src/lab/rss/receiver.js';
import { readCapture } from '../../../src/net/read-capture.js';
import { SYMMETRIC_KEY } from '../../../src/net/rss/toeplitz.js';
import { ALL_TUNNEL_TYPES } from '../../../src/net/rss/types.js';
import { PACKAGE_ROOT } from '../../../src/node/files.js';
import { GOLDEN_FRAMES } from '../../net/rss/golden-frames.js';

const capture = readCapture(readFileSync(join(PACKAGE_ROOT, 'examples/captures/tunnels.pcap')));

describe('flows', () => {
  it('are the same in every tunnel and without one', () => {
    const flows = new FlowReader();
    const keys = GOLDEN_FRAMES.map(({ bytes }) => flows.keyOf(bytes));
    const inner = GOLDEN_FRAMES[0]?.bytes.slice(34) ?? new Uint8Array(0);
    const plain = new Uint8Array([...new Uint8Array(12), 8, 0, ...inner]);
    expect(new Set(keys)).toEqual(new Set([flows.keyOf(plain)]));
    // another port
    plain[35] = 1;
    expect(keys).not.toContain(flows.keyOf(plain));
    expect(flows.keyOf(new Uint8Array(60))).toBe(-1);
    expect(Number.isSafeInteger(keys[0])).toBe(true);
  });
});

describe('order', () => {
  it('a packet on an idle queue overtakes one that waits', () => {
    const spread = new FlowSpread(2, 100);
    // three of flow 7 queue up, the fourth goes elsewhere and is done before the third and second
    for (const queue of [0, 0, 0, 1]) spread.add(queue, 7, 0);
    spread.add(1, 8, 10);
    expect(spread.report()).toMatchObject({
      counts: [3, 2],
      flowsPerQueue: [1, 2],
      flows: 2,
      stableFlows: 1,
      queueChanges: 1,
      reordered: 1,
    });
  });

  it('with time between packets nothing is out of order', () => {
    const spread = new FlowSpread(2, 100);
    for (let i = 0; i < 10; i++) spread.add(i % 2, 7, 1000 * i);
    expect(spread.report()).toMatchObject({
      queueChanges: 9,
      reordered: 0,
      flowsPerQueue: [1, 1],
      stableFlows: 0,
    });
  });

  it('packets of no flow are counted only', () => {
    const spread = new FlowSpread(2);
    spread.add(1, -1, 0);
    expect(spread.report()).toMatchObject({ counts: [0, 1], flows: 0, flowsPerQueue: [0, 0] });
  });
});

describe('the example capture', () => {
  const settings = { ...DEFAULT_SETTINGS, tunnelTypes: ALL_TUNNEL_TYPES };
  const run = new CaptureRun(settings, 5000);
  const queues = capture.packets.map((packet) => run.add(packet));
  const report = run.report();

  it('has every kind of tunnel, and packets that are in none', () => {
    expect([...report.tunnels.keys()]).toHaveLength(9);
    const total = [...report.reports.values()].reduce((sum, count) => sum + count, 0);
    expect([report.packets, total]).toEqual([300, 300]);
  });

  it('spreads by inner hash as a receiver of its own does', () => {
    const receiver = new RssReceiver(settings);
    const counts: number[] = [];
    for (const { bytes } of capture.packets) {
      const queue = receiver.queueOf(bytes);
      counts[queue] = (counts[queue] ?? 0) + 1;
    }
    expect(report.inner.counts).toEqual(Array.from({ length: 8 }, (_, i) => counts[i] ?? 0));
    expect(queues).toHaveLength(300);
  });

  it('keeps each flow on one queue by inner hash only', () => {
    expect(report.inner).toMatchObject({ stableFlows: report.inner.flows, reordered: 0 });
    expect(report.inner.queueChanges).toBe(0);
    expect(report.outer.stableFlows).toBeLessThan(report.outer.flows);
    expect(report.outer.reordered).toBeGreaterThan(0);
    expect(report.outer.maxOverMean).toBeGreaterThan(report.inner.maxOverMean);
  });

  it('without tunnels enabled both are the same', () => {
    const plain = new CaptureRun({ ...DEFAULT_SETTINGS, key: SYMMETRIC_KEY });
    for (const packet of capture.packets) plain.add(packet);
    const { outer, inner, moved } = plain.report();
    expect(inner).toEqual(outer);
    expect(moved).toBe(0);
  });
});

/** The experiments with their exact counts, computed apart from this code. */
import { describe, expect, it } from 'vitest';
import {
  adversaryPorts,
  EXPERIMENTS,
  runExperiment,
  type ExperimentResult,
} from '../../../src/lab/rss/experiments.js';
import { spreadOf } from '../../../src/lab/rss/spread.js';

function run(name: string): ExperimentResult {
  const found = EXPERIMENTS.find((each) => each.name === name);
  if (!found) throw new RangeError(name);
  return runExperiment(found);
}

const only = (queue: number, count: number) =>
  Array.from({ length: 8 }, (_, i) => (i === queue ? count : 0));
const even = (count: number) => Array.from({ length: 8 }, () => count);

describe('256 flows in one tunnel', () => {
  it.each<[string, number[], number, number]>([
    ['gre-outer', only(4, 256), 8, 0],
    ['gre-inner', even(32), 1, 3],
    ['gre-inner-random', [43, 28, 26, 32, 37, 34, 24, 32], 1.344, 2.977],
    ['vxlan-entropy', [29, 35, 29, 36, 29, 36, 32, 30], 1.125, 2.994],
    ['vxlan-fixed', only(6, 256), 8, 0],
    ['adversary-inner', only(0, 256), 8, 0],
  ])('%s', (name, counts, maxOverMean, entropy) => {
    const { spread, flows, stableFlows } = run(name);
    expect(spread.counts).toEqual(counts);
    expect(spread.maxOverMean).toBeCloseTo(maxOverMean, 3);
    expect(spread.entropy).toBeCloseTo(entropy, 3);
    expect([flows, stableFlows]).toEqual([256, 256]);
  });

  it('chi-square of the ports from a generator', () => {
    expect(run('gre-inner-random').spread.chiSquare).toBeCloseTo(8.31, 2);
  });

  it('an adversary’s ports are those that hash to queue 0; outer entropy does not help', () => {
    expect(adversaryPorts(12)).toEqual([
      1033, 1035, 1052, 1054, 1061, 1063, 1072, 1074, 1092, 1094, 1105, 1107,
    ]);
    expect(run('adversary-outer').spread.counts).toEqual(run('vxlan-entropy').spread.counts);
  });
});

it('one flow over eight tunnels', () => {
  expect(run('tunnels-outer').queues).toEqual([4, 4, 3, 0, 3, 3, 4, 6]);
  expect(run('tunnels-outer').stableFlows).toBe(0);
  expect(run('tunnels-inner').queues).toEqual([2, 2, 2, 2, 2, 2, 2, 2]);
  expect(run('tunnels-inner').stableFlows).toBe(1);
});

it('both directions of a flow', () => {
  expect(run('directions').stableFlows).toBe(32);
  const symmetric = run('directions-symmetric');
  expect(symmetric.stableFlows).toBe(256);
  expect(symmetric.spread.counts).toEqual(even(64));
});

it('figures of a spread', () => {
  expect(spreadOf([])).toMatchObject({ packets: 0, maxOverMean: 0, entropy: 0, speedup: 0 });
  expect(spreadOf([0, 0])).toMatchObject({ maxOverMean: 0, entropy: 0, chiSquare: 0 });
  expect(spreadOf([3, 1])).toMatchObject({ packets: 4, maxOverMean: 1.5, chiSquare: 1 });
  expect(spreadOf([3, 1]).speedup).toBeCloseTo(4 / 3);
  expect(Object.is(spreadOf([5, 0]).entropy, 0)).toBe(true);
});

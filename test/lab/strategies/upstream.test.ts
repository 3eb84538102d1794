/** The shape of the figures that the authors of the series published, in instructions. */
import { describe, expect, it } from 'vitest';
import { callOpsRows, perOps, trigRows } from '../../../src/lab/strategies/upstream.js';
import { strategyLab, strategyNamed } from './helpers.js';

const lab = await strategyLab();
const rows = callOpsRows(lab);
const at = (relevant: number, irrelevant: number) => {
  const row = rows.find(
    ({ figure }) => figure.relevant === relevant && figure.irrelevant === irrelevant,
  );
  if (!row) throw new Error('no such row');
  return row.instructions;
};

describe('per-call-site ops', () => {
  it('make one ops cost the same whatever is elsewhere', () => {
    expect([1, 2, 10, 100].map((n) => at(1, n).after)).toEqual(Array(4).fill(at(1, 0).after));
  });
  it('before, each ops elsewhere costs', () => {
    expect(at(1, 100).before - at(1, 10).before).toBe(
      90 * perOps(rows, 'instructions').elsewhereBefore,
    );
  });
  it('nothing on the function costs nothing', () => {
    expect([at(0, 100).before, at(0, 100).after]).toEqual([0, 0]);
  });
  it('several on the function cost by the ops, before and after', () => {
    expect(Math.abs(at(100, 0).before - at(100, 0).after)).toBeLessThan(5);
    expect(at(100, 0).after).toBeGreaterThan(20 * at(1, 0).after);
  });
});

describe('fentry', () => {
  it('costs more by an ops than directly, in all figures', () => {
    for (const { direct, indirect } of trigRows(
      lab,
      strategyNamed('literal-call'),
      strategyNamed('ops-loop'),
    )) {
      expect(indirect).toBeGreaterThan(direct);
    }
  });
});

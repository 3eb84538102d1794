/** The scenario matrix, every cell run: variants x receive modes x rows. */
import { beforeAll, describe, expect, test } from 'vitest';
import { CsumLab } from '../../../src/lab/csum/matrix.js';
import {
  CSUM_MODES,
  CSUM_ROWS,
  CSUM_VARIANTS,
  describeRow,
  expectedOutcome,
  rowRunsIn,
} from '../../../src/lab/csum/rows.js';
import { bootLab } from '../../../src/node/boot.js';

let lab: CsumLab;

beforeAll(async () => {
  lab = new CsumLab(await bootLab());
});

describe.each(CSUM_MODES)('%s', (mode) => {
  test.each(CSUM_VARIANTS)('%s', (variant) => {
    const guest = lab.open(variant, mode);
    const rows = CSUM_ROWS.filter((row) => rowRunsIn(row, variant, mode));
    const outcomes = rows.map(
      (row) => `${row.section} ${describeRow(row)}: ${guest.run(row).outcome}`,
    );
    guest.close();
    expect(outcomes).toEqual(
      rows.map(
        (row) => `${row.section} ${describeRow(row)}: ${expectedOutcome(row, variant, mode)}`,
      ),
    );
    expect(rows.length).toBeGreaterThan(100);
  });
});

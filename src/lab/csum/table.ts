/** The scenario matrix as cells: what each row came to, and what was expected of it. */
import type { CsumLab, CsumResult } from './matrix.js';
import {
  CSUM_ROWS,
  expectedOutcome,
  rowRunsIn,
  type CsumMode,
  type CsumOutcome,
  type CsumRow,
  type CsumVariant,
} from './rows.js';

export interface CsumCell {
  readonly row: CsumRow;
  readonly variant: CsumVariant;
  readonly mode: CsumMode;
  readonly result: CsumResult;
  readonly expected: CsumOutcome;
}

export interface MatrixOptions {
  readonly variants: readonly CsumVariant[];
  readonly mode: CsumMode;
  /** Default: all. */
  readonly section?: CsumRow['section'] | undefined;
}

/** Runs the rows under each variant; cells by row, a cell per variant that the row can be run in. */
export function runMatrix(
  lab: CsumLab,
  { variants, mode, section }: MatrixOptions,
): readonly (readonly CsumCell[])[] {
  const rows = CSUM_ROWS.filter((row) => section === undefined || row.section === section);
  const cells: CsumCell[][] = rows.map(() => []);
  for (const variant of variants) {
    const guest = lab.open(variant, mode);
    try {
      for (const [i, row] of rows.entries()) {
        if (!rowRunsIn(row, variant, mode)) continue;
        const expected = expectedOutcome(row, variant, mode);
        cells[i]?.push({ row, variant, mode, result: guest.run(row), expected });
      }
    } finally {
      guest.close();
    }
  }
  return cells.filter((line) => line.length > 0);
}

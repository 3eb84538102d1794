/** What a benchmark gives: figures with names; ratios are figures with the unit `x`. */
export interface BenchRow {
  readonly name: string;
  readonly value: number;
  /** `M instructions/s`, `x`, `ns`, `packets/s`. */
  readonly unit: string;
  /** This value over that of what it is compared with, measured in the same run. */
  readonly ratio?: number;
}

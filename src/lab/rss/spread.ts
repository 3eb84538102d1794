/**
 * How evenly packets spread over receive queues: what a set of counts says.
 *
 * Entropy in bits: log2 of the queues when even, 0 when one queue has all. chi-square is the sum of
 * (count - mean)^2 / mean, with one degree of freedom less than queues. The fullest queue decides how
 * fast all are, if each packet costs its CPU the same: `speedup` over one queue is packets / fullest.
 *
 * Usage:
 *   spreadOf([32, 32, 32, 32]).entropy;   // 2
 */
export interface Spread {
  readonly counts: readonly number[];
  readonly packets: number;
  /** Fullest queue over the mean; 1 is even. 0 without packets. */
  readonly maxOverMean: number;
  readonly entropy: number;
  readonly chiSquare: number;
  readonly speedup: number;
}

export function spreadOf(counts: readonly number[]): Spread {
  const packets = counts.reduce((sum, count) => sum + count, 0);
  const fullest = counts.reduce((most, count) => Math.max(most, count), 0);
  const mean = packets / counts.length;
  let entropy = 0;
  let chiSquare = 0;
  for (const count of counts) {
    if (count > 0) entropy -= (count / packets) * Math.log2(count / packets);
    if (packets > 0) chiSquare += (count - mean) ** 2 / mean;
  }
  return {
    counts,
    packets,
    maxOverMean: packets > 0 ? fullest / mean : 0,
    // -0 when all are in one queue
    entropy: entropy + 0,
    chiSquare,
    speedup: packets > 0 ? packets / fullest : 0,
  };
}

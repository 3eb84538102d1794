/**
 * Puts strategies beside each other: each in its simplest situation, all in the same, or all in many.
 *
 *   const lab = new StrategyLab(boot, texts);
 *   lab.outcome(strategy, { ...ALONE, others: 10 });
 *   lab.close();
 *
 * A kernel is booted once for each strategy and distance, and used for all situations.
 */
import type { AsmSources, Kernel } from '../../kernel/kernel.js';
import { bootFor, measureIn, type Outcome } from './bench.js';
import { ALONE, type Situation } from './situation.js';
import type { Strategy, StrategyBooter } from './strategy.js';

export interface Comparison {
  readonly strategy: Strategy;
  readonly situation: Situation;
  readonly outcome: Outcome;
}

export class StrategyLab {
  readonly #boot: StrategyBooter;
  readonly #texts: AsmSources;
  readonly #kernels = new Map<string, Kernel>();

  /** @param texts files of `asm/strategies` by path */
  constructor(boot: StrategyBooter, texts: AsmSources) {
    this.#boot = boot;
    this.#texts = texts;
  }

  /** A kernel of the strategy's; it is used again. */
  kernel(strategy: Strategy, far: boolean): Kernel {
    const key = `${strategy.name} ${far ? 'far' : 'near'}`;
    let kernel = this.#kernels.get(key);
    if (!kernel) {
      kernel = bootFor(this.#boot, this.#texts, strategy, { far });
      this.#kernels.set(key, kernel);
    }
    return kernel;
  }

  outcome(strategy: Strategy, situation: Situation): Outcome {
    return measureIn(this.kernel(strategy, situation.far), strategy, situation);
  }

  /** One row for each kernel, one column for each situation. */
  grid(strategies: readonly Strategy[], columns: readonly Situation[]): Comparison[][] {
    return strategies
      .filter(({ caseOf }) => caseOf === undefined)
      .map((strategy) =>
        columns.map((column) => {
          const situation = { ...column, ...(strategy.least.programs === 0 ? NOTHING : {}) };
          return { strategy, situation, outcome: this.outcome(strategy, situation) };
        }),
      );
  }

  /** Each strategy in its simplest situation, or in the given one. */
  compare(strategies: readonly Strategy[], given?: Situation): Comparison[] {
    return strategies.map((strategy) => {
      const situation = given ?? { ...ALONE, ...strategy.least };
      return { strategy, situation, outcome: this.outcome(strategy, situation) };
    });
  }

  close(): void {
    for (const kernel of this.#kernels.values()) kernel.close();
    this.#kernels.clear();
  }
}

const NOTHING: Partial<Situation> = { programs: 0 };

/** The situations of the large table, one column each. */
export const GRID: readonly Partial<Situation>[] = [
  {},
  { far: true },
  { others: 1 },
  { others: 10 },
  { others: 100 },
  { irrelevant: 1 },
  { irrelevant: 100 },
  { programs: 3 },
  { args: 8 },
];

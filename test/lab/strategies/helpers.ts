/** A lab whose kernels are closed when the tests of a file are over. */
import { afterAll } from 'vitest';
import { STRATEGIES } from '../../../src/lab/strategies/catalogue.js';
import { StrategyLab } from '../../../src/lab/strategies/compare.js';
import type { Strategy } from '../../../src/lab/strategies/strategy.js';
import { labBooter } from '../../../src/node/boot.js';
import { readAsm } from '../../../src/node/files.js';

export async function strategyLab(): Promise<StrategyLab> {
  const lab = new StrategyLab(await labBooter(), readAsm('strategies'));
  afterAll(() => lab.close());
  return lab;
}

export function strategyNamed(name: string): Strategy {
  const found = STRATEGIES.find((strategy) => strategy.name === name);
  if (!found) throw new Error(`no strategy ${name}`);
  return found;
}

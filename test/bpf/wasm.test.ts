import { describe, expect, it } from 'vitest';
import { Differential } from './wasm-differential.js';

describe('interpreter and wasm tier', () => {
  it('agree on random programs', () => {
    const first = Number(process.env['TRAMPOLAB_WASM_SEED'] ?? 1);
    const count = Number(process.env['TRAMPOLAB_WASM_PROGRAMS'] ?? 1500);
    const differential = new Differential();
    const kinds = { return: 0, fault: 0, budget: 0, error: 0 };
    for (let seed = first; seed < first + count; seed++) {
      const { result, difference } = differential.run(seed);
      expect(difference, `seed ${seed}`).toBeUndefined();
      kinds[result.kind]++;
    }
    if (process.env['TRAMPOLAB_WASM_PROGRAMS'] !== undefined) console.log(kinds);
    // all kinds of ends are met, and hardly any run is not compared
    expect(kinds.return).toBeGreaterThan(count / 10);
    expect(kinds.fault).toBeGreaterThan(count / 10);
    expect(kinds.error).toBeGreaterThan(0);
    expect(kinds.budget).toBeLessThan(count / 20);
  }, 600_000);
});

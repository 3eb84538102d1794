/** Whether attaching succeeds, over layouts. */
import { describe, expect, it } from 'vitest';
import { attachOdds } from '../../../src/lab/strategies/layouts.js';
import { strategyNamed } from './helpers.js';

const LAYOUTS = 60;
const MIB = 1 << 20;

function odds(name: string, conditions: string, target = 'kernel function') {
  const found = attachOdds([strategyNamed(name)], LAYOUTS).find(
    (each) => each.conditions.name === conditions && each.target === target,
  );
  if (!found) throw new Error(`no odds for ${conditions}, ${target}`);
  return found;
}

describe('v5', () => {
  it('never works with KASLR', () => {
    expect([...odds('v5', 'KASLR').outcomes]).toEqual([['-ENOTSUPP', LAYOUTS]]);
  });
  it('without KASLR works until what is in front of the image fills BL range', () => {
    const { mostUsed = 0, leastUsedFailing = 0 } = odds('v5', 'no KASLR');
    // 128 MiB from a function at 4 MiB in an image of 30 MiB
    const limit = (128 + 4 - 30) * MIB;
    expect(mostUsed).toBeLessThan(limit);
    expect(leastUsedFailing).toBeGreaterThanOrEqual(limit);
  });
});

describe('what always works', () => {
  it.each([
    ['literal-call', 'KASLR', 'kernel function', 'bl literal_call'],
    ['direct', 'KASLR', 'kernel function', 'bl ftrace_caller'],
    ['ops-call-site', 'KASLR', 'module function', 'bl ftrace_caller'],
    ['bpf-plt', 'KASLR', 'BPF program', 'bl image'],
  ])('%s, %s, %s: %s', (name, conditions, target, outcome) => {
    expect([...odds(name, conditions, target).outcomes]).toEqual([[outcome, LAYOUTS]]);
  });
  it('modules far from the kernel go by their PLT', () => {
    const { attached, outcomes } = odds('direct', 'KASLR, full module region', 'module function');
    expect(attached).toBe(LAYOUTS);
    expect(outcomes.get('bl module PLT -> ftrace_caller')).toBeGreaterThan(LAYOUTS / 2);
  });
});

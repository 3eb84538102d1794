/** What the ways cost, against the counts of the kernels' entry code and of traces of booted ones. */
import { describe, expect, it } from 'vitest';
import type { Attached, Outcome, Part } from '../../../src/lab/strategies/bench.js';
import { ALONE, type Situation } from '../../../src/lab/strategies/situation.js';
import { strategyLab, strategyNamed } from './helpers.js';

const lab = await strategyLab();

function outcome(name: string, situation: Partial<Situation> = {}): Outcome {
  const strategy = strategyNamed(name);
  return lab.outcome(strategy, { ...ALONE, ...strategy.least, ...situation });
}

function attached(name: string, situation: Partial<Situation> = {}): Attached {
  const found = outcome(name, situation);
  if (found.kind !== 'attached') throw new Error(found.message);
  return found;
}

function instructions({ parts }: Attached, part: Part): number {
  return parts.get(part)?.instructions ?? 0;
}

describe('instructions between the site and the image, as counted in the kernels texts', () => {
  // entry code of the version: see docs/strategies.md
  it.each([
    ['off', 0],
    ['v5', 0],
    ['literal-call', 2],
    ['direct', 0],
    ['direct-early', 6],
    ['bpf-plt', 2],
    ['module-plt', 3 + 6],
    ['v5-late', 47],
    ['direct-late', 39],
    ['ops-list', 32],
    ['ops-call-site', 33],
    ['ops-loop', 33],
    ['always-late', 39],
    ['always-orig-x0', 47],
  ])('%s: %i', (name, glue) => {
    const found = attached(name);
    expect([instructions(found, 'site'), instructions(found, 'glue')]).toEqual([2, glue]);
  });
});

describe('the image, as traces of booted 6.12 kernels have it', () => {
  it.each([
    ['one argument, near', { args: 1 }, 34],
    ['three arguments', { args: 3 }, 38],
    ['six arguments', { args: 6 }, 44],
    ['two programs', { programs: 2 }, 49],
    ['one argument, far', { args: 1, far: true }, 40],
    ['six arguments, far', { args: 6, far: true }, 50],
    ['two programs, far', { programs: 2, far: true }, 61],
  ])('%s', (_what, situation, count) => {
    expect(instructions(attached('direct', situation), 'trampoline')).toBe(count);
  });
  it('call_direct_funcs', () => {
    expect(instructions(attached('direct-late'), 'callback')).toBe(4);
  });
});

describe('arguments', () => {
  const args = 3;
  it.each([
    ['direct', 1, 1],
    ['direct-early', 1, 1],
    ['direct-late', 2, 2],
    ['v5-late', 2, 2],
    ['always-late', 2, 2],
    ['ops-list', 2, 3],
    ['ops-call-site', 2, 3],
    ['ops-trampoline', 2, 3],
    ['ops-loop', 2, 2],
  ])('%s: saved %i times, restored %i times', (name, saved, restored) => {
    const { way } = attached(name, { args });
    expect([way.saved, way.restored]).toEqual([
      Array.from({ length: args }, () => saved),
      Array.from({ length: args }, () => restored),
    ]);
  });
});

describe('stack below the caller', () => {
  // struct pt_regs and a record, struct ftrace_regs and two, the trampoline's own
  it.each([
    ['direct', 80],
    ['always-late', 112 + 32],
    ['ops-call-site', 112 + 32 + 80],
    ['ops-trampoline', 336 + 16 + 80],
  ])('%s: %i', (name, bytes) => {
    expect(attached(name).way.stack).toBe(bytes);
  });
});

describe('returns that are predicted wrongly', () => {
  it.each([
    ['direct', 0],
    ['direct-late', 0],
    // its RET jumps to the image: the returns of image and function then miss too
    ['v5-late', 3],
  ])('%s: %i', (name, count) => {
    expect(attached(name).returnMisses).toBe(count);
  });
});

describe('other ops', () => {
  const way = (name: string, situation: Partial<Situation>): number =>
    attached(name, situation).way.instructions;

  it.each(['direct', 'v5', 'ops-list', 'ops-call-site', 'ops-trampoline', 'literal-call'])(
    '%s: each on the function costs the same',
    (name) => {
      const step = way(name, { others: 2 }) - way(name, { others: 1 });
      expect(step).toBeGreaterThan(0);
      expect(way(name, { others: 12 }) - way(name, { others: 2 })).toBe(10 * step);
    },
  );
  it.each([
    ['direct', true],
    ['v5', true],
    ['ops-call-site', true],
    ['ops-trampoline', true],
    ['ops-list', false],
    ['always-orig-x0', false],
  ])('%s: those elsewhere cost nothing: %s', (name, free) => {
    expect(way(name, { irrelevant: 10 }) === way(name, {})).toBe(free);
  });
});

describe('refusals', () => {
  it.each([
    ['v5', { far: true }, 'ENOTSUPP'],
    ['bpf-plt', { others: 1 }, 'EINVAL'],
  ])('%s', (name, situation, errno) => {
    expect(outcome(name, situation)).toMatchObject({ kind: 'refused', errno });
  });
});

describe('text', () => {
  it.each([
    // NOPs before and behind the symbol
    ['v5', 4 * 2],
    ['direct', 4 * 4],
    ['literal-call', 4 * 7],
  ])('%s: %i bytes at every function', (name, bytes) => {
    expect(attached(name, { far: false }).text.site).toBe(bytes);
  });
  it('an ops with an ftrace trampoline of its own has that beside the image', () => {
    const own = attached('ops-trampoline').text.made - attached('ops-call-site').text.made;
    // 30 instructions and the literal
    expect(own).toBe(4 * 30 + 8);
  });
});

/**
 * Runs random cases on several engines, in batches, and stops at the first on which one differs from the
 * first of them.
 *
 * The same seed gives the same cases, as long as the same features are asked for; shard I of N takes every
 * N-th of them.
 */
import { Random } from '../../common/random.js';
import { sameOutcome, type FuzzCase, type FuzzOutcome } from './case.js';
import { caseOf } from './emit-tree.js';
import type { FuzzEngine } from './engine.js';
import { commonFeatures, treeMaker, type GenerateOptions } from './generate.js';
import type { CaseTree } from './tree.js';

export interface FuzzOptions {
  readonly seed: number;
  readonly count: number;
  /** Nodes of a program on the average. Default 12. */
  readonly size?: number;
  /** Takes programs `index` of every `of`. Default all. */
  readonly shard?: { readonly index: number; readonly of: number };
  /** Programs that go through an engine at a time. Default 256. */
  readonly batch?: number;
  /** Told after each batch. */
  readonly progress?: (done: number) => void;
}

/** A case on which an engine differs from the first one. */
export interface FuzzDifference {
  /** Number of the program: its random numbers come from this and the campaign's seed. */
  readonly index: number;
  readonly tree: CaseTree;
  readonly fuzzCase: FuzzCase;
  readonly engines: readonly [FuzzEngine, FuzzEngine];
  readonly outcomes: readonly [FuzzOutcome, FuzzOutcome];
}

/** Program number `index` of a campaign. */
export function treeAt(seed: number, index: number, options: GenerateOptions = {}): CaseTree {
  return treeMaker(options)(randomAt(seed, index));
}

function randomAt(seed: number, index: number): Random {
  return new Random(Math.imul(seed, 0x9e3779b1) ^ index);
}

interface Candidate {
  readonly index: number;
  readonly tree: () => CaseTree;
  readonly fuzzCase: FuzzCase;
}

/** The first difference of a campaign, or undefined. Engines are compared with the first one. */
export function fuzz(
  engines: readonly FuzzEngine[],
  options: FuzzOptions,
): FuzzDifference | undefined {
  const { index: first, of } = options.shard ?? { index: 0, of: 1 };
  const { seed, count, batch = 256 } = options;
  const features = commonFeatures(engines.map((engine) => engine.features));
  const makeTree = treeMaker({
    features,
    ...(options.size !== undefined && { size: options.size }),
  });
  for (let start = first; start < count; start += of * batch) {
    const candidates: Candidate[] = [];
    for (let index = start; index < count && candidates.length < batch; index += of) {
      // trees are made again when they are asked for: so many of them are a burden to the collector
      const tree = (): CaseTree => makeTree(randomAt(seed, index));
      candidates.push({ index, tree, fuzzCase: caseOf(tree()) });
    }
    const difference = compare(engines, candidates);
    if (difference) return difference;
    options.progress?.(Math.min(count, start + of * batch));
  }
  return undefined;
}

/** Every N-th program on the average, in every shard. */
function isChosen(index: number, every: number): boolean {
  return (Math.imul(index, 0x9e3779b1) >>> 8) % every === 0;
}

/** The first candidate on which an engine differs from the first one. */
function compare(
  engines: readonly FuzzEngine[],
  candidates: readonly Candidate[],
): FuzzDifference | undefined {
  const [reference, ...others] = engines;
  if (!reference) return undefined;
  const expected = reference.run(candidates.map(({ fuzzCase }) => fuzzCase));
  let found: FuzzDifference | undefined;
  for (const other of others) {
    const { every = 1 } = other;
    const chosen = [...candidates.keys()].filter(
      (at) => every === 1 || isChosen(candidates[at]?.index ?? 0, every),
    );
    const cases = chosen.flatMap((at) => candidates[at]?.fuzzCase ?? []);
    const outcomes = cases.length > 0 ? other.run(cases) : [];
    for (const [i, at] of chosen.entries()) {
      const [candidate, wanted, outcome] = [candidates[at], expected[at], outcomes[i]];
      if (!candidate || !wanted || !outcome) throw new RangeError(`${other.name}: no outcome ${i}`);
      if (sameOutcome(wanted, outcome)) continue;
      if (found && found.index <= candidate.index) break;
      found = {
        ...candidate,
        tree: candidate.tree(),
        engines: [reference, other],
        outcomes: [wanted, outcome],
      };
      break;
    }
  }
  return found;
}

/** Whether the engines of a difference also differ on another tree, and how. */
export function differOn(
  { engines, index }: FuzzDifference,
  tree: CaseTree,
): FuzzDifference | undefined {
  const [first, second] = engines;
  // whatever its number is, it is compared
  return compare(
    [first, { ...second, every: 1 }],
    [{ index, tree: () => tree, fuzzCase: caseOf(tree) }],
  );
}

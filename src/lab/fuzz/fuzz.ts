/**
 * Runs random programs on several engines, and cuts a program that they disagree on down to its fewest
 * instructions.
 *
 * The same seed gives the same programs; shard I of N takes every N-th of them.
 */
import { Random } from '../../common/random.js';
import type { FuzzCase, FuzzEngine, FuzzOutcome } from './engine.js';
import { FUZZ_MAPS, generateTree, type GenerateOptions } from './generate.js';
import { countNodes, emitProgram, type Node, type ProgramTree } from './tree.js';

export interface FuzzOptions extends GenerateOptions {
  readonly seed: number;
  readonly count: number;
  /** Takes programs `index` of every `of`. Default all. */
  readonly shard?: { readonly index: number; readonly of: number };
  /** Told after each program. */
  readonly progress?: (done: number) => void;
}

/** A program on which an engine differs from the first one. */
export interface FuzzDifference {
  /** Number of the program: its seed is made of this and the campaign's. */
  readonly index: number;
  readonly tree: ProgramTree;
  readonly fuzzCase: FuzzCase;
  readonly engines: readonly [FuzzEngine, FuzzEngine];
  readonly outcomes: readonly [FuzzOutcome, FuzzOutcome];
}

export function caseOf(tree: ProgramTree): FuzzCase {
  return { insns: emitProgram(tree), memory: tree.memory, maps: FUZZ_MAPS };
}

/** The program number `index` of a campaign. */
export function treeAt(seed: number, index: number, options: GenerateOptions = {}): ProgramTree {
  return generateTree(new Random(Math.imul(seed, 0x9e3779b1) ^ index), options);
}

/** The first difference of a campaign, or undefined. Engines are compared with the first one. */
export function fuzz(
  engines: readonly FuzzEngine[],
  options: FuzzOptions,
): FuzzDifference | undefined {
  const { index: first, of } = options.shard ?? { index: 0, of: 1 };
  for (let index = first; index < options.count; index += of) {
    const difference = compare(engines, treeAt(options.seed, index, options), index);
    if (difference) return difference;
    options.progress?.(index + 1);
  }
  return undefined;
}

function compare(
  engines: readonly FuzzEngine[],
  tree: ProgramTree,
  index: number,
): FuzzDifference | undefined {
  const [reference, ...others] = engines;
  if (!reference) return undefined;
  const fuzzCase = caseOf(tree);
  const expected = reference.run(fuzzCase);
  for (const other of others) {
    const outcome = other.run(fuzzCase);
    if (!sameOutcome(expected, outcome)) {
      return {
        index,
        tree,
        fuzzCase,
        engines: [reference, other],
        outcomes: [expected, outcome],
      };
    }
  }
  return undefined;
}

export function sameOutcome(a: FuzzOutcome, b: FuzzOutcome): boolean {
  return a.end === b.end && a.memory === b.memory && a.maps.join() === b.maps.join();
}

/** Takes nodes out, and bodies out of their branches and loops, as long as the engines still differ. */
export function minimise(difference: FuzzDifference): FuzzDifference {
  let best = difference;
  for (;;) {
    const smaller = firstDifference(best);
    if (!smaller) return best;
    best = smaller;
  }
}

function firstDifference({ tree, engines, index }: FuzzDifference): FuzzDifference | undefined {
  for (const smaller of smallerTrees(tree)) {
    const difference = compare(engines, smaller, index);
    if (difference) return difference;
  }
  return undefined;
}

/** Trees with one piece less, the largest cuts first. */
function smallerTrees(tree: ProgramTree): ProgramTree[] {
  const candidates: ProgramTree[] = [];
  tree.functions.forEach(({ body }, index) => {
    for (const smaller of smallerBodies(body)) {
      const functions = tree.functions.map((each, i) => (i === index ? { body: smaller } : each));
      candidates.push({ ...tree, functions });
    }
  });
  return candidates.sort((a, b) => countNodes(a) - countNodes(b));
}

function smallerBodies(body: readonly Node[]): Node[][] {
  const results: Node[][] = [];
  for (let length = body.length; length >= 1; length = length >> 1) {
    for (let at = 0; at + length <= body.length; at += length) {
      results.push([...body.slice(0, at), ...body.slice(at + length)]);
    }
  }
  body.forEach((node, index) => {
    const replace = (...nodes: readonly Node[]): Node[] => [
      ...body.slice(0, index),
      ...nodes,
      ...body.slice(index + 1),
    ];
    if (!('body' in node)) return;
    // behind a lookup r0 is an address: its body cannot stand alone
    if (node.kind !== 'lookup') results.push(replace(...node.body));
    if (node.kind === 'loop' && node.count > 1) results.push(replace({ ...node, count: 1 }));
    for (const inner of smallerBodies(node.body)) results.push(replace({ ...node, body: inner }));
  });
  return results;
}

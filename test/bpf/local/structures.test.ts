/** Lists and trees in kernel memory: what they hold, and the rules of a red-black tree. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { initList, listDrain, listPeek, listPop, listPush } from '../../../src/bpf/local/list.js';
import { clearNode, RB_NODE, RbTree } from '../../../src/bpf/local/rbtree.js';
import { PlainHost } from '../../../src/bpf/plain-host.js';

const NODES = 64;
const STRIDE = 32n;

/** A root or head, and nodes behind it. */
function arena() {
  const { memory } = new PlainHost({ memorySize: 1 << 20 });
  const region = memory.map({
    name: 'nodes',
    address: 0xffff_0000_0000_0000n,
    size: Number(STRIDE) * (NODES + 1),
    permissions: 'rw',
  });
  const nodeAt = (i: number): bigint => region.address + STRIDE * BigInt(i + 1);
  return { memory, root: region.address, nodeAt };
}

type Memory = ReturnType<typeof arena>['memory'];

/** Keys in order, and how many black nodes each way down has; -1 where that differs or a red node has a red child. */
function check(memory: Memory, tree: RbTree, node: bigint, parent: bigint): [bigint[], number] {
  if (node === 0n) return [[], 1];
  const word = memory.read64(node + RB_NODE.parent);
  const isBlack = (word & 1n) === 1n;
  const [left, a] = check(memory, tree, tree.child(node, 'left'), node);
  const [right, b] = check(memory, tree, tree.child(node, 'right'), node);
  const isRed = (child: bigint): boolean =>
    child !== 0n && (memory.read64(child + RB_NODE.parent) & 1n) === 0n;
  const redRed = !isBlack && (isRed(tree.child(node, 'left')) || isRed(tree.child(node, 'right')));
  const isWrong = redRed || a !== b || a < 0 || (word & ~3n) !== parent;
  return [[...left, node, ...right], isWrong ? -1 : a + (isBlack ? 1 : 0)];
}

/** Adds by address, as a comparison of keys would. */
function add(tree: RbTree, node: bigint): void {
  let parent = 0n;
  let side: 'left' | 'right' = 'left';
  let isLeftmost = true;
  for (let at = tree.top; at !== 0n; at = tree.child(at, side)) {
    parent = at;
    side = node < at ? 'left' : 'right';
    isLeftmost &&= side === 'left';
  }
  tree.insert(node, parent, side, isLeftmost);
}

it('a tree stays sorted and balanced', () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: NODES - 1 }), { maxLength: 200 }), (toggled) => {
      const { memory, root, nodeAt } = arena();
      const tree = new RbTree(memory, root);
      const model = new Set<bigint>();
      for (const i of toggled) {
        const node = nodeAt(i);
        if (model.delete(node)) expect(tree.remove(node)).toBe(true);
        else {
          add(tree, node);
          model.add(node);
        }
        const [nodes, height] = check(memory, tree, tree.top, 0n);
        expect(nodes).toEqual([...model].sort((a, b) => (a < b ? -1 : 1)));
        expect(height).toBeGreaterThan(0);
        expect(tree.leftmost).toBe(nodes[0] ?? 0n);
      }
      expect([...tree.drain()].length).toBe(model.size);
      expect([tree.top, tree.leftmost]).toEqual([0n, 0n]);
    }),
    { numRuns: 60 },
  );
});

it('a node in no tree is its own parent and is not removed', () => {
  const { memory, root, nodeAt } = arena();
  clearNode(memory, nodeAt(0));
  expect(memory.read64(nodeAt(0) + RB_NODE.parent)).toBe(nodeAt(0));
  expect(new RbTree(memory, root).remove(nodeAt(0))).toBe(false);
});

it('a list is what was pushed at its ends', () => {
  const end = fc.constantFrom('front' as const, 'back' as const);
  const step = fc.tuple(fc.constantFrom('push', 'pop'), end, fc.nat({ max: NODES - 1 }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
      const { memory, root, nodeAt } = arena();
      const model: bigint[] = [];
      for (const [what, at, i] of steps) {
        if (what === 'pop') {
          const expected = (at === 'front' ? model.shift() : model.pop()) ?? 0n;
          expect(listPop(memory, root, at)).toBe(expected);
          continue;
        }
        const node = nodeAt(i);
        const isNew = !model.includes(node);
        expect(listPush(memory, root, node, at)).toBe(isNew);
        if (isNew && at === 'front') model.unshift(node);
        else if (isNew) model.push(node);
        expect(listPeek(memory, root, 'front')).toBe(model[0] ?? 0n);
        expect(listPeek(memory, root, 'back')).toBe(model.at(-1) ?? 0n);
      }
      expect([...listDrain(memory, root)]).toEqual(model);
      initList(memory, root);
      expect(listPeek(memory, root, 'front')).toBe(0n);
    }),
    { numRuns: 60 },
  );
});

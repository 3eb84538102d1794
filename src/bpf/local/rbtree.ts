/**
 * bpf_rbtree: a red-black tree of objects in kernel memory, with the kernel's layout.
 *
 *   struct bpf_rb_root   root | leftmost                        (a struct rb_root_cached)
 *   struct bpf_rb_node   parent and colour | right | left | owner   (struct bpf_rb_node_kern)
 *
 * Bit 0 of the parent's word is 1 for black. A node in no tree is its own parent and has no owner. Reference:
 * include/linux/rbtree_types.h, lib/rbtree.c; __bpf_rbtree_add, bpf_rbtree_remove in kernel/bpf/helpers.c.
 * The shape after any sequence of operations is the kernel's.
 *
 * Usage:
 *   const tree = new RbTree(memory, root);
 *   const { parent, link } = ...;          // where the comparison led
 *   tree.insert(node, parent, link, isLeftmost);
 */
import type { Memory } from '../../cpu/memory.js';

export const RB_NODE = { parent: 0n, right: 8n, left: 16n, owner: 24n } as const;
export const RB_ROOT = { node: 0n, leftmost: 8n } as const;

const BLACK = 1n;
const COLOUR = 3n;

type Side = 'left' | 'right';

const OTHER: Readonly<Record<Side, Side>> = { left: 'right', right: 'left' };

/** RB_CLEAR_NODE */
export function clearNode(memory: Memory, node: bigint): void {
  memory.write64(node + RB_NODE.parent, node);
}

export class RbTree {
  readonly #memory: Memory;
  readonly #root: bigint;

  constructor(memory: Memory, root: bigint) {
    this.#memory = memory;
    this.#root = root;
  }

  /** The node at the top; 0 when there is none. */
  get top(): bigint {
    return this.#memory.read64(this.#root + RB_ROOT.node);
  }

  get leftmost(): bigint {
    return this.#memory.read64(this.#root + RB_ROOT.leftmost);
  }

  child(node: bigint, side: Side): bigint {
    return this.#memory.read64(node + RB_NODE[side]);
  }

  owns(node: bigint): boolean {
    return this.ownerOf(node) === this.#root;
  }

  ownerOf(node: bigint): bigint {
    return this.#memory.read64(node + RB_NODE.owner);
  }

  /** Puts a node where nothing is: below `parent` on that side, or at the top for parent 0. */
  insert(node: bigint, parent: bigint, side: Side, isLeftmost: boolean): void {
    this.#setParent(node, parent, false);
    this.#setChild(node, 'left', 0n);
    this.#setChild(node, 'right', 0n);
    if (parent === 0n) this.#memory.write64(this.#root + RB_ROOT.node, node);
    else this.#setChild(parent, side, node);
    if (isLeftmost) this.#memory.write64(this.#root + RB_ROOT.leftmost, node);
    this.#mendInsert(node);
    this.#memory.write64(node + RB_NODE.owner, this.#root);
  }

  /** Takes a node away; false when it is not in this tree. */
  remove(node: bigint): boolean {
    if (!this.owns(node)) return false;
    if (this.leftmost === node) {
      this.#memory.write64(this.#root + RB_ROOT.leftmost, this.#next(node));
    }
    this.#erase(node);
    clearNode(this.#memory, node);
    this.#memory.write64(node + RB_NODE.owner, 0n);
    return true;
  }

  /** Makes the tree empty and gives the nodes that were in it, children first, each in no tree. */
  *drain(): Iterable<bigint> {
    const nodes = [...this.#postorder(this.top)];
    this.#memory.write64(this.#root + RB_ROOT.node, 0n);
    this.#memory.write64(this.#root + RB_ROOT.leftmost, 0n);
    for (const node of nodes) {
      clearNode(this.#memory, node);
      this.#memory.write64(node + RB_NODE.owner, 0n);
      yield node;
    }
  }

  *#postorder(node: bigint): Iterable<bigint> {
    if (node === 0n) return;
    yield* this.#postorder(this.child(node, 'left'));
    yield* this.#postorder(this.child(node, 'right'));
    yield node;
  }

  #next(node: bigint): bigint {
    const right = this.child(node, 'right');
    if (right !== 0n) return this.#lowest(right);
    let below = node;
    let at = this.#parent(node);
    while (at !== 0n && this.child(at, 'right') === below) {
      below = at;
      at = this.#parent(at);
    }
    return at;
  }

  #lowest(from: bigint): bigint {
    let node = from;
    for (let left = node; left !== 0n; left = this.child(node, 'left')) node = left;
    return node;
  }

  #parent(node: bigint): bigint {
    return this.#memory.read64(node + RB_NODE.parent) & ~COLOUR;
  }

  /** What is not there is black. */
  #isBlack(node: bigint): boolean {
    return node === 0n || (this.#memory.read64(node + RB_NODE.parent) & BLACK) === BLACK;
  }

  #setParent(node: bigint, parent: bigint, isBlack: boolean): void {
    this.#memory.write64(node + RB_NODE.parent, parent | (isBlack ? BLACK : 0n));
  }

  #paint(node: bigint, isBlack: boolean): void {
    if (node !== 0n) this.#setParent(node, this.#parent(node), isBlack);
  }

  #setChild(node: bigint, side: Side, child: bigint): void {
    this.#memory.write64(node + RB_NODE[side], child);
  }

  #sideOf(node: bigint, parent: bigint): Side {
    return this.child(parent, 'left') === node ? 'left' : 'right';
  }

  /** `child` takes the place that `node` has below its parent. */
  #replace(node: bigint, child: bigint): void {
    const parent = this.#parent(node);
    if (parent === 0n) this.#memory.write64(this.#root + RB_ROOT.node, child);
    else this.#setChild(parent, this.#sideOf(node, parent), child);
    if (child !== 0n) this.#setParent(child, parent, this.#isBlack(child));
  }

  /** `node` goes down on `side`, its other child takes its place. */
  #rotate(node: bigint, side: Side): void {
    const up = this.child(node, OTHER[side]);
    const inner = this.child(up, side);
    this.#replace(node, up);
    this.#setChild(node, OTHER[side], inner);
    if (inner !== 0n) this.#setParent(inner, node, this.#isBlack(inner));
    this.#setChild(up, side, node);
    this.#setParent(node, up, this.#isBlack(node));
  }

  /** No red node has a red child. */
  #mendInsert(added: bigint): void {
    let node = added;
    for (;;) {
      let parent = this.#parent(node);
      if (parent === 0n) {
        this.#paint(node, true);
        return;
      }
      if (this.#isBlack(parent)) return;
      const above = this.#parent(parent);
      const side = this.#sideOf(parent, above);
      const uncle = this.child(above, OTHER[side]);
      if (!this.#isBlack(uncle)) {
        this.#paint(uncle, true);
        this.#paint(parent, true);
        this.#paint(above, false);
        node = above;
        continue;
      }
      if (this.child(parent, OTHER[side]) === node) {
        this.#rotate(parent, side);
        parent = node;
      }
      this.#paint(parent, true);
      this.#paint(above, false);
      this.#rotate(above, OTHER[side]);
      return;
    }
  }

  #erase(node: bigint): void {
    const left = this.child(node, 'left');
    const right = this.child(node, 'right');
    if (left === 0n || right === 0n) {
      const child = left === 0n ? right : left;
      const parent = this.#parent(node);
      const side = parent === 0n ? 'left' : this.#sideOf(node, parent);
      const lostBlack = this.#isBlack(node);
      this.#replace(node, child);
      if (lostBlack) this.#mendErase(child, parent, side);
      return;
    }
    // the next in order takes the node's place
    const next = this.#lowest(right);
    const lostBlack = this.#isBlack(next);
    const child = this.child(next, 'right');
    let parent = this.#parent(next);
    let side: Side = 'left';
    if (parent === node) {
      parent = next;
      side = 'right';
    } else {
      this.#replace(next, child);
      this.#setChild(next, 'right', right);
      this.#setParent(right, next, this.#isBlack(right));
    }
    this.#replace(node, next);
    this.#setChild(next, 'left', left);
    this.#setParent(left, next, this.#isBlack(left));
    this.#paint(next, this.#isBlack(node));
    if (lostBlack) this.#mendErase(child, parent, side);
  }

  /** All ways down have as many black nodes: the way to `from` below `above` lacks one. */
  #mendErase(from: bigint, above: bigint, fromSide: Side): void {
    let [node, parent, side] = [from, above, fromSide];
    while (parent !== 0n && this.#isBlack(node)) {
      const other = OTHER[side];
      let sibling = this.child(parent, other);
      if (!this.#isBlack(sibling)) {
        this.#paint(sibling, true);
        this.#paint(parent, false);
        this.#rotate(parent, side);
        sibling = this.child(parent, other);
      }
      if (this.#isBlack(this.child(sibling, side)) && this.#isBlack(this.child(sibling, other))) {
        this.#paint(sibling, false);
        node = parent;
        parent = this.#parent(node);
        side = parent === 0n ? 'left' : this.#sideOf(node, parent);
        continue;
      }
      if (this.#isBlack(this.child(sibling, other))) {
        this.#paint(this.child(sibling, side), true);
        this.#paint(sibling, false);
        this.#rotate(sibling, other);
        sibling = this.child(parent, other);
      }
      this.#paint(sibling, this.#isBlack(parent));
      this.#paint(parent, true);
      this.#paint(this.child(sibling, other), true);
      this.#rotate(parent, side);
      return;
    }
    this.#paint(node, true);
  }
}

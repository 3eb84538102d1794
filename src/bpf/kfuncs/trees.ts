/**
 * Kernel functions on bpf_rb_root: add by a comparison of the program, remove, look.
 *
 * Adding walks down from the top and asks the program at each node whether the new one is less. Reference:
 * __bpf_rbtree_add, bpf_rbtree_remove, bpf_rbtree_first in kernel/bpf/helpers.c; bpf_rbtree_root, _left and
 * _right came with 6.16.
 */
import { callingBody } from '../helpers/loops.js';
import { argument, fail, setArgument, setResult, setResult64 } from '../helpers/helper.js';
import type { BpfHost, HelperBody, RegisterPairs } from '../host.js';
import { RbTree } from '../local/rbtree.js';
import { GENERIC_KINDS, type KfuncRow } from './kfunc.js';

/** R1 root, R2 node, R3 the comparison, R4 record, R5 offset of the node. */
function* add(registers: RegisterPairs, host: BpfHost): Generator<bigint, void, undefined> {
  const tree = new RbTree(host.memory, argument(registers, 1));
  const node = argument(registers, 2);
  const less = argument(registers, 3);
  if (tree.ownerOf(node) !== 0n) {
    const record = host.objects.recordAt(argument(registers, 4));
    host.objects.drop(host, node - argument(registers, 5), record);
    fail(registers, 'EINVAL');
    return;
  }
  let parent = 0n;
  let side: 'left' | 'right' = 'left';
  let isLeftmost = true;
  for (let at = tree.top; at !== 0n; at = tree.child(parent, side)) {
    parent = at;
    setArgument(registers, 1, node);
    setArgument(registers, 2, parent);
    for (const unused of [3, 4, 5]) setArgument(registers, unused, 0n);
    yield less;
    const isLess = registers[0] !== 0 || registers[1] !== 0;
    side = isLess ? 'left' : 'right';
    isLeftmost &&= isLess;
  }
  tree.insert(node, parent, side, isLeftmost);
  setResult(registers, 0);
}

/** R1 root, R2 node. */
const remove: HelperBody = (registers, { memory }) => {
  const node = argument(registers, 2);
  const isHere = new RbTree(memory, argument(registers, 1)).remove(node);
  setResult64(registers, isHere ? node : 0n);
};

const child =
  (side: 'left' | 'right'): HelperBody =>
  (registers, { memory }) => {
    const tree = new RbTree(memory, argument(registers, 1));
    const node = argument(registers, 2);
    setResult64(registers, tree.owns(node) ? tree.child(node, side) : 0n);
  };

const look =
  (where: 'top' | 'leftmost'): HelperBody =>
  (registers, { memory }) =>
    setResult64(registers, new RbTree(memory, argument(registers, 1))[where]);

const OF_NODE = '(struct bpf_rb_root *root, struct bpf_rb_node *node)';
const LESS = 'bool (less)(struct bpf_rb_node *a, const struct bpf_rb_node *b)';

export const TREE_KFUNCS: readonly KfuncRow[] = [
  {
    prototype: `int bpf_rbtree_add_impl(struct bpf_rb_root *root, struct bpf_rb_node *node, ${LESS}, void *meta__ign, u64 off)`,
    flags: ['KF_TRUSTED_ARGS'],
    kinds: GENERIC_KINDS,
    body: callingBody(add),
  },
  {
    prototype: `struct bpf_rb_node *bpf_rbtree_remove${OF_NODE}`,
    flags: ['KF_ACQUIRE', 'KF_RET_NULL', 'KF_TRUSTED_ARGS'],
    kinds: GENERIC_KINDS,
    body: remove,
  },
  {
    prototype: 'struct bpf_rb_node *bpf_rbtree_first(struct bpf_rb_root *root)',
    flags: ['KF_RET_NULL', 'KF_TRUSTED_ARGS'],
    kinds: GENERIC_KINDS,
    body: look('leftmost'),
  },
  {
    prototype: 'struct bpf_rb_node *bpf_rbtree_root(struct bpf_rb_root *root)',
    flags: ['KF_RET_NULL', 'KF_TRUSTED_ARGS'],
    kinds: GENERIC_KINDS,
    body: look('top'),
  },
  {
    prototype: `struct bpf_rb_node *bpf_rbtree_left${OF_NODE}`,
    flags: ['KF_RET_NULL', 'KF_TRUSTED_ARGS'],
    kinds: GENERIC_KINDS,
    body: child('left'),
  },
  {
    prototype: `struct bpf_rb_node *bpf_rbtree_right${OF_NODE}`,
    flags: ['KF_RET_NULL', 'KF_TRUSTED_ARGS'],
    kinds: GENERIC_KINDS,
    body: child('right'),
  },
];

/**
 * bpf_list: a doubly linked list of objects in kernel memory, with the kernel's layout.
 *
 *   struct bpf_list_head   next | prev            (a struct list_head)
 *   struct bpf_list_node   next | prev | owner    (struct bpf_list_node_kern)
 *
 * A head of zeroes is an empty list. A node that is in a list has the list as its owner; in none, 0.
 * Reference: include/linux/list.h; __bpf_list_add, __bpf_list_del, bpf_list_front in kernel/bpf/helpers.c.
 */
import type { Memory } from '../../cpu/memory.js';

const NEXT = 0n;
const PREV = 8n;
const OWNER = 16n;

export type ListEnd = 'front' | 'back';

/** INIT_LIST_HEAD */
export function initList(memory: Memory, head: bigint): void {
  memory.write64(head + NEXT, head);
  memory.write64(head + PREV, head);
}

function link(memory: Memory, before: bigint, after: bigint): void {
  memory.write64(before + NEXT, after);
  memory.write64(after + PREV, before);
}

function ensureList(memory: Memory, head: bigint): void {
  if (memory.read64(head + NEXT) === 0n) initList(memory, head);
}

/** The node at an end, which stays there; 0 when the list is empty. */
export function listPeek(memory: Memory, head: bigint, end: ListEnd): bigint {
  const first = memory.read64(head + NEXT);
  if (first === 0n || first === head) return 0n;
  return end === 'front' ? first : memory.read64(head + PREV);
}

/** Adds a node; false when it is in a list already. */
export function listPush(memory: Memory, head: bigint, node: bigint, end: ListEnd): boolean {
  ensureList(memory, head);
  if (memory.read64(node + OWNER) !== 0n) return false;
  const [before, after] =
    end === 'front' ? [head, memory.read64(head + NEXT)] : [memory.read64(head + PREV), head];
  link(memory, before, node);
  link(memory, node, after);
  memory.write64(node + OWNER, head);
  return true;
}

/** Takes the node at an end away; 0 when the list is empty. */
export function listPop(memory: Memory, head: bigint, end: ListEnd): bigint {
  ensureList(memory, head);
  const node = listPeek(memory, head, end);
  if (node === 0n || memory.read64(node + OWNER) !== head) return 0n;
  link(memory, memory.read64(node + PREV), memory.read64(node + NEXT));
  initList(memory, node);
  memory.write64(node + OWNER, 0n);
  return node;
}

/** Makes the list empty and gives the nodes that were in it; they are left as they are. */
export function* listDrain(memory: Memory, head: bigint): Iterable<bigint> {
  const first = memory.read64(head + NEXT);
  initList(memory, head);
  for (let node = first; node !== 0n && node !== head;) {
    // the node may be freed before the next is asked for
    const next = memory.read64(node + NEXT);
    yield node;
    node = next;
  }
}

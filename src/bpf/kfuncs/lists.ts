/**
 * Kernel functions on bpf_list_head: push, pop, look.
 *
 * A node that is in a list already is dropped instead of added, and that is -EINVAL. Reference:
 * bpf_list_push_front_impl and kin in kernel/bpf/helpers.c; bpf_list_front and bpf_list_back came with 6.16.
 */
import { argument, fail, setResult, setResult64 } from '../helpers/helper.js';
import type { HelperBody } from '../host.js';
import { listPeek, listPop, listPush, type ListEnd } from '../local/list.js';
import { GENERIC_KINDS, type KfuncRow } from './kfunc.js';

/** R1 head, R2 node, R3 record, R4 offset of the node. */
function push(end: ListEnd): HelperBody {
  return (registers, host) => {
    const node = argument(registers, 2);
    if (listPush(host.memory, argument(registers, 1), node, end)) {
      setResult(registers, 0);
      return;
    }
    const record = host.objects.recordAt(argument(registers, 3));
    host.objects.drop(host, node - argument(registers, 4), record);
    fail(registers, 'EINVAL');
  };
}

const pop =
  (end: ListEnd): HelperBody =>
  (registers, { memory }) =>
    setResult64(registers, listPop(memory, argument(registers, 1), end));

const peek =
  (end: ListEnd): HelperBody =>
  (registers, { memory }) =>
    setResult64(registers, listPeek(memory, argument(registers, 1), end));

const pushPrototype = (end: ListEnd): string =>
  `int bpf_list_push_${end}_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta__ign, u64 off)`;

const ENDS: readonly ListEnd[] = ['front', 'back'];

export const LIST_KFUNCS: readonly KfuncRow[] = ENDS.flatMap((end): KfuncRow[] => [
  {
    prototype: pushPrototype(end),
    flags: ['KF_TRUSTED_ARGS'],
    kinds: GENERIC_KINDS,
    body: push(end),
  },
  {
    prototype: `struct bpf_list_node *bpf_list_pop_${end}(struct bpf_list_head *head)`,
    flags: ['KF_ACQUIRE', 'KF_RET_NULL', 'KF_TRUSTED_ARGS'],
    kinds: GENERIC_KINDS,
    body: pop(end),
  },
  {
    prototype: `struct bpf_list_node *bpf_list_${end}(struct bpf_list_head *head)`,
    flags: ['KF_RET_NULL', 'KF_TRUSTED_ARGS'],
    kinds: GENERIC_KINDS,
    body: peek(end),
  },
]);

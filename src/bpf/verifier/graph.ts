/**
 * Lists and trees: heads, roots and nodes as arguments of kernel functions.
 *
 * A head lies beside the lock that must be held; a node lies in an object that the program owns, or that the
 * list or tree owns already. Reference: process_kf_arg_ptr_to_list_head and kin, check_reg_allocation_locked,
 * ref_convert_owning_non_owning, set_rbtree_add_callback_state in kernel/bpf/verifier.c.
 */
import {
  findField,
  hasField,
  offsetOfField,
  type BtfField,
  type FieldKind,
} from '../btf/record.js';
import type { Env } from './env.js';
import { recordOf, refuseOffset } from './kptr.js';
import { forget } from './references.js';
import { replaceValues, type Frame, type State } from './state.js';
import {
  isPlainObject,
  Pointer,
  structName,
  typeName,
  variableText,
  withFields,
  type Value,
} from './value.js';

export type RootKind = 'bpf_list_head' | 'bpf_rb_root';
export type NodeKind = 'bpf_list_node' | 'bpf_rb_node';

export function isRoot(name: string): name is RootKind {
  return name === 'bpf_list_head' || name === 'bpf_rb_root';
}

export function isNode(name: string): name is NodeKind {
  return name === 'bpf_list_node' || name === 'bpf_rb_node';
}

const ROOT_OF: Readonly<Record<NodeKind, RootKind>> = {
  bpf_list_node: 'bpf_list_head',
  bpf_rb_node: 'bpf_rb_root',
};

/** Whether the program is in a callback that compares nodes of a tree. */
export function inTreeCallback({ frames }: State): boolean {
  return frames.some(({ callback }) => callback?.inTree === true);
}

/** A pointer whose fixed offset is all that moved it. */
function constantOffset(
  env: Env,
  register: number,
  { variable, off }: Pointer,
  kind: FieldKind,
): number {
  if (variable && !variable.isConst) {
    env.refuse(
      'EINVAL',
      `R${register} doesn't have constant offset. ${kind} has to be at the constant offset`,
    );
  }
  return off;
}

/** The list or tree in R`register`; its lock is held. */
export function checkRoot(
  env: Env,
  register: number,
  value: Value | undefined,
  kind: RootKind,
): BtfField {
  const isMap = value?.kind === 'pointer' && value.type === 'map_value' && !value.orNull;
  if (value?.kind !== 'pointer' || (!isMap && !isPlainObject(value))) {
    if (value?.kind === 'pointer' && value.type === 'btf' && value.variable) {
      refuseOffset(env, register, value);
    }
    return env.refuse(
      'EINVAL',
      `arg#${register - 1} expected pointer to map value or allocated object`,
    );
  }
  if (!isMap) {
    if (value.variable) refuseOffset(env, register, value);
    if (value.ref === 0) env.refuse('EINVAL', 'allocated object must be referenced');
  }
  const off = constantOffset(env, register, value, kind);
  const record = recordOf(env, value);
  const field = findField(record, off, kind);
  if (!field) return env.refuse('EINVAL', `${kind} not found at offset=${off}`);
  const { lock } = env.state;
  const owner = isMap ? value.map : value.btf;
  if (lock?.owner !== owner || lock?.id !== value.id) {
    const lockOffset = offsetOfField(record, 'bpf_spin_lock') ?? 0;
    env.refuse('EINVAL', `bpf_spin_lock at off=${lockOffset} must be held for ${kind}`);
  }
  return field;
}

/** A node that is going to be put into `root`: in an object that the program owns. */
export function checkNewNode(
  env: Env,
  register: number,
  value: Value | undefined,
  kind: NodeKind,
  root: BtfField | undefined,
): void {
  const index = register - 1;
  if (value?.kind !== 'pointer' || !isPlainObject(value)) {
    return env.refuse('EINVAL', `arg#${index} expected pointer to allocated object`);
  }
  if (value.ref === 0) env.refuse('EINVAL', 'allocated object must be referenced');
  checkNode(env, register, value, kind, root);
}

/** A node of a tree that is taken away or looked at. */
export function checkTreeNode(
  env: Env,
  register: number,
  value: Value | undefined,
  root: BtfField | undefined,
  kfunc: string,
): void {
  const isObject = value?.kind === 'pointer' && value.type === 'btf' && value.alloc;
  if (!isObject || value.orNull || (!value.nonOwning && value.ref === 0)) {
    return env.refuse(
      'EINVAL',
      `${kfunc} can only take non-owning or refcounted bpf_rb_node pointer`,
    );
  }
  if (inTreeCallback(env.state)) env.refuse('EINVAL', `${kfunc} not allowed in rbtree cb`);
  checkNode(env, register, value, 'bpf_rb_node', root);
}

function checkNode(
  env: Env,
  register: number,
  value: Pointer,
  kind: NodeKind,
  root: BtfField | undefined,
): void {
  if (value.variable) {
    env.refuse(
      'EACCES',
      `variable ${typeName(value)} access var_off=${variableText(value)} disallowed`,
    );
  }
  const off = constantOffset(env, register, value, kind);
  if (!findField(recordOf(env, value), off, kind)) {
    env.refuse('EINVAL', `${kind} not found at offset=${off}`);
  }
  const wanted = root?.graph;
  if (!wanted) return;
  if (value.btf !== wanted.btf || value.typeId !== wanted.typeId) {
    env.refuse(
      'EINVAL',
      `operation on ${ROOT_OF[kind]} expects arg#1 ${kind} at offset=${wanted.nodeOffset} in struct ${wanted.struct}, but arg is at offset=${off} in struct ${structName(value)}`,
    );
  }
  if (off !== wanted.nodeOffset) {
    env.refuse(
      'EINVAL',
      `arg#1 offset=${off}, but expected ${kind} at offset=${wanted.nodeOffset} in struct ${wanted.struct}`,
    );
  }
}

/** The list or tree owns the object now: the program's references are valid as long as the lock is held. */
export function giveToRoot(env: Env, ref: number): void {
  replaceValues(env.state, (value) =>
    value.kind === 'pointer' && value.ref === ref
      ? asNonOwning(env, withFields(value, { ref: 0 }))
      : value,
  );
  forget(env, ref);
}

function asNonOwning(env: Env, pointer: Pointer): Pointer {
  const rcu = pointer.rcu || hasField(recordOf(env, pointer), 'bpf_refcount');
  return withFields(pointer, { nonOwning: true, rcu });
}

/** A pointer to the node of an object that a root holds: owned with a reference, else valid under the lock. */
export function nodePointer(
  env: Env,
  { graph }: BtfField,
  fields: Partial<Omit<Pointer, 'kind' | 'type'>>,
): Pointer {
  const pointer = new Pointer('btf', {
    btf: graph?.btf,
    typeId: graph?.typeId ?? 0,
    off: graph?.nodeOffset ?? 0,
    alloc: true,
    ...fields,
  });
  return pointer.ref === 0 ? asNonOwning(env, pointer) : pointer;
}

/** The arguments of a tree's comparison: two nodes. */
export function setLessArguments(env: Env, frame: Frame, root: BtfField): void {
  frame.regs[1] = nodePointer(env, root, {});
  frame.regs[2] = nodePointer(env, root, {});
}

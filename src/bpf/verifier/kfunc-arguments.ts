/**
 * Checks the arguments of a kernel function against its prototype: types, and what the ends of names say.
 *
 * Reference: check_kfunc_args, get_kfunc_ptr_arg_type, check_mem_reg, check_kfunc_mem_size_reg in
 * kernel/bpf/verifier.c.
 */
import type { Btf } from '../btf/btf.js';
import type { BtfField } from '../btf/record.js';
import type { Kfunc } from '../kfuncs/kfunc.js';
import type { SectionKind } from '../object/spec.js';
import { checkWritable } from './arguments.js';
import { makeDynptr, useDynptr } from './dynptr.js';
import type { Env } from './env.js';
import { checkNewNode, checkRoot, checkTreeNode, isNode, isRoot } from './graph.js';
import { destroyIterator, makeIterator, useIterator, type IteratorType } from './iterator.js';
import type { Prototype } from './kfunc-declarations.js';
import { checkCounted, checkGivenBack, checkStruct, isOfScalars } from './kfunc-objects.js';
import { refuseReleasedOffset } from './kptr.js';
import { checkContext } from './memory.js';
import { markPrecise } from './scalar.js';
import type { Place } from './stack-objects.js';
import type { DynptrSlot } from './state.js';
import { typeName, type Pointer, type Value } from './value.js';

/** What a call's arguments told. */
export interface KfuncFacts {
  /** Value of the constant argument. */
  constant: bigint | undefined;
  /** The dynptr that is used. */
  dynptr: DynptrSlot | undefined;
  /** The iterator that is asked. */
  iterator: Place | undefined;
  /** Reference that the result depends on. */
  ref: number;
  /** Reference that the call gives back. */
  released: number;
  /** The list or tree. */
  root: BtfField | undefined;
  /** The object: given back, put into a list or tree, or referred to once more. */
  object: Pointer | undefined;
  /** Index of the callback. */
  callback: number;
}

const MAX_SIZE = 1n << 29n;

/** Functions that put a node into a list or tree. */
const NEW_NODES: readonly string[] = [
  'bpf_list_push_front_impl',
  'bpf_list_push_back_impl',
  'bpf_rbtree_add_impl',
];

/** The context types that kernel functions name. */
const CONTEXT_STRUCT: Readonly<Partial<Record<SectionKind, string>>> = {
  xdp: 'xdp_md',
  tc: '__sk_buff',
  socket: '__sk_buff',
};

export function checkKfuncArguments(
  env: Env,
  kfunc: Kfunc,
  btf: Btf,
  { parameters }: Prototype,
): KfuncFacts {
  const facts: KfuncFacts = {
    constant: undefined,
    dynptr: undefined,
    iterator: undefined,
    ref: 0,
    released: 0,
    root: undefined,
    object: undefined,
    callback: -1,
  };
  for (let i = 0; i < parameters.length; i++) {
    const { name, type } = parameters[i] as Prototype['parameters'][number];
    if (name.endsWith('__ign')) continue;
    const value = env.frame.regs[i + 1];
    const resolved = btf.resolve(type);
    if (resolved.kind !== 'ptr') {
      checkScalar(env, i + 1, name, value, facts);
      continue;
    }
    const next = parameters[i + 1];
    const size = next && (/__szk?$/.exec(next.name)?.[0] ?? undefined);
    const isSized = checkPointer(
      env,
      kfunc,
      btf,
      { index: i, name, target: resolved.type, size },
      facts,
    );
    // the size is checked with the memory
    if (isSized) i++;
  }
  if (kfunc.flags.includes('KF_RELEASE') && facts.released === 0) {
    env.refuse('EINVAL', `release kernel function ${kfunc.name} expects refcounted PTR_TO_BTF_ID`);
  }
  return facts;
}

function nameOf(value: Value | undefined): string {
  return value ? typeName(value) : '?';
}

function checkScalar(
  env: Env,
  register: number,
  name: string,
  value: Value | undefined,
  facts: KfuncFacts,
): void {
  if (value?.kind !== 'scalar') {
    return env.refuse('EINVAL', `R${register} is not a scalar`);
  }
  if (!name.endsWith('__k')) return;
  if (!value.isConst) env.refuse('EINVAL', `R${register} must be a known constant`);
  markPrecise(value);
  facts.constant = value.bits.value;
}

interface PointerParameter {
  readonly index: number;
  readonly name: string;
  /** BTF id of what it points to. */
  readonly target: number;
  /** How the size that follows ends, if one does. */
  readonly size: string | undefined;
}

/** True when the next argument, its size, is checked too. */
function checkPointer(
  env: Env,
  { name: kfunc, flags }: Kfunc,
  btf: Btf,
  { index, name, target, size }: PointerParameter,
  facts: KfuncFacts,
): boolean {
  const register = index + 1;
  const value = env.frame.regs[register];
  const isNull = value?.kind === 'scalar' && value.is(0n);
  const isNullable = name.endsWith('__nullable');
  const mayBeNull = isNull || (value?.kind === 'pointer' && value.orNull);
  const isRelease = flags.includes('KF_RELEASE');
  const isRcu = flags.includes('KF_RCU');
  const isTrustedOnly = isRelease || flags.includes('KF_TRUSTED_ARGS');
  if ((isTrustedOnly || isRcu) && mayBeNull && !isNullable) {
    env.refuse('EACCES', `Possibly NULL pointer passed to trusted arg${index}`);
  }
  if (isRelease && value?.kind === 'pointer' && value.ref !== 0) {
    facts.released = value.ref;
    if (value.off !== 0) refuseReleasedOffset(env, register);
  }
  const struct = btf.resolve(target);
  const structName = struct.kind === 'struct' ? struct.name : '';
  if (kfunc === 'bpf_cast_to_kern_ctx' || structName === CONTEXT_STRUCT[env.input.kind]) {
    if (value?.kind !== 'pointer' || value.type !== 'ctx') {
      env.refuse('EINVAL', `arg#${index} expected pointer to ctx, but got ${nameOf(value)}`);
    } else checkContext(env, register, value);
    return false;
  }
  if (isNullable && isNull) return false;
  if (name.endsWith('__alloc')) {
    checkGivenBack(env, kfunc, register, value, facts);
    return false;
  }
  if (name.endsWith('__refcounted_kptr')) {
    checkCounted(env, register, value, facts);
    return false;
  }
  if (isRoot(structName)) {
    facts.root = checkRoot(env, register, value, structName);
    return false;
  }
  if (isNode(structName)) {
    if (NEW_NODES.includes(kfunc)) checkNewNode(env, register, value, structName, facts.root);
    else checkTreeNode(env, register, value, facts.root, kfunc);
    if (value?.kind === 'pointer') facts.object = value;
    return false;
  }
  if (structName === 'bpf_dynptr') {
    checkDynptr(env, kfunc, name, register, value, facts);
    return false;
  }
  if (structName.startsWith('bpf_iter_') && index === 0) {
    const type = { name: structName.slice('bpf_iter_'.length), slots: btf.sizeOf(target) / 8 };
    checkIterator(env, flags, register, value, type, facts);
    return false;
  }
  if (value?.kind === 'pointer' && value.type === 'btf') {
    const trust = isTrustedOnly ? 'trusted' : isRcu ? 'rcu' : 'any';
    checkStruct(env, kfunc, isRelease, register, value, struct, trust);
    return false;
  }
  if (struct.kind === 'func_proto') {
    if (value?.kind !== 'pointer' || value.type !== 'function') {
      return env.refuse('EINVAL', `arg${index} expected pointer to func`);
    }
    facts.callback = value.frame;
    return false;
  }
  const isNumber = struct.kind === 'int' || struct.kind === 'enum' || struct.kind === 'enum64';
  const isMemory = isNumber || (size !== undefined && struct.kind === 'void');
  if (!isMemory && !isOfScalars(btf, struct, 0)) {
    const what = size === undefined ? '' : 'void, ';
    env.refuse(
      'EINVAL',
      `arg#${index} pointer type ${struct.kind.toUpperCase()} ${structName} must point to ${what}scalar, or struct with scalar`,
    );
  }
  if (size === undefined) {
    if (!isNull) checkWritable(env, register, value, btf.sizeOf(target));
    if (isNull) markPrecise(value);
    return false;
  }
  checkSized(env, register, value, isNull && name.endsWith('__opt'), size === '__szk', facts);
  return true;
}

function checkDynptr(
  env: Env,
  kfunc: string,
  name: string,
  register: number,
  value: Value | undefined,
  facts: KfuncFacts,
): void {
  const isFilled = name.endsWith('__uninit');
  const isConst = value?.kind === 'pointer' && value.type === 'dynptr' && !isFilled;
  if (value?.kind !== 'pointer' || (value.type !== 'stack' && !isConst)) {
    return env.refuse(
      'EINVAL',
      `arg#${register - 1} expected pointer to stack or const struct bpf_dynptr`,
    );
  }
  if (!isFilled) {
    facts.dynptr = useDynptr(env, register, value);
    return;
  }
  const parent = facts.dynptr;
  if (kfunc === 'bpf_dynptr_clone' && parent) {
    makeDynptr(env, register, value, parent.type, parent.ref);
  } else {
    makeDynptr(env, register, value, 'xdp');
  }
}

function checkIterator(
  env: Env,
  flags: Kfunc['flags'],
  register: number,
  value: Value | undefined,
  type: IteratorType,
  facts: KfuncFacts,
): void {
  if (value?.kind !== 'pointer' || value.type !== 'stack') {
    return env.refuse('EINVAL', `arg#${register - 1} expected pointer to an iterator on stack`);
  }
  if (flags.includes('KF_ITER_NEW')) {
    makeIterator(env, register, value, type);
    return;
  }
  const { place, first } = useIterator(env, register, value, type);
  facts.iterator = place;
  facts.ref = first.ref;
  if (flags.includes('KF_ITER_DESTROY')) destroyIterator(env, place, first, type.slots);
}

/** Memory in R`register`, its size in the next. */
function checkSized(
  env: Env,
  register: number,
  value: Value | undefined,
  isLeftOut: boolean,
  isConstant: boolean,
  facts: KfuncFacts,
): void {
  const of = register + 1;
  const size = env.frame.regs[of];
  if (size?.kind !== 'scalar') return env.refuse('EINVAL', `R${of} is not a scalar`);
  if (!isLeftOut) {
    if (size.smin < 0n) {
      env.refuse('EACCES', `R${of} min value is negative, either use unsigned or 'var &= const'`);
    }
    if (size.umax >= MAX_SIZE) {
      env.refuse(
        'EACCES',
        `R${of} unbounded memory access, use 'var &= const' or 'if (var < const)'`,
      );
    }
    const isNothing = size.umax === 0n && value?.kind === 'scalar' && value.is(0n);
    if (!isNothing) checkWritable(env, register, value, Number(size.umax));
    markPrecise(size);
  }
  if (!isConstant) return;
  if (!size.isConst) env.refuse('EINVAL', `R${of} must be a known constant`);
  markPrecise(size);
  facts.constant = size.bits.value;
}

/**
 * A call of a kernel function: whether it is allowed, its arguments, what it gives, what it changes.
 *
 * Reference: fetch_kfunc_meta, check_kfunc_call in kernel/bpf/verifier.c.
 */
import type { Btf } from '../btf/btf.js';
import { kernelKfunc } from '../kfuncs/kernel-kfuncs.js';
import type { Kfunc } from '../kfuncs/kfunc.js';
import { kernelStructs } from '../kfuncs/kernel-structs.js';
import { findKfunc, KFUNC_BTF } from '../kfuncs/table.js';
import type { SectionKind } from '../object/spec.js';
import type { Env } from './env.js';
import { giveToRoot, inTreeCallback, setLessArguments } from './graph.js';
import { pushCallback } from './helper-call.js';
import { splitAtNext } from './iterator.js';
import { checkKfuncArguments, type KfuncFacts } from './kfunc-arguments.js';
import { prototypeOf, type Prototype } from './kfunc-declarations.js';
import { objectResult } from './kfunc-objects.js';
import { endRcuSection, mayHoldLock } from './kptr.js';
import { acquire, release } from './references.js';
import { unknownScalar } from './scalar.js';
import type { State } from './state.js';
import { Pointer, withFields, type Value } from './value.js';

/** The kernel's struct behind a program's context. */
const KERNEL_CONTEXT: Readonly<Partial<Record<SectionKind, string>>> = {
  xdp: 'xdp_buff',
  tc: 'sk_buff',
  socket: 'sk_buff',
};

const TREE_ADD = 'bpf_rbtree_add_impl';

/** Checks the call and changes the state; gives another state that is to be walked too, if any. */
export function callKfunc(env: Env, imm: number): State | undefined {
  const name = env.function.kfuncs.get(env.at);
  if (name === undefined) {
    return env.refuse('EINVAL', `call of kernel function ${imm} not supported`);
  }
  const kfunc = findKfunc(name);
  if (!kfunc && kernelKfunc(name)?.kinds.includes(env.input.kind)) {
    return env.refuse('EOPNOTSUPP', `kernel function ${name} is none of those that are here`);
  }
  const prototype = prototypeOf(name);
  if (!kfunc || !prototype || (kfunc.kinds && !kfunc.kinds.includes(env.input.kind))) {
    return env.refuse('EACCES', `calling kernel function ${name} is not allowed`);
  }
  if (env.state.lock && !isAllowedUnderLock(name)) {
    env.refuse('EINVAL', 'function calls are not allowed while holding a lock');
  }
  const facts = checkKfuncArguments(env, kfunc, KFUNC_BTF, prototype);
  const callback = name === TREE_ADD ? enterLess(env, kfunc.id, facts) : undefined;
  changeSection(env, name);
  if (facts.released !== 0) release(env, facts.released);
  if (facts.object) noteObject(env, name, facts.object);
  const result = resultOf(env, kfunc, KFUNC_BTF, prototype, facts);
  const { regs } = env.frame;
  regs.fill(undefined, 0, 6);
  regs[0] = result;
  env.state.at = env.at + 1;
  if (callback) return callback;
  if (!kfunc.flags.includes('KF_ITER_NEXT') || !facts.iterator) return undefined;
  return splitAtNext(env, facts.iterator);
}

/** Those that lists and trees need, and iterators of numbers (kfunc_spin_allowed). */
function isAllowedUnderLock(name: string): boolean {
  return /^bpf_(list_|rbtree_|refcount_acquire_impl|iter_num_)/.test(name);
}

/** The state in which the comparison of a tree runs (once more). */
function enterLess(env: Env, helper: number, { callback, root }: KfuncFacts): State {
  return pushCallback(
    env,
    callback,
    { helper, maxResult: 1n, isAsync: false, inTree: true },
    (frame) => {
      if (root) setLessArguments(env, frame, root);
    },
  );
}

/** What becomes of the object that was passed, and what the call needs of it. */
function noteObject(env: Env, name: string, object: Pointer): void {
  const record = env.input.types?.recordOf(object.typeId);
  switch (name) {
    case 'bpf_obj_drop_impl':
    case 'bpf_percpu_obj_drop_impl':
    case 'bpf_refcount_acquire_impl':
      env.noteCall({ kind: 'meta', record });
      break;
    case 'bpf_list_push_front_impl':
    case 'bpf_list_push_back_impl':
    case TREE_ADD:
      env.noteCall({
        kind: 'insert',
        register: name === TREE_ADD ? 4 : 3,
        record,
        offset: object.off,
      });
      giveToRoot(env, object.ref);
      break;
    default:
  }
}

/** Enters or leaves a critical section. */
function changeSection(env: Env, name: string): void {
  const { state } = env;
  if (state.rcuLocked && inTreeCallback(state) && name.startsWith('bpf_rcu_read_')) {
    env.refuse('EACCES', 'Calling bpf_rcu_read_{lock,unlock} in unnecessary rbtree callback');
  }
  switch (name) {
    case 'bpf_rcu_read_lock':
      if (state.rcuLocked) env.refuse('EINVAL', `nested rcu read lock (kernel function ${name})`);
      state.rcuLocked = true;
      break;
    case 'bpf_rcu_read_unlock':
      if (!state.rcuLocked)
        env.refuse('EINVAL', `unmatched rcu read unlock (kernel function ${name})`);
      endRcuSection(env);
      state.rcuLocked = false;
      break;
    case 'bpf_preempt_disable':
      state.preemptDisabled++;
      break;
    case 'bpf_preempt_enable':
      if (state.preemptDisabled === 0) {
        env.refuse('EINVAL', `unmatched attempt to enable preemption (kernel function ${name})`);
      }
      state.preemptDisabled--;
      break;
    default:
  }
}

function resultOf(
  env: Env,
  { name, flags }: Kfunc,
  btf: Btf,
  { returnType }: Prototype,
  facts: KfuncFacts,
): Value | undefined {
  const type = btf.resolve(returnType);
  if (type.kind === 'void') return undefined;
  if (type.kind !== 'ptr') return unknownScalar();
  switch (name) {
    case 'bpf_cast_to_kern_ctx':
      return new Pointer('btf', {
        btf: env.input.kernelBtf,
        typeId: contextStruct(env),
        trusted: true,
      });
    case 'bpf_rdonly_cast':
      return new Pointer('btf', {
        btf: env.input.kernelBtf,
        typeId: castStruct(env, facts),
        untrusted: true,
      });
    default:
  }
  const isOwned = facts.object !== undefined && !facts.object.nonOwning && facts.object.ref !== 0;
  // an object that the program owns has a reference: one more can be had
  const orNull =
    flags.includes('KF_RET_NULL') && !(isOwned && name === 'bpf_refcount_acquire_impl');
  const ref = flags.includes('KF_ACQUIRE') ? acquire(env) : 0;
  const id = orNull ? (ref === 0 ? env.nextId() : ref) : 0;
  const object = objectResult(env, name, facts, { orNull, ref, id });
  if (object)
    return object.id === 0 && mayHoldLock(env, object)
      ? withFields(object, { id: env.nextId() })
      : object;
  const struct = btf.resolve(type.type);
  if (struct.kind === 'struct' || struct.kind === 'fwd') {
    const found = kernelStructs(env.input.kernelBtf)(struct.name);
    if (!found) return env.refuse('EINVAL', `the kernel has no struct ${struct.name}`);
    return new Pointer('btf', { btf: found.btf, typeId: found.typeId, orNull, ref, id });
  }
  switch (name) {
    case 'bpf_dynptr_slice':
    case 'bpf_dynptr_slice_rdwr':
      return new Pointer('mem', {
        size: Number(facts.constant ?? 0n),
        readOnly: name === 'bpf_dynptr_slice',
        memory: facts.dynptr?.type === 'xdp' ? 'packet' : 'plain',
        dynptr: facts.dynptr?.id ?? 0,
        orNull,
        id,
      });
    default:
      // what it points to, as long as the iterator is there
      return new Pointer('mem', {
        size: btf.sizeOf(type.type),
        readOnly: true,
        ref: facts.ref,
        orNull,
        id,
      });
  }
}

function contextStruct(env: Env): number {
  const { input } = env;
  const name = KERNEL_CONTEXT[input.kind];
  const id = name === undefined ? undefined : input.kernelBtf?.find('struct', name);
  return (
    id ?? env.refuse('EINVAL', `the kernel has no struct for the context of ${input.kind} programs`)
  );
}

function castStruct(env: Env, { constant = 0n }: KfuncFacts): number {
  const id = Number(constant);
  const kind = env.input.kernelBtf?.types[id]?.kind;
  if (kind !== 'struct' && kind !== 'union') {
    env.refuse('EINVAL', 'kfunc bpf_rdonly_cast type ID argument must be of a struct');
  }
  return id;
}

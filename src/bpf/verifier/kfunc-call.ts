/**
 * A call of a kernel function: whether it is allowed, its arguments, what it gives, what it changes.
 *
 * Reference: fetch_kfunc_meta, check_kfunc_call in kernel/bpf/verifier.c.
 */
import type { Btf } from '../btf/btf.js';
import { kernelKfunc } from '../kfuncs/kernel-kfuncs.js';
import type { Kfunc } from '../kfuncs/kfunc.js';
import { findKfunc, KFUNC_BTF } from '../kfuncs/table.js';
import { BPF_THROW } from '../kfuncs/throw.js';
import type { SectionKind } from '../object/spec.js';
import type { Env } from './env.js';
import { checkThrown } from './exception.js';
import { splitAtNext } from './iterator.js';
import { checkKfuncArguments, type KfuncFacts } from './kfunc-arguments.js';
import { prototypeOf, type Prototype } from './kfunc-declarations.js';
import { unknownScalar } from './scalar.js';
import type { State } from './state.js';
import { Pointer, type Value } from './value.js';

/** The kernel's struct behind a program's context. */
const KERNEL_CONTEXT: Readonly<Partial<Record<SectionKind, string>>> = {
  xdp: 'xdp_buff',
  tc: 'sk_buff',
  socket: 'sk_buff',
};

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
  if (env.state.lock) {
    env.refuse('EINVAL', 'function calls are not allowed while holding a lock');
  }
  const facts = checkKfuncArguments(env, kfunc, KFUNC_BTF, prototype);
  if (name === BPF_THROW) checkThrown(env);
  changeSection(env, name);
  const result = resultOf(env, kfunc, KFUNC_BTF, prototype, facts);
  const { regs } = env.frame;
  regs.fill(undefined, 0, 6);
  regs[0] = result;
  env.state.at = env.at + 1;
  if (!kfunc.flags.includes('KF_ITER_NEXT') || !facts.iterator) return undefined;
  return splitAtNext(env, facts.iterator);
}

/** Enters or leaves a critical section. */
function changeSection(env: Env, name: string): void {
  const { state } = env;
  switch (name) {
    case 'bpf_rcu_read_lock':
      if (state.rcuLocked) env.refuse('EINVAL', `nested rcu read lock (kernel function ${name})`);
      state.rcuLocked = true;
      break;
    case 'bpf_rcu_read_unlock':
      if (!state.rcuLocked)
        env.refuse('EINVAL', `unmatched rcu read unlock (kernel function ${name})`);
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
  const orNull = flags.includes('KF_RET_NULL');
  const id = orNull ? env.nextId() : 0;
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

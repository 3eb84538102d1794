/**
 * Objects as arguments and results of kernel functions: those that programs allocate, and the kernel's.
 *
 * Reference: check_kfunc_args, process_kf_arg_ptr_to_btf_id, check_kfunc_call, __btf_type_is_scalar_struct in
 * kernel/bpf/verifier.c.
 */
import type { Btf } from '../btf/btf.js';
import { hasField } from '../btf/record.js';
import type { BtfType } from '../btf/types.js';
import type { Env } from './env.js';
import { nodePointer } from './graph.js';
import type { KfuncFacts } from './kfunc-arguments.js';
import { isLocal, recordOf, refuseOffset, structMatches } from './kptr.js';
import {
  isPlainObject,
  isTrusted,
  Pointer,
  structName,
  typeName,
  withFields,
  type Value,
} from './value.js';

/** BPF_GLOBAL_PERCPU_MA_MAX_SIZE */
const MAX_PERCPU_SIZE = 512;
const U32_MAX = 0xffff_ffffn;
/** Structs in structs, for what counts as made of numbers only. */
const MAX_NESTING = 3;

/** An owning reference that the call takes: bpf_obj_drop, bpf_percpu_obj_drop. */
export function checkGivenBack(
  env: Env,
  kfunc: string,
  register: number,
  value: Value | undefined,
  facts: KfuncFacts,
): void {
  const index = register - 1;
  if (value?.kind !== 'pointer' || !isTrusted(value)) {
    return env.refuse('EINVAL', `R${register} must be referenced or trusted`);
  }
  const isPerCpu = value.perCpu && isPlainObject(withFields(value, { perCpu: false }));
  if (!isPerCpu && !isPlainObject(value)) {
    return env.refuse('EINVAL', `arg#${index} expected pointer to allocated object`);
  }
  const wanted = isPerCpu ? 'bpf_percpu_obj_drop_impl' : 'bpf_obj_drop_impl';
  if (value.variable) refuseOffset(env, register, value);
  if (kfunc !== wanted) env.refuse('EINVAL', `arg#${index} expected for ${wanted}()`);
  if (value.ref === 0) env.refuse('EINVAL', 'allocated object must be referenced');
  facts.object = value;
}

/** An object with a reference count: bpf_refcount_acquire. */
export function checkCounted(
  env: Env,
  register: number,
  value: Value | undefined,
  facts: KfuncFacts,
): void {
  const index = register - 1;
  if (value?.kind !== 'pointer' || value.type !== 'btf' || !value.alloc) {
    return env.refuse('EINVAL', `arg#${index} is neither owning or non-owning ref`);
  }
  if (value.variable || value.off < 0) refuseOffset(env, register, value);
  const record = recordOf(env, value);
  if (!record) env.refuse('EFAULT', "Couldn't find btf_record");
  if (!hasField(record, 'bpf_refcount')) {
    env.refuse('EINVAL', `arg#${index} doesn't point to a type with bpf_refcount field`);
  }
  facts.object = value;
}

/** A struct of the kernel, as valid as the function asks for. */
export function checkStruct(
  env: Env,
  kfunc: string,
  isRelease: boolean,
  register: number,
  value: Pointer,
  wanted: BtfType,
  trust: 'trusted' | 'rcu' | 'any',
): void {
  const name = 'name' in wanted ? wanted.name : '';
  if (wanted.kind !== 'struct' && wanted.kind !== 'fwd') {
    return env.refuse(
      'EINVAL',
      `kernel function ${kfunc} args#${register - 1} pointer type ${wanted.kind.toUpperCase()} ${name} is not supported`,
    );
  }
  if (trust !== 'any' && !isTrusted(value)) {
    if (trust === 'trusted') env.refuse('EINVAL', `R${register} must be referenced or trusted`);
    if (!value.rcu) env.refuse('EINVAL', `R${register} must be a rcu pointer`);
  }
  if (value.variable || value.off < 0) refuseOffset(env, register, value);
  const isUnsafe = value.orNull || value.untrusted || value.perCpu;
  if (isUnsafe && !value.rcu) {
    env.refuse('EINVAL', `arg#${register - 1} is ${typeName(value)} expected ptr_ or socket`);
  }
  const isStrict = isRelease && value.ref !== 0;
  if (!isLocal(env, value) && structMatches(value, name, isStrict)) return;
  env.refuse(
    'EINVAL',
    `kernel function ${kfunc} args#${register - 1} expected pointer to STRUCT ${name} but R${register} has a pointer to STRUCT ${structName(value)}`,
  );
}

interface ResultFields {
  readonly orNull: boolean;
  readonly ref: number;
  readonly id: number;
}

/** What functions on the program's objects give; undefined for all others. */
export function objectResult(
  env: Env,
  name: string,
  facts: KfuncFacts,
  fields: ResultFields,
): Pointer | undefined {
  switch (name) {
    case 'bpf_obj_new_impl':
    case 'bpf_percpu_obj_new_impl':
      return newObject(env, name === 'bpf_percpu_obj_new_impl', facts, fields);
    case 'bpf_refcount_acquire_impl': {
      const { btf, typeId = 0 } = facts.object ?? {};
      return new Pointer('btf', { btf, typeId, alloc: true, ...fields });
    }
    default:
      return facts.root && nodePointer(env, facts.root, fields);
  }
}

function newObject(
  env: Env,
  isPerCpu: boolean,
  { constant = 0n }: KfuncFacts,
  fields: ResultFields,
): Pointer {
  const { btf, types } = env.input;
  if (constant > U32_MAX) {
    env.refuse('EINVAL', 'local type ID argument must be in range [0, U32_MAX]');
  }
  if (!btf) return env.refuse('EINVAL', 'bpf_obj_new/bpf_percpu_obj_new requires prog BTF');
  const typeId = Number(constant);
  const type = btf.types[typeId];
  if (type?.kind !== 'struct') {
    return env.refuse(
      'EINVAL',
      'bpf_obj_new/bpf_percpu_obj_new type ID argument must be of a struct',
    );
  }
  const record = types?.recordOf(typeId);
  if (isPerCpu) checkPerCpuType(env, btf, type, record !== undefined);
  env.noteCall({ kind: 'new', size: type.size, record });
  return new Pointer('btf', { btf, typeId, alloc: true, perCpu: isPerCpu, ...fields });
}

function checkPerCpuType(
  env: Env,
  btf: Btf,
  type: Extract<BtfType, { kind: 'struct' | 'union' }>,
  hasRecord: boolean,
): void {
  const refuse = (what: string): never => env.refuse('EINVAL', `bpf_percpu_obj_new type ${what}`);
  if (type.size > MAX_PERCPU_SIZE) {
    refuse(`size (${type.size}) is greater than ${MAX_PERCPU_SIZE}`);
  }
  if (!isOfScalars(btf, type, 0)) refuse('ID argument must be of a struct of scalars');
  if (hasRecord) refuse('ID argument must not contain special fields');
}

/** Numbers, and arrays and structs of them. */
export function isOfScalars(btf: Btf, type: BtfType, depth: number): boolean {
  if (type.kind !== 'struct' && type.kind !== 'union') return false;
  return type.members.every((member) => {
    let inner = btf.resolve(member.type);
    if (inner.kind === 'struct' || inner.kind === 'union')
      return depth < MAX_NESTING && isOfScalars(btf, inner, depth + 1);
    if (inner.kind === 'array') inner = btf.resolve(inner.type);
    return inner.kind === 'int' || inner.kind === 'enum' || inner.kind === 'enum64';
  });
}

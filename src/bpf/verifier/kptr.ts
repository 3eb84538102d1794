/**
 * kptrs: pointers to objects that map values and allocated objects keep.
 *
 * An untrusted one is loaded and stored by the program; a referenced one is only loaded, and exchanged by
 * bpf_kptr_xchg. What a load gives lasts for the RCU critical section, where the kernel says so of the type.
 * Reference: check_map_kptr_access, map_kptr_match_type, btf_ld_kptr_type, process_kptr_func, check_helper_call
 * in kernel/bpf/verifier.c.
 */
import type { Btf } from '../btf/btf.js';
import { findField, hasField, KPTR_KINDS, type BtfField, type BtfRecord } from '../btf/record.js';
import type { Env } from './env.js';
import { acquire, forget, release } from './references.js';
import { constScalar, markPrecise, unknownScalar } from './scalar.js';
import { replaceValues } from './state.js';
import { Pointer, structName, typeName, variableText, withFields, type Value } from './value.js';

/** The kernel's structs that last for an RCU critical section (rcu_protected_types). */
const RCU_PROTECTED: readonly string[] = [
  'prog_test_ref_kfunc',
  'cgroup',
  'bpf_cpumask',
  'task_struct',
  'bpf_crypto_ctx',
];

/** The fields of the map value or object that a pointer goes to (reg_btf_record). */
export function recordOf({ input }: Env, pointer: Pointer): BtfRecord | undefined {
  if (pointer.type === 'map_value') return pointer.map?.record;
  return pointer.alloc ? input.types?.recordOf(pointer.typeId) : undefined;
}

/** Whether a pointer keeps its id, which tells locks apart (reg_may_point_to_spin_lock). */
export function mayHoldLock(env: Env, pointer: Pointer): boolean {
  return hasField(recordOf(env, pointer), 'bpf_spin_lock');
}

/** Whether a pointer goes to a struct of the program's own. */
export function isLocal({ input }: Env, { btf }: Pointer): boolean {
  return btf !== undefined && btf === input.btf;
}

/** The kptr that an access of `size` bytes at a constant place reaches, checked as far as reading goes. */
export function kptrAt(pointer: Pointer, off: number): BtfField | undefined {
  if (pointer.type !== 'map_value' || (pointer.variable && !pointer.variable.isConst)) {
    return undefined;
  }
  return findField(pointer.map?.record, pointer.off + off, ...KPTR_KINDS);
}

/** What a load of a kptr gives. */
export function loadKptr(env: Env, { kind, kptr }: BtfField): Value {
  if (!kptr) return unknownScalar();
  const { btf, typeId, isKernel, struct } = kptr;
  const isProtected =
    kind === 'percpu_kptr' || (kind === 'kptr' && (!isKernel || RCU_PROTECTED.includes(struct)));
  const common = { btf, typeId, orNull: true, id: env.nextId() };
  if (!isProtected || !env.inRcuSection) return new Pointer('btf', { ...common, untrusted: true });
  const record = isKernel ? undefined : env.input.types?.recordOf(typeId);
  return new Pointer('btf', {
    ...common,
    rcu: true,
    perCpu: kind === 'percpu_kptr',
    alloc: kind !== 'percpu_kptr' && !isKernel,
    nonOwning: hasField(record, 'bpf_list_node', 'bpf_rb_node'),
  });
}

/** A store of R`from`, or of a number where that is -1, over a kptr. */
export function storeKptr(env: Env, field: BtfField, value: Value, from: number): void {
  if (field.kind !== 'kptr_untrusted') env.refuse('EACCES', 'store to referenced kptr disallowed');
  if (from < 0) {
    if (value.kind === 'scalar' && value.is(0n)) return;
    env.refuse('EACCES', `BPF_ST imm must be 0 when storing to kptr at off=${field.offset}`);
  }
  if (value.kind === 'scalar' && value.is(0n)) markPrecise(value);
  else matchKptr(env, field, value, from);
}

/** The value in R`register` may be kept in that field. */
function matchKptr(env: Env, field: BtfField, value: Value, register: number): void {
  const { kind, kptr } = field;
  const bad = (name: string): never => {
    const expected = `expected=ptr_${kptr?.struct ?? ''}`;
    const or = kind === 'kptr_untrusted' ? ` or untrusted_ptr_${kptr?.struct ?? ''}` : '';
    return env.refuse(
      'EACCES',
      `invalid kptr access, R${register} type=${typeName(value)}${name} ${expected}${or}`,
    );
  };
  if (value.kind === 'scalar' || value.type !== 'btf') return bad('');
  const { alloc, nonOwning, rcu, perCpu, trusted, untrusted } = value;
  const isUntrustedOk = kind === 'kptr_untrusted' && !isLocal(env, value);
  if (isLocal(env, value)) {
    if (nonOwning || rcu || trusted || (perCpu && kind !== 'percpu_kptr')) bad('');
  } else if (alloc || nonOwning || perCpu) bad('');
  if (untrusted && !isUntrustedOk) bad('');
  if ((kind === 'percpu_kptr') !== perCpu) bad('');
  if (value.off < 0 || value.variable) refuseOffset(env, register, value);
  const isSame = kptr && structMatches(value, kptr.struct, kind !== 'kptr_untrusted');
  const isSameBtf = kptr && kptr.isKernel !== isLocal(env, value);
  if (!isSame || !isSameBtf) bad(structName(value));
}

export function refuseReleasedOffset(env: Env, register: number): never {
  return env.refuse(
    'EINVAL',
    `R${register} must have zero offset when passed to release func or trusted arg to kfunc`,
  );
}

/** __check_ptr_off_reg: a pointer to a struct moved by a number that is not constant, or backwards. */
export function refuseOffset(env: Env, register: number, pointer: Pointer): never {
  const name = typeName(pointer);
  if (pointer.off < 0) {
    env.refuse('EACCES', `negative offset ${name} ptr R${register} off=${pointer.off} disallowed`);
  }
  return env.refuse(
    'EACCES',
    `variable ${name} access var_off=${variableText(pointer)} disallowed`,
  );
}

/**
 * Whether the pointer goes to a `struct name`, or unless `strict` to a struct inside another that is one
 * (btf_struct_ids_match).
 */
export function structMatches(pointer: Pointer, name: string, strict: boolean): boolean {
  const { btf } = pointer;
  if (!btf) return false;
  const { off, typeId } = pointer;
  if (off === 0 && structName(pointer) === name) return true;
  return !strict && containsStruct(btf, typeId, off, name);
}

/** Whether a `struct name` lies at `at` inside type `outer`. */
function containsStruct(btf: Btf, outer: number, at: number, name: string): boolean {
  let [id, off] = [outer, at];
  for (;;) {
    const type = btf.at(id);
    if (type.kind !== 'struct' && type.kind !== 'union') return false;
    const place = off;
    const member = type.members.findLast(({ bitOffset }) => bitOffset / 8 <= place);
    if (!member) return false;
    off -= Math.floor(member.bitOffset / 8);
    id = btf.resolveId(member.type);
    const inner = btf.at(id);
    if (inner.kind === 'array') {
      id = btf.resolveId(inner.type);
      off %= Math.max(btf.sizeOf(id), 1);
    }
    const found = btf.at(id);
    if (off === 0 && found.kind === 'struct' && found.name === name) return true;
  }
}

/** R1 of bpf_kptr_xchg: a referenced kptr in a map value or object. */
export function exchangedField(env: Env, register: number, pointer: Pointer): BtfField {
  const { map } = pointer;
  if (pointer.type === 'map_value' && !map?.hasBtf) {
    env.refuse('EINVAL', `map '${map?.name ?? ''}' has to have BTF in order to use bpf_kptr_xchg`);
  }
  if (pointer.variable && !pointer.variable.isConst) {
    env.refuse(
      'EINVAL',
      `R${register} doesn't have constant offset. kptr has to be at the constant offset`,
    );
  }
  const record = recordOf(env, pointer);
  if (!hasField(record, ...KPTR_KINDS)) env.refuse('EINVAL', `R${register} has no valid kptr`);
  const { off } = pointer;
  const field = findField(record, off, ...KPTR_KINDS);
  if (!field) return env.refuse('EACCES', `off=${off} doesn't point to kptr`);
  if (field.kind === 'kptr_untrusted') {
    env.refuse('EACCES', `off=${off} kptr isn't referenced kptr`);
  }
  return field;
}

/** R2 of bpf_kptr_xchg: NULL, or an owning reference that the field takes. */
export function checkExchanged(env: Env, register: number, value: Value, field: BtfField): void {
  if (value.kind === 'scalar' && value.is(0n)) {
    markPrecise(value);
    return;
  }
  const expected = 'expected=ptr_, trusted_ptr_, rcu_ptr_';
  if (
    value.kind === 'scalar' ||
    value.type !== 'btf' ||
    value.untrusted ||
    value.nonOwning ||
    (value.perCpu && !value.alloc) ||
    (value.trusted && value.rcu)
  ) {
    return env.refuse('EACCES', `R${register} type=${typeName(value)} ${expected}`);
  }
  if (value.orNull) {
    if (value.alloc) {
      env.refuse('EFAULT', 'invalid PTR_TO_BTF_ID register for type match');
    }
    env.refuse('EACCES', `Possibly NULL pointer passed to helper arg${register}`);
  }
  matchKptr(env, field, value, register);
  if (value.off !== 0) refuseReleasedOffset(env, register);
  if (value.ref === 0) {
    env.refuse('EINVAL', `R${register} must be referenced when passed to release function`);
  }
}

/** bpf_kptr_xchg gives R2 away and what was kept back. */
export function exchange(env: Env, field: BtfField, given: Value | undefined): Value {
  if (given?.kind === 'pointer') giveAway(env, given.ref);
  const { kptr, kind } = field;
  if (!kptr) return constScalar(0n);
  const id = acquire(env);
  return new Pointer('btf', {
    btf: kptr.btf,
    typeId: kptr.typeId,
    orNull: true,
    id,
    ref: id,
    alloc: !kptr.isKernel,
    perCpu: kind === 'percpu_kptr' && !kptr.isKernel,
  });
}

/** A per-CPU object can still be read in the RCU critical section; all others are gone. */
function giveAway(env: Env, ref: number): void {
  if (!env.inRcuSection) {
    release(env, ref);
    return;
  }
  forget(env, ref);
  replaceValues(env.state, (value) => {
    if (value.kind !== 'pointer' || value.ref !== ref) return value;
    if (!value.alloc || !value.perCpu) return unknownScalar();
    return withFields(value, { ref: 0, alloc: false, rcu: true });
  });
}

/** The end of an RCU critical section: what lasted for it may be gone. */
export function endRcuSection(env: Env): void {
  replaceValues(env.state, (value) =>
    value.kind === 'pointer' && value.rcu
      ? withFields(value, { rcu: false, orNull: false, untrusted: true })
      : value,
  );
}

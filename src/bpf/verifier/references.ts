/**
 * What a program acquired and must give back, and the lock it holds.
 *
 * Reference: acquire_reference, release_reference, check_resource_leak, process_spin_lock in
 * kernel/bpf/verifier.c.
 */
import { offsetOfField, type BtfRecord } from '../btf/record.js';
import type { Env } from './env.js';
import { unknownScalar } from './scalar.js';
import { replaceValues } from './state.js';
import type { Pointer, PointerType } from './value.js';

export function acquire(env: Env): number {
  const id = env.nextId();
  env.state.refs = [...env.state.refs, { id, insn: env.at }];
  return id;
}

/** Forgets reference `id`, without looking at who still holds it. */
export function forget(env: Env, id: number): void {
  env.state.refs = env.state.refs.filter((each) => each.id !== id);
}

/** Gives reference `id` back: pointers to it become plain numbers. */
export function release(env: Env, id: number): void {
  forget(env, id);
  replaceValues(env.state, (value) =>
    value.kind === 'pointer' && value.ref === id ? unknownScalar() : value,
  );
}

/** Nothing may be held where `what` happens. */
export function refuseLeaks(env: Env, what: string): void {
  const [held] = env.state.refs;
  if (held) {
    env.refuse(
      'EINVAL',
      `Unreleased reference id=${held.id} alloc_insn=${held.insn}; ${what} would lead to reference leak`,
    );
  }
  if (env.state.lock) {
    env.refuse('EINVAL', `${what} cannot be used inside bpf_spin_lock-ed region`);
  }
  if (env.state.rcuLocked) {
    env.refuse('EINVAL', `${what} cannot be used inside bpf_rcu_read_lock-ed region`);
  }
  if (env.state.preemptDisabled > 0) {
    env.refuse('EINVAL', `${what} cannot be used inside bpf_preempt_disable-ed region`);
  }
}

const PACKET_TYPES: readonly PointerType[] = ['packet', 'packet_meta', 'packet_end'];

/** After a helper moved the packet's borders: packet pointers and slices become plain numbers. */
export function invalidatePackets(env: Env): void {
  const isOfPacket = ({ type, memory }: Pointer): boolean =>
    PACKET_TYPES.includes(type) || memory === 'packet';
  replaceValues(env.state, (value) =>
    value.kind === 'pointer' && isOfPacket(value) ? unknownScalar() : value,
  );
}

const SPIN_LOCK = 93;

/** bpf_spin_lock and bpf_spin_unlock on the map value or object in R`register`. */
export function lockOrUnlock(
  env: Env,
  helper: number,
  register: number,
  value: Pointer,
  record: BtfRecord | undefined,
): void {
  const { map } = value;
  if (value.variable) {
    env.refuse(
      'EINVAL',
      `R${register} doesn't have constant offset. bpf_spin_lock has to be at the constant offset`,
    );
  }
  if (map && !map.hasBtf) {
    env.refuse('EINVAL', `map '${map.name}' has to have BTF in order to use bpf_spin_lock`);
  }
  const offset = offsetOfField(record, 'bpf_spin_lock');
  if (offset === undefined) {
    const what = map ? `map '${map.name}'` : "local 'kptr'";
    env.refuse('EINVAL', `${what} has no valid bpf_spin_lock`);
  }
  if (offset !== value.off) {
    env.refuse(
      'EINVAL',
      `off ${value.off} doesn't point to 'struct bpf_spin_lock' that is at ${offset}`,
    );
  }
  const { lock } = env.state;
  const owner: object = map ?? value.btf ?? value;
  if (helper === SPIN_LOCK) {
    if (lock) env.refuse('EINVAL', 'Locking two bpf_spin_locks are not allowed');
    env.state.lock = { owner, id: value.id };
  } else if (!lock) {
    env.refuse('EINVAL', 'bpf_spin_unlock without taking a lock');
  } else if (lock.owner !== owner || lock.id !== value.id) {
    env.refuse('EINVAL', 'bpf_spin_unlock of different lock');
  } else {
    // what only a list or tree owns may be gone from here on
    replaceValues(env.state, (each) =>
      each.kind === 'pointer' && each.nonOwning ? unknownScalar() : each,
    );
    env.state.lock = undefined;
  }
}

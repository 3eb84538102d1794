/**
 * Which kernel functions programs may be attached to in ways that are not open for all.
 *
 * Reference: check_attach_modify_return, btf_non_sleepable_error_inject, btf_id_deny in
 * kernel/bpf/verifier.c; bpf_test_modify_return_ids in net/bpf/test_run.c; bpf_mptcp_fmodret_ids; bpf_lsm_hooks,
 * bpf_lsm_disabled_hooks, sleepable_lsm_hooks in kernel/bpf/bpf_lsm.c. A function is on the error injection
 * list when its `KernelFunction` says `errorInjection` (ALLOW_ERROR_INJECTION). Left out: hooks that the lab
 * has no function for.
 */
import type { KernelVersion } from '../../jit/profile.js';

/** Sets of register_btf_fmodret_id_set, with KF_SLEEPABLE or not: fmod_ret may be attached. */
const MODIFY_RETURN: ReadonlyMap<
  string,
  { readonly sleepable: boolean; readonly since: KernelVersion }
> = new Map([
  ['bpf_fentry_test1', { sleepable: true, since: '6.1' }],
  ['bpf_modify_return_test', { sleepable: false, since: '6.1' }],
  ['bpf_modify_return_test2', { sleepable: false, since: '6.12' }],
  // net/socket.c, since 6.6
  ['update_socket_protocol', { sleepable: false, since: '6.12' }],
]);

/** What no tracing program may be attached to: trampolines need it themselves. */
const DENIED: readonly string[] = [
  'migrate_disable',
  'migrate_enable',
  'rcu_read_unlock_strict',
  'preempt_count_add',
  'preempt_count_sub',
  '__rcu_read_lock',
  '__rcu_read_unlock',
];

/** LSM hooks during which a program may sleep. */
const SLEEPABLE_HOOKS: readonly string[] = [
  'bpf_lsm_bprm_check_security',
  'bpf_lsm_bprm_committed_creds',
  'bpf_lsm_file_open',
  'bpf_lsm_inode_create',
  'bpf_lsm_socket_bind',
  'bpf_lsm_task_alloc',
];

/** Hooks whose result has a meaning of its own (since 6.12). */
const DISABLED_HOOKS: readonly string[] = [
  'bpf_lsm_getprocattr',
  'bpf_lsm_inode_copy_up_xattr',
  'bpf_lsm_inode_getsecurity',
  'bpf_lsm_inode_listsecurity',
  'bpf_lsm_inode_need_killpriv',
  'bpf_lsm_setprocattr',
  'bpf_lsm_vm_enough_memory',
];

/** What is known of a kernel function besides its name. */
export interface KernelTarget {
  readonly name: string;
  /** ALLOW_ERROR_INJECTION */
  readonly errorInjection: boolean;
}

const ORDER: readonly KernelVersion[] = ['6.1', '6.12', '7.3'];

function modifyReturnFunction(
  name: string,
  version: KernelVersion,
): { readonly sleepable: boolean } | undefined {
  const found = MODIFY_RETURN.get(name);
  return found && ORDER.indexOf(found.since) <= ORDER.indexOf(version) ? found : undefined;
}

/** May fmod_ret change its result? */
export function isModifiable(
  { name, errorInjection }: KernelTarget,
  version: KernelVersion,
): boolean {
  return (
    errorInjection ||
    name.startsWith('security_') ||
    modifyReturnFunction(name, version) !== undefined
  );
}

/** May a tracing program sleep there? */
export function maySleep({ name, errorInjection }: KernelTarget, version: KernelVersion): boolean {
  return errorInjection || modifyReturnFunction(name, version)?.sleepable === true;
}

export function isDenied({ name }: KernelTarget): boolean {
  return DENIED.includes(name);
}

export type HookVerdict = 'hook' | 'disabled' | 'none';

/** Is it an LSM hook that programs may be attached to? */
export function hookVerdict(name: string, version: KernelVersion): HookVerdict {
  if (!name.startsWith('bpf_lsm_')) return 'none';
  return version !== '6.1' && DISABLED_HOOKS.includes(name) ? 'disabled' : 'hook';
}

export function isSleepableHook(name: string): boolean {
  return SLEEPABLE_HOOKS.includes(name);
}

/** What a program on an int hook may give: 0 or a negative errno (since 6.12; before: anything). */
export function hookResultRange(
  version: KernelVersion,
): { readonly min: bigint; readonly max: bigint } | undefined {
  return version === '6.1' ? undefined : { min: -4095n, max: 0n };
}

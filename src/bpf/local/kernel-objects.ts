/**
 * Objects of the kernel that maps and other objects may keep by a kptr: how they are given back.
 *
 * Reference: register_btf_id_dtor_kfuncs in kernel/bpf/helpers.c and cpumask.c; rcu_protected_types in
 * kernel/bpf/verifier.c. A task is not counted here: it lasts as long as its kernel.
 */
import type { BpfHost } from '../host.js';
import { releaseCpumask } from './cpumask.js';

const RELEASE: ReadonlyMap<string, (host: BpfHost, object: bigint) => void> = new Map([
  ['bpf_cpumask', releaseCpumask],
  ['task_struct', () => {}],
]);

/** Whether something gives such a struct back: then a referenced kptr may hold it. */
export function isReleasable(struct: string): boolean {
  return RELEASE.has(struct);
}

/** The destructor of such a struct. */
export function releaseKernelObject(host: BpfHost, struct: string, object: bigint): void {
  RELEASE.get(struct)?.(host, object);
}

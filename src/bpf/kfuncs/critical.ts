/**
 * Read-side critical sections and sections that cannot be preempted.
 *
 * The verifier keeps them paired; at run time they change nothing here, as a program runs to its end
 * on one CPU. Reference: kernel/bpf/helpers.c bpf_rcu_read_lock, bpf_preempt_disable.
 */
import type { KfuncRow } from './kfunc.js';

const nothing = (): void => {};

export const CRITICAL_KFUNCS: readonly KfuncRow[] = [
  { prototype: 'void bpf_rcu_read_lock(void)', flags: [], body: nothing },
  { prototype: 'void bpf_rcu_read_unlock(void)', flags: [], body: nothing },
  { prototype: 'void bpf_preempt_disable(void)', flags: [], body: nothing },
  { prototype: 'void bpf_preempt_enable(void)', flags: [], body: nothing },
];

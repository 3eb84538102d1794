/**
 * Kernel functions that programs of some kind may call, whether the lab has them or not.
 *
 * A program that names one of them loads as far as the call: there the verifier says that its kind may not call
 * it, or that the lab lacks it. Functions of one row were registered for the same kinds, in the kernel that `since` is or
 * the first model of one behind it. Reference: the sets of BTF_KFUNCS_START and their
 * register_btf_kfunc_id_set; kinds checked one by one against a running 6.18. Left out: modules.
 *
 * Usage:
 *   kernelKfunc('bpf_cpumask_create')?.kinds.includes('xdp'); // false
 */
import type { SectionKind } from '../object/spec.js';

/** Kernels that the lab models, in their order. */
const VERSIONS = ['6.1', '6.12', '7.3'] as const;
type Version = (typeof VERSIONS)[number];

interface KernelKfunc {
  readonly since: Version;
  readonly kinds: readonly SectionKind[];
}

/** BTF_KFUNC_HOOK_TRACING: programs of BPF_PROG_TYPE_TRACING and BPF_PROG_TYPE_LSM. */
const TRACING: readonly SectionKind[] = [
  'fentry',
  'fexit',
  'fmod_ret',
  'fsession',
  'lsm',
  'lsm_cgroup',
];
const PROBES: readonly SectionKind[] = ['kprobe', 'kretprobe', 'kprobe_multi', 'kretprobe_multi'];
/** generic_kfunc_set */
const GENERIC: readonly SectionKind[] = ['xdp', 'tc', ...TRACING, 'struct_ops'];
/** common_kfunc_set */
const ALL: readonly SectionKind[] = [...GENERIC, 'socket', ...PROBES];

const ROWS: readonly {
  readonly since: Version;
  readonly kinds: readonly SectionKind[];
  readonly names: string;
}[] = [
  {
    since: '6.12',
    kinds: ALL,
    names: `bpf_arena_alloc_pages bpf_arena_free_pages bpf_copy_from_user_str bpf_iter_bits_destroy
      bpf_iter_bits_new bpf_iter_bits_next bpf_iter_css_destroy bpf_iter_css_new bpf_iter_css_next
      bpf_iter_css_task_destroy bpf_iter_css_task_new bpf_iter_css_task_next bpf_iter_task_destroy
      bpf_iter_task_new bpf_iter_task_next bpf_iter_task_vma_destroy bpf_iter_task_vma_new
      bpf_iter_task_vma_next bpf_map_sum_elem_count bpf_modify_return_test_tp bpf_wq_init
      bpf_wq_set_callback_impl bpf_wq_start`,
  },
  {
    since: '7.3',
    kinds: ALL,
    names: `__bpf_trap bpf_arena_reserve_pages bpf_cgroup_read_xattr bpf_copy_from_user_dynptr
      bpf_copy_from_user_str_dynptr bpf_copy_from_user_task_dynptr bpf_copy_from_user_task_str
      bpf_copy_from_user_task_str_dynptr bpf_dynptr_copy bpf_dynptr_memset bpf_get_kmem_cache
      bpf_iter_dmabuf_destroy bpf_iter_dmabuf_new bpf_iter_dmabuf_next bpf_iter_kmem_cache_destroy
      bpf_iter_kmem_cache_new bpf_iter_kmem_cache_next bpf_local_irq_restore bpf_local_irq_save
      bpf_probe_read_kernel_dynptr bpf_probe_read_kernel_str_dynptr bpf_probe_read_user_dynptr
      bpf_probe_read_user_str_dynptr bpf_res_spin_lock bpf_res_spin_lock_irqsave bpf_res_spin_unlock
      bpf_res_spin_unlock_irqrestore bpf_strcasecmp bpf_strchr bpf_strchrnul bpf_strcmp bpf_strcspn
      bpf_stream_vprintk_impl bpf_strlen bpf_strnchr bpf_strnlen bpf_strnstr bpf_strrchr bpf_strspn
      bpf_strstr bpf_task_work_schedule_resume_impl bpf_task_work_schedule_signal_impl`,
  },
  {
    since: '6.1',
    kinds: GENERIC,
    names: 'bpf_key_put bpf_lookup_system_key bpf_lookup_user_key',
  },
  {
    since: '6.12',
    kinds: GENERIC,
    names: `bpf_cgroup_acquire bpf_cgroup_ancestor bpf_cgroup_from_id bpf_cgroup_release
      bpf_list_pop_back bpf_list_pop_front bpf_list_push_back_impl bpf_list_push_front_impl
      bpf_obj_drop_impl bpf_obj_new_impl bpf_percpu_obj_drop_impl bpf_percpu_obj_new_impl
      bpf_rbtree_add_impl bpf_rbtree_first bpf_rbtree_remove bpf_refcount_acquire_impl bpf_task_acquire
      bpf_task_from_pid bpf_task_get_cgroup1 bpf_task_release bpf_task_under_cgroup bpf_throw`,
  },
  {
    since: '7.3',
    kinds: GENERIC,
    names: `bpf_list_back bpf_list_front bpf_rbtree_left bpf_rbtree_right bpf_rbtree_root
      bpf_send_signal_task bpf_task_from_vpid`,
  },
  {
    since: '6.1',
    kinds: ['xdp', 'tc'],
    names: `bpf_ct_change_status bpf_ct_change_timeout bpf_ct_insert_entry bpf_ct_release
      bpf_ct_set_nat_info bpf_ct_set_status bpf_ct_set_timeout bpf_skb_ct_alloc bpf_skb_ct_lookup
      bpf_xdp_ct_alloc bpf_xdp_ct_lookup`,
  },
  { since: '6.12', kinds: ['xdp', 'tc'], names: 'bpf_crypto_decrypt bpf_crypto_encrypt' },
  {
    since: '6.12',
    kinds: ['xdp'],
    names: 'bpf_xdp_flow_lookup bpf_xdp_get_xfrm_state bpf_xdp_xfrm_state_release',
  },
  { since: '7.3', kinds: ['xdp'], names: 'bpf_xdp_pull_data' },
  { since: '6.12', kinds: ['tc', 'socket', ...TRACING], names: 'bpf_dynptr_from_skb' },
  {
    since: '6.1',
    kinds: ['tc'],
    names: 'bpf_kfunc_call_memb_release bpf_kfunc_call_test_release',
  },
  { since: '6.12', kinds: ['tc'], names: 'bpf_sk_assign_tcp_reqsk' },
  { since: '7.3', kinds: ['tc'], names: 'bpf_dynptr_from_skb_meta' },
  {
    since: '6.12',
    kinds: [...TRACING, 'struct_ops'],
    names: `bpf_cpumask_acquire bpf_cpumask_and bpf_cpumask_any_and_distribute
      bpf_cpumask_any_distribute bpf_cpumask_clear bpf_cpumask_clear_cpu bpf_cpumask_copy
      bpf_cpumask_create bpf_cpumask_empty bpf_cpumask_equal bpf_cpumask_first bpf_cpumask_first_and
      bpf_cpumask_first_zero bpf_cpumask_full bpf_cpumask_intersects bpf_cpumask_or bpf_cpumask_release
      bpf_cpumask_set_cpu bpf_cpumask_setall bpf_cpumask_subset bpf_cpumask_test_and_clear_cpu
      bpf_cpumask_test_and_set_cpu bpf_cpumask_test_cpu bpf_cpumask_weight bpf_cpumask_xor`,
  },
  { since: '7.3', kinds: [...TRACING, 'struct_ops'], names: 'bpf_cpumask_populate' },
  {
    since: '6.12',
    kinds: ['lsm', 'lsm_cgroup'],
    names: `bpf_get_dentry_xattr bpf_get_file_xattr bpf_get_task_exe_file bpf_path_d_path bpf_put_file`,
  },
  {
    since: '7.3',
    kinds: ['lsm', 'lsm_cgroup'],
    names: 'bpf_remove_dentry_xattr bpf_set_dentry_xattr',
  },
  { since: '6.12', kinds: PROBES, names: 'bpf_session_cookie bpf_session_is_return' },
  {
    since: '6.1',
    kinds: ['struct_ops'],
    names: `bbr_cwnd_event bbr_init bbr_main bbr_min_tso_segs bbr_set_state bbr_sndbuf_expand
      bbr_ssthresh bbr_undo_cwnd cubictcp_acked cubictcp_cong_avoid cubictcp_cwnd_event cubictcp_init
      cubictcp_recalc_ssthresh cubictcp_state tcp_cong_avoid_ai tcp_reno_cong_avoid tcp_reno_ssthresh
      tcp_reno_undo_cwnd tcp_slow_start`,
  },
  // for kinds that no section here stands for: cgroups, syscall programs, socket iterators
  {
    since: '6.12',
    kinds: [],
    names: `bpf_crypto_ctx_acquire bpf_crypto_ctx_create bpf_crypto_ctx_release
      bpf_sock_addr_set_sun_path bpf_sock_destroy`,
  },
  {
    since: '7.3',
    kinds: [],
    names: 'bpf_sock_ops_enable_tx_tstamp css_rstat_flush css_rstat_updated',
  },
];

const BY_NAME: ReadonlyMap<string, KernelKfunc> = new Map(
  ROWS.flatMap(({ names, since, kinds }) =>
    names.split(/\s+/).map((name) => [name, { since, kinds }] as const),
  ),
);

/** What is known of a kernel function of that name; undefined when it is none that programs may call. */
export function kernelKfunc(name: string): KernelKfunc | undefined {
  return BY_NAME.get(name);
}

/** Whether a kernel of that version has it. */
export function hasKernelKfunc(name: string, version: Version): boolean {
  const known = BY_NAME.get(name);
  return known !== undefined && VERSIONS.indexOf(known.since) <= VERSIONS.indexOf(version);
}

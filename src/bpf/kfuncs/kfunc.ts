/**
 * What a kernel function that programs may call by name is: its C prototype, flags, who may call it, body.
 *
 * The prototype says what the verifier checks, in the kernel's way: `__sz` is the size of the argument in
 * front, `__szk` a constant one, `__k` a constant, `__ign` not looked at, `__uninit` filled by the call,
 * `__nullable` and `__opt` may be NULL, `__alloc` and `__refcounted_kptr` are objects of the program. Flags are those of include/linux/btf.h. Reference:
 * Documentation/bpf/kfuncs.rst.
 */
import type { HelperBody } from '../host.js';
import type { SectionKind } from '../object/spec.js';

export type KfuncFlag =
  /** The result must be given back; the argument is given back. */
  | 'KF_ACQUIRE'
  | 'KF_RELEASE'
  /** The result may be NULL. */
  | 'KF_RET_NULL'
  /** No argument may be NULL; pointers are valid for sure. */
  | 'KF_TRUSTED_ARGS'
  /** The same, or pointers are valid in the RCU critical section. */
  | 'KF_RCU'
  | 'KF_ITER_NEW'
  | 'KF_ITER_NEXT'
  | 'KF_ITER_DESTROY';

/** BPF_PROG_TYPE_TRACING, LSM and STRUCT_OPS. */
export const TRACING_KINDS: readonly SectionKind[] = [
  'fentry',
  'fexit',
  'fmod_ret',
  'fsession',
  'lsm',
  'lsm_cgroup',
  'struct_ops',
];
/** Who may call what works on objects (generic_kfunc_set). */
export const GENERIC_KINDS: readonly SectionKind[] = ['xdp', 'tc', ...TRACING_KINDS];

export interface Kfunc {
  /** Its number here; engines reach it like a helper, by address. */
  readonly id: number;
  readonly name: string;
  /** As its kernel declares it: `int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end)`. */
  readonly prototype: string;
  readonly flags: readonly KfuncFlag[];
  /** Program kinds that may call it. Default: all. */
  readonly kinds?: readonly SectionKind[];
  /** Only for programs that are bound to a device. Default: false. */
  readonly deviceBound?: boolean;
  readonly body: HelperBody;
}

/** A row of the table: the name is in the prototype, the number is its place. */
export type KfuncRow = Omit<Kfunc, 'id' | 'name'>;

/**
 * Objects that programs allocate: new, drop, one more reference; the same for memory that each CPU has.
 *
 * The loader puts the object's size and the record of its fields in front of a call (`object/inline-kfuncs.ts`).
 * Reference: bpf_obj_new_impl and kin in kernel/bpf/helpers.c; what happens is in `local/objects.ts`.
 */
import { argument, setResult64 } from '../helpers/helper.js';
import { GENERIC_KINDS, type KfuncRow } from './kfunc.js';

const NEW = ['KF_ACQUIRE', 'KF_RET_NULL'] as const;

export const OBJECT_KFUNCS: readonly KfuncRow[] = [
  {
    prototype: 'void *bpf_obj_new_impl(u64 local_type_id__k, void *meta__ign)',
    flags: NEW,
    kinds: GENERIC_KINDS,
    body: (registers, host) => {
      const record = host.objects.recordAt(argument(registers, 2));
      const size = Number(argument(registers, 1));
      setResult64(registers, host.objects.create(host, size, record));
    },
  },
  {
    prototype: 'void *bpf_percpu_obj_new_impl(u64 local_type_id__k, void *meta__ign)',
    flags: NEW,
    kinds: GENERIC_KINDS,
    body: (registers, host) => {
      const size = Number(argument(registers, 1));
      setResult64(registers, host.objects.createPerCpu(host, size));
    },
  },
  {
    prototype: 'void bpf_obj_drop_impl(void *p__alloc, void *meta__ign)',
    flags: ['KF_RELEASE'],
    kinds: GENERIC_KINDS,
    body: (registers, host) => {
      const record = host.objects.recordAt(argument(registers, 2));
      host.objects.drop(host, argument(registers, 1), record);
    },
  },
  {
    prototype: 'void bpf_percpu_obj_drop_impl(void *p__alloc, void *meta__ign)',
    flags: ['KF_RELEASE'],
    kinds: GENERIC_KINDS,
    body: (registers, host) => host.objects.dropPerCpu(host, argument(registers, 1)),
  },
  {
    prototype: 'void *bpf_refcount_acquire_impl(void *p__refcounted_kptr, void *meta__ign)',
    flags: ['KF_ACQUIRE', 'KF_RET_NULL', 'KF_RCU'],
    kinds: GENERIC_KINDS,
    body: (registers, host) => {
      const object = argument(registers, 1);
      const record = host.objects.recordAt(argument(registers, 2));
      const isAlive = record !== undefined && host.objects.acquire(host, object, record);
      setResult64(registers, isAlive ? object : 0n);
    },
  },
];

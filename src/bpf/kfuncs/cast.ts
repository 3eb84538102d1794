/**
 * Kernel functions that only change what the verifier knows of a pointer; the loader makes `r0 = r1` of
 * their calls.
 *
 * Reference: kernel/bpf/helpers.c bpf_cast_to_kern_ctx, bpf_rdonly_cast; fixup_kfunc_call in
 * kernel/bpf/verifier.c.
 */
import { argument, setResult64 } from '../helpers/helper.js';
import type { HelperBody } from '../host.js';
import type { KfuncRow } from './kfunc.js';

const same: HelperBody = (registers) => setResult64(registers, argument(registers, 1));

export const CAST_KFUNCS: readonly KfuncRow[] = [
  { prototype: 'void *bpf_cast_to_kern_ctx(void *obj)', flags: [], body: same },
  {
    prototype: 'void *bpf_rdonly_cast(const void *obj__ign, u32 btf_id__k)',
    flags: [],
    body: same,
  },
];

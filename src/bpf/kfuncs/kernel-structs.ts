/**
 * Structs of the kernel by name: those of its BTF, and those that kernel functions for programs have.
 *
 * Reference: bpf_find_btf_id, btf_find_dtor_kfunc in kernel/bpf/btf.c.
 */
import type { Btf } from '../btf/btf.js';
import type { KernelStruct } from '../btf/record-parse.js';
import { isReleasable } from '../local/kernel-objects.js';
import { KFUNC_BTF } from './table.js';

/** Finds structs in the kernel's BTF, or where there is none among those that kernel functions name. */
export function kernelStructs(
  kernelBtf: Btf | undefined,
): (name: string) => KernelStruct | undefined {
  return (name) => {
    for (const btf of [kernelBtf, KFUNC_BTF]) {
      const typeId = btf?.find('struct', name);
      if (btf && typeId !== undefined) return { btf, typeId, isReleasable: isReleasable(name) };
    }
    return undefined;
  };
}

/**
 * Kernel functions that an object declares as `extern ... __ksym`: whether the kernel has them.
 *
 * A function is there when the kernel has one of its name, `___flavour` aside, whose prototype is compatible:
 * as many arguments, of the same kinds. A weak one that is not there, or is different, is 0. Reference:
 * bpf_object__resolve_ksym_func_btf_id of libbpf.
 */
import { KernelError } from '../../common/errors.js';
import type { Btf } from '../btf/btf.js';
import { typesCompatible } from '../btf/core-compat.js';
import { essentialName } from '../btf/core-spec.js';
import type { BpfHost } from '../host.js';
import { findKfunc, KFUNC_BTF } from '../kfuncs/table.js';
import type { ExternSpec } from './spec.js';

/**
 * Address of the function; undefined when it is weak and not there. Throws KernelError, with `where` it is
 * needed.
 */
export function kfuncAddress(
  { name, weak, type }: ExternSpec,
  btf: Btf | undefined,
  host: BpfHost,
  where: string,
): bigint | undefined {
  const essential = essentialName(name);
  const address = host.kfuncAddress?.(essential);
  if (address === undefined) {
    if (weak) return undefined;
    throw missingExtern(name, 'function', where);
  }
  const func = KFUNC_BTF.find('func', essential);
  const prototype = func === undefined ? undefined : KFUNC_BTF.as(func, 'func')?.type;
  if (!btf || prototype === undefined || typesCompatible(btf, type, KFUNC_BTF, prototype)) {
    return address;
  }
  if (weak) return undefined;
  const expected = findKfunc(essential)?.prototype ?? '';
  throw new KernelError(
    'EINVAL',
    `extern '${name}' (__ksym): declared otherwise than '${expected}': ${where}`,
  );
}

/** Whether the kernel has the function, and the lab does not. */
export function isForeignKfunc(name: string, host: BpfHost, kernelBtf: Btf | undefined): boolean {
  const essential = essentialName(name);
  if (host.kfuncAddress?.(essential) !== undefined) return false;
  return host.hasKfunc?.(essential) === true || kernelBtf?.find('func', essential) !== undefined;
}

export function missingExtern(name: string, what: string, where: string): KernelError {
  return new KernelError(
    'ESRCH',
    `extern '${name}' (__ksym): the kernel has no such ${what}: ${where}`,
  );
}

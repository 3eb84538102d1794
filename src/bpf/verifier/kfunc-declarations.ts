/**
 * Which kernel functions a program calls where, and what must hold of it for that.
 *
 * Reference: add_kfunc_call in kernel/bpf/verifier.c, bpf_dev_bound_kfunc_check in kernel/bpf/offload.c.
 */
import type { BtfTypeOf } from '../btf/types.js';
import type { Kfunc } from '../kfuncs/kfunc.js';
import { findKfunc, KFUNC_BTF } from '../kfuncs/table.js';
import { Refusal } from './error.js';
import type { VerifierFunction, VerifierInput } from './input.js';

export type Prototype = BtfTypeOf<'func_proto'>;

/** What must hold of a program that calls kernel functions at all, reached or not. */
export function checkKfuncsDeclared({ functions, gpl, deviceBound }: VerifierInput): void {
  for (const [fn, { kfuncs }] of functions.entries()) {
    for (const [at, name] of kfuncs) {
      if (!gpl) {
        const reason = 'cannot call kernel function from non-GPL compatible program';
        throw new Refusal('EINVAL', reason, fn, at, '');
      }
      if (findKfunc(name)?.deviceBound && !deviceBound) {
        throw new Refusal('EINVAL', 'metadata kfuncs require device-bound program', fn, at, '');
      }
    }
  }
}

/** The kernel function that is called at a slot; undefined when the call is none of a known one. */
export function kfuncAt({ kfuncs }: VerifierFunction, at: number): Kfunc | undefined {
  const name = kfuncs.get(at);
  return name === undefined ? undefined : findKfunc(name);
}

/** How many arguments a kernel function takes. */
export function kfuncParameters({ name }: Kfunc): number {
  return prototypeOf(name)?.parameters.length ?? 0;
}

export function prototypeOf(name: string): Prototype | undefined {
  const func = KFUNC_BTF.find('func', name);
  const type = func === undefined ? undefined : KFUNC_BTF.as(func, 'func')?.type;
  return type === undefined ? undefined : KFUNC_BTF.as(type, 'func_proto');
}

/**
 * Does a function of one BTF have the prototype that one of another has: what freplace asks.
 *
 * Reference: btf_check_func_type_match in kernel/bpf/btf.c. Global functions take numbers and pointers only; a
 * pointer to a structure matches one to a structure of the same name.
 */
import type { Btf } from '../../bpf/btf/btf.js';
import type { BtfType } from '../../bpf/btf/types.js';

/** A function in its BTF. */
export interface FunctionInBtf {
  readonly btf: Btf;
  /** Id of its `func`. */
  readonly id: number;
}

/** Why `one` cannot stand for `other`; undefined when it can. */
export function functionMismatch(one: FunctionInBtf, other: FunctionInBtf): string | undefined {
  const [a, b] = [one, other].map(({ btf, id }) => {
    const fn = btf.as(id, 'func');
    const prototype = fn && btf.as(fn.type, 'func_proto');
    return fn && prototype ? { name: fn.name, ...prototype } : undefined;
  });
  if (!a || !b) return 'a function has no BTF';
  if (a.parameters.length !== b.parameters.length) {
    return `${a.name}() has ${a.parameters.length} args while ${b.name}() has ${b.parameters.length} args`;
  }
  const results = typeMismatch(one.btf, a.returnType, other.btf, b.returnType);
  if (results)
    return `Return type ${results.is} of ${a.name}() doesn't match type ${results.has} of ${b.name}()`;
  for (const [i, parameter] of a.parameters.entries()) {
    const differ = typeMismatch(one.btf, parameter.type, other.btf, b.parameters[i]?.type ?? 0);
    if (differ) return `arg${i} in ${a.name}() is ${differ.is} while ${b.name}() has ${differ.has}`;
  }
  return undefined;
}

function typeMismatch(
  a: Btf,
  idA: number,
  b: Btf,
  idB: number,
): { readonly is: string; readonly has: string } | undefined {
  const [one, other] = [a.resolve(idA), b.resolve(idB)];
  const is = { is: describe(one), has: describe(other) };
  if (one.kind !== other.kind) return is;
  if (one.kind === 'ptr' && other.kind === 'ptr') {
    const [to, toOther] = [a.resolve(one.type), b.resolve(other.type)];
    const same = to.kind === toOther.kind && nameOf(to) === nameOf(toOther);
    return same ? undefined : { is: `${describe(to)} *`, has: `${describe(toOther)} *` };
  }
  return sizeOf(one) === sizeOf(other) ? undefined : is;
}

function nameOf(type: BtfType): string {
  return 'name' in type ? type.name : '';
}

function describe(type: BtfType): string {
  const name = nameOf(type);
  return type.kind === 'struct' ? `struct ${name}` : name === '' ? type.kind : name;
}

function sizeOf(type: BtfType): number {
  return 'size' in type ? type.size : 0;
}

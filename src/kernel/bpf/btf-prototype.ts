/**
 * The prototype of a function from its BTF, as `parsePrototype` gives one from C text.
 *
 * Reference: btf_distill_func_proto in kernel/bpf/btf.c. Usage:
 *   prototypeFromBtf({ btf, id }).parameters;
 */
import { typeName } from '../../bpf/btf/print.js';
import type { Prototype } from '../prototype.js';
import type { FunctionInBtf } from './function-match.js';

/** Undefined where there is no function or no prototype. */
export function prototypeFromBtf({ btf, id }: FunctionInBtf): Prototype | undefined {
  const fn = btf.as(id, 'func');
  const prototype = fn && btf.as(fn.type, 'func_proto');
  if (!fn || !prototype) return undefined;
  const size = (type: number): number => (btf.resolve(type).kind === 'void' ? 0 : btf.sizeOf(type));
  return {
    name: fn.name,
    parameters: prototype.parameters.map(({ name, type }, i) => {
      const { kind } = btf.resolve(type);
      return {
        name: name === '' ? `arg${i}` : name,
        type: typeName(btf, type),
        size: size(type),
        struct: kind === 'struct' || kind === 'union',
      };
    }),
    returnType: typeName(btf, prototype.returnType),
    returnSize: size(prototype.returnType),
  };
}

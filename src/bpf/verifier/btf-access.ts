/**
 * Loads through pointers to the kernel's structs: what the struct's BTF says is there.
 *
 * A member that points to a struct gives a pointer that may be followed further, though it may be stale:
 * loads through such a pointer do not fault. Reference: check_ptr_to_btf_access in kernel/bpf/verifier.c,
 * btf_struct_walk in kernel/bpf/btf.c. Left out: bit fields as such, flexible arrays.
 */
import type { Btf } from '../btf/btf.js';
import type { Env } from './env.js';
import { unknownScalar, unsignedScalar } from './scalar.js';
import { Pointer, variableText, type Value } from './value.js';

/** What is at an offset: a pointer to a struct, anything else, or nothing. */
type Found =
  | { readonly kind: 'pointer'; readonly struct: number }
  | { readonly kind: 'number' }
  | { readonly kind: 'nothing'; readonly reason: string };

export function loadFromStruct(
  env: Env,
  register: number,
  base: Pointer,
  off: number,
  size: number,
): Value {
  const btf = env.input.kernelBtf;
  const struct = btf?.types[base.btfId];
  if (!btf || struct?.kind !== 'struct')
    return env.refuse('EACCES', `R${register} invalid mem access 'ptr_'`);
  const start = base.off + off;
  if (base.variable) {
    env.refuse(
      'EACCES',
      `R${register} is ptr_${struct.name} invalid variable offset: off=${start}, var_off=${variableText(base)}`,
    );
  }
  if (start < 0) {
    env.refuse(
      'EACCES',
      `R${register} is ptr_${struct.name} invalid negative access: off=${start}`,
    );
  }
  const found = fieldAt(btf, base.btfId, start, size);
  env.noteAccess(base.untrusted ? 'probe' : 'btf');
  switch (found.kind) {
    case 'nothing':
      return env.refuse('EACCES', found.reason);
    case 'pointer':
      return new Pointer('btf', { btfId: found.struct, untrusted: true });
    case 'number':
      return size === 8 ? unknownScalar() : unsignedScalar((1n << BigInt(8 * size)) - 1n);
  }
}

function fieldAt(btf: Btf, id: number, off: number, size: number): Found {
  const type = btf.resolve(id);
  switch (type.kind) {
    case 'array': {
      const element = btf.sizeOf(type.type);
      return fieldAt(btf, type.type, element > 0 ? off % element : 0, size);
    }
    case 'struct':
    case 'union': {
      if (off + size > type.size) {
        const reason = `access beyond struct ${type.name} at off ${off} size ${size}`;
        return { kind: 'nothing', reason };
      }
      const member = type.members.findLast(
        (each) => each.bitOffset <= 8 * off && endOf(btf, each) > 8 * off,
      );
      if (!member) {
        const reason = `struct ${type.name} doesn't have field at offset ${off}`;
        return { kind: 'nothing', reason };
      }
      return fieldAt(btf, member.type, off - Math.floor(member.bitOffset / 8), size);
    }
    case 'ptr':
      if (off !== 0 || size !== 8) {
        return { kind: 'nothing', reason: `cannot access ptr member with off ${off} size ${size}` };
      }
      return btf.resolve(type.type).kind === 'struct'
        ? { kind: 'pointer', struct: btf.resolveId(type.type) }
        : { kind: 'number' };
    default:
      return { kind: 'number' };
  }
}

function endOf(
  btf: Btf,
  { bitOffset, bitSize, type }: { bitOffset: number; bitSize: number; type: number },
): number {
  return bitOffset + (bitSize > 0 ? bitSize : 8 * btf.sizeOf(type));
}

/**
 * Loads through pointers to structures whose type BTF tells (PTR_TO_BTF_ID), and stores into objects of the program.
 *
 * A load gives a number, or where the member is a pointer to a structure, again such a pointer. Reference:
 * check_ptr_to_btf_access in kernel/bpf/verifier.c, btf_struct_walk in kernel/bpf/btf.c. Left out: stores
 * (what the structures of some struct_ops allow), members that are RCU-protected, type tags.
 */
import type { Btf } from '../btf/btf.js';
import { fieldName, touchedField } from '../btf/record.js';
import type { BtfMember, BtfType } from '../btf/types.js';
import type { Env } from './env.js';
import { unknownScalar, unsignedScalar, type Scalar } from './scalar.js';
import { Pointer, structName, variableText, type Value } from './value.js';

/** Structures inside structures that one access may go through. */
const MAX_NESTING = 32;

/** What a load of `size` bytes gives. */
export function loadThrough(
  env: Env,
  register: number,
  base: Pointer,
  off: number,
  size: number,
): Value {
  const at = placeThrough(env, register, base, off);
  const { btf } = base;
  if (!btf) return unknownOf(size);
  const found = reach(env, base, at, size);
  if (base.alloc && !base.untrusted) env.noteAccess('object');
  else env.noteAccess(base.trusted || base.rcu || base.ref !== 0 ? 'trusted' : 'kernel');
  switch (found.kind) {
    case 'scalar':
      return unknownOf(size);
    case 'pointer':
      // what an object of the program holds is a number
      if (base.alloc) return unknownOf(size);
      return new Pointer('btf', {
        btf,
        typeId: found.type,
        untrusted: base.untrusted || found.untrusted,
      });
    case 'refused':
      return env.refuse('EACCES', found.why);
  }
}

/** `size` bytes are read, of whatever kind. */
export function readThrough(env: Env, register: number, base: Pointer, size: number): void {
  const found = reach(env, base, placeThrough(env, register, base, 0), size);
  if (found.kind === 'refused') env.refuse('EACCES', found.why);
}

/** A store of `size` bytes: only into objects that the program allocated. */
export function storeThrough(
  env: Env,
  register: number,
  base: Pointer,
  off: number,
  size: number,
): void {
  const at = placeThrough(env, register, base, off);
  if (base.untrusted || !base.alloc) env.refuse('EACCES', 'only read is supported');
  const found = reach(env, base, at, size);
  if (found.kind === 'refused') env.refuse('EACCES', found.why);
  env.noteAccess('object');
}

/** Where in the struct an access is. */
function placeThrough(env: Env, register: number, base: Pointer, off: number): number {
  const name = `ptr_${structName(base)}`;
  const at = base.off + off;
  if (at < 0) {
    env.refuse('EACCES', `R${register} is ${name} invalid negative access: off=${at}`);
  }
  if (base.variable) {
    env.refuse(
      'EACCES',
      `R${register} is ${name} invalid variable offset: off=${at}, var_off=${variableText(base)}`,
    );
  }
  if (base.perCpu) env.refuse('EACCES', `R${register} is ${name} access percpu memory: off=${at}`);
  return at;
}

function reach(env: Env, { btf, typeId, alloc }: Pointer, at: number, size: number): Found {
  if (!btf) return SCALAR;
  const record = alloc ? env.input.types?.recordOf(typeId) : undefined;
  const field = touchedField(record, at, at + size);
  if (field) return refused(`direct access to ${fieldName(field.kind)} is disallowed`);
  return walk({ btf, endless: !alloc }, btf.at(typeId), at, size, 0);
}

type Found =
  | { readonly kind: 'scalar' }
  /** Untrusted: from a union, which may hold something else. */
  | { readonly kind: 'pointer'; readonly type: number; readonly untrusted: boolean }
  | { readonly kind: 'refused'; readonly why: string };

const SCALAR: Found = { kind: 'scalar' };

interface Walk {
  readonly btf: Btf;
  /** Whether an array without a length at the end goes on: not in objects of the program. */
  readonly endless: boolean;
}

function walk(how: Walk, type: BtfType, off: number, size: number, depth: number): Found {
  if (type.kind !== 'struct' && type.kind !== 'union') {
    const name = 'name' in type ? type.name : type.kind;
    return refused(`Type '${name}' is not a struct`);
  }
  const { btf, endless } = how;
  const last = type.members.at(-1);
  const isFlexible =
    endless &&
    type.kind === 'struct' &&
    last !== undefined &&
    isEndless(btf, last) &&
    off >= type.size;
  if (off + size > type.size && !isFlexible) {
    return refused(`access beyond struct ${type.name} at off ${off} size ${size}`);
  }
  // members of a union overlap: the first that the access lies in counts
  if (type.kind === 'union' && type.members.length !== 1) {
    const found = walkMembers(how, type, off, size, depth);
    return found.kind === 'pointer' ? { ...found, untrusted: true } : found;
  }
  return walkMembers(how, type, off, size, depth);
}

function walkMembers(
  how: Walk,
  type: Extract<BtfType, { kind: 'struct' | 'union' }>,
  off: number,
  size: number,
  depth: number,
): Found {
  const { btf } = how;
  for (const member of type.members) {
    const start = Math.floor(member.bitOffset / 8);
    const bytes =
      member.bitSize > 0
        ? Math.ceil(((member.bitOffset % 8) + member.bitSize) / 8)
        : memberSize(btf, member);
    // arrays of nothing in the middle only mark a place
    const isOpen = member === type.members.at(-1) && isEndless(btf, member);
    const end = isOpen ? Infinity : start + bytes;
    if (off + size <= start) break;
    if (off >= end) continue;
    if (member.bitSize > 0) return SCALAR;
    if (off < start || off + size > end) {
      return refused(
        `access beyond the end of member ${member.name} (mend:${end}) in struct ${type.name} with off ${off} size ${size}`,
      );
    }
    return walkMember(how, member.type, member.name, off - start, size, depth, type.name);
  }
  return refused(`struct ${type.name} doesn't have field at offset ${off}`);
}

function walkMember(
  how: Walk,
  id: number,
  name: string,
  off: number,
  size: number,
  depth: number,
  struct: string,
): Found {
  const { btf } = how;
  const inner = btf.resolve(id);
  switch (inner.kind) {
    case 'struct':
    case 'union':
      return depth >= MAX_NESTING ? SCALAR : walk(how, inner, off, size, depth + 1);
    case 'array': {
      const element = btf.sizeOf(inner.type);
      if (element === 0) return SCALAR;
      return walkMember(how, inner.type, name, off % element, size, depth + 1, struct);
    }
    case 'ptr': {
      if (off !== 0 || size !== 8) {
        return refused(
          `cannot access ptr member ${name} with moff 0 in struct ${struct} with off ${off} size ${size}`,
        );
      }
      const target = btf.resolve(inner.type);
      return target.kind === 'struct' || target.kind === 'union'
        ? { kind: 'pointer', type: btf.resolveId(inner.type), untrusted: false }
        : SCALAR;
    }
    default:
      return SCALAR;
  }
}

function isEndless(btf: Btf, { type }: BtfMember): boolean {
  const array = btf.resolve(type);
  return array.kind === 'array' && array.count === 0;
}

function memberSize(btf: Btf, { type }: BtfMember): number {
  return btf.resolve(type).kind === 'fwd' ? 0 : btf.sizeOf(type);
}

function refused(why: string): Found {
  return { kind: 'refused', why };
}

function unknownOf(size: number): Scalar {
  return size === 8 ? unknownScalar() : unsignedScalar((1n << BigInt(8 * size)) - 1n);
}

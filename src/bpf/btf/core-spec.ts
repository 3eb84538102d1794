/**
 * What a CO-RE relocation points at: a type, a field reached through a chain of members and array
 * elements, or a value of an enum; and the same thing found in another table of types.
 *
 * Reference: bpf_core_parse_spec in tools/lib/bpf/relo_core.c. An access string such as `0:1:2` means
 * `(&root[0])->member1.member2`. Anonymous structs and unions on the way are no steps of their own:
 * only named members and array indices are compared with the target.
 *
 * Usage:
 *   const spec = parseCoreAccess(btf, relocation.type, '0:1', 'field');
 */
import { InputError } from '../../common/errors.js';
import type { Btf } from './btf.js';
import type { BtfMember, BtfTypeOf } from './types.js';

/** enum bpf_core_relo_kind. */
export const CORE_KIND = {
  FIELD_BYTE_OFFSET: 0,
  FIELD_BYTE_SIZE: 1,
  FIELD_EXISTS: 2,
  FIELD_SIGNED: 3,
  FIELD_LSHIFT_U64: 4,
  FIELD_RSHIFT_U64: 5,
  TYPE_ID_LOCAL: 6,
  TYPE_ID_TARGET: 7,
  TYPE_EXISTS: 8,
  TYPE_SIZE: 9,
  ENUMVAL_EXISTS: 10,
  ENUMVAL_VALUE: 11,
  TYPE_MATCHES: 12,
} as const;

/** What is asked about, by kind number. */
export const CORE_SUBJECTS = [
  ...Array<'field'>(6).fill('field'),
  ...Array<'type'>(4).fill('type'),
  'enumval',
  'enumval',
  'type',
] as const;

export type CoreSubject = (typeof CORE_SUBJECTS)[number];

/** One step: a member of a struct or union, an element, or a value of an enum. */
export interface CoreStep {
  /** The struct, union or enum that `index` counts in; for an element its own type. */
  readonly type: number;
  readonly index: number;
  /** Of a member or enum value; undefined for elements. */
  readonly name?: string;
}

export interface CoreSpec {
  readonly btf: Btf;
  readonly root: number;
  readonly steps: readonly CoreStep[];
  /** Bits from the start of the root. */
  readonly bitOffset: number;
}

/** Steps that one access may have (BPF_CORE_SPEC_MAX_LEN). */
export const MAX_STEPS = 64;

/** The name without its flavour: `task_struct___old` is `task_struct`. */
export function essentialName(name: string): string {
  const match = /^(.*[^_])___[^_]/.exec(name);
  return match?.[1] ?? name;
}

export function isComposite(kind: string): kind is 'struct' | 'union' {
  return kind === 'struct' || kind === 'union';
}

/** Array without a length at the end of a struct: any index is inside. */
export function isFlexible(
  btf: Btf,
  step: CoreStep | undefined,
  array: BtfTypeOf<'array'>,
): boolean {
  if (array.count !== 0 || step?.name === undefined) return false;
  const owner = btf.at(step.type);
  return isComposite(owner.kind) && 'members' in owner && step.index === owner.members.length - 1;
}

/** Throws InputError when the access string does not fit the types. */
export function parseCoreAccess(
  btf: Btf,
  root: number,
  access: string,
  subject: CoreSubject,
): CoreSpec {
  const wrong = (why: string): InputError =>
    new InputError(`CO-RE access '${access}' of BTF type ${root}: ${why}`);
  if (!/^\d{1,9}(:\d{1,9})*$/.test(access)) throw wrong('not numbers with colons between');
  const indices = access.split(':').map(Number);
  if (indices.length > MAX_STEPS) throw wrong(`over ${MAX_STEPS} steps`);
  const [first = 0, ...others] = indices;
  if (subject === 'type') {
    if (access !== '0') throw wrong('a type is accessed as 0');
    return { btf, root, steps: [], bitOffset: 0 };
  }
  let id = btf.resolveId(root);
  if (subject === 'enumval') {
    const type = btf.at(id);
    const value = type.kind === 'enum' || type.kind === 'enum64' ? type.values[first] : undefined;
    if (!value || others.length > 0) throw wrong('no such enum value');
    return { btf, root, steps: [{ type: id, index: first, name: value.name }], bitOffset: 0 };
  }
  const steps: CoreStep[] = [{ type: id, index: first }];
  let bitOffset = first * btf.sizeOf(id) * 8;
  for (const index of others) {
    const type = btf.resolve(id);
    switch (type.kind) {
      case 'struct':
      case 'union': {
        const member = type.members[index];
        if (!member) throw wrong(`${type.kind} ${type.name} has ${type.members.length} members`);
        bitOffset += member.bitOffset;
        if (member.name !== '') {
          steps.push({ type: btf.resolveId(id), index, name: member.name });
        }
        id = member.type;
        break;
      }
      case 'array': {
        if (index >= type.count && !isFlexible(btf, steps.at(-1), type)) {
          throw wrong(`index ${index} of an array of ${type.count}`);
        }
        id = btf.resolveId(type.type);
        steps.push({ type: id, index });
        bitOffset += index * btf.sizeOf(id) * 8;
        break;
      }
      default:
        throw wrong(`a ${type.kind} has no members`);
    }
  }
  return { btf, root, steps, bitOffset };
}

/** The member that a step names. */
export function memberOf(btf: Btf, step: CoreStep): BtfMember {
  const type = btf.at(step.type);
  const member = isComposite(type.kind) && 'members' in type ? type.members[step.index] : undefined;
  if (!member) throw new InputError(`BTF type ${step.type} has no member ${step.index}`);
  return member;
}

/** `struct iphdr.ttl`, for messages. */
export function describeCoreSpec({ btf, root, steps }: CoreSpec): string {
  const type = btf.at(root);
  const name = 'name' in type && type.name !== '' ? type.name : '(anon)';
  const path = steps.map(({ name: step, index }, i) => {
    if (step !== undefined) return `.${step}`;
    return i === 0 && index === 0 ? '' : `[${index}]`;
  });
  return `${type.kind} ${name}${path.join('')}`;
}

/**
 * Finds in a target table what a local CO-RE access means there.
 *
 * Reference: bpf_core_find_cands, bpf_core_spec_match and bpf_core_match_member in
 * tools/lib/bpf/relo_core.c. Candidates are all types of the same kind and flavourless name; members are
 * looked up by name, through anonymous structs and unions.
 *
 * Usage:
 *   const target = new CoreTarget(kernelBtf);
 *   for (const id of target.candidates(local)) matchCore(local, 'field', kernelBtf, id);
 */
import { InputError } from '../../common/errors.js';
import type { Btf } from './btf.js';
import {
  fieldsCompatible,
  isEnum,
  kindsCompatible,
  typesCompatible,
  typesMatch,
} from './core-compat.js';
import {
  essentialName,
  isComposite,
  isFlexible,
  MAX_STEPS,
  memberOf,
  type CoreSpec,
  type CoreStep,
  type CoreSubject,
} from './core-spec.js';

/** Anonymous structs that one look-up may go through: a damaged table could contain itself. */
const MAX_ANONYMOUS = 1000;

/** A table with its types by flavourless name. */
export class CoreTarget {
  readonly btf: Btf;
  readonly #byName = new Map<string, number[]>();

  constructor(btf: Btf) {
    this.btf = btf;
    for (const [id, type] of btf.types.entries()) {
      const name = 'name' in type ? essentialName(type.name) : '';
      if (name === '') continue;
      const ids = this.#byName.get(name);
      if (ids) ids.push(id);
      else this.#byName.set(name, [id]);
    }
  }

  /** Ids of types that the root of `local` may be. */
  candidates({ btf, root }: CoreSpec): number[] {
    const type = btf.at(root);
    const name = 'name' in type ? essentialName(type.name) : '';
    const ids = this.#byName.get(name) ?? [];
    return ids.filter((id) => kindsCompatible(this.btf.at(id), type));
  }
}

/** The access as it is in type `root` of `target`; undefined when it is not there. */
export function matchCore(
  local: CoreSpec,
  subject: CoreSubject | 'match',
  target: Btf,
  root: number,
): CoreSpec | undefined {
  const whole: CoreSpec = { btf: target, root, steps: [], bitOffset: 0 };
  switch (subject) {
    case 'match':
      return typesMatch(local.btf, local.root, target, root) ? whole : undefined;
    case 'type':
      return typesCompatible(local.btf, local.root, target, root) ? whole : undefined;
    case 'enumval': {
      const id = target.resolveId(root);
      const type = target.at(id);
      if (!isEnum(type)) return undefined;
      const wanted = essentialName(local.steps[0]?.name ?? '');
      const index = type.values.findIndex(({ name }) => essentialName(name) === wanted);
      if (index < 0) return undefined;
      return { ...whole, steps: [{ type: id, index, name: type.values[index]?.name ?? '' }] };
    }
    case 'field':
      return matchField(local, target, root);
  }
}

function matchField(local: CoreSpec, target: Btf, root: number): CoreSpec | undefined {
  const steps: CoreStep[] = [];
  let bitOffset = 0;
  let id = target.resolveId(root);
  for (const [i, step] of local.steps.entries()) {
    if (step.name !== undefined) {
      const found = findMember(local.btf, step, target, id, {
        depth: MAX_STEPS,
        left: MAX_ANONYMOUS,
      });
      if (!found) return undefined;
      steps.push(found.step);
      bitOffset += found.bitOffset;
      id = target.resolveId(found.type);
      continue;
    }
    if (i > 0) {
      const array = target.at(id);
      if (array.kind !== 'array') return undefined;
      if (step.index >= array.count && !isFlexible(target, steps.at(-1), array)) return undefined;
      id = target.resolveId(array.type);
    }
    steps.push({ type: id, index: step.index });
    bitOffset += step.index * target.sizeOf(id) * 8;
  }
  return { btf: target, root, steps, bitOffset };
}

interface FoundMember {
  readonly step: CoreStep;
  readonly bitOffset: number;
  /** Type of the member. */
  readonly type: number;
}

/** The member of that name in struct or union `id`, or in an anonymous one inside it. */
function findMember(
  local: Btf,
  wanted: CoreStep,
  target: Btf,
  id: number,
  limit: { readonly depth: number; left: number },
): FoundMember | undefined {
  const owner = target.resolveId(id);
  const type = target.at(owner);
  if (limit.depth <= 0 || --limit.left < 0) {
    throw new InputError(`BTF type ${id} is nested too deep`);
  }
  if (!isComposite(type.kind) || !('members' in type)) return undefined;
  for (const [index, member] of type.members.entries()) {
    if (member.name === '') {
      const inside = { depth: limit.depth - 1, left: limit.left };
      const inner = findMember(local, wanted, target, member.type, inside);
      limit.left = inside.left;
      if (inner) return { ...inner, bitOffset: inner.bitOffset + member.bitOffset };
    } else if (member.name === wanted.name) {
      const { type: localType } = memberOf(local, wanted);
      if (!fieldsCompatible(local, localType, target, member.type)) return undefined;
      return {
        step: { type: owner, index, name: member.name },
        bitOffset: member.bitOffset,
        type: member.type,
      };
    }
  }
  return undefined;
}

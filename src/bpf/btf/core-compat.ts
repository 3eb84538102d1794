/**
 * When two types of different tables count as the same for CO-RE: of fields, of whole types.
 *
 * Reference: bpf_core_fields_are_compat, bpf_core_types_are_compat and bpf_core_types_match in
 * tools/lib/bpf/relo_core.c. `fieldsCompatible` is lenient (sizes are mended by the relocation),
 * `typesCompatible` looks at kinds only, `typesMatch` compares members, sizes and signs. Names are
 * compared without their flavour. Nesting over MAX_DEPTH is an error.
 */
import { InputError } from '../../common/errors.js';
import type { Btf } from './btf.js';
import { essentialName, isComposite } from './core-spec.js';
import type { BtfType, BtfTypeOf } from './types.js';

const MAX_DEPTH = 32;
/** Types that one comparison may look at: a damaged table could contain itself many times over. */
const MAX_TYPES = 20_000;

interface Budget {
  left: number;
}

type Composite = BtfTypeOf<'struct' | 'union'>;
type Enumeration = BtfTypeOf<'enum' | 'enum64'>;

export function isEnum(type: BtfType): type is Enumeration {
  return type.kind === 'enum' || type.kind === 'enum64';
}

/** Of one kind; enum and enum64 count as one. */
export function kindsCompatible(a: BtfType, b: BtfType): boolean {
  return a.kind === b.kind || (isEnum(a) && isEnum(b));
}

function nameOf(type: BtfType): string {
  return 'name' in type ? essentialName(type.name) : '';
}

/** Whether a field of type `local` may be read from a field of type `target`. */
export function fieldsCompatible(
  local: Btf,
  localId: number,
  target: Btf,
  targetId: number,
): boolean {
  let [ours, theirs] = [local.resolve(localId), target.resolve(targetId)];
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    if (isComposite(ours.kind) && isComposite(theirs.kind)) return true;
    if (!kindsCompatible(ours, theirs)) return false;
    switch (ours.kind) {
      case 'ptr':
      case 'float':
      case 'int':
        return true;
      case 'fwd':
      case 'enum':
      case 'enum64': {
        const [a, b] = [nameOf(ours), nameOf(theirs)];
        return a === '' || b === '' || a === b;
      }
      case 'array':
        if (theirs.kind !== 'array') return false;
        ours = local.resolve(ours.type);
        theirs = target.resolve(theirs.type);
        break;
      default:
        return false;
    }
  }
  throw tooDeep(localId);
}

function tooDeep(id: number): InputError {
  return new InputError(
    `BTF type ${id} is nested over ${MAX_DEPTH} deep or made of too many types`,
  );
}

/** Whether types of these ids are of the same make, members aside. */
export function typesCompatible(
  local: Btf,
  localId: number,
  target: Btf,
  targetId: number,
  depth = MAX_DEPTH,
  budget: Budget = { left: MAX_TYPES },
): boolean {
  if (depth <= 0 || --budget.left < 0) throw tooDeep(localId);
  const [ours, theirs] = [local.resolve(localId), target.resolve(targetId)];
  if (!kindsCompatible(ours, theirs)) return false;
  const same = (a: number, b: number): boolean =>
    typesCompatible(local, a, target, b, depth - 1, budget);
  switch (ours.kind) {
    case 'void':
    case 'struct':
    case 'union':
    case 'enum':
    case 'enum64':
    case 'fwd':
    case 'int':
      return true;
    case 'ptr':
      return theirs.kind === 'ptr' && same(ours.type, theirs.type);
    case 'array':
      return theirs.kind === 'array' && same(ours.type, theirs.type);
    case 'func_proto':
      return theirs.kind === 'func_proto' && protosAgree(ours, theirs, same);
    default:
      return false;
  }
}

function protosAgree(
  ours: BtfTypeOf<'func_proto'>,
  theirs: BtfTypeOf<'func_proto'>,
  same: (a: number, b: number) => boolean,
): boolean {
  return (
    ours.parameters.length === theirs.parameters.length &&
    ours.parameters.every(({ type }, i) => same(type, theirs.parameters[i]?.type ?? 0)) &&
    same(ours.returnType, theirs.returnType)
  );
}

/** Whether everything that `local` declares is in `target` in the same form. */
export function typesMatch(
  local: Btf,
  localId: number,
  target: Btf,
  targetId: number,
  behindPointer = false,
  depth = MAX_DEPTH,
  budget: Budget = { left: MAX_TYPES },
): boolean {
  if (depth <= 0 || --budget.left < 0) throw tooDeep(localId);
  const [ours, theirs] = [local.resolve(localId), target.resolve(targetId)];
  if (nameOf(ours) !== nameOf(theirs)) return false;
  const same = (a: number, b: number, behind = behindPointer): boolean =>
    typesMatch(local, a, target, b, behind, depth - 1, budget);
  switch (ours.kind) {
    case 'void':
      return theirs.kind === 'void';
    case 'fwd':
      return theirs.kind === 'fwd' ? ours.of === theirs.of : ours.of === theirs.kind;
    case 'enum':
    case 'enum64':
      return isEnum(theirs) && enumsMatch(ours, theirs);
    case 'struct':
    case 'union':
      if (behindPointer) {
        return ours.kind === theirs.kind || (theirs.kind === 'fwd' && theirs.of === ours.kind);
      }
      return ours.kind === theirs.kind && membersMatch(ours, theirs as Composite, same);
    case 'int':
      return theirs.kind === 'int' && ours.size === theirs.size && ours.signed === theirs.signed;
    case 'ptr':
      return theirs.kind === 'ptr' && same(ours.type, theirs.type, true);
    case 'array':
      return theirs.kind === 'array' && ours.count === theirs.count && same(ours.type, theirs.type);
    case 'func_proto':
      return theirs.kind === 'func_proto' && protosAgree(ours, theirs, same);
    default:
      return false;
  }
}

function enumsMatch(ours: Enumeration, theirs: Enumeration): boolean {
  if (ours.size !== theirs.size || ours.values.length > theirs.values.length) return false;
  const names = new Set(theirs.values.map(({ name }) => essentialName(name)));
  return ours.values.every(({ name }) => names.has(essentialName(name)));
}

function membersMatch(
  ours: Composite,
  theirs: Composite,
  same: (a: number, b: number) => boolean,
): boolean {
  if (ours.members.length > theirs.members.length) return false;
  return ours.members.every(({ name, type }) =>
    theirs.members.some(
      (other) => essentialName(name) === essentialName(other.name) && same(type, other.type),
    ),
  );
}

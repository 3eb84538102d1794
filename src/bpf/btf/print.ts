/**
 * BTF types as C text: type names, declarations, function prototypes.
 *
 * `typeName` and `functionPrototype` write C as people write it (`struct xdp_md *ctx`);
 * `bpftoolPrototype` writes what `bpftool prog dump xlated` prints (`struct xdp_md * ctx`). Anonymous
 * structs are printed as `struct (anon)`, without their members.
 */
import { InputError } from '../../common/errors.js';
import type { Btf } from './btf.js';

/** Types that one text may be made of: a damaged table could name itself without end. */
const MAX_TYPES = 500;

interface Budget {
  left: number;
}

function spend(budget: Budget, id: number): void {
  if (--budget.left < 0) {
    throw new InputError(`BTF type ${id} refers to itself or is made of over ${MAX_TYPES} types`);
  }
}

/** The type as C: `unsigned int`, `const char *`, `int (*)(void *, int)`, `__u8[6]`. */
export function typeName(btf: Btf, id: number): string {
  return declare(btf, id, '', { left: MAX_TYPES });
}

/** A declaration of `name` with this type: `int (*handler)(void *ctx)`. */
export function declaration(btf: Btf, id: number, name: string): string {
  return declare(btf, id, name, { left: MAX_TYPES });
}

/** The prototype of a func: `int count_packets(struct xdp_md *ctx)`. */
export function functionPrototype(btf: Btf, id: number): string {
  const func = btf.as(id, 'func');
  if (!func) throw new InputError(`BTF type ${id} is a ${btf.at(id).kind}, not a func`);
  return declare(btf, func.type, func.name, { left: MAX_TYPES });
}

// A declarator grows outwards from the name: pointers to the left, arrays and parameters to the right.
function declare(btf: Btf, id: number, inner: string, budget: Budget): string {
  spend(budget, id);
  const type = btf.at(id);
  switch (type.kind) {
    case 'ptr': {
      const target = btf.at(type.type).kind;
      const pointer = `*${inner}`;
      const bracketed = target === 'array' || target === 'func_proto' ? `(${pointer})` : pointer;
      return declare(btf, type.type, bracketed, budget);
    }
    case 'array':
      return declare(btf, type.type, `${inner}[${type.count}]`, budget);
    case 'func_proto': {
      const parameters = type.parameters.map(({ name, type: parameter }, i) =>
        parameter === 0 && i === type.parameters.length - 1
          ? '...'
          : declare(btf, parameter, name, budget),
      );
      const list = parameters.length > 0 ? parameters.join(', ') : 'void';
      return declare(btf, type.returnType, `${inner}(${list})`, budget);
    }
    case 'const':
    case 'volatile':
    case 'restrict': {
      // a qualified pointer has its qualifier right of the star
      if (btf.at(type.type).kind === 'ptr') {
        return declare(btf, type.type, join(type.kind, inner), budget);
      }
      return `${type.kind} ${declare(btf, type.type, inner, budget)}`;
    }
    case 'type_tag':
    case 'decl_tag':
      return declare(btf, type.type, inner, budget);
    case 'func':
    case 'var':
      return declare(btf, type.type, inner === '' ? type.name : inner, budget);
    default:
      return join(baseName(btf, id), inner);
  }
}

function join(left: string, right: string): string {
  if (right === '') return left;
  return right.startsWith('[') ? `${left}${right}` : `${left} ${right}`;
}

/** The name of a type that is not derived from another. */
function baseName(btf: Btf, id: number): string {
  const type = btf.at(id);
  switch (type.kind) {
    case 'void':
      return 'void';
    case 'struct':
    case 'union':
      return `${type.kind} ${type.name || '(anon)'}`;
    case 'enum':
    case 'enum64':
      return `enum ${type.name || '(anon)'}`;
    case 'fwd':
      return `${type.of} ${type.name}`;
    default:
      return 'name' in type ? type.name : `(${type.kind})`;
  }
}

/** The prototype as bpftool prints it above a dumped function: `int fn(struct xdp_md * ctx)`. */
export function bpftoolPrototype(btf: Btf, id: number): string {
  const func = btf.as(id, 'func');
  const proto = func && btf.as(func.type, 'func_proto');
  if (!func || !proto) throw new InputError(`BTF type ${id} is not a func with a prototype`);
  const budget = { left: MAX_TYPES };
  const parameters = proto.parameters.map(({ name, type }, i) =>
    type === 0 && i === proto.parameters.length - 1
      ? '...'
      : `${leftToRight(btf, type, budget)}${name}`,
  );
  const list = parameters.length > 0 ? parameters.join(', ') : 'void';
  return `${leftToRight(btf, proto.returnType, budget)}${func.name}(${list})`;
}

function leftToRight(btf: Btf, id: number, budget: Budget): string {
  spend(budget, id);
  const type = btf.at(id);
  switch (type.kind) {
    case 'ptr':
      return `${leftToRight(btf, type.type, budget)}* `;
    case 'const':
    case 'volatile':
    case 'restrict':
      return `${type.kind} ${leftToRight(btf, type.type, budget)}`;
    case 'type_tag':
      return leftToRight(btf, type.type, budget);
    case 'array':
      return `${leftToRight(btf, type.type, budget)}[${type.count}]`;
    case 'func_proto': {
      const parameters = type.parameters.map((parameter) =>
        leftToRight(btf, parameter.type, budget).trimEnd(),
      );
      return `${leftToRight(btf, type.returnType, budget)}(${parameters.join(', ')}) `;
    }
    default:
      return `${baseName(btf, id)} `;
  }
}

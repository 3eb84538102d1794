/**
 * BTF types as C text: type names, declarations, function prototypes.
 *
 * `typeName` and `functionPrototype` write C as people write it (`struct xdp_md *ctx`);
 * `bpftoolPrototype` writes what `bpftool prog dump xlated` prints (`struct xdp_md * ctx`). Anonymous
 * structs are printed as `struct (anon)`, without their members.
 */
import { InputError } from '../../common/errors.js';
import type { Btf } from './btf.js';

const MAX_DEPTH = 32;

/** The type as C: `unsigned int`, `const char *`, `int (*)(void *, int)`, `__u8[6]`. */
export function typeName(btf: Btf, id: number): string {
  return declare(btf, id, '', 0);
}

/** A declaration of `name` with this type: `int (*handler)(void *ctx)`. */
export function declaration(btf: Btf, id: number, name: string): string {
  return declare(btf, id, name, 0);
}

/** The prototype of a func: `int count_packets(struct xdp_md *ctx)`. */
export function functionPrototype(btf: Btf, id: number): string {
  const func = btf.as(id, 'func');
  if (!func) throw new InputError(`BTF type ${id} is a ${btf.at(id).kind}, not a func`);
  return declare(btf, func.type, func.name, 0);
}

// A declarator grows outwards from the name: pointers to the left, arrays and parameters to the right.
function declare(btf: Btf, id: number, inner: string, depth: number): string {
  if (depth > MAX_DEPTH) throw new InputError(`BTF type ${id} is nested over ${MAX_DEPTH} deep`);
  const type = btf.at(id);
  switch (type.kind) {
    case 'ptr': {
      const target = btf.at(type.type).kind;
      const pointer = `*${inner}`;
      const bracketed = target === 'array' || target === 'func_proto' ? `(${pointer})` : pointer;
      return declare(btf, type.type, bracketed, depth + 1);
    }
    case 'array':
      return declare(btf, type.type, `${inner}[${type.count}]`, depth + 1);
    case 'func_proto': {
      const parameters = type.parameters.map(({ name, type: parameter }, i) =>
        parameter === 0 && i === type.parameters.length - 1
          ? '...'
          : declare(btf, parameter, name, depth + 1),
      );
      const list = parameters.length > 0 ? parameters.join(', ') : 'void';
      return declare(btf, type.returnType, `${inner}(${list})`, depth + 1);
    }
    case 'const':
    case 'volatile':
    case 'restrict': {
      // a qualified pointer has its qualifier right of the star
      if (btf.at(type.type).kind === 'ptr') {
        return declare(btf, type.type, join(type.kind, inner), depth + 1);
      }
      return `${type.kind} ${declare(btf, type.type, inner, depth + 1)}`;
    }
    case 'type_tag':
      return declare(btf, type.type, inner, depth + 1);
    case 'func':
    case 'var':
    case 'decl_tag':
      return declare(btf, type.type, inner === '' ? type.name : inner, depth + 1);
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
  const parameters = proto.parameters.map(({ name, type }, i) =>
    type === 0 && i === proto.parameters.length - 1 ? '...' : `${leftToRight(btf, type, 0)}${name}`,
  );
  const list = parameters.length > 0 ? parameters.join(', ') : 'void';
  return `${leftToRight(btf, proto.returnType, 0)}${func.name}(${list})`;
}

function leftToRight(btf: Btf, id: number, depth: number): string {
  if (depth > MAX_DEPTH) throw new InputError(`BTF type ${id} is nested over ${MAX_DEPTH} deep`);
  const type = btf.at(id);
  switch (type.kind) {
    case 'ptr':
      return `${leftToRight(btf, type.type, depth + 1)}* `;
    case 'const':
    case 'volatile':
    case 'restrict':
      return `${type.kind} ${leftToRight(btf, type.type, depth + 1)}`;
    case 'type_tag':
      return leftToRight(btf, type.type, depth + 1);
    case 'array':
      return `${leftToRight(btf, type.type, depth + 1)}[${type.count}]`;
    case 'func_proto': {
      const parameters = type.parameters.map((parameter) =>
        leftToRight(btf, parameter.type, depth + 1).trimEnd(),
      );
      return `${leftToRight(btf, type.returnType, depth + 1)}(${parameters.join(', ')}) `;
    }
    default:
      return `${baseName(btf, id)} `;
  }
}

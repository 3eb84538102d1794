/**
 * What BTF says of a global function: its arguments, by their types and by tags on them, and its result.
 *
 * Such a function is verified once, alone, so its declaration is all that is known. Tags are `arg:ctx`,
 * `arg:nonnull`, `arg:nullable` and `arg:trusted`. Reference: btf_prepare_func_args, btf_validate_prog_ctx_type
 * in kernel/bpf/btf.c. Left out: `arg:arena`, `arg:untrusted`.
 */
import type { Btf } from '../btf/btf.js';
import type { BtfType } from '../btf/types.js';
import { hasTrampoline, isProbe, type SectionKind } from '../object/spec.js';
import type { ArgumentType } from './input.js';

const MAX_TYPEDEFS = 32;

type Tag = 'arg:ctx' | 'arg:nonnull' | 'arg:nullable' | 'arg:trusted';

/** The struct, or typedef, by which a program kind's context is known. */
export function contextTypeName(kind: SectionKind): string | undefined {
  if (kind === 'xdp') return 'xdp_md';
  if (kind === 'tc' || kind === 'socket') return '__sk_buff';
  return isProbe(kind) ? 'bpf_user_pt_regs_t' : undefined;
}

/** Arguments of a global function; undefined when BTF does not describe them. */
export function globalArguments(
  btf: Btf,
  id: number,
  kind: SectionKind,
): ArgumentType[] | undefined {
  const fn = btf.as(id, 'func');
  const prototype = fn && fn.linkage !== 'static' ? btf.as(fn.type, 'func_proto') : undefined;
  return prototype?.parameters.map(({ type }, index) =>
    argumentType(btf, type, index, tagsOf(btf, id, index), kind),
  );
}

export function returnsScalar(btf: Btf, id: number): boolean {
  const fn = btf.as(id, 'func');
  const prototype = fn && btf.as(fn.type, 'func_proto');
  const kind = prototype && btf.resolve(prototype.returnType).kind;
  return kind === 'int' || kind === 'enum' || kind === 'enum64';
}

function tagsOf(btf: Btf, func: number, index: number): ReadonlySet<string> {
  const tags = new Set<string>();
  for (const each of btf.types) {
    if (each.kind === 'decl_tag' && each.type === func && each.componentIndex === index)
      tags.add(each.name);
  }
  return tags;
}

function argumentType(
  btf: Btf,
  id: number,
  index: number,
  tags: ReadonlySet<string>,
  kind: SectionKind,
): ArgumentType {
  const has = (tag: Tag): boolean => tags.has(tag);
  const type = btf.resolve(id);
  if (type.kind !== 'ptr') {
    return tags.size === 0
      ? { kind: 'scalar' }
      : refused(`arg#${index} is not a pointer, and tags are for pointers`);
  }
  const target = btf.resolve(type.type);
  const wanted = contextTypeName(kind);
  const isContext = wanted !== undefined && namesOf(btf, type.type).includes(wanted);
  if (has('arg:ctx')) return taggedContext(target, index, isContext, kind, wanted);
  if (isContext) return { kind: 'ctx' };
  if (target.kind === 'struct' && target.name === 'bpf_dynptr') return { kind: 'dynptr' };
  if (has('arg:trusted')) {
    if (target.kind !== 'struct') return refused(`arg#${index} has no struct of the kernel`);
    return { kind: 'trusted', struct: target.name, nonNull: !has('arg:nullable') };
  }
  if (target.kind === 'void' || target.kind === 'fwd' || target.kind === 'func_proto') {
    const name = 'name' in target ? ` ${target.name}` : '';
    return refused(
      `arg#${index} reference type('${target.kind}${name}') size cannot be determined`,
    );
  }
  return { kind: 'memory', size: btf.sizeOf(type.type), nonNull: has('arg:nonnull') };
}

/** `void *` and what the program kind knows as its context. */
function taggedContext(
  target: BtfType,
  index: number,
  isContext: boolean,
  kind: SectionKind,
  wanted: string | undefined,
): ArgumentType {
  if (isContext || target.kind === 'void') return { kind: 'ctx' };
  // the argument array of a trampoline
  if (hasTrampoline(kind) && target.kind === 'int' && target.size === 8) return { kind: 'ctx' };
  return refused(`arg#${index} should be ${wanted === undefined ? 'u64 *' : `struct ${wanted} *`}`);
}

/** Names of a type and of what its typedefs stand for. */
function namesOf(btf: Btf, id: number): string[] {
  const names: string[] = [];
  let type = btf.at(id);
  while (names.length < MAX_TYPEDEFS) {
    if ('name' in type && type.kind !== 'type_tag') names.push(type.name);
    switch (type.kind) {
      case 'typedef':
      case 'type_tag':
      case 'const':
      case 'volatile':
      case 'restrict':
        type = btf.at(type.type);
        break;
      default:
        return names;
    }
  }
  return names;
}

function refused(why: string): ArgumentType {
  return { kind: 'refused', why };
}

/**
 * Finds the kernel's fields in a type of a program's BTF: by the names of structs and by tags.
 *
 *   struct bpf_spin_lock lock;                       by name, in nested structs and arrays too
 *   struct node __kptr *owned;                       type tag `kptr`, `kptr_untrusted`, `percpu_kptr`
 *   struct bpf_list_head head __contains(node, n);   declaration tag `contains:node:n`
 *
 * Reference: btf_parse_fields, btf_find_field, btf_find_field_one, btf_repeat_fields, btf_parse_kptr,
 * btf_parse_graph_root in kernel/bpf/btf.c. Errors are KernelErrors with the kernel's errno.
 *
 * Usage:
 *   const record = parseRecord({ btf, kernelStruct, recordOf }, valueType, VALUE_FIELDS, valueSize);
 */
import type { ErrnoName } from '../../common/errno.js';
import { KernelError } from '../../common/errors.js';
import type { Btf } from './btf.js';
import {
  FIELD_TYPES,
  hasField,
  KPTR_KINDS,
  type BtfField,
  type BtfRecord,
  type FieldKind,
  type GraphTarget,
  type KptrKind,
  type KptrTarget,
} from './record.js';
import type { BtfType, BtfTypeOf } from './types.js';

type Struct = BtfTypeOf<'struct' | 'union'>;

/** BTF_FIELDS_MAX */
const MAX_FIELDS = 11;
/** MAX_RESOLVE_DEPTH */
const MAX_DEPTH = 32;

/** What values of maps may have: map_check_btf. */
export const VALUE_FIELDS: readonly FieldKind[] = [
  'bpf_spin_lock',
  'bpf_timer',
  'bpf_wq',
  'bpf_list_head',
  'bpf_rb_root',
  'bpf_refcount',
  ...KPTR_KINDS,
];

/** What objects that a program allocates may have: btf_parse_struct_metas. */
export const OBJECT_FIELDS: readonly FieldKind[] = [
  'bpf_spin_lock',
  'bpf_list_head',
  'bpf_list_node',
  'bpf_rb_root',
  'bpf_rb_node',
  'bpf_refcount',
  ...KPTR_KINDS,
];

/** A struct of the kernel, by name: whether a referenced kptr to it may be kept, since something frees it. */
export interface KernelStruct {
  readonly btf: Btf;
  readonly typeId: number;
  readonly isReleasable: boolean;
}

export interface RecordContext {
  readonly btf: Btf;
  readonly kernelStruct: (name: string) => KernelStruct | undefined;
  readonly recordOf: BtfRecord['recordOf'];
}

/** A field as it is found; its target is looked up later. */
interface Found {
  readonly kind: FieldKind;
  readonly offset: number;
  /** Of a kptr: the type that it points to. */
  readonly target?: number;
  readonly contains?: { readonly typeId: number; readonly member: string };
}

/** A member or variable, where it is, and who may carry its tag. */
interface Place {
  readonly type: number;
  readonly offset: number;
  readonly tagged: number;
  readonly component: number;
  /** Bytes that it must have, in a data section. */
  readonly size?: number;
}

interface Search {
  readonly context: RecordContext;
  readonly wanted: readonly FieldKind[];
  readonly seen: Set<FieldKind>;
}

function fail(errno: ErrnoName, why: string): never {
  throw new KernelError(errno, why);
}

/** The record of type `id`; undefined when it has no such field. */
export function parseRecord(
  context: RecordContext,
  id: number,
  wanted: readonly FieldKind[],
  valueSize: number,
): BtfRecord | undefined {
  const search: Search = { context, wanted, seen: new Set() };
  const found = findFields(search, id);
  if (found.length === 0) return undefined;
  let next = 0;
  const fields = found.map((each) => {
    const { size } = FIELD_TYPES[each.kind];
    if (each.offset + size > valueSize)
      fail('EFAULT', `${each.kind} at ${each.offset} lies outside`);
    if (each.offset < next) fail('EEXIST', `${each.kind} at ${each.offset} overlaps another field`);
    next = each.offset + size;
    return completed(context, each, size);
  });
  const record: BtfRecord = {
    fields: fields.sort((a, b) => a.offset - b.offset),
    recordOf: context.recordOf,
  };
  const hasRoot = hasField(record, 'bpf_list_head', 'bpf_rb_root');
  if (hasRoot && !hasField(record, 'bpf_spin_lock')) {
    fail('EINVAL', 'a bpf_list_head or bpf_rb_root needs a bpf_spin_lock beside it');
  }
  const inBoth = hasField(record, 'bpf_list_node') && hasField(record, 'bpf_rb_node');
  if (inBoth && !hasField(record, 'bpf_refcount')) {
    fail('EINVAL', 'a bpf_list_node and a bpf_rb_node in one struct need a bpf_refcount');
  }
  return record;
}

function findFields(search: Search, id: number): Found[] {
  const { btf } = search.context;
  const type = btf.at(id);
  if (isStruct(type)) return findInStruct(search, id, type, 0, MAX_FIELDS);
  if (type.kind !== 'datasec') return fail('EINVAL', `a ${type.kind} has no fields`);
  const found: Found[] = [];
  for (const { type: variable, offset, size } of type.variables) {
    const declared = btf.as(variable, 'var');
    if (!declared) continue;
    const place = { type: declared.type, offset, tagged: variable, component: -1, size };
    found.push(...findOne(search, place, 0, MAX_FIELDS - found.length));
  }
  return found;
}

function isStruct(type: BtfType): type is Struct {
  return type.kind === 'struct';
}

function findInStruct(
  search: Search,
  id: number,
  { members }: Struct,
  level: number,
  room: number,
): Found[] {
  const found: Found[] = [];
  for (const [component, { type, bitOffset }] of members.entries()) {
    const place = { type, offset: bitOffset / 8, tagged: id, component };
    // a bit field is none of the kernel's fields
    if (bitOffset % 8 !== 0) fail('EINVAL', `member ${component} begins inside a byte`);
    found.push(...findOne(search, place, level, room - found.length));
  }
  return found;
}

/** The fields at one place: itself, those of the struct that it is, or of the elements of the array. */
function findOne(search: Search, place: Place, level: number, room: number): Found[] {
  const { btf } = search.context;
  let id = place.type;
  let count = 1;
  for (let depth = 0; ; depth++) {
    const array = btf.as(id, 'array');
    if (!array) break;
    if (depth === MAX_DEPTH) fail('E2BIG', 'arrays are nested too deep');
    count *= array.count;
    id = array.type;
  }
  if (count === 0) return [];
  const type = btf.at(id);
  const kind = kindOf(search, type);
  if (kind === undefined) {
    if (!isStruct(type)) return [];
    if (place.size !== undefined && place.size !== type.size * count) return [];
    if (level + 1 >= MAX_DEPTH) fail('E2BIG', 'structs are nested too deep');
    const nested = findInStruct(search, id, type, level + 1, room).map((each) => ({
      ...each,
      offset: each.offset + place.offset,
    }));
    return nested.length === 0 ? [] : repeated(nested, count, type.size, room);
  }
  const { size, align } = FIELD_TYPES[kind];
  if (place.size !== undefined && place.size !== size * count) return [];
  if (place.offset % align !== 0) return [];
  const found = foundAt(search.context, kind, type, size, place);
  if (!found) return [];
  if (room === 0) fail('E2BIG', `over ${MAX_FIELDS} fields of the kernel`);
  return repeated([found], count, size, room);
}

/** The kind that a type's name says; `kptr` for what may be one by its tag. */
function kindOf({ wanted, seen }: Search, type: BtfType): FieldKind | undefined {
  const name = 'name' in type ? type.name : '';
  const named = wanted.find((kind) => kind === name && !KPTR_KINDS.includes(kind));
  if (named !== undefined) {
    if (FIELD_TYPES[named].single && seen.has(named)) fail('E2BIG', `more than one ${named}`);
    seen.add(named);
    return named;
  }
  return wanted.includes('kptr') && !isStruct(type) ? 'kptr' : undefined;
}

function foundAt(
  context: RecordContext,
  kind: FieldKind,
  type: BtfType,
  size: number,
  { offset, tagged, component }: Place,
): Found | undefined {
  if (kind === 'kptr') {
    const pointer = kptrOf(context.btf, type);
    return pointer && { kind: pointer.kind, offset, target: pointer.target };
  }
  if (!isStruct(type) || type.size !== size) return undefined;
  if (kind !== 'bpf_list_head' && kind !== 'bpf_rb_root') return { kind, offset };
  return { kind, offset, contains: containsOf(context.btf, tagged, component) };
}

function isKptrTag(name: string): name is KptrKind {
  return name === 'kptr' || name === 'kptr_untrusted' || name === 'percpu_kptr';
}

/** What a pointer's tag says it is; undefined for one without a tag. */
function kptrOf(
  btf: Btf,
  type: BtfType,
): { readonly kind: KptrKind; readonly target: number } | undefined {
  const plain = type.kind === 'volatile' ? btf.at(type.type) : type;
  if (plain.kind !== 'ptr') return undefined;
  const tag = btf.at(plain.type);
  if (tag.kind !== 'type_tag') return undefined;
  if (btf.at(tag.type).kind === 'type_tag') fail('EINVAL', 'a pointer has more than one type tag');
  if (!isKptrTag(tag.name)) return fail('EINVAL', `type tag '${tag.name}' is not one of a kptr`);
  const target = btf.resolveId(tag.type);
  if (!isStruct(btf.at(target))) fail('EINVAL', `a ${tag.name} that points to no struct`);
  return { kind: tag.name, target };
}

/** Whether a member of that type is a kptr; a pointer with a tag that is wrong is none. */
export function isKptr(btf: Btf, type: BtfType): boolean {
  try {
    return kptrOf(btf, type) !== undefined;
  } catch (error) {
    if (error instanceof KernelError) return false;
    throw error;
  }
}

/** `contains:TYPE:MEMBER` at a member, or at a variable (component -1). */
function containsOf(
  btf: Btf,
  tagged: number,
  component: number,
): { readonly typeId: number; readonly member: string } {
  const key = 'contains:';
  const tags = btf.types.filter(
    (type): type is BtfTypeOf<'decl_tag'> =>
      type.kind === 'decl_tag' &&
      type.type === tagged &&
      type.componentIndex === component &&
      type.name.startsWith(key),
  );
  const [tag] = tags;
  if (!tag || tags.length > 1) return fail('EINVAL', 'a list or tree needs one __contains tag');
  const text = tag.name.slice(key.length);
  const colon = text.indexOf(':');
  if (colon < 0) fail('EINVAL', `'${tag.name}' names no member`);
  const struct = text.slice(0, colon);
  const typeId = btf.find('struct', struct);
  if (typeId === undefined) return fail('ENOENT', `'${tag.name}': there is no struct ${struct}`);
  const member = text.slice(colon + 1);
  if (member === '') fail('EINVAL', `'${tag.name}' names no member`);
  return { typeId, member };
}

/** The fields of one element, for each element of an array. */
function repeated(
  found: readonly Found[],
  count: number,
  elementSize: number,
  room: number,
): Found[] {
  if (count === 1) return [...found];
  const other = found.find(({ kind }) => !FIELD_TYPES[kind].repeats);
  if (other) fail('EINVAL', `an array of ${other.kind}`);
  if (found.length * count > room) fail('E2BIG', `over ${MAX_FIELDS} fields of the kernel`);
  return Array.from({ length: count }, (_, i) =>
    found.map((each) => ({ ...each, offset: each.offset + i * elementSize })),
  ).flat();
}

function completed(context: RecordContext, found: Found, size: number): BtfField {
  const { kind, offset, target, contains } = found;
  const plain = { kind, offset, size };
  if (target !== undefined) return { ...plain, kptr: kptrTarget(context, kind, target) };
  if (contains) return { ...plain, graph: graphTarget(context.btf, kind, contains) };
  return plain;
}

/** A struct that the kernel has by that name is the kernel's. */
function kptrTarget(
  { btf, kernelStruct }: RecordContext,
  kind: FieldKind,
  typeId: number,
): KptrTarget {
  const type = btf.at(typeId);
  if (!isStruct(type)) return fail('EINVAL', 'a kptr that points to no struct');
  const known = kernelStruct(type.name);
  if (!known) return { btf, typeId, struct: type.name, isKernel: false };
  if (kind === 'kptr' && !known.isReleasable) {
    fail('ENOENT', `nothing releases a struct ${type.name}: it cannot be a referenced kptr`);
  }
  return { btf: known.btf, typeId: known.typeId, struct: type.name, isKernel: true };
}

function graphTarget(
  btf: Btf,
  kind: FieldKind,
  { typeId, member: name }: { readonly typeId: number; readonly member: string },
): GraphTarget {
  const node = kind === 'bpf_list_head' ? 'bpf_list_node' : 'bpf_rb_node';
  const struct = btf.at(typeId);
  if (!isStruct(struct)) return fail('EINVAL', `a ${kind} of something that is no struct`);
  const members = struct.members.filter((member) => member.name === name);
  const [member] = members;
  if (!member) return fail('ENOENT', `no member '${name}' for the ${kind}`);
  if (members.length > 1) fail('EINVAL', `struct ${struct.name} has two members '${name}'`);
  const type = btf.at(member.type);
  const offset = member.bitOffset / 8;
  if (!isStruct(type) || type.name !== node || offset % FIELD_TYPES[node].align !== 0) {
    fail('EINVAL', `'${name}' of struct ${struct.name} is no ${node}`);
  }
  return { btf, typeId, struct: struct.name, nodeOffset: offset };
}

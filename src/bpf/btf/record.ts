/**
 * Where a type has what belongs to the kernel: locks, timers, lists, trees, reference counts, pointers to objects.
 *
 * Reference: struct btf_record, enum btf_field_type in include/linux/bpf.h; btf_field_type_size,
 * btf_field_type_align, btf_record_find. How a record is read off a type see `record-parse.ts`. Left out:
 * bpf_res_spin_lock, bpf_task_work, user pointers of task storage (newer, or for maps that hold nothing here).
 *
 * Usage:
 *   const field = findField(record, 16, 'bpf_list_head');
 */
import type { Btf } from './btf.js';

/** By the names that the kernel's messages have for them. */
export type FieldKind =
  | 'bpf_spin_lock'
  | 'bpf_timer'
  | 'bpf_wq'
  | 'bpf_list_head'
  | 'bpf_list_node'
  | 'bpf_rb_root'
  | 'bpf_rb_node'
  | 'bpf_refcount'
  | KptrKind;

/** BPF_KPTR_UNREF, BPF_KPTR_REF, BPF_KPTR_PERCPU: the tag in front of the pointer. */
export type KptrKind = 'kptr_untrusted' | 'kptr' | 'percpu_kptr';

interface FieldType {
  readonly size: number;
  readonly align: number;
  /** At most one in a type. */
  readonly single?: true;
  /** In an array each element is one. */
  readonly repeats?: true;
}

const KPTR: FieldType = { size: 8, align: 8, repeats: true };

export const FIELD_TYPES: Readonly<Record<FieldKind, FieldType>> = {
  bpf_spin_lock: { size: 4, align: 4, single: true },
  bpf_timer: { size: 16, align: 8, single: true },
  bpf_wq: { size: 16, align: 8, single: true },
  bpf_list_head: { size: 16, align: 8, repeats: true },
  bpf_list_node: { size: 24, align: 8 },
  bpf_rb_root: { size: 16, align: 8, repeats: true },
  bpf_rb_node: { size: 32, align: 8 },
  bpf_refcount: { size: 4, align: 4, single: true },
  kptr_untrusted: KPTR,
  kptr: KPTR,
  percpu_kptr: KPTR,
};

export const KPTR_KINDS: readonly FieldKind[] = ['kptr_untrusted', 'kptr', 'percpu_kptr'];

/** As messages name it. */
export function fieldName(kind: FieldKind): string {
  return kind === 'kptr_untrusted' ? 'kptr' : kind;
}

/** What a kptr points to. */
export interface KptrTarget {
  /** Where its type is: the kernel's, or that of the program, whose objects are allocated by it. */
  readonly btf: Btf;
  readonly typeId: number;
  readonly struct: string;
  readonly isKernel: boolean;
}

/** What a list or tree holds: `contains:TYPE:MEMBER`. */
export interface GraphTarget {
  readonly btf: Btf;
  readonly typeId: number;
  readonly struct: string;
  readonly nodeOffset: number;
}

export interface BtfField {
  readonly kind: FieldKind;
  readonly offset: number;
  readonly size: number;
  /** Of a kptr. */
  readonly kptr?: KptrTarget;
  /** Of a bpf_list_head or bpf_rb_root. */
  readonly graph?: GraphTarget;
}

export interface BtfRecord {
  /** By offset. */
  readonly fields: readonly BtfField[];
  /** Those of another struct of the same BTF. */
  readonly recordOf: (typeId: number) => BtfRecord | undefined;
}

/** A record of fields that point to nothing, by their offsets: for maps that are made without BTF. */
export function plainRecord(offsets: Readonly<Partial<Record<FieldKind, number>>>): BtfRecord {
  const fields = Object.entries(offsets).map(([name, offset]) => {
    const kind = name as FieldKind;
    return { kind, offset, size: FIELD_TYPES[kind].size };
  });
  return { fields: fields.sort((a, b) => a.offset - b.offset), recordOf: () => undefined };
}

/** The record of what a list, tree or kptr owns; undefined where that has no fields, or is the kernel's. */
export function ownedRecord(record: BtfRecord, { kptr, graph }: BtfField): BtfRecord | undefined {
  if (graph) return record.recordOf(graph.typeId);
  return kptr && !kptr.isKernel ? record.recordOf(kptr.typeId) : undefined;
}

/** The field of one of these kinds that begins at `offset`. */
export function findField(
  record: BtfRecord | undefined,
  offset: number,
  ...kinds: readonly FieldKind[]
): BtfField | undefined {
  return record?.fields.find((field) => field.offset === offset && kinds.includes(field.kind));
}

export function hasField(record: BtfRecord | undefined, ...kinds: readonly FieldKind[]): boolean {
  return record?.fields.some(({ kind }) => kinds.includes(kind)) ?? false;
}

/** Offset of the one field of that kind; undefined when there is none. */
export function offsetOfField(record: BtfRecord | undefined, kind: FieldKind): number | undefined {
  return record?.fields.find((field) => field.kind === kind)?.offset;
}

/** The first field that bytes `start` up to `end` touch. */
export function touchedField(
  record: BtfRecord | undefined,
  start: number,
  end: number,
): BtfField | undefined {
  return record?.fields.find(({ offset, size }) => start < offset + size && offset < end);
}

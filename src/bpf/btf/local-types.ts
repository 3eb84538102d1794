/**
 * The structs of a program's BTF that a program may allocate, with the kernel's fields in them.
 *
 * Reading them may fail; the kernel then does not take the BTF, and libbpf loads the program without it.
 * Reference: btf_parse_struct_metas, btf_check_and_fixup_fields in kernel/bpf/btf.c;
 * bpf_object__sanitize_and_load_btf of libbpf.
 *
 * Usage:
 *   const types = localTypes(btf, kernelStructs(kernelBtf));
 *   types.recordOf(id); types.valueRecord(valueType, valueSize);
 */
import { KernelError } from '../../common/errors.js';
import type { Btf } from './btf.js';
import {
  isKptr,
  OBJECT_FIELDS,
  parseRecord,
  VALUE_FIELDS,
  type RecordContext,
} from './record-parse.js';
import { hasField, ownedRecord, type BtfRecord } from './record.js';

export interface LocalTypes {
  /** Fields of a struct that has some (its btf_struct_meta). */
  recordOf(typeId: number): BtfRecord | undefined;
  /** Fields of a map's values; undefined too where the kernel goes on without them. */
  valueRecord(valueType: number, valueSize: number): BtfRecord | undefined;
}

/** Throws KernelError for what the kernel does not take. */
export function localTypes(btf: Btf, kernelStruct: RecordContext['kernelStruct']): LocalTypes {
  const records = new Map<number, BtfRecord>();
  const recordOf = (typeId: number): BtfRecord | undefined => records.get(typeId);
  const context: RecordContext = { btf, kernelStruct, recordOf };
  for (const [id, type] of btf.types.entries()) {
    if (type.kind !== 'struct' || !type.members.some((each) => isSpecial(btf, each.type))) continue;
    const record = parseRecord(context, id, OBJECT_FIELDS, type.size);
    if (!record) throw new KernelError('EFAULT', `struct ${type.name}: its fields are misplaced`);
    records.set(id, record);
  }
  for (const record of records.values()) checkOwnership(record);
  return {
    recordOf,
    valueRecord: (valueType, valueSize) => {
      let record: BtfRecord | undefined;
      try {
        record = parseRecord(context, valueType, VALUE_FIELDS, valueSize);
      } catch (error) {
        // map_check_btf makes such a map all the same, as one without fields
        if (!(error instanceof KernelError)) throw error;
        return undefined;
      }
      for (const { graph } of record?.fields ?? []) {
        if (!graph || records.has(graph.typeId)) continue;
        throw new KernelError('EFAULT', `struct ${graph.struct} has no fields of the kernel`);
      }
      return record;
    },
  };
}

/** Whether a member makes its struct one with fields: by the name of its type, or as a tagged pointer. */
function isSpecial(btf: Btf, id: number): boolean {
  const type = btf.at(id);
  if (type.kind === 'struct') return OBJECT_FIELDS.some((kind) => kind === type.name);
  return isKptr(btf, type);
}

/** Ownership ends: what both owns and is owned does not own what owns. */
function checkOwnership(record: BtfRecord): void {
  if (!hasField(record, 'bpf_list_node', 'bpf_rb_node')) return;
  for (const field of record.fields) {
    const owned = field.graph && ownedRecord(record, field);
    if (!hasField(owned, 'bpf_list_head', 'bpf_rb_root')) continue;
    throw new KernelError(
      'ELOOP',
      `a ${field.kind} of objects that own others, in one that is owned`,
    );
  }
}

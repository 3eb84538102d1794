/**
 * A structure of the lab's memory as BTF: fields and offsets as its layout table has them.
 *
 * Fields that are pointers, structures or signed get their type beside the table; all others are unsigned
 * numbers or bytes of their size. `scratch_*` fields are the lab's own and stay out.
 *
 * Usage:
 *   declareLayout(builder, 'smcd_dev', SMCD_DEV, { lgr_list: 'struct smc_link_group *' });
 */
import type { FieldType, StructLayout } from '../../common/struct.js';
import type { BtfBuilder, FieldDeclaration } from './builder.js';

/** C types of fields, by name. */
export type FieldTypes = Readonly<Record<string, string>>;

export function declareLayout(
  builder: BtfBuilder,
  name: string,
  layout: StructLayout<string>,
  types: FieldTypes = {},
): void {
  const fields: Record<string, FieldDeclaration> = {};
  for (const [field, type] of Object.entries<FieldType>(layout.types)) {
    if (field.startsWith('scratch_')) continue;
    const plain = typeof type === 'number' ? `u8[${type}]` : type;
    fields[field] = [types[field] ?? plain, layout.offset[field] ?? 0];
  }
  builder.struct(name, layout.size, fields);
}

/**
 * Gives BTF's data sections the sizes and offsets that only the ELF file knows.
 *
 * clang writes a DATASEC with size 0 and all variables at offset 0 and leaves it to the loader to fill both
 * in from the section and its symbols. Reference: btf_fixup_datasec of libbpf. Sections without a place
 * in the file (externs) stay as they are.
 */
import { Btf } from '../btf/btf.js';
import type { BtfType } from '../btf/types.js';
import type { Elf } from './elf.js';

export function withDataOffsets(btf: Btf, elf: Elf): Btf {
  const types = btf.types.map((type) => (type.kind === 'datasec' ? placed(btf, type, elf) : type));
  return new Btf(types, (offset) => btf.string(offset));
}

function placed(btf: Btf, type: BtfType & { readonly kind: 'datasec' }, elf: Elf): BtfType {
  const index = elf.sections.findIndex(({ name }) => name === type.name);
  const section = elf.sections[index];
  if (!section) return type;
  const offsets = new Map(
    elf.symbols.flatMap(({ name, value, section: at }) =>
      at === index ? [[name, value] as const] : [],
    ),
  );
  const variables = type.variables
    .map((variable) => {
      const offset = offsets.get(btf.as(variable.type, 'var')?.name ?? '');
      return offset === undefined ? variable : { ...variable, offset };
    })
    .sort((a, b) => a.offset - b.offset);
  return { ...type, size: section.size, variables };
}

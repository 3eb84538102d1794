/**
 * Maps as an object defines them: `.maps` (BTF), `maps` (legacy) and global data sections.
 *
 * In `.maps` each variable is a struct whose members carry numbers as array lengths and types as
 * pointers: `__uint(type, 1)` is `int (*type)[1]`, `__type(key, u32)` is `u32 *key`. Reference:
 * parse_btf_map_def and internal_map_name of libbpf.
 */
import { viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { Btf } from '../btf/btf.js';
import type { BtfMember } from '../btf/types.js';
import type { Elf, ElfSection } from './elf.js';
import { SHT, STT } from './elf.js';
import { kconfigSize } from './externs.js';
import type { DataVariable, ExternSpec, MapDefinition } from './spec.js';

export const KCONFIG_SECTION = '.kconfig';

const BPF_MAP_TYPE_ARRAY = 2;
const BPF_F_RDONLY_PROG = 1 << 7;
const BPF_F_MMAPABLE = 1 << 10;
const BPF_OBJ_NAME_LEN = 16;
/** Larger sections make no sense, and a damaged size must not eat memory. */
const MAX_DATA_BYTES = 16 << 20;

/** A map and where its symbol lies, for relocations. */
export interface PlacedMap {
  readonly definition: MapDefinition;
  readonly sectionIndex: number;
  readonly offset: number;
}

interface Draft {
  type: number;
  keySize: number;
  valueSize: number;
  maxEntries: number;
  flags: number;
  keyType: number;
  valueType: number;
  mapExtra?: number;
  inner?: MapDefinition;
  /** Byte offset of the `values` array in the variable, for its relocations. */
  valuesAt?: number;
}

/** Maps of the `.maps` section. `notes` gets what is ignored. */
export function btfMaps(elf: Elf, btf: Btf | undefined, notes: string[]): PlacedMap[] {
  const section = elf.sections.find(({ name }) => name === '.maps');
  if (!section) return [];
  if (!btf) {
    throw new InputError("object has no .BTF section, which its '.maps' needs: build it with -g");
  }
  const id = btf.find('datasec', '.maps');
  const datasec = id === undefined ? undefined : btf.as(id, 'datasec');
  if (!datasec) throw new InputError("BTF has no data section '.maps'");
  return datasec.variables.map((variable) => {
    const declared = btf.as(variable.type, 'var');
    if (!declared) throw new InputError(`BTF type ${variable.type} in '.maps' is not a variable`);
    // offsets in BTF are final only after linking; the symbol knows
    const symbol = elf.symbols.find(
      ({ name, section: index }) => index === section.index && name === declared.name,
    );
    const offset = symbol?.value ?? variable.offset;
    const draft = readStruct(btf, declared.name, declared.type, notes);
    const { valuesAt, ...rest } = draft;
    const initialValues = valuesAt === undefined ? [] : valuesOf(elf, section, offset + valuesAt);
    return {
      definition: { name: declared.name, ...rest, initialValues },
      sectionIndex: section.index,
      offset,
    };
  });
}

function readStruct(btf: Btf, map: string, type: number, notes: string[]): Draft {
  const struct = btf.resolve(type);
  if (struct.kind !== 'struct') {
    throw new InputError(`map '${map}': its definition is a ${struct.kind}, not a struct`);
  }
  const draft: Draft = {
    type: 0,
    keySize: 0,
    valueSize: 0,
    maxEntries: 0,
    flags: 0,
    keyType: 0,
    valueType: 0,
  };
  for (const member of struct.members) {
    const number = (): number => uintOf(btf, map, member);
    switch (member.name) {
      case 'type':
        draft.type = number();
        break;
      case 'max_entries':
        draft.maxEntries = number();
        break;
      case 'map_flags':
        draft.flags = number();
        break;
      case 'map_extra':
        draft.mapExtra = number();
        break;
      case 'key_size':
        draft.keySize = number();
        break;
      case 'value_size':
        draft.valueSize = number();
        break;
      case 'key':
        draft.keyType = pointee(btf, map, member);
        draft.keySize = btf.sizeOf(draft.keyType);
        break;
      case 'value':
        draft.valueType = pointee(btf, map, member);
        draft.valueSize = btf.sizeOf(draft.valueType);
        break;
      case 'values':
        draft.valuesAt = member.bitOffset / 8;
        readInner(btf, map, member, draft, notes);
        break;
      case 'pinning':
      case 'numa_node':
        if (number() !== 0) notes.push(`map '${map}': ${member.name} is ignored`);
        break;
      default:
        throw new InputError(`map '${map}': unknown field '${member.name}' in its definition`);
    }
  }
  return draft;
}

/** `__uint(name, N)`: a pointer to an array of N ints; `__ulong(name, N)`: an enum whose one value is N. */
function uintOf(btf: Btf, map: string, member: BtfMember): number {
  const pointer = btf.resolve(member.type);
  if (pointer.kind === 'enum' || pointer.kind === 'enum64') return Number(pointer.values[0]?.value);
  const array = pointer.kind === 'ptr' ? btf.resolve(pointer.type) : undefined;
  if (array?.kind !== 'array') {
    throw new InputError(`map '${map}': '${member.name}' is not written with __uint`);
  }
  return array.count;
}

function pointee(btf: Btf, map: string, member: BtfMember): number {
  const pointer = btf.resolve(member.type);
  if (pointer.kind !== 'ptr') {
    throw new InputError(`map '${map}': '${member.name}' is not written with __type`);
  }
  return pointer.type;
}

/** `__array(values, T)`: an array of pointers to inner maps (structs) or programs (functions). */
function readInner(btf: Btf, map: string, member: BtfMember, draft: Draft, notes: string[]): void {
  const array = btf.resolve(member.type);
  const pointer = array.kind === 'array' ? btf.resolve(array.type) : undefined;
  if (pointer?.kind !== 'ptr') {
    throw new InputError(`map '${map}': 'values' is not written with __array`);
  }
  draft.keySize ||= 4;
  draft.valueSize ||= 4;
  const struct = btf.resolve(pointer.type);
  if (struct.kind !== 'struct') return;
  if (struct.members.some((each) => each.name === 'values')) {
    throw new InputError(`map '${map}': maps are nested over two deep`);
  }
  const name = `${map}.inner`;
  const { valuesAt: _, ...inner } = readStruct(btf, name, pointer.type, notes);
  draft.inner = { name, ...inner, initialValues: [] };
}

function valuesOf(elf: Elf, section: ElfSection, start: number): MapDefinition['initialValues'] {
  const relocations = elf.relocations.get(section.index) ?? [];
  const ends = elf.symbols
    .filter((symbol) => symbol.section === section.index && symbol.value > start)
    .map(({ value }) => value);
  const end = Math.min(section.size, ...ends);
  return relocations
    .filter(({ offset }) => offset >= start && offset < end)
    .map(({ offset, symbol }) => ({ index: (offset - start) / 8, symbol: symbol.name }));
}

/** Maps of the legacy `maps` section: struct bpf_map_def, five u32, one per symbol. */
export function legacyMaps(elf: Elf): PlacedMap[] {
  const section = elf.sections.find(({ name }) => name === 'maps');
  if (!section) return [];
  const view = viewOf(section.bytes);
  return elf.symbols
    .filter((symbol) => symbol.section === section.index && symbol.type !== STT.SECTION)
    .map((symbol) => {
      if (symbol.value + 20 > section.bytes.length) {
        throw new InputError(`map '${symbol.name}': its definition lies outside section 'maps'`);
      }
      const field = (index: number): number => view.getUint32(symbol.value + 4 * index, true);
      return {
        definition: {
          name: symbol.name,
          type: field(0),
          keySize: field(1),
          valueSize: field(2),
          maxEntries: field(3),
          flags: field(4),
          keyType: 0,
          valueType: 0,
          initialValues: [],
        },
        sectionIndex: section.index,
        offset: symbol.value,
      };
    });
}

/** Global data: each of `.data*`, `.bss*`, `.rodata*` is an array map with one value. */
export function dataMaps(elf: Elf, objectName: string, btf: Btf | undefined): PlacedMap[] {
  return elf.sections
    .filter(
      ({ name, size, type }) =>
        /^\.(data|bss|rodata)(\..*)?$/.test(name) &&
        size > 0 &&
        (type === SHT.PROGBITS || type === SHT.NOBITS),
    )
    .map((section) => {
      if (section.size > MAX_DATA_BYTES) {
        throw new InputError(`section '${section.name}' has ${section.size} bytes: over 16 MiB`);
      }
      const readOnly = section.name.startsWith('.rodata');
      return {
        definition: {
          name: dataMapName(objectName, section.name),
          type: BPF_MAP_TYPE_ARRAY,
          keySize: 4,
          valueSize: section.size,
          maxEntries: 1,
          flags: BPF_F_MMAPABLE | (readOnly ? BPF_F_RDONLY_PROG : 0),
          keyType: 0,
          valueType: btf?.find('datasec', section.name) ?? 0,
          initialValues: [],
          data: section.type === SHT.NOBITS ? new Uint8Array(section.size) : section.bytes.slice(),
          section: section.name,
          variables: variablesOf(elf, section, btf),
        },
        sectionIndex: section.index,
        offset: 0,
      };
    });
}

/** Values of the kernel's configuration: an array map as well. It is filled when it is loaded. */
export function kconfigMaps(
  objectName: string,
  externs: readonly ExternSpec[],
  btf: Btf | undefined,
): PlacedMap[] {
  const valueSize = kconfigSize(externs);
  if (valueSize === 0) return [];
  const variables = externs
    .filter(({ kind }) => kind === 'kconfig')
    .map(({ name, offset, size, type }) => ({ name, offset, size, type }));
  const definition: MapDefinition = {
    name: dataMapName(objectName, KCONFIG_SECTION),
    type: BPF_MAP_TYPE_ARRAY,
    keySize: 4,
    valueSize,
    maxEntries: 1,
    flags: BPF_F_MMAPABLE | BPF_F_RDONLY_PROG,
    keyType: 0,
    valueType: btf?.find('datasec', KCONFIG_SECTION) ?? 0,
    initialValues: [],
    data: new Uint8Array(valueSize),
    section: KCONFIG_SECTION,
    variables,
  };
  // no ELF section holds it
  return [{ definition, sectionIndex: -1, offset: 0 }];
}

/** BTF leaves offsets to the linker; the symbols have them. */
function variablesOf(elf: Elf, section: ElfSection, btf: Btf | undefined): DataVariable[] {
  return elf.symbols
    .filter((symbol) => symbol.section === section.index && symbol.type === STT.OBJECT)
    .sort((a, b) => a.value - b.value)
    .map(({ name, value, size }) => {
      const id = btf?.find('var', name);
      const type = (id === undefined ? undefined : btf?.as(id, 'var')?.type) ?? 0;
      return { name, offset: value, size, type };
    });
}

/** `<object>.bss` in at most 15 characters; a section with two dots keeps its own name. */
function dataMapName(objectName: string, section: string): string {
  if (section.lastIndexOf('.') > 0) return section;
  const suffix = Math.max(7, section.length);
  const prefix = objectName.slice(0, Math.max(0, BPF_OBJ_NAME_LEN - 1 - suffix));
  return `${prefix}${section}`.replace(/[^A-Za-z0-9_.]/g, '_');
}

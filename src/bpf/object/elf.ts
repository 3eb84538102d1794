/**
 * A reader of relocatable ELF64 little-endian files, as far as BPF objects need it.
 *
 * Reference: elf(5); the machine number is EM_BPF 247. Section contents are views of the input.
 * Everything is bounds-checked: a cut file gives one InputError that names what is missing. Left
 * out: program headers, RELA (LLVM writes REL for BPF), extended section numbers.
 */
import { viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';

const EM_BPF = 247;

export const SHT = { PROGBITS: 1, SYMTAB: 2, STRTAB: 3, RELA: 4, NOBITS: 8, REL: 9 } as const;
export const SHF_EXECINSTR = 4;
export const SHN = { UNDEF: 0, ABS: 0xfff1, COMMON: 0xfff2 } as const;
export const STT = { NOTYPE: 0, OBJECT: 1, FUNC: 2, SECTION: 3, FILE: 4 } as const;
export const STB_LOCAL = 0;

const MACHINES: Readonly<Record<number, string>> = {
  0: 'none',
  3: 'i386',
  8: 'MIPS',
  20: 'PowerPC',
  21: 'PowerPC64',
  22: 's390',
  40: 'ARM',
  62: 'x86-64',
  183: 'AArch64',
  243: 'RISC-V',
  247: 'BPF',
  258: 'LoongArch',
  263: 'Solana BPF',
};

export interface ElfSection {
  readonly index: number;
  readonly name: string;
  readonly type: number;
  readonly flags: bigint;
  readonly size: number;
  readonly link: number;
  readonly info: number;
  /** Empty for SHT_NOBITS. */
  readonly bytes: Uint8Array;
}

interface ElfSymbol {
  readonly name: string;
  readonly value: number;
  readonly size: number;
  readonly type: number;
  readonly binding: number;
  /** Section index, or one of SHN. */
  readonly section: number;
}

export interface ElfRelocation {
  /** Bytes from the start of the section it applies to. */
  readonly offset: number;
  readonly type: number;
  readonly symbol: ElfSymbol;
}

export interface Elf {
  readonly sections: readonly ElfSection[];
  readonly symbols: readonly ElfSymbol[];
  /** By index of the section they apply to. */
  readonly relocations: ReadonlyMap<number, readonly ElfRelocation[]>;
}

const HEADER_BYTES = 64;
const SECTION_HEADER_BYTES = 64;
const SYMBOL_BYTES = 24;
const REL_BYTES = 16;

export function readElf(bytes: Uint8Array): Elf {
  checkIdentity(bytes);
  const view = viewOf(bytes);
  const tableOffset = Number(view.getBigUint64(40, true));
  const entryBytes = view.getUint16(58, true);
  const count = view.getUint16(60, true);
  const namesIndex = view.getUint16(62, true);
  if (count === 0) throw new InputError('object has no sections');
  if (entryBytes !== SECTION_HEADER_BYTES) {
    throw new InputError(`object has section headers of ${entryBytes} bytes, not 64`);
  }
  slice(bytes, tableOffset, count * entryBytes, 'section headers');
  const raw = Array.from({ length: count }, (_, index) =>
    readSection(bytes, tableOffset + index * entryBytes, index),
  );
  const names = raw[namesIndex];
  if (!names) throw new InputError(`object has no section ${namesIndex} for section names`);
  const sections = raw.map((section) => ({
    ...section,
    name: stringAt(names.bytes, section.nameOffset, `name of section ${section.index}`),
  }));
  const symbols = readSymbols(sections);
  return { sections, symbols, relocations: readRelocations(sections, symbols) };
}

function checkIdentity(bytes: Uint8Array): void {
  const magic = [0x7f, 0x45, 0x4c, 0x46];
  if (bytes.length === 0) throw new InputError('not an ELF object: the file is empty');
  if (!magic.every((byte, i) => i >= bytes.length || bytes[i] === byte)) {
    throw new InputError('not an ELF object: it does not start with 7f 45 4c 46');
  }
  if (bytes.length < HEADER_BYTES) {
    throw new InputError(`object cut in its ELF header: 64 bytes needed, ${bytes.length} there`);
  }
  const view = viewOf(bytes);
  if (bytes[4] !== 2) throw new InputError(`object is ELF class ${bytes[4]}, not 2 (64-bit)`);
  if (bytes[5] === 2) {
    throw new InputError('object is big-endian: build it with -target bpfel (or bpf)');
  }
  if (bytes[5] !== 1) throw new InputError(`object has ELF byte order ${bytes[5]}, not 1 (little)`);
  const machine = view.getUint16(18, true);
  if (machine !== EM_BPF) {
    const name = MACHINES[machine];
    throw new InputError(
      `object is for machine ${machine}${name ? ` (${name})` : ''}, not 247 (BPF)`,
    );
  }
  const type = view.getUint16(16, true);
  if (type !== 1) throw new InputError(`object has ELF type ${type}, not 1 (relocatable)`);
}

/** `size` bytes at `offset`, or an error that says what is missing. */
function slice(bytes: Uint8Array, offset: number, size: number, what: string): Uint8Array {
  if (offset + size > bytes.length) {
    throw new InputError(
      `object cut: ${what} need bytes ${offset}..${offset + size}, the file has ${bytes.length}`,
    );
  }
  return bytes.subarray(offset, offset + size);
}

function readSection(
  bytes: Uint8Array,
  at: number,
  index: number,
): Omit<ElfSection, 'name'> & { readonly nameOffset: number } {
  const view = viewOf(bytes);
  const type = view.getUint32(at + 4, true);
  const offset = Number(view.getBigUint64(at + 24, true));
  const size = Number(view.getBigUint64(at + 32, true));
  const empty = type === SHT.NOBITS || type === 0;
  return {
    index,
    nameOffset: view.getUint32(at, true),
    type,
    flags: view.getBigUint64(at + 8, true),
    size,
    link: view.getUint32(at + 40, true),
    info: view.getUint32(at + 44, true),
    bytes: empty ? new Uint8Array(0) : slice(bytes, offset, size, `contents of section ${index}`),
  };
}

function stringAt(table: Uint8Array, offset: number, what: string): string {
  const end = table.indexOf(0, offset);
  if (end < 0) throw new InputError(`object damaged: no string at ${offset} for the ${what}`);
  return new TextDecoder().decode(table.subarray(offset, end));
}

function readSymbols(sections: readonly ElfSection[]): ElfSymbol[] {
  const table = sections.find(({ type }) => type === SHT.SYMTAB);
  if (!table) throw new InputError('object has no symbol table (.symtab): was it stripped?');
  const strings = sections[table.link];
  if (!strings) throw new InputError(`object has no section ${table.link} for symbol names`);
  const view = viewOf(table.bytes);
  return Array.from({ length: Math.floor(table.bytes.length / SYMBOL_BYTES) }, (_, i) => {
    const at = i * SYMBOL_BYTES;
    const type = view.getUint8(at + 4) & 15;
    const section = view.getUint16(at + 6, true);
    const own = stringAt(strings.bytes, view.getUint32(at, true), `name of symbol ${i}`);
    return {
      // a section symbol is nameless and goes by its section
      name: own === '' && type === STT.SECTION ? (sections[section]?.name ?? '') : own,
      value: Number(view.getBigUint64(at + 8, true)),
      size: Number(view.getBigUint64(at + 16, true)),
      type,
      binding: view.getUint8(at + 4) >> 4,
      section,
    };
  });
}

function readRelocations(
  sections: readonly ElfSection[],
  symbols: readonly ElfSymbol[],
): Map<number, readonly ElfRelocation[]> {
  const bySection = new Map<number, readonly ElfRelocation[]>();
  for (const section of sections) {
    if (section.type === SHT.RELA) {
      throw new InputError(`section '${section.name}' has RELA relocations: only REL is supported`);
    }
    if (section.type !== SHT.REL) continue;
    const view = viewOf(section.bytes);
    const count = Math.floor(section.bytes.length / REL_BYTES);
    const relocations = Array.from({ length: count }, (_, i): ElfRelocation => {
      const at = i * REL_BYTES;
      const number = view.getUint32(at + 12, true);
      const symbol = symbols[number];
      if (!symbol) {
        throw new InputError(`relocation ${i} of '${section.name}': there is no symbol ${number}`);
      }
      const offset = Number(view.getBigUint64(at, true));
      return { offset, type: view.getUint32(at + 8, true), symbol };
    });
    bySection.set(section.info, [...(bySection.get(section.info) ?? []), ...relocations]);
  }
  return bySection;
}

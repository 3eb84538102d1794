/**
 * Finds the functions of an object and what their instructions refer to.
 *
 * A function is an STT_FUNC symbol in an executable section. Relocation kinds are those of LLVM's BPF
 * backend (Documentation/bpf/llvm_reloc.rst): R_BPF_64_64 (1) on ld_imm64, R_BPF_64_32 (10) on calls.
 * A call inside one section may carry no relocation; its imm is then relative already.
 */
import { InputError } from '../../common/errors.js';
import type { BtfExt } from '../btf/ext.js';
import { readSlot, slotCount, SLOT_SIZE } from '../instruction.js';
import { OPCODES, PSEUDO, type Opcode } from '../opcodes.js';
import {
  SHF_EXECINSTR,
  SHN,
  SHT,
  STB_LOCAL,
  STT,
  type Elf,
  type ElfRelocation,
  type ElfSection,
} from './elf.js';
import { KCONFIG_SECTION, type PlacedMap } from './map-definitions.js';
import type { ExternSpec, FunctionSpec, Relocation, SourceLine } from './spec.js';

const R_BPF_64_64 = 1;
const R_BPF_64_32 = 10;

/** What relocations are resolved against. */
interface Context {
  readonly elf: Elf;
  readonly maps: readonly PlacedMap[];
  readonly functions: readonly Place[];
  readonly externs: readonly ExternSpec[];
}

interface Place {
  readonly name: string;
  readonly section: ElfSection;
  readonly offset: number;
  readonly size: number;
  readonly isStatic: boolean;
}

export function findFunctions(
  elf: Elf,
  maps: readonly PlacedMap[],
  externs: readonly ExternSpec[],
  ext: BtfExt,
): FunctionSpec[] {
  const functions = elf.sections
    .filter(({ type, flags }) => type === SHT.PROGBITS && (Number(flags) & SHF_EXECINSTR) !== 0)
    .flatMap((section) => functionsOf(elf, section));
  const context: Context = { elf, maps, functions, externs };
  return functions.map((place) => {
    const insns = place.section.bytes.slice(place.offset, place.offset + place.size);
    const { section, offset } = place;
    const inside = (at: number): boolean => at >= offset && at < offset + place.size;
    const relative = <T extends { readonly offset: number }>(
      records: ReadonlyMap<string, readonly T[]>,
    ): T[] => (records.get(section.name) ?? []).filter((record) => inside(record.offset));
    const lines = relative(ext.lines).map((line): SourceLine => ({
      slot: Math.floor((line.offset - offset) / SLOT_SIZE),
      file: line.file,
      text: line.text,
      line: line.line,
      column: line.column,
    }));
    return {
      name: place.name,
      section: section.name,
      offset,
      insns,
      relocations: relocationsOf(context, place, insns),
      lines: lines.sort((a, b) => a.slot - b.slot),
      coreRelocations: relative(ext.coreRelocations).map((relocation) => ({
        ...relocation,
        offset: relocation.offset - offset,
      })),
      isStatic: place.isStatic,
      btfId: ext.functions.get(section.name)?.find((info) => info.offset === offset)?.type ?? 0,
    };
  });
}

function functionsOf(elf: Elf, section: ElfSection): Place[] {
  const found = elf.symbols
    .filter((symbol) => symbol.section === section.index && symbol.type === STT.FUNC)
    .sort((a, b) => a.value - b.value);
  let end = 0;
  return found.map((symbol) => {
    const { name, value, size } = symbol;
    if (value + size > section.bytes.length || value % SLOT_SIZE !== 0 || size % SLOT_SIZE !== 0) {
      throw new InputError(
        `function '${name}' at bytes ${value}..${value + size} does not fit section '${section.name}' of ${section.bytes.length} bytes`,
      );
    }
    if (size === 0) throw new InputError(`function '${name}' in '${section.name}' is empty`);
    if (value < end) {
      throw new InputError(`function '${name}' in '${section.name}' overlaps another function`);
    }
    end = value + size;
    return { name, section, offset: value, size, isStatic: symbol.binding === STB_LOCAL };
  });
}

function relocationsOf(context: Context, place: Place, insns: Uint8Array): Relocation[] {
  const all = context.elf.relocations.get(place.section.index) ?? [];
  const relocated = new Set<number>();
  const relocations: Relocation[] = [];
  for (const relocation of all) {
    const at = relocation.offset - place.offset;
    if (at < 0 || at >= place.size) continue;
    const slot = Math.floor(at / SLOT_SIZE);
    relocations.push(resolve(context, place, insns, slot, relocation));
    relocated.add(slot);
  }
  for (let slot = 0; slot < slotCount(insns); slot++) {
    const { code, src, imm } = readSlot(insns, slot);
    const kind = OPCODES[code]?.kind;
    if (kind === 'ld_imm64') slot++;
    if (kind !== 'call' || src !== PSEUDO.CALL || relocated.has(slot)) continue;
    const target = place.offset + (slot + imm + 1) * SLOT_SIZE;
    relocations.push({
      kind: 'call',
      slot,
      callee: calleeAt(context, place, slot, place.section.index, target),
    });
  }
  return relocations.sort((a, b) => a.slot - b.slot);
}

function resolve(
  context: Context,
  place: Place,
  insns: Uint8Array,
  slot: number,
  relocation: ElfRelocation,
): Relocation {
  const { symbol, type } = relocation;
  const instruction = readSlot(insns, slot);
  const kind = OPCODES[instruction.code]?.kind;
  const where = `function '${place.name}' insn ${slot}`;
  if (symbol.section === SHN.UNDEF) {
    return externRelocation(context, slot, symbol.name, kind, where);
  }
  const target = context.elf.sections[symbol.section];
  if (!target) {
    throw new InputError(
      `${where}: symbol '${symbol.name}' is in missing section ${symbol.section}`,
    );
  }
  if (type === R_BPF_64_32 && kind === 'call') {
    const at = symbol.value + (instruction.imm + 1) * SLOT_SIZE;
    return { kind: 'call', slot, callee: calleeAt(context, place, slot, target.index, at) };
  }
  if (type !== R_BPF_64_64 || kind !== 'ld_imm64' || slot + 1 >= slotCount(insns)) {
    throw new InputError(
      `${where}: relocation type ${type} to '${symbol.name}' on opcode 0x${instruction.code.toString(16).padStart(2, '0')}`,
    );
  }
  const offset = symbol.value + instruction.imm;
  if ((Number(target.flags) & SHF_EXECINSTR) !== 0) {
    return { kind: 'function', slot, callee: calleeAt(context, place, slot, target.index, offset) };
  }
  const data = context.maps.find(
    (map) => map.sectionIndex === target.index && map.definition.data !== undefined,
  );
  if (data) return { kind: 'data', slot, map: data.definition.name, offset };
  const map = context.maps.find((m) => m.sectionIndex === target.index && m.offset === offset);
  if (map) return { kind: 'map', slot, map: map.definition.name };
  throw new InputError(
    `${where}: '${symbol.name}' at ${target.name}+${offset} is neither a map nor global data`,
  );
}

function externRelocation(
  context: Context,
  slot: number,
  symbol: string,
  kind: Opcode['kind'] | undefined,
  where: string,
): Relocation {
  const extern = context.externs.find(({ name }) => name === symbol);
  if (!extern) throw new InputError(`${where}: relocation to undefined symbol '${symbol}'`);
  if (kind !== 'ld_imm64' && (kind !== 'call' || extern.kind !== 'kfunc')) {
    throw new InputError(`${where}: extern '${symbol}' is neither loaded nor called`);
  }
  const map = context.maps.find(({ definition }) => definition.section === KCONFIG_SECTION);
  if (extern.kind !== 'kconfig' || !map) return { kind: 'extern', slot, symbol };
  return { kind: 'data', slot, map: map.definition.name, offset: extern.offset };
}

function calleeAt(
  context: Context,
  place: Place,
  slot: number,
  sectionIndex: number,
  offset: number,
): number {
  const index = context.functions.findIndex(
    (callee) => callee.section.index === sectionIndex && callee.offset === offset,
  );
  if (index < 0) {
    const name = context.elf.sections[sectionIndex]?.name ?? sectionIndex;
    throw new InputError(
      `function '${place.name}' insn ${slot}: no function starts at ${name}+${offset}`,
    );
  }
  return index;
}

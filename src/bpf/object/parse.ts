/**
 * From the bytes of an ELF object to an `ObjectSpec`. Pure: no machine, no allocation.
 *
 * Reference: bpf_object__open of libbpf. Any malformed input gives one InputError.
 *
 * Usage:
 *   const spec = parseObject(bytes, { name: 'xdp_counter' });
 *   const program = selectProgram(spec);
 */
import { plainBytes } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import { NO_BTF_EXT, parseBtfExt } from '../btf/ext.js';
import { parseBtf } from '../btf/parse.js';
import { withDataOffsets } from './datasec.js';
import { readElf, type Elf } from './elf.js';
import { findExterns } from './externs.js';
import { findFunctions } from './functions.js';
import { btfMaps, dataMaps, kconfigMaps, legacyMaps } from './map-definitions.js';
import { attachmentOf } from './sections.js';
import { findStructOps } from './struct-ops.js';
import type { FunctionSpec, ObjectSpec, ProgramSpec } from './spec.js';

export interface ParseOptions {
  /** The file name; directories and `.o` are dropped. Names the maps of global data. Default empty. */
  readonly name?: string;
}

export function parseObject(bytes: Uint8Array, options: ParseOptions = {}): ObjectSpec {
  const name = (options.name ?? '').replace(/^.*[/\\]/, '').replace(/\.o$/, '');
  const elf = readElf(plainBytes(bytes));
  const sectionBytes = (wanted: string): Uint8Array | undefined =>
    elf.sections.find((section) => section.name === wanted)?.bytes;
  const btfBytes = sectionBytes('.BTF');
  const btf = btfBytes && withDataOffsets(parseBtf(btfBytes), elf);
  const extBytes = sectionBytes('.BTF.ext');
  const ext = btf && extBytes ? parseBtfExt(extBytes, btf) : NO_BTF_EXT;
  const notes: string[] = [];
  const externs = findExterns(elf, btf);
  const maps = [
    ...btfMaps(elf, btf, notes),
    ...legacyMaps(elf),
    ...dataMaps(elf, name, btf),
    ...kconfigMaps(name, externs, btf),
  ];
  const names = new Set<string>();
  for (const { definition } of maps) {
    if (names.has(definition.name)) throw new InputError(`map '${definition.name}' is there twice`);
    names.add(definition.name);
  }
  for (const { definition, sectionIndex } of maps) {
    const count = definition.data ? (elf.relocations.get(sectionIndex)?.length ?? 0) : 0;
    if (count > 0) {
      notes.push(`section '${definition.section}': ${count} pointers in it are not relocated`);
    }
  }
  const functions = findFunctions(elf, maps, externs, ext);
  return {
    name,
    license: licenseOf(elf),
    programs: programsOf(functions),
    functions,
    maps: maps.map(({ definition }) => definition),
    externs,
    structOps: findStructOps(elf, btf, functions),
    ...(btf ? { btf } : {}),
    notes,
  };
}

function licenseOf(elf: Elf): string {
  const section = elf.sections.find(({ name }) => name === 'license');
  if (!section) return '';
  const end = section.bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? section.bytes : section.bytes.subarray(0, end));
}

/** Every function outside `.text` is a program; those in `.text` are only called. */
function programsOf(functions: readonly FunctionSpec[]): ProgramSpec[] {
  const programs: ProgramSpec[] = [];
  for (const [functionIndex, { name, section, isStatic }] of functions.entries()) {
    if (section === '.text') continue;
    if (isStatic) {
      throw new InputError(`program '${name}' in section '${section}' is static: make it global`);
    }
    programs.push({ name, section, ...attachmentOf(section), functionIndex });
  }
  if (programs.length > 0) return programs;
  const hint =
    functions.length > 0
      ? `its functions (${functions.map(({ name }) => name).join(', ')}) are in .text, name a section with SEC()`
      : 'no executable section has a function';
  throw new InputError(`object has no programs: ${hint}`);
}

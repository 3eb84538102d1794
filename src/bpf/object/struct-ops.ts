/**
 * Structures of operations that an object defines: variables in `.struct_ops` whose function pointers are its
 * programs.
 *
 * Reference: init_struct_ops_maps and bpf_object__collect_st_ops_relos of libbpf. A member that is no function
 * pointer keeps the bytes that the object gives it.
 */
import { InputError } from '../../common/errors.js';
import type { Btf } from '../btf/btf.js';
import type { Elf } from './elf.js';
import type { FunctionSpec } from './spec.js';

/** With `.link` a link holds the map, without the map registers by itself. */
const SECTIONS: readonly string[] = ['.struct_ops', '.struct_ops.link'];

interface StructOpsMember {
  readonly name: string;
  /** Bytes from the start of the structure. */
  readonly offset: number;
  readonly size: number;
  /** Index in `ObjectSpec.functions` of the program it points to. */
  readonly functionIndex?: number;
}

export interface StructOpsSpec {
  /** Of the variable. */
  readonly name: string;
  /** Of the structure: `tcp_congestion_ops`. */
  readonly type: string;
  readonly data: Uint8Array;
  readonly members: readonly StructOpsMember[];
}

export function findStructOps(
  elf: Elf,
  btf: Btf | undefined,
  functions: readonly FunctionSpec[],
): StructOpsSpec[] {
  if (!btf) return [];
  return SECTIONS.flatMap((name) => {
    const section = elf.sections.find((each) => each.name === name);
    const id = btf.find('datasec', name);
    if (!section || id === undefined) return [];
    const relocations = elf.relocations.get(section.index) ?? [];
    return (btf.as(id, 'datasec')?.variables ?? []).map(({ type: variable }): StructOpsSpec => {
      const declared = btf.as(variable, 'var');
      const type = declared && btf.resolve(declared.type);
      if (!declared || type?.kind !== 'struct') {
        throw new InputError(`BTF type ${variable} in '${name}' is no variable of a structure`);
      }
      const symbol = elf.symbols.find(
        (each) => each.section === section.index && each.name === declared.name,
      );
      const start = symbol?.value ?? 0;
      const members = type.members.map((member): StructOpsMember => {
        const offset = member.bitOffset / 8;
        const relocation = relocations.find((each) => each.offset === start + offset);
        const place = { name: member.name, offset, size: btf.sizeOf(member.type) };
        if (!relocation) return place;
        const target = elf.sections[relocation.symbol.section];
        const functionIndex = functions.findIndex(
          (fn) => fn.section === target?.name && fn.offset === relocation.symbol.value,
        );
        if (functionIndex < 0) {
          throw new InputError(
            `struct_ops '${declared.name}': member ${member.name} points to no program`,
          );
        }
        return { ...place, functionIndex };
      });
      return {
        name: declared.name,
        type: type.name,
        data: section.bytes.slice(start, start + type.size),
        members,
      };
    });
  });
}

/**
 * What an object expects the kernel to provide: `__kconfig` values, `__ksym` variables and functions.
 *
 * Reference: bpf_object__collect_externs of libbpf. Externs are undefined ELF symbols; BTF says in its data
 * sections `.kconfig` and `.ksyms` what each one is. The kconfig values together become one read-only
 * array map, whose layout is private to loader and program: in the order of BTF, each at its alignment.
 */
import { alignUp } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { Btf } from '../btf/btf.js';
import { SHN, type Elf } from './elf.js';
import type { ExternSpec } from './spec.js';

const STB_WEAK = 2;
/** More kconfig bytes make no sense, and a damaged size must not eat memory. */
const MAX_KCONFIG_BYTES = 1 << 20;

export function findExterns(elf: Elf, btf: Btf | undefined): ExternSpec[] {
  if (!btf) return [];
  const undefinedSymbols = new Map(
    elf.symbols
      .filter(({ section, name }) => section === SHN.UNDEF && name !== '')
      .map((symbol) => [symbol.name, symbol]),
  );
  const externs: ExternSpec[] = [];
  let end = 0;
  for (const section of ['.kconfig', '.ksyms']) {
    const id = btf.find('datasec', section);
    const variables = id === undefined ? [] : (btf.as(id, 'datasec')?.variables ?? []);
    for (const { type: variable } of variables) {
      const declared = btf.at(variable);
      if (declared.kind !== 'var' && declared.kind !== 'func') {
        throw new InputError(`BTF type ${variable} in '${section}' is a ${declared.kind}`);
      }
      const { name, type } = declared;
      const symbol = undefinedSymbols.get(name);
      // declared, but not used
      if (!symbol) continue;
      const weak = symbol.binding === STB_WEAK;
      if (section === '.ksyms') {
        const kind = declared.kind === 'func' ? 'kfunc' : 'ksym';
        externs.push({ name, kind, weak, type, offset: 0, size: 0 });
        continue;
      }
      const size = btf.sizeOf(type);
      const offset = alignUp(end, alignmentOf(btf, type));
      end = offset + size;
      if (end > MAX_KCONFIG_BYTES) throw new InputError(`extern '${name}' is too large`);
      externs.push({ name, kind: 'kconfig', weak, type, offset, size });
    }
  }
  return externs;
}

/** Bytes of the kconfig values together. */
export function kconfigSize(externs: readonly ExternSpec[]): number {
  const ends = externs.map(({ kind, offset, size }) => (kind === 'kconfig' ? offset + size : 0));
  return Math.max(0, ...ends);
}

function alignmentOf(btf: Btf, id: number): number {
  const type = btf.resolve(id);
  const size = type.kind === 'array' ? btf.sizeOf(type.type) : btf.sizeOf(id);
  return [1, 2, 4, 8].includes(size) ? size : 8;
}

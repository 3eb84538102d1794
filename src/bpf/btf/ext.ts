/**
 * Reads a `.BTF.ext` section: which function, which source line, and which CO-RE relocation belongs to
 * which instruction.
 *
 * Reference: Documentation/bpf/btf.rst §4.2. Each of the three parts is a record size followed by
 * blocks per ELF section; records may be longer than known here, the rest is skipped.
 *
 *   block: sec_name_off u32 | num_info u32 | records
 *   func_info: insn_off u32 | type_id u32
 *   line_info: insn_off u32 | file_name_off u32 | line_off u32 | line_col u32 (line << 10 | column)
 *   core_relo: insn_off u32 | type_id u32 | access_str_off u32 | kind u32
 */
import { viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { Btf } from './btf.js';
import { BTF_MAGIC } from './parse.js';

/** `offset` is in bytes from the start of the ELF section, here and below. */
interface FuncInfo {
  readonly offset: number;
  /** BTF id of the func. */
  readonly type: number;
}

interface LineInfo {
  readonly offset: number;
  readonly file: string;
  /** The source line itself. */
  readonly text: string;
  readonly line: number;
  readonly column: number;
}

export interface CoreRelocation {
  readonly offset: number;
  /** Root type of the access. */
  readonly type: number;
  /** Member indices, as `0:1:2`. */
  readonly access: string;
  /** enum bpf_core_relo_kind. */
  readonly kind: number;
}

export interface BtfExt {
  /** Records by ELF section name, in file order. */
  readonly functions: ReadonlyMap<string, readonly FuncInfo[]>;
  readonly lines: ReadonlyMap<string, readonly LineInfo[]>;
  readonly coreRelocations: ReadonlyMap<string, readonly CoreRelocation[]>;
}

export const NO_BTF_EXT: BtfExt = {
  functions: new Map(),
  lines: new Map(),
  coreRelocations: new Map(),
};

type ReadRecord<T> = (u32: (field: number) => number) => T;

export function parseBtfExt(bytes: Uint8Array, btf: Btf): BtfExt {
  const view = viewOf(bytes);
  if (bytes.length < 24) {
    throw new InputError(`BTF.ext cut: ${bytes.length} bytes, its header needs 24`);
  }
  const magic = view.getUint16(0, true);
  if (magic !== BTF_MAGIC) {
    throw new InputError(`BTF.ext has magic 0x${magic.toString(16)}, not 0xeb9f`);
  }
  const headerBytes = view.getUint32(4, true);
  const part = <T>(what: string, field: number, minimum: number, read: ReadRecord<T>) => {
    // CO-RE relocations came later: older headers end before that field
    if (field + 8 > Math.min(headerBytes, bytes.length)) return new Map<string, T[]>();
    const start = headerBytes + view.getUint32(field, true);
    const size = view.getUint32(field + 4, true);
    if (start + size > bytes.length) {
      throw new InputError(
        `BTF.ext cut: ${what} needs bytes ${start}..${start + size}, the section has ${bytes.length}`,
      );
    }
    return readBlocks(what, bytes.subarray(start, start + size), minimum, btf, read);
  };
  return {
    functions: part('func_info', 8, 8, (u32) => ({ offset: u32(0), type: u32(1) })),
    lines: part('line_info', 16, 16, (u32) => ({
      offset: u32(0),
      file: btf.string(u32(1)),
      text: btf.string(u32(2)),
      line: u32(3) >>> 10,
      column: u32(3) & 0x3ff,
    })),
    coreRelocations: part('core_relo', 24, 16, (u32) => ({
      offset: u32(0),
      type: u32(1),
      access: btf.string(u32(2)),
      kind: u32(3),
    })),
  };
}

function readBlocks<T>(
  what: string,
  bytes: Uint8Array,
  minimum: number,
  btf: Btf,
  read: ReadRecord<T>,
): Map<string, T[]> {
  const view = viewOf(bytes);
  const bySection = new Map<string, T[]>();
  if (bytes.length < 4) return bySection;
  const recordBytes = view.getUint32(0, true);
  if (recordBytes < minimum || recordBytes % 4 !== 0) {
    throw new InputError(`BTF.ext: ${what} records have ${recordBytes} bytes, needs ${minimum}`);
  }
  let at = 4;
  while (at < bytes.length) {
    const left = bytes.length - at - 8;
    const count = left >= 0 ? view.getUint32(at + 4, true) : 0;
    if (left < 0 || count * recordBytes > left) {
      throw new InputError(
        `BTF.ext cut in ${what} at byte ${at}: ${count} records of ${recordBytes} bytes, ${Math.max(left, 0)} bytes left`,
      );
    }
    const section = btf.string(view.getUint32(at, true));
    const records = bySection.get(section) ?? [];
    at += 8;
    for (let i = 0; i < count; i++, at += recordBytes) {
      const start = at;
      records.push(read((field) => view.getUint32(start + 4 * field, true)));
    }
    bySection.set(section, records);
  }
  return bySection;
}

/**
 * Writes a table of types as the bytes of a `.BTF` section, which bpftool and libbpf can read.
 *
 * Reference: Documentation/bpf/btf.rst §2; the counterpart of `parse.ts`.
 */
import { viewOf } from '../../common/bytes.js';
import type { Btf } from './btf.js';
import { BTF_MAGIC, KINDS, LINKAGES } from './parse.js';
import type { BtfType } from './types.js';

const HEADER_BYTES = 24;

export function writeBtf(btf: Btf): Uint8Array {
  const strings = new StringTable();
  const words: number[] = [];
  for (const type of btf.types.slice(1)) words.push(...typeWords(type, strings));
  const names = strings.bytes();
  const bytes = new Uint8Array(HEADER_BYTES + 4 * words.length + names.length);
  const view = viewOf(bytes);
  const header = [4 * words.length, 4 * words.length, names.length];
  view.setUint16(0, BTF_MAGIC, true);
  view.setUint8(2, 1);
  // hdr_len, type_off, type_len, str_off, str_len
  [HEADER_BYTES, 0, ...header].forEach((word, i) => view.setUint32(4 + 4 * i, word, true));
  words.forEach((word, i) => view.setUint32(HEADER_BYTES + 4 * i, word >>> 0, true));
  bytes.set(names, HEADER_BYTES + 4 * words.length);
  return bytes;
}

class StringTable {
  readonly #offsets = new Map<string, number>([['', 0]]);
  readonly #pieces: Uint8Array[] = [new Uint8Array(1)];
  #size = 1;

  add(text: string): number {
    const known = this.#offsets.get(text);
    if (known !== undefined) return known;
    const offset = this.#size;
    const piece = new TextEncoder().encode(`${text}\0`);
    this.#offsets.set(text, offset);
    this.#pieces.push(piece);
    this.#size += piece.length;
    return offset;
  }

  bytes(): Uint8Array {
    const all = new Uint8Array(this.#size);
    let at = 0;
    for (const piece of this.#pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }
}

/** name_off, info, size or type, then what the kind adds. */
function typeWords(type: BtfType, strings: StringTable): number[] {
  const kind = KINDS.findIndex(([name]) => name === type.kind);
  const common = (vlen: number, word: number, flag = false): number[] => [
    strings.add('name' in type ? type.name : ''),
    ((flag ? 1 << 31 : 0) | (kind << 24) | vlen) >>> 0,
    word,
  ];
  switch (type.kind) {
    case 'void':
      return common(0, 0);
    case 'int': {
      const encoding = (type.signed ? 1 : 0) | (type.char ? 2 : 0) | (type.bool ? 4 : 0);
      return [...common(0, type.size), (encoding << 24) | type.bits];
    }
    case 'ptr':
    case 'const':
    case 'volatile':
    case 'restrict':
    case 'typedef':
    case 'type_tag':
      return common(0, type.type);
    case 'array':
      return [...common(0, 0), type.type, type.indexType, type.count];
    case 'struct':
    case 'union': {
      const flag = type.members.some(({ bitSize }) => bitSize > 0);
      const members = type.members.flatMap(({ name, type: id, bitOffset, bitSize }) => [
        strings.add(name),
        id,
        (bitSize << 24) | bitOffset,
      ]);
      return [...common(type.members.length, type.size, flag), ...members];
    }
    case 'enum': {
      const values = type.values.flatMap(({ name, value }) => [
        strings.add(name),
        Number(BigInt.asUintN(32, value)),
      ]);
      return [...common(type.values.length, type.size, type.signed), ...values];
    }
    case 'enum64': {
      const values = type.values.flatMap(({ name, value }) => [
        strings.add(name),
        Number(BigInt.asUintN(32, value)),
        Number(BigInt.asUintN(32, value >> 32n)),
      ]);
      return [...common(type.values.length, type.size, type.signed), ...values];
    }
    case 'fwd':
      return common(0, 0, type.of === 'union');
    case 'func':
      return common(LINKAGES.indexOf(type.linkage), type.type);
    case 'func_proto': {
      const parameters = type.parameters.flatMap(({ name, type: id }) => [strings.add(name), id]);
      return [...common(type.parameters.length, type.returnType), ...parameters];
    }
    case 'var':
      return [...common(0, type.type), LINKAGES.indexOf(type.linkage)];
    case 'datasec': {
      const variables = type.variables.flatMap((each) => [each.type, each.offset, each.size]);
      return [...common(type.variables.length, type.size), ...variables];
    }
    case 'float':
      return common(0, type.size);
    case 'decl_tag':
      return [...common(0, type.type), type.componentIndex];
  }
}

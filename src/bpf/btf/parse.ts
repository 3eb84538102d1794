/**
 * Reads a `.BTF` section.
 *
 * Reference: Documentation/bpf/btf.rst §2.
 *
 *   magic u16 = 0xeb9f | version u8 = 1 | flags u8 | hdr_len u32 | type_off, type_len, str_off, str_len
 *   type: name_off u32 | info u32 (vlen 0-15, kind 24-28, kind_flag 31) | size or type u32 | extra
 *
 * Everything is checked against the section's bounds, references against the number of types. Left
 * out: split BTF (modules), big-endian BTF.
 */
import { viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import { Btf } from './btf.js';
import type { BtfKind, BtfType, Linkage } from './types.js';

export const BTF_MAGIC = 0xeb9f;

/** Kinds by number, with the bytes that follow the 12 of every type: fixed, and per vlen element. */
export const KINDS: readonly (readonly [BtfKind, number, number])[] = [
  ['void', 0, 0],
  ['int', 4, 0],
  ['ptr', 0, 0],
  ['array', 12, 0],
  ['struct', 0, 12],
  ['union', 0, 12],
  ['enum', 0, 8],
  ['fwd', 0, 0],
  ['typedef', 0, 0],
  ['volatile', 0, 0],
  ['const', 0, 0],
  ['restrict', 0, 0],
  ['func', 0, 0],
  ['func_proto', 0, 8],
  ['var', 4, 0],
  ['datasec', 0, 12],
  ['float', 0, 0],
  ['decl_tag', 4, 0],
  ['type_tag', 0, 0],
  ['enum64', 0, 12],
];

export const LINKAGES: readonly Linkage[] = ['static', 'global', 'extern'];

interface RawType {
  readonly kind: BtfKind;
  readonly name: string;
  /** Number of elements, or a func's linkage. */
  readonly vlen: number;
  readonly kindFlag: boolean;
  /** size or type */
  readonly word: number;
  /** Offset of what follows the common 12 bytes. */
  readonly at: number;
}

export function parseBtf(bytes: Uint8Array): Btf {
  const view = viewOf(bytes);
  if (bytes.length < 24)
    throw new InputError(`BTF cut: ${bytes.length} bytes, its header needs 24`);
  const magic = view.getUint16(0, true);
  if (magic === 0x9feb) throw new InputError('BTF is big-endian: only little-endian is supported');
  if (magic !== BTF_MAGIC)
    throw new InputError(`BTF has magic 0x${magic.toString(16)}, not 0xeb9f`);
  const headerBytes = view.getUint32(4, true);
  const section = (what: string, field: number): Uint8Array => {
    const start = headerBytes + view.getUint32(field, true);
    const size = view.getUint32(field + 4, true);
    if (start + size > bytes.length) {
      throw new InputError(
        `BTF cut: ${what} need bytes ${start}..${start + size}, the section has ${bytes.length}`,
      );
    }
    return bytes.subarray(start, start + size);
  };
  const strings = stringReader(section('strings', 16));
  const types = readTypes(section('types', 8), strings);
  checkReferences(types);
  return new Btf(types, strings);
}

/** Reads NUL-terminated strings by offset. */
function stringReader(bytes: Uint8Array): (offset: number) => string {
  const decoder = new TextDecoder();
  return (offset) => {
    const end = bytes.indexOf(0, offset);
    if (offset > bytes.length || (end < 0 && offset !== 0)) {
      throw new InputError(`BTF has no string at ${offset} (${bytes.length} bytes of strings)`);
    }
    return decoder.decode(bytes.subarray(offset, Math.max(end, offset)));
  };
}

function readTypes(bytes: Uint8Array, strings: (offset: number) => string): BtfType[] {
  const view = viewOf(bytes);
  const types: BtfType[] = [{ kind: 'void' }];
  let at = 0;
  while (at < bytes.length) {
    const id = types.length;
    const need = (size: number): void => {
      if (at + size > bytes.length) {
        throw new InputError(
          `BTF cut in type ${id}: ${size} bytes needed, ${bytes.length - at} left`,
        );
      }
    };
    need(12);
    const info = view.getUint32(at + 4, true);
    const number = (info >>> 24) & 0x1f;
    const row = KINDS[number];
    if (!row || number === 0) throw new InputError(`BTF type ${id} has unknown kind ${number}`);
    const vlen = info & 0xffff;
    const [kind, fixed, perElement] = row;
    const size = 12 + fixed + perElement * vlen;
    need(size);
    types.push(
      readType(view, strings, {
        kind,
        name: strings(view.getUint32(at, true)),
        vlen,
        kindFlag: info >>> 31 === 1,
        word: view.getUint32(at + 8, true),
        at: at + 12,
      }),
    );
    at += size;
  }
  return types;
}

function readType(view: DataView, strings: (offset: number) => string, raw: RawType): BtfType {
  const { kind, name, word, at } = raw;
  const u32 = (offset: number): number => view.getUint32(offset, true);
  const elements = <T>(size: number, read: (offset: number) => T): T[] =>
    Array.from({ length: raw.vlen }, (_, i) => read(at + i * size));
  switch (kind) {
    case 'void':
      return { kind };
    case 'int': {
      // encoding 24-27 (1 signed, 2 char, 4 bool), offset 16-23, bits 0-7
      const encoding = u32(at) >>> 24;
      return {
        kind,
        name,
        size: word,
        bits: u32(at) & 0xff,
        signed: (encoding & 1) !== 0,
        char: (encoding & 2) !== 0,
        bool: (encoding & 4) !== 0,
      };
    }
    case 'ptr':
    case 'const':
    case 'volatile':
    case 'restrict':
      return { kind, type: word };
    case 'typedef':
    case 'type_tag':
      return { kind, name, type: word };
    case 'array':
      return { kind, type: u32(at), indexType: u32(at + 4), count: u32(at + 8) };
    case 'struct':
    case 'union':
      return {
        kind,
        name,
        size: word,
        // with kind_flag: bit size in 24-31, bit offset in 0-23
        members: elements(12, (offset) => ({
          name: strings(u32(offset)),
          type: u32(offset + 4),
          bitOffset: raw.kindFlag ? u32(offset + 8) & 0xffffff : u32(offset + 8),
          bitSize: raw.kindFlag ? u32(offset + 8) >>> 24 : 0,
        })),
      };
    case 'enum':
      return {
        kind,
        name,
        size: word,
        signed: raw.kindFlag,
        values: elements(8, (offset) => ({
          name: strings(u32(offset)),
          value: BigInt(raw.kindFlag ? view.getInt32(offset + 4, true) : u32(offset + 4)),
        })),
      };
    case 'enum64':
      return {
        kind,
        name,
        size: word,
        signed: raw.kindFlag,
        values: elements(12, (offset) => {
          const value = (BigInt(u32(offset + 8)) << 32n) | BigInt(u32(offset + 4));
          return {
            name: strings(u32(offset)),
            value: raw.kindFlag ? BigInt.asIntN(64, value) : value,
          };
        }),
      };
    case 'fwd':
      return { kind, name, of: raw.kindFlag ? 'union' : 'struct' };
    case 'func':
      return { kind, name, type: word, linkage: LINKAGES[raw.vlen] ?? 'static' };
    case 'func_proto':
      return {
        kind,
        returnType: word,
        parameters: elements(8, (offset) => ({
          name: strings(u32(offset)),
          type: u32(offset + 4),
        })),
      };
    case 'var':
      return { kind, name, type: word, linkage: LINKAGES[u32(at)] ?? 'static' };
    case 'datasec':
      return {
        kind,
        name,
        size: word,
        variables: elements(12, (offset) => ({
          type: u32(offset),
          offset: u32(offset + 4),
          size: u32(offset + 8),
        })),
      };
    case 'float':
      return { kind, name, size: word };
    case 'decl_tag':
      return { kind, name, type: word, componentIndex: view.getInt32(at, true) };
  }
}

/** The types that `type` refers to. */
function references(type: BtfType): readonly number[] {
  switch (type.kind) {
    case 'void':
    case 'int':
    case 'enum':
    case 'enum64':
    case 'fwd':
    case 'float':
      return [];
    case 'array':
      return [type.type, type.indexType];
    case 'struct':
    case 'union':
      return type.members.map((member) => member.type);
    case 'func_proto':
      return [type.returnType, ...type.parameters.map((parameter) => parameter.type)];
    case 'datasec':
      return type.variables.map((variable) => variable.type);
    default:
      return [type.type];
  }
}

function checkReferences(types: readonly BtfType[]): void {
  for (const [id, type] of types.entries()) {
    const bad = references(type).find((reference) => reference >= types.length);
    if (bad !== undefined) {
      throw new InputError(
        `BTF type ${id} (${type.kind}) refers to type ${bad} of ${types.length - 1}`,
      );
    }
  }
}

/**
 * A value by its BTF type as bpftool prints it.
 *
 * Reference: tools/bpf/bpftool/btf_dumper.c. Bit fields and integers over 64 bits are hexadecimal,
 * pointers too in plain text; a char array that ends in a zero byte and holds only printable
 * characters is text; enums by name; members keep their names, an anonymous one has the name "".
 * For values as JavaScript data see `btf/value.ts`.
 */
import { bytesToHex, viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { Btf } from '../btf/btf.js';
import type { BtfMember, BtfTypeOf } from '../btf/types.js';
import { arrayOf, literal, objectOf, quoted, type JsonTree } from './json-tree.js';

/** As the kernel's MAX_RESOLVE_DEPTH. */
const MAX_DEPTH = 32;

export interface BtfTreeOptions {
  readonly btf: Btf;
  /** For people (0x numbers bare) or for JSON readers (as text). */
  readonly plain: boolean;
}

/** Throws InputError when `bytes` are too few, or the type has no size. */
export function btfTree(
  options: BtfTreeOptions,
  id: number,
  bytes: Uint8Array,
  depth = 0,
): JsonTree {
  const { btf, plain } = options;
  const type = btf.resolve(id);
  if (depth > MAX_DEPTH) throw new InputError(`BTF type ${id} is nested over ${MAX_DEPTH} deep`);
  switch (type.kind) {
    case 'int':
      return integer(type, need(bytes, type.size, id), plain);
    case 'ptr': {
      const value = viewOf(need(bytes, 8, id)).getBigUint64(0, true);
      if (!plain) return literal(`${value}`);
      return literal(value === 0n ? '(nil)' : `0x${value.toString(16)}`);
    }
    case 'enum':
    case 'enum64': {
      const raw = unsigned(need(bytes, type.size, id), type.size);
      const value = type.signed ? BigInt.asIntN(8 * type.size, raw) : raw;
      const named = type.values.find((each) => each.value === value);
      return named ? quoted(named.name) : literal(`${value}`);
    }
    case 'array':
      return array(options, type, bytes, depth);
    case 'struct':
    case 'union':
      return objectOf(
        type.members.map((member) => [
          member.name,
          memberTree(options, member, need(bytes, type.size, id), depth),
        ]),
      );
    case 'datasec': {
      const variables = type.variables.map(({ type: each, offset }) =>
        btfTree(options, each, bytes.subarray(offset), depth + 1),
      );
      return objectOf([[type.name, arrayOf(variables)]]);
    }
    case 'var':
      return objectOf([[type.name, btfTree(options, type.type, bytes, depth + 1)]]);
    case 'float':
      return quoted(bytesToHex(need(bytes, type.size, id)));
    default:
      return quoted('<unknown>');
  }
}

function need(bytes: Uint8Array, size: number, id: number): Uint8Array {
  if (bytes.length >= size) return bytes.subarray(0, size);
  throw new InputError(`BTF type ${id} needs ${size} bytes, there are ${bytes.length}`);
}

function unsigned(bytes: Uint8Array, size: number): bigint {
  let value = 0n;
  for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] ?? 0);
  return value;
}

function hexadecimal(value: bigint, plain: boolean): JsonTree {
  const text = `0x${value.toString(16)}`;
  return plain ? literal(text) : quoted(text);
}

function isPrintable(code: number): boolean {
  return code > 0x1f && code < 0x7f;
}

function integer(type: BtfTypeOf<'int'>, bytes: Uint8Array, plain: boolean): JsonTree {
  const value = unsigned(bytes, type.size);
  if (type.size > 8) return hexadecimal(value, plain);
  if (type.bool) return literal(value === 0n ? 'false' : 'true');
  if (type.char) {
    const code = bytes[0] ?? 0;
    if (isPrintable(code)) return quoted(String.fromCharCode(code));
    const digits = code.toString(16).padStart(2, '0');
    return plain ? quoted(`0x${digits}`) : literal(`"\\u00${digits}"`);
  }
  return literal(`${type.signed ? BigInt.asIntN(8 * type.size, value) : value}`);
}

function memberTree(
  options: BtfTreeOptions,
  member: BtfMember,
  bytes: Uint8Array,
  depth: number,
): JsonTree {
  const start = Math.floor(member.bitOffset / 8);
  if (member.bitSize === 0) {
    return btfTree(options, member.type, bytes.subarray(start), depth + 1);
  }
  const shift = member.bitOffset % 8;
  const size = Math.ceil((shift + member.bitSize) / 8);
  const value = unsigned(bytes.subarray(start), size) >> BigInt(shift);
  return hexadecimal(BigInt.asUintN(member.bitSize, value), options.plain);
}

function array(
  options: BtfTreeOptions,
  type: BtfTypeOf<'array'>,
  bytes: Uint8Array,
  depth: number,
): JsonTree {
  const size = options.btf.sizeOf(type.type);
  const text = characters(options.btf, type, bytes);
  if (text !== undefined) return quoted(text);
  return arrayOf(
    Array.from({ length: type.count }, (_, i) =>
      btfTree(options, type.type, bytes.subarray(i * size), depth + 1),
    ),
  );
}

/** The text of a char array, when all of it up to a zero byte is printable. */
function characters(btf: Btf, type: BtfTypeOf<'array'>, bytes: Uint8Array): string | undefined {
  const element = btf.resolve(type.type);
  if (element.kind !== 'int' || element.size !== 1) return undefined;
  if (!element.char && element.name !== 'char') return undefined;
  let text = '';
  for (const byte of bytes.subarray(0, type.count)) {
    if (byte === 0) return text;
    if (!isPrintable(byte)) return undefined;
    text += String.fromCharCode(byte);
  }
  return undefined;
}

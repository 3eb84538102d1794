/**
 * JavaScript values as bytes of a BTF type: the reverse of `btf/value.ts`.
 *
 * Objects fill structs by member name (members that are missing stay zero, those of anonymous members
 * are looked for in their parent), text fills char arrays, enums take a name or a number. Without a
 * type whole numbers become little-endian of the wanted size.
 */
import { viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { Btf } from '../btf/btf.js';
import type { BtfMember } from '../btf/types.js';
import type { BtfValue } from '../btf/value.js';

const MAX_DEPTH = 16;

/** Throws InputError when the value does not fit the type. */
export function encodeValue(
  value: BtfValue,
  size: number,
  typed?: { readonly btf: Btf; readonly type: number },
): Uint8Array {
  const bytes = new Uint8Array(size);
  if (typed) {
    write(typed.btf, typed.type, value, bytes, 0, 0);
    return bytes;
  }
  writeInteger(bytes, 0, size, integerOf(value));
  return bytes;
}

function write(
  btf: Btf,
  id: number,
  value: BtfValue,
  bytes: Uint8Array,
  at: number,
  depth: number,
): void {
  if (depth > MAX_DEPTH) throw new InputError(`BTF type ${id} is nested over ${MAX_DEPTH} deep`);
  const type = btf.resolve(id);
  switch (type.kind) {
    case 'int':
    case 'ptr':
      writeInteger(bytes, at, btf.sizeOf(id), integerOf(value));
      return;
    case 'enum':
    case 'enum64': {
      const named = type.values.find(({ name }) => name === value);
      writeInteger(bytes, at, type.size, named?.value ?? integerOf(value));
      return;
    }
    case 'array': {
      const size = btf.sizeOf(type.type);
      const items = typeof value === 'string' ? [...new TextEncoder().encode(value)] : value;
      if (!Array.isArray(items) || items.length > type.count) {
        throw new InputError(`a list of at most ${type.count} is wanted`);
      }
      items.forEach((item: BtfValue, i) =>
        write(btf, type.type, item, bytes, at + i * size, depth + 1),
      );
      return;
    }
    case 'struct':
    case 'union':
      if (typeof value !== 'object' || Array.isArray(value)) {
        throw new InputError(`an object for ${type.kind} ${type.name || '(anonymous)'} is wanted`);
      }
      writeMembers(
        btf,
        type.members,
        value as Readonly<Record<string, BtfValue>>,
        bytes,
        at,
        depth,
      );
      return;
    default:
      throw new InputError(`values of BTF kind ${type.kind} cannot be written`);
  }
}

function writeMembers(
  btf: Btf,
  members: readonly BtfMember[],
  value: Readonly<Record<string, BtfValue>>,
  bytes: Uint8Array,
  at: number,
  depth: number,
): void {
  for (const member of members) {
    const start = at + Math.floor(member.bitOffset / 8);
    if (member.name === '') {
      write(btf, member.type, value, bytes, start, depth + 1);
      continue;
    }
    const given = Object.hasOwn(value, member.name) ? value[member.name] : undefined;
    if (given === undefined) continue;
    if (member.bitSize > 0) writeBits(bytes, at, member, integerOf(given));
    else write(btf, member.type, given, bytes, start, depth + 1);
  }
}

function writeBits(bytes: Uint8Array, at: number, member: BtfMember, value: bigint): void {
  for (let i = 0; i < member.bitSize; i++) {
    const bit = member.bitOffset + i;
    const byte = at + Math.floor(bit / 8);
    const mask = 1 << (bit % 8);
    const set = ((value >> BigInt(i)) & 1n) === 1n;
    bytes[byte] = set ? (bytes[byte] ?? 0) | mask : (bytes[byte] ?? 0) & ~mask;
  }
}

function integerOf(value: BtfValue): bigint {
  if (typeof value === 'bigint') return value;
  if (typeof value === 'boolean') return value ? 1n : 0n;
  if (typeof value === 'number' && Number.isInteger(value)) return BigInt(value);
  throw new InputError(`a whole number is wanted, not ${JSON.stringify(value)}`);
}

function writeInteger(bytes: Uint8Array, at: number, size: number, value: bigint): void {
  const bits = 8 * size;
  if (value !== BigInt.asUintN(bits, value) && value !== BigInt.asIntN(bits, value)) {
    throw new InputError(`${value} does not fit ${size} bytes`);
  }
  const view = viewOf(bytes);
  for (let i = 0; i < size; i++) view.setUint8(at + i, Number((value >> BigInt(8 * i)) & 0xffn));
}

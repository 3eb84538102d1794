/**
 * Bytes as a value of a BTF type: what `bpftool map dump` shows of a map with BTF.
 *
 * Integers come as numbers, or as bigint where a number could not hold them; char arrays that end in a
 * zero byte as text; enums by name; structs as objects. Reference: tools/bpf/bpftool/btf_dumper.c.
 * Left out: float (raw bytes in hex), members of anonymous structs are lifted into their parent.
 *
 * Usage:
 *   decodeValue(btf, map.valueType, bytes); // { packets: 3, bytes: 180 }
 */
import { bytesToHex, viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { Btf } from './btf.js';
import type { BtfMember, BtfTypeOf } from './types.js';

export type BtfValue =
  | number
  | bigint
  | boolean
  | string
  | readonly BtfValue[]
  | { readonly [member: string]: BtfValue };

const MAX_DEPTH = 16;
/** Values that one may be made of: a damaged table could nest itself without end. */
const MAX_VALUES = 1 << 20;

/** How deep decoding is, and how many values it may still make. */
interface Progress {
  depth: number;
  left: number;
}

/** Throws InputError when `bytes` are fewer than the type needs. */
export function decodeValue(btf: Btf, type: number, bytes: Uint8Array): BtfValue {
  return decode(btf, type, bytes, { depth: 0, left: MAX_VALUES });
}

function decode(btf: Btf, id: number, bytes: Uint8Array, progress: Progress): BtfValue {
  if (progress.depth > MAX_DEPTH || --progress.left < 0) {
    throw new InputError(`BTF type ${id} refers to itself or is made of too many values`);
  }
  progress.depth++;
  const value = decodeOne(btf, id, bytes, progress);
  progress.depth--;
  return value;
}

function decodeOne(btf: Btf, id: number, bytes: Uint8Array, progress: Progress): BtfValue {
  const type = btf.resolve(id);
  const size = btf.sizeOf(id);
  if (size > bytes.length) {
    throw new InputError(`BTF type ${id} needs ${size} bytes, there are ${bytes.length}`);
  }
  switch (type.kind) {
    case 'int': {
      const value = readInteger(bytes, 0, 8 * size, type.signed);
      return type.bool ? value !== 0n : small(value);
    }
    case 'enum':
    case 'enum64': {
      const value = readInteger(bytes, 0, 8 * size, type.signed);
      return type.values.find((each) => each.value === value)?.name ?? small(value);
    }
    case 'ptr':
      return small(readInteger(bytes, 0, 64, false));
    case 'array':
      return decodeArray(btf, type, bytes.subarray(0, size), progress);
    case 'struct':
    case 'union': {
      const members: Record<string, BtfValue> = {};
      for (const member of type.members) addMember(btf, member, bytes, members, progress);
      return members;
    }
    default:
      return bytesToHex(bytes.subarray(0, size));
  }
}

function decodeArray(
  btf: Btf,
  array: BtfTypeOf<'array'>,
  bytes: Uint8Array,
  progress: Progress,
): BtfValue {
  const element = btf.resolve(array.type);
  const end = bytes.indexOf(0);
  const isText =
    element.kind === 'int' && element.size === 1 && element.name === 'char' && end >= 0;
  if (isText && bytes.subarray(0, end).every((byte) => byte >= 32 && byte < 127)) {
    return new TextDecoder().decode(bytes.subarray(0, end));
  }
  const size = btf.sizeOf(array.type);
  if (size === 0) return [];
  return Array.from({ length: bytes.length / size }, (_, i) =>
    decode(btf, array.type, bytes.subarray(i * size), progress),
  );
}

function addMember(
  btf: Btf,
  member: BtfMember,
  bytes: Uint8Array,
  members: Record<string, BtfValue>,
  progress: Progress,
): void {
  const { name, type, bitOffset, bitSize } = member;
  if (bitSize > 0) {
    const field = btf.resolve(type);
    const signed = 'signed' in field && field.signed;
    members[name] = small(readInteger(bytes, bitOffset, bitSize, signed));
    return;
  }
  const value = decode(btf, type, bytes.subarray(bitOffset / 8), progress);
  if (name === '' && typeof value === 'object') Object.assign(members, value);
  else members[name] = value;
}

/** `bits` bits from bit `offset` on, little-endian. */
function readInteger(bytes: Uint8Array, offset: number, bits: number, signed: boolean): bigint {
  const first = Math.floor(offset / 8);
  const last = Math.ceil((offset + bits) / 8);
  if (last > bytes.length) {
    throw new InputError(`BTF field at bit ${offset} of ${bits} bits lies outside its value`);
  }
  if (bits === 64 && offset % 8 === 0) {
    const view = viewOf(bytes);
    return signed ? view.getBigInt64(first, true) : view.getBigUint64(first, true);
  }
  let value = 0n;
  for (let i = last - 1; i >= first; i--) value = (value << 8n) | BigInt(bytes[i] as number);
  value >>= BigInt(offset % 8);
  return signed ? BigInt.asIntN(bits, value) : BigInt.asUintN(bits, value);
}

function small(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/**
 * Records of vector files: JSON lines or JSON, read without trusting their fields.
 *
 * A field that is missing or has another type is an InputError that names file, record and field.
 * Left out: reading files and decompressing (the caller injects both).
 */
import { hexToBytes } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';

/** How compressed instruction bytes are unpacked; Node has both in node:zlib. */
export interface Decompressor {
  /** A zlib stream. */
  deflate(bytes: Uint8Array): Uint8Array;
  brotli(bytes: Uint8Array): Uint8Array;
}

/** One record with typed access to its fields. */
export class VectorRecord {
  /** File and line, for messages. */
  readonly origin: string;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(origin: string, fields: Readonly<Record<string, unknown>>) {
    this.origin = origin;
    this.fields = fields;
  }

  /** The `name` field, or where the record stands. */
  get name(): string {
    const { name } = this.fields;
    return typeof name === 'string' ? name : this.origin;
  }

  has(field: string): boolean {
    return this.fields[field] !== undefined && this.fields[field] !== null;
  }

  text(field: string): string {
    const value = this.fields[field];
    if (typeof value !== 'string') throw this.#wrong(field, 'text');
    return value;
  }

  number(field: string): number {
    const value = this.fields[field];
    if (typeof value !== 'number') throw this.#wrong(field, 'a number');
    return value;
  }

  /** Hex digits as a number. */
  hexNumber(field: string): bigint {
    const text = this.text(field);
    if (!/^[0-9a-f]+$/i.test(text)) throw this.#wrong(field, 'a hex number');
    return BigInt(`0x${text}`);
  }

  /** Hex text as bytes; undefined when the field is absent or null. */
  bytes(field: string): Uint8Array | undefined {
    return this.has(field) ? hexToBytes(this.text(field)) : undefined;
  }

  /** A list of text; empty when absent. */
  texts(field: string): readonly string[] {
    const value = this.fields[field] ?? [];
    if (!Array.isArray(value)) throw this.#wrong(field, 'a list');
    return value.map((item: unknown) => String(item));
  }

  /** A list of numbers. */
  numbers(field: string): readonly number[] {
    const value = this.fields[field];
    if (!Array.isArray(value) || value.some((item) => typeof item !== 'number')) {
      throw this.#wrong(field, 'a list of numbers');
    }
    return value as number[];
  }

  /** Names and values of an object. */
  entries(field: string): readonly (readonly [name: string, value: unknown])[] {
    const value = this.fields[field];
    if (!isObject(value)) throw this.#wrong(field, 'an object');
    return Object.entries(value);
  }

  /** A list of objects, as records of their own. */
  records(field: string): readonly VectorRecord[] {
    const value = this.fields[field];
    if (!Array.isArray(value)) throw this.#wrong(field, 'a list');
    return value.map((item: unknown, index) => {
      if (!isObject(item)) throw this.#wrong(field, 'a list of objects');
      return new VectorRecord(`${this.origin} ${field}[${index}]`, item);
    });
  }

  /** A list of lists of objects. */
  lists(field: string): readonly (readonly VectorRecord[])[] {
    const value = this.fields[field];
    if (!Array.isArray(value)) throw this.#wrong(field, 'a list');
    return value.map((_item: unknown, index) => {
      return new VectorRecord(this.origin, { [field]: value[index] as unknown }).records(field);
    });
  }

  /** The program: `insns_hex`, or one of its compressed forms. */
  instructions(decompressor: Decompressor): Uint8Array {
    const plain = this.bytes('insns_hex');
    if (plain) return plain;
    if (this.has('insns_deflate_b64')) {
      return decompressor.deflate(base64ToBytes(this.text('insns_deflate_b64')));
    }
    if (this.has('insns_brotli_b64')) {
      return decompressor.brotli(base64ToBytes(this.text('insns_brotli_b64')));
    }
    throw new InputError(`${this.origin}: no instructions (insns_hex)`);
  }

  #wrong(field: string, wanted: string): InputError {
    return new InputError(`${this.origin}: field ${field} is not ${wanted}`);
  }
}

/** Records of a file: a JSON array, one JSON object, or one object per line. */
export function parseRecords(name: string, text: string): VectorRecord[] {
  const trimmed = text.trim();
  if (trimmed === '') throw new InputError(`${name}: empty file`);
  if (trimmed.startsWith('[')) {
    const values = parseJson(name, trimmed);
    if (!Array.isArray(values)) throw new InputError(`${name}: not a list of records`);
    return values.map((value: unknown, index) => recordOf(`${name}[${index}]`, value));
  }
  const lines = text.split('\n');
  if (/^\{\s*\n/.test(trimmed)) {
    return [recordOf(name, parseJson(name, trimmed))];
  }
  return lines.flatMap((line, index) => {
    if (line.trim() === '') return [];
    const origin = `${name}:${index + 1}`;
    return [recordOf(origin, parseJson(origin, line))];
  });
}

function recordOf(origin: string, value: unknown): VectorRecord {
  if (!isObject(value)) throw new InputError(`${origin}: not a record`);
  return new VectorRecord(origin, value);
}

function parseJson(origin: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new InputError(`${origin}: not JSON: ${why}`);
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function base64ToBytes(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

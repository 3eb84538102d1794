/**
 * Typed access to the fields of a parsed JSON record, which may hold anything.
 *
 * A field that is missing or has another type is an InputError that names record and field.
 */
import { InputError } from '../../common/errors.js';

export class Fields {
  /** Record and path, for messages. */
  readonly where: string;
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(where: string, value: unknown) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new InputError(`${where}: not an object`);
    }
    this.where = where;
    this.#values = value as Readonly<Record<string, unknown>>;
  }

  /** Present and not null. */
  has(name: string): boolean {
    return this.#values[name] !== undefined && this.#values[name] !== null;
  }

  /** A field that may be absent. */
  optional<T>(name: string, read: (name: string) => T): T | undefined {
    return this.has(name) ? read(name) : undefined;
  }

  readonly text = (name: string): string => {
    const value = this.#values[name];
    if (typeof value !== 'string') throw this.#wrong(name, 'text');
    return value;
  };

  readonly number = (name: string): number => {
    const value = this.#values[name];
    if (typeof value !== 'number') throw this.#wrong(name, 'a number');
    return value;
  };

  /** 0 or 1, or a boolean. */
  readonly flag = (name: string): boolean => {
    const value = this.#values[name];
    if (value !== 0 && value !== 1 && typeof value !== 'boolean') throw this.#wrong(name, '0 or 1');
    return Boolean(value);
  };

  /** `0x` and hex digits. */
  readonly address = (name: string): bigint => {
    const text = this.text(name);
    if (!/^0x[0-9a-f]+$/i.test(text)) throw this.#wrong(name, 'an address');
    return BigInt(text);
  };

  /** Eight hex digits. */
  readonly word = (name: string): number => parseWord(this.text(name), `${this.where}.${name}`);

  readonly words = (name: string): number[] => {
    return this.texts(name).map((text, i) => parseWord(text, `${this.where}.${name}[${i}]`));
  };

  readonly texts = (name: string): string[] => this.#list(name, 'string', 'a list of texts');

  readonly numbers = (name: string): number[] => this.#list(name, 'number', 'a list of numbers');

  readonly object = (name: string): Fields => {
    return new Fields(`${this.where}.${name}`, this.#values[name]);
  };

  readonly objects = (name: string): Fields[] => {
    const list = this.#array(name, 'a list');
    return list.map((value, i) => new Fields(`${this.where}.${name}[${i}]`, value));
  };

  /** One of `values`. */
  choice<T extends string>(name: string, values: readonly T[]): T {
    const text = this.text(name);
    const found = values.find((value) => value === text);
    if (found === undefined) throw this.#wrong(name, `one of ${values.join(', ')}`);
    return found;
  }

  #array(name: string, kind: string): readonly unknown[] {
    const value = this.#values[name];
    if (!Array.isArray(value)) throw this.#wrong(name, kind);
    return value;
  }

  #list<T>(name: string, type: 'string' | 'number', kind: string): T[] {
    const list = this.#array(name, kind);
    if (list.some((value) => typeof value !== type)) throw this.#wrong(name, kind);
    return list as T[];
  }

  #wrong(name: string, kind: string): InputError {
    return new InputError(`${this.where}: ${name} is not ${kind}`);
  }
}

function parseWord(text: string, where: string): number {
  if (!/^[0-9a-f]{8}$/i.test(text)) throw new InputError(`${where}: '${text}' is not a word`);
  return parseInt(text, 16);
}

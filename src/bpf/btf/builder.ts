/**
 * Makes a table of types from C declarations with known offsets: how a model says what its structs
 * look like.
 *
 * Types are written as C text: `u32`, `char[16]`, `struct net_device *`, `const void *`, `bool (*)(int a)`. A struct that is
 * only pointed to becomes a forward declaration. Layouts are given, not computed, because the models
 * have them already. Left out: anonymous members.
 *
 * Usage:
 *   const builder = new BtfBuilder();
 *   builder.struct('xdp_rxq_info', 64, { dev: ['struct net_device *', 0], queue_index: ['u32', 8] });
 *   const btf = builder.build();
 */
import { InputError } from '../../common/errors.js';
import { Btf } from './btf.js';
import type { BtfMember, BtfType } from './types.js';

/** A field's type as C text and its offset in bytes; of a bit field also its first bit there, and bits. */
export type FieldDeclaration =
  | readonly [type: string, offset: number]
  | readonly [type: string, offset: number, bit: number, bits: number];

/** The kernel's names of integers: bytes, and whether signed. */
const INTEGERS: ReadonlyMap<string, readonly [size: number, isSigned: boolean]> = new Map([
  ['char', [1, false]],
  ['bool', [1, false]],
  ['int', [4, true]],
  ['unsigned int', [4, false]],
  ['long', [8, true]],
  ['unsigned long', [8, false]],
  ['short', [2, true]],
  ['unsigned short', [2, false]],
  ['unsigned char', [1, false]],
  ['signed char', [1, true]],
  ['unsigned', [4, false]],
  ['long long', [8, true]],
  ['unsigned long long', [8, false]],
  ['__int128', [16, true]],
]);

/** What the kernel's short names stand for. */
const TYPEDEFS: ReadonlyMap<string, string> = new Map([
  ['u8', '__u8'],
  ['u16', '__u16'],
  ['u32', '__u32'],
  ['u64', '__u64'],
  ['s32', '__s32'],
  ['s64', '__s64'],
  ['__u8', 'unsigned char'],
  ['__u16', 'unsigned short'],
  ['__u32', 'unsigned int'],
  ['__u64', 'unsigned long long'],
  ['__s32', 'int'],
  ['__s64', 'long long'],
  ['__be16', '__u16'],
  ['__be32', '__u32'],
  ['__sum16', '__u16'],
  ['__wsum', '__u32'],
  ['s8', 'signed char'],
  ['s16', 'short'],
  ['size_t', 'unsigned long'],
  ['gfp_t', 'unsigned int'],
  ['netdev_tx_t', 'int'],
  ['netdev_features_t', 'u64'],
  ['gro_result_t', 'int'],
  ['netdev_features_t', 'u64'],
  ['pid_t', 'int'],
]);

type Composite = 'struct' | 'union';

export class BtfBuilder {
  /** Index is the id; a struct that is not declared yet is a forward declaration. */
  readonly #types: BtfType[] = [{ kind: 'void' }];
  /** Ids by C text. */
  readonly #ids = new Map<string, number>([['void', 0]]);

  struct(name: string, size: number, fields: Readonly<Record<string, FieldDeclaration>>): this {
    return this.#composite('struct', name, size, fields);
  }

  union(name: string, size: number, fields: Readonly<Record<string, FieldDeclaration>>): this {
    return this.#composite('union', name, size, fields);
  }

  enum(name: string, values: Readonly<Record<string, number>>): this {
    const type: BtfType = {
      kind: 'enum',
      name,
      size: 4,
      signed: Object.values(values).some((value) => value < 0),
      values: Object.entries(values).map(([each, value]) => ({ name: each, value: BigInt(value) })),
    };
    this.#ids.set(`enum ${name}`, this.#add(type));
    return this;
  }

  /** A global function; types of parameters and result as C text. */
  func(
    name: string,
    result: string,
    parameters: readonly (readonly [name: string, type: string])[],
  ): this {
    const type = this.#add({
      kind: 'func_proto',
      returnType: this.type(result),
      parameters: parameters.map(([each, text]) => ({ name: each, type: this.type(text) })),
    });
    this.#add({ kind: 'func', name, type, linkage: 'global' });
    return this;
  }

  /** Whether `struct sk_buff` or the like is declared, not only pointed to. */
  has(text: string): boolean {
    const kind = this.#types[this.#ids.get(text) ?? 0]?.kind;
    return kind !== undefined && kind !== 'void' && kind !== 'fwd';
  }

  /** The id of a type written in C. Throws InputError for names that are not known. */
  type(text: string): number {
    const key = text
      .trim()
      .replace(/\s+/g, ' ')
      .replace(/ ?\* ?/g, ' *')
      .replace(/\* \*/g, '**');
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    const id = this.#make(key);
    this.#ids.set(key, id);
    return id;
  }

  build(): Btf {
    return new Btf(this.#types.slice(), () => '');
  }

  #make(text: string): number {
    const array = /^(.*?)\s*\[(\d+)\]$/.exec(text);
    if (array) {
      const [, element = '', count = ''] = array;
      const indexType = this.type('unsigned int');
      return this.#add({
        kind: 'array',
        type: this.type(element),
        indexType,
        count: Number(count),
      });
    }
    const called = /^(.+?) ?\( ?\*\)\((.*)\)$/.exec(text);
    if (called) {
      const [, result = '', list = ''] = called;
      const parameters = list.split(', ').map((each) => {
        const [, type = '', name = ''] = /^(.+?)(\w+)$/.exec(each) ?? [];
        return { name, type: this.type(type) };
      });
      const type = this.#add({ kind: 'func_proto', returnType: this.type(result), parameters });
      return this.#add({ kind: 'ptr', type });
    }
    if (text.endsWith('*')) return this.#add({ kind: 'ptr', type: this.type(text.slice(0, -1)) });
    if (text.startsWith('const ')) {
      return this.#add({ kind: 'const', type: this.type(text.slice(6)) });
    }
    const composite = /^(struct|union) (\w+)$/.exec(text);
    if (composite) {
      const [, of, name = ''] = composite;
      return this.#add({ kind: 'fwd', name, of: of === 'union' ? 'union' : 'struct' });
    }
    const integer = INTEGERS.get(text);
    if (integer) {
      const [size, signed] = integer;
      const isBool = text === 'bool';
      return this.#add({
        kind: 'int',
        name: isBool ? '_Bool' : text,
        size,
        bits: 8 * size,
        signed,
        char: false,
        bool: isBool,
      });
    }
    const target = TYPEDEFS.get(text);
    if (target === undefined) throw new InputError(`unknown C type '${text}'`);
    return this.#add({ kind: 'typedef', name: text, type: this.type(target) });
  }

  #composite(
    kind: Composite,
    name: string,
    size: number,
    fields: Readonly<Record<string, FieldDeclaration>>,
  ): this {
    const id = this.type(`${kind} ${name}`);
    if (this.#types[id]?.kind !== 'fwd') throw new InputError(`${kind} ${name} is declared twice`);
    const members = Object.entries(fields).map(
      ([field, [type, offset, bit = 0, bits = 0]]): BtfMember => ({
        name: field,
        type: this.type(type),
        bitOffset: 8 * offset + bit,
        bitSize: bits,
      }),
    );
    // pointers to it, made before, keep their id
    this.#types[id] = { kind, name, size, members };
    return this;
  }

  #add(type: BtfType): number {
    return this.#types.push(type) - 1;
  }
}

/**
 * Reads the argument list of a C prototype, as far as a trampoline has to know it: how many
 * arguments, how wide, and whether something is returned.
 *
 * The counterpart of `struct btf_func_model` (include/linux/bpf.h) for functions that have no BTF
 * here. A structure by value needs its size; a function is written `bool (less)(int a, int b)`.
 */
import { InputError } from '../common/errors.js';

export interface Parameter {
  readonly name: string;
  /** C type without the name, e.g. `struct virtnet_info *`. */
  readonly type: string;
  /** Bytes. */
  readonly size: number;
  /** A structure by value. */
  readonly struct: boolean;
}

/** Bytes of structures by tag. */
export type StructSizes = Readonly<Record<string, number>>;

export interface Prototype {
  readonly name: string;
  readonly parameters: readonly Parameter[];
  /** C type, e.g. `struct sk_buff *`. */
  readonly returnType: string;
  /** Bytes; 0 for void. */
  readonly returnSize: number;
}

const SIZES: Readonly<Record<string, number>> = {
  void: 0,
  bool: 1,
  char: 1,
  u8: 1,
  s8: 1,
  short: 2,
  u16: 2,
  s16: 2,
  int: 4,
  unsigned: 4,
  u32: 4,
  s32: 4,
  __be16: 2,
  __be32: 4,
  __sum16: 2,
  __wsum: 4,
  gfp_t: 4,
  gro_result_t: 4,
  netdev_tx_t: 4,
  netdev_features_t: 8,
  long: 8,
  size_t: 8,
  u64: 8,
  s64: 8,
  __int128: 16,
};

const STRUCT = /^(?:const )?struct (\w+)$/;

/** A comma that parts two parameters, not two of a parameter that is a function. */
const BETWEEN = /,(?![^(]*\))/;
const FUNCTION = /^(.+?) ?\(\*?(\w+)\)\((.*)\)$/;

function sizeOf(type: string, prototype: string, structs: StructSizes): number {
  if (type.includes('*')) return 8;
  const tag = STRUCT.exec(type)?.[1];
  if (tag !== undefined) {
    const size = structs[tag];
    if (size === undefined) throw new InputError(`no size for 'struct ${tag}' in '${prototype}'`);
    return size;
  }
  const words = type
    .split(/\s+/)
    .filter((word) => !['const', 'static', 'unsigned', 'signed'].includes(word));
  const base = words.at(-1) ?? 'int';
  const size = base.startsWith('enum') || words[0] === 'enum' ? 4 : SIZES[base];
  if (size === undefined) throw new InputError(`unknown type '${type}' in '${prototype}'`);
  return size;
}

/** Throws InputError for what is no prototype. */
export function parsePrototype(text: string, structs: StructSizes = {}): Prototype {
  const match = /^([^()]*?)(\w+)\s*\((.*)\)$/.exec(text.trim());
  if (!match) throw new InputError(`'${text}' is no C prototype`);
  const [, returnType, name, list] = match as unknown as [string, string, string, string];
  const items = list.trim() === '' || list.trim() === 'void' ? [] : list.split(BETWEEN);
  const parameters = items.map((item, i) => {
    const called = FUNCTION.exec(item.trim());
    if (called) {
      const [, result = '', callback = '', takes = ''] = called;
      return { name: callback, type: `${result} (*)(${takes})`, size: 8, struct: false };
    }
    const parts = /^(.*?[\s*])(\w+)$/.exec(item.trim());
    const type = (parts?.[1] ?? item).trim();
    return {
      name: parts?.[2] ?? `arg${i}`,
      type,
      size: sizeOf(type, text, structs),
      struct: STRUCT.test(type),
    };
  });
  const result = returnType.trim();
  return { name, parameters, returnType: result, returnSize: sizeOf(result, text, structs) };
}

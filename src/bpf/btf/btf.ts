/**
 * A table of BTF types: lookup by id and name, sizes.
 *
 * Reference: Documentation/bpf/btf.rst; btf__resolve_size and btf__resolve_type of libbpf. Chains are
 * followed MAX_DEPTH links far: a damaged table that refers to itself gives an error, not a loop.
 *
 * Usage:
 *   const btf = parseBtf(section);
 *   const id = btf.find('struct', 'xdp_md');
 *   btf.sizeOf(id);
 */
import { InputError } from '../../common/errors.js';
import type { BtfKind, BtfType, BtfTypeOf } from './types.js';

/** As the kernel's MAX_RESOLVE_DEPTH. */
const MAX_DEPTH = 32;
const POINTER_SIZE = 8;

export class Btf {
  /** Index is the type id; [0] is void. */
  readonly types: readonly BtfType[];
  readonly #strings: (offset: number) => string;
  readonly #byName = new Map<string, number>();

  constructor(types: readonly BtfType[], strings: (offset: number) => string) {
    this.types = types;
    this.#strings = strings;
    for (const [id, type] of types.entries()) {
      const name = 'name' in type ? type.name : '';
      const key = `${type.kind} ${name}`;
      if (name !== '' && !this.#byName.has(key)) this.#byName.set(key, id);
    }
  }

  /** The type `id`. Throws InputError when there is none. */
  at(id: number): BtfType {
    const type = this.types[id];
    if (!type) throw new InputError(`BTF has no type ${id} (${this.types.length} types)`);
    return type;
  }

  /** The string at `offset` of the string section: BTF.ext refers to strings too. */
  string(offset: number): string {
    return this.#strings(offset);
  }

  /** Id of the first type of this kind and name. */
  find(kind: BtfKind, name: string): number | undefined {
    return this.#byName.get(`${kind} ${name}`);
  }

  /** The type itself when it is of `kind`. */
  as<K extends BtfKind>(id: number, kind: K): BtfTypeOf<K> | undefined {
    const type = this.at(id);
    return type.kind === kind ? (type as BtfTypeOf<K>) : undefined;
  }

  /** Follows typedefs, qualifiers and type tags. */
  resolve(id: number): BtfType {
    return this.at(this.resolveId(id));
  }

  /** As `resolve`, the id of what is found. */
  resolveId(id: number): number {
    let found = id;
    for (let depth = 0; depth < MAX_DEPTH; depth++) {
      const type = this.at(found);
      switch (type.kind) {
        case 'typedef':
        case 'type_tag':
        case 'const':
        case 'volatile':
        case 'restrict':
          found = type.type;
          break;
        default:
          return found;
      }
    }
    throw new InputError(`BTF type ${id} refers to itself or is nested over ${MAX_DEPTH} deep`);
  }

  /** Bytes of a value of this type. Throws InputError for void, functions and forward declarations. */
  sizeOf(id: number): number {
    let factor = 1;
    let type = this.resolve(id);
    for (let depth = 0; depth < MAX_DEPTH; depth++) {
      switch (type.kind) {
        case 'array':
          factor *= type.count;
          type = this.resolve(type.type);
          break;
        case 'var':
          type = this.resolve(type.type);
          break;
        case 'int':
        case 'struct':
        case 'union':
        case 'enum':
        case 'enum64':
        case 'float':
        case 'datasec':
          return this.#checkSize(id, factor * type.size);
        case 'ptr':
          return this.#checkSize(id, factor * POINTER_SIZE);
        default:
          throw new InputError(`BTF type ${id} (${type.kind}) has no size`);
      }
    }
    throw new InputError(`BTF type ${id} refers to itself or is nested over ${MAX_DEPTH} deep`);
  }

  /** Nested arrays of a damaged table may multiply beyond any number. */
  #checkSize(id: number, size: number): number {
    if (Number.isSafeInteger(size)) return size;
    throw new InputError(`BTF type ${id} is too large`);
  }
}

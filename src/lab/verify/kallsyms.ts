/**
 * /proc/kallsyms of the machine that an image comes from, and which helper a kernel function is.
 *
 * A line is `ffff80008029e968 T bpf_map_lookup_elem`, with ` [module]` behind it where there is one. The
 * verifier replaces calls of map helpers by calls of the map type's own functions (do_misc_fixups of
 * kernel/bpf/verifier.c), which take the same arguments; only `__htab_map_lookup_elem` returns something else.
 */
import { InputError } from '../../common/errors.js';

export class Kallsyms {
  readonly #names = new Map<bigint, string>();
  readonly #addresses = new Map<string, bigint>();

  /** Throws InputError for a line that is none, or when all addresses are hidden (kptr_restrict). */
  static parse(text: string): Kallsyms {
    const symbols = new Kallsyms();
    for (const [index, line] of text.split('\n').entries()) {
      if (line.trim() === '') continue;
      const match = /^([0-9a-f]{1,16})\s+[a-zA-Z?]\s+(\S+)/.exec(line.trim());
      if (!match) throw new InputError(`kallsyms line ${index + 1} is not 'ADDRESS TYPE NAME'`);
      symbols.add(BigInt(`0x${match[1]}`), match[2] ?? '');
    }
    if (symbols.#names.size === 1 && symbols.#names.has(0n)) {
      throw new InputError('kallsyms has only zeros for addresses: read it as root');
    }
    return symbols;
  }

  add(address: bigint, name: string): void {
    if (!this.#names.has(address)) this.#names.set(address, name);
    if (!this.#addresses.has(name)) this.#addresses.set(name, address);
  }

  nameAt(address: bigint): string | undefined {
    return this.#names.get(address);
  }

  /** Addresses of the images of a program: `bpf_prog_<tag>_<name>`. */
  programs(name: string): bigint[] {
    const pattern = new RegExp(`^bpf_prog_[0-9a-f]{16}_${name.slice(0, 15)}$`);
    return [...this.#addresses].flatMap(([each, address]) => (pattern.test(each) ? [address] : []));
  }
}

const MAP_OPERATION =
  /^_*(?:htab_lru_percpu|htab_percpu|htab_lru|htab|array|percpu_array|trie|queue_stack|queue|stack|bloom_map|dev|cpu|xsk)_map_(lookup|update|delete|push|pop|peek)_elem$/;

/** `bpf_map_update_elem` for `htab_map_update_elem`; other names are as they are. */
export function helperOf(name: string): string {
  const operation = MAP_OPERATION.exec(name)?.[1];
  if (operation !== undefined) return `bpf_map_${operation}_elem`;
  if (name.endsWith('_map_redirect')) return 'bpf_redirect_map';
  // tracing programs have a copy of their own; the generator of random numbers has the user's state
  if (name === 'bpf_user_rnd_u32') return 'bpf_get_prandom_u32';
  if (name === 'bpf_get_raw_cpu_id') return 'bpf_get_smp_processor_id';
  return name;
}

/** Returns a struct htab_elem, not the value in it. */
export const HTAB_ELEMENT_LOOKUP = '__htab_map_lookup_elem';

/**
 * /proc/kallsyms of the machine that an image comes from, and what a kernel function is called here.
 *
 * A line is `ffff80008029e968 T bpf_map_lookup_elem`, with ` [module]` behind it where there is one.
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

/** Helpers of which the kernel has copies for some programs: with the user's state, without checks. */
const COPIES: ReadonlyMap<string, string> = new Map([
  ['bpf_user_rnd_u32', 'bpf_get_prandom_u32'],
  ['bpf_get_raw_cpu_id', 'bpf_get_smp_processor_id'],
]);

/** `bpf_get_prandom_u32` for `bpf_user_rnd_u32`; other names are as they are. */
export function helperOf(name: string): string {
  return COPIES.get(name) ?? name;
}

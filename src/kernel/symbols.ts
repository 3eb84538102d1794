/**
 * The kernel's symbol table, with lookup both ways: name to address, address to symbol+offset.
 *
 * Reference: kernel/kallsyms.c; symbols of BPF images come and go as in kernel/bpf/core.c
 * (bpf_ksym_add). Names are unique here; Linux allows duplicates of static functions.
 */
import { InputError } from '../common/errors.js';

export interface KernelSymbol {
  readonly name: string;
  readonly address: bigint;
  /** Bytes. */
  readonly size: number;
  /** Module that it belongs to; undefined: the kernel image or BPF. */
  readonly module: string | undefined;
}

export interface SymbolHit {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly module: string | undefined;
}

export class SymbolTable {
  readonly #byName = new Map<string, KernelSymbol>();
  /** Sorted by address. */
  readonly #sorted: KernelSymbol[] = [];

  add(name: string, address: bigint, size: number, module?: string): KernelSymbol {
    if (this.#byName.has(name)) throw new InputError(`symbol ${name} is defined twice`);
    const symbol = { name, address, size, module };
    this.#byName.set(name, symbol);
    this.#sorted.splice(this.#indexAfter(address), 0, symbol);
    return symbol;
  }

  remove(name: string): void {
    const symbol = this.#byName.get(name);
    if (!symbol) return;
    this.#byName.delete(name);
    this.#sorted.splice(this.#sorted.indexOf(symbol), 1);
  }

  /** Removes the symbols that begin in [start, end), and says which. */
  removeWithin(start: bigint, end: bigint): readonly KernelSymbol[] {
    const gone = this.#sorted.filter(({ address }) => address >= start && address < end);
    for (const { name } of gone) this.remove(name);
    return gone;
  }

  /** `wanted`, or with the first number behind it that makes it new. */
  unique(wanted: string): string {
    let name = wanted;
    for (let i = 1; this.#byName.has(name); i++) name = `${wanted}.${i}`;
    return name;
  }

  find(name: string): KernelSymbol | undefined {
    return this.#byName.get(name);
  }

  /** Throws InputError with near misses when there is no such symbol. */
  get(name: string): KernelSymbol {
    const symbol = this.#byName.get(name);
    if (symbol) return symbol;
    const near = [...this.#byName.keys()].filter((known) => known.includes(name)).slice(0, 5);
    const hint = near.length > 0 ? ` (there are: ${near.join(', ')})` : '';
    throw new InputError(`no symbol ${name} in this kernel${hint}`);
  }

  /** The symbol whose bytes contain `address`. */
  lookup(address: bigint): SymbolHit | undefined {
    for (let i = this.#indexAfter(address) - 1; i >= 0; i--) {
      const symbol = this.#sorted[i] as KernelSymbol;
      const offset = Number(address - symbol.address);
      const { name, size, module } = symbol;
      if (offset < size) return { name, offset, size, module };
      // a zero-sized label may stand in front of the symbol that covers the address
      if (size > 0) return undefined;
    }
    return undefined;
  }

  /** `name+0x8`, `name+0x8 [module]`, or plain hex outside every symbol. */
  format(address: bigint): string {
    const hit = this.lookup(address);
    if (!hit) return `0x${address.toString(16)}`;
    const where = hit.module === undefined ? '' : ` [${hit.module}]`;
    return `${hit.name}+0x${hit.offset.toString(16)}${where}`;
  }

  *[Symbol.iterator](): Iterator<KernelSymbol> {
    yield* this.#sorted;
  }

  #indexAfter(address: bigint): number {
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#sorted[middle] as KernelSymbol).address <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

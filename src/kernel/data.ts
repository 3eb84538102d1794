/**
 * Static data of the kernel image, behind its text: named variables at fixed addresses.
 *
 * An ftrace_ops that lies here is "core kernel data" and thus not dynamic (kernel/extable.c:
 * core_kernel_data).
 */
import { alignUp } from '../common/bytes.js';
import { InputError } from '../common/errors.js';
import type { Memory, Region } from '../cpu/memory.js';
import type { Layout } from './layout/layout.js';
import type { SymbolTable } from './symbols.js';

const DATA_SIZE = 0x10000;

export class KernelData {
  readonly region: Region;
  readonly #symbols: SymbolTable;
  #used = 0;

  constructor(memory: Memory, layout: Layout, symbols: SymbolTable) {
    this.#symbols = symbols;
    this.region = memory.map({
      name: 'kernel data',
      address: layout.etext,
      size: DATA_SIZE,
      permissions: 'rw',
    });
  }

  /** A zeroed variable of `size` bytes, 8-byte aligned; returns its address. */
  define(name: string, size: number): bigint {
    const start = alignUp(this.#used, 8);
    if (start + size > DATA_SIZE) throw new InputError('kernel data is full');
    this.#used = start + size;
    const address = this.region.address + BigInt(start);
    this.#symbols.add(name, address, size);
    return address;
  }

  /** core_kernel_data(): does the address lie in the image's data? */
  contains(address: bigint): boolean {
    return address >= this.region.address && address < this.region.address + BigInt(DATA_SIZE);
  }
}

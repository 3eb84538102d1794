/**
 * How this floor asks for the name of an address; kallsyms of the floor above answers.
 */
import { hex64 } from '../common/bytes.js';

export interface SymbolAt {
  readonly name: string;
  /** Bytes from the symbol's start to the address. */
  readonly offset: number;
  /** Bytes of the symbol. */
  readonly size: number;
}

export interface SymbolLookup {
  /** The symbol that holds `address`. */
  lookup(address: bigint): SymbolAt | undefined;
}

/** `name+0x8/0x10`, or the address where there is no name. */
export function symbolText(address: bigint, symbols?: SymbolLookup): string {
  const found = symbols?.lookup(address);
  if (!found) return hex64(address);
  return `${found.name}+0x${found.offset.toString(16)}/0x${found.size.toString(16)}`;
}

/**
 * As `symbolText` for a return address: it belongs to the call before it, which may be the last
 * instruction of its function.
 */
export function returnAddressText(address: bigint, symbols?: SymbolLookup): string {
  const found = symbols?.lookup(address - 4n);
  if (!found) return hex64(address);
  return `${found.name}+0x${(found.offset + 4).toString(16)}/0x${found.size.toString(16)}`;
}

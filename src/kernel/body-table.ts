/**
 * TypeScript bodies by the address of their BRK, found by bigint or by halves.
 *
 * A CPU stops at a BRK for each helper call of an image; the lookup by halves makes no bigint.
 */
import { high32, low32 } from '../common/bytes.js';
import type { KernelFunction } from './function.js';

export class BodyTable {
  /** By upper, then by lower half. */
  readonly #halves = new Map<number, Map<number, KernelFunction>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(address: bigint): KernelFunction | undefined {
    return this.at(high32(address), low32(address));
  }

  at(hi: number, lo: number): KernelFunction | undefined {
    return this.#halves.get(hi)?.get(lo);
  }

  set(address: bigint, fn: KernelFunction): void {
    const hi = high32(address);
    const lo = low32(address);
    let lower = this.#halves.get(hi);
    if (!lower) {
      lower = new Map();
      this.#halves.set(hi, lower);
    }
    if (!lower.has(lo)) this.#size++;
    lower.set(lo, fn);
  }

  delete(address: bigint): void {
    if (this.#halves.get(high32(address))?.delete(low32(address))) this.#size--;
  }
}

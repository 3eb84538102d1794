/**
 * Addresses for functions that helpers call back: what a host keeps for `addCallbacks`.
 *
 * Each set gets 16 bytes per function in a range where nothing is mapped, so that a program which
 * reads or jumps there by mistake faults. Reference: in the kernel these are entries of JITed
 * subprograms.
 */
import type { Callback } from './host.js';

const FIRST = 0xffff_dead_0000_0000n;
/** Bytes from one entry to the next. */
export const CALLBACK_STRIDE = 16;
const STRIDE = BigInt(CALLBACK_STRIDE);

export class CallbackTable {
  readonly #byAddress = new Map<bigint, Callback>();
  readonly #counts = new Map<bigint, number>();
  #next = FIRST;

  add(callbacks: readonly Callback[]): bigint {
    const base = this.#next;
    for (const [index, callback] of callbacks.entries()) {
      this.#byAddress.set(base + STRIDE * BigInt(index), callback);
    }
    this.#counts.set(base, callbacks.length);
    this.#next += STRIDE * BigInt(Math.max(callbacks.length, 1));
    return base;
  }

  remove(base: bigint): void {
    const count = this.#counts.get(base) ?? 0;
    for (let index = 0; index < count; index++) {
      this.#byAddress.delete(base + STRIDE * BigInt(index));
    }
    this.#counts.delete(base);
  }

  at(address: bigint): Callback | undefined {
    return this.#byAddress.get(address);
  }
}

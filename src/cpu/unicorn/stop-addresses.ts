/**
 * Addresses at which a run of libunicorn stops: the one that it runs to, and breakpoints.
 *
 * Each is a code hook on that one address. A hook does not reach blocks translated before it, so its address is
 * removed from the cache when it is added. The hook of the last `until` stays for the next run, which mostly has the
 * same.
 */
import type { Memory, Region } from '../memory.js';
import { UC_HOOK } from './constants.js';
import type { Pointer, UnicornLibrary } from './library.js';

export class StopAddresses {
  readonly #unicorn: UnicornLibrary;
  readonly #handle: Pointer;
  readonly #memory: Memory;
  readonly #callback: Pointer;
  readonly #hooks = new Map<bigint, number>();
  readonly #breakpoints = new Set<bigint>();
  #until: bigint | undefined;
  /** The stop address of the last run that had one: its hook is kept. */
  #lastUntil: bigint | undefined;
  /** Breakpoint that does not stop: the one under the first instruction of a step. */
  #pass: bigint | undefined;

  /** @param callback of the hooks */
  constructor(unicorn: UnicornLibrary, handle: Pointer, memory: Memory, callback: Pointer) {
    this.#unicorn = unicorn;
    this.#handle = handle;
    this.#memory = memory;
    this.#callback = callback;
  }

  /** A run to `until` begins, or without end. */
  beginRun(until: bigint | undefined): void {
    this.#pass = undefined;
    this.#until = until;
    if (until === undefined || until === this.#lastUntil) return;
    const last = this.#lastUntil;
    this.#lastUntil = until;
    if (last !== undefined) this.#unhook(last);
    this.#hook(until);
  }

  /** A step of the instruction at `pc` begins. */
  beginStep(pc: bigint): void {
    this.#until = undefined;
    this.#pass = pc;
  }

  addBreakpoint(address: bigint): void {
    this.#breakpoints.add(address);
    this.#hook(address);
  }

  removeBreakpoint(address: bigint): void {
    if (this.#breakpoints.delete(address)) this.#unhook(address);
  }

  /** Why a run is over that has come to `pc`. */
  at(pc: bigint): 'until' | 'breakpoint' | undefined {
    if (pc === this.#until) return 'until';
    return this.#breakpoints.has(pc) ? 'breakpoint' : undefined;
  }

  /** Whether the hook at `address` ends the run. */
  stops(address: bigint): boolean {
    return address !== this.#pass && this.at(address) !== undefined;
  }

  /** What was not hooked because no code was there. */
  mapped(region: Region): void {
    for (const address of [this.#lastUntil, ...this.#breakpoints]) {
      if (address !== undefined && this.#memory.regionAt(address) === region) this.#hook(address);
    }
  }

  #hook(address: bigint): void {
    if (this.#hooks.has(address)) return;
    // where no code is, fetching fails by itself
    if (!this.#memory.regionAt(address)?.permissions.includes('x')) return;
    const { CODE } = UC_HOOK;
    const hook = this.#unicorn.addHook(this.#handle, CODE, this.#callback, address, address);
    this.#hooks.set(address, hook);
    this.#unicorn.removeCache(this.#handle, address, address + 4n);
  }

  #unhook(address: bigint): void {
    if (address === this.#lastUntil || this.#breakpoints.has(address)) return;
    const hook = this.#hooks.get(address);
    if (hook === undefined) return;
    this.#unicorn.removeHook(this.#handle, hook);
    this.#hooks.delete(address);
  }
}

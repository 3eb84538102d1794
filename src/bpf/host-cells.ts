/**
 * Clock, jiffies and random numbers of a host in its memory: engines that do helpers in place read and move them
 * on themselves.
 *
 * No timer interrupts a program, so the tick comes with the clock: whoever moves that past `nextTick` sets jiffies.
 *
 * Usage:
 *   const state = new CellState(memory, { offset, jiffies }, 1000n, seed);   // CELLS_SIZE bytes at `offset`
 *   state.clock();
 */
import { Random } from '../common/random.js';
import type { Memory } from '../cpu/memory.js';
import type { HostCells } from './host.js';

const CLOCK = 0;
const CLOCK_STEP = 8;
const RANDOM = 16;
const NEXT_TICK = 32;
export const CELLS_SIZE = 40;
/** HZ=250 */
export const NS_PER_JIFFY = 4_000_000;

export class CellState {
  readonly cells: HostCells;
  readonly #memory: Memory;
  #random: Random;

  /** @param place CELLS_SIZE bytes, and a u64 that programs know as `jiffies` */
  constructor(
    memory: Memory,
    { offset, jiffies }: { readonly offset: number; readonly jiffies: number },
    step: bigint,
    seed: number,
  ) {
    this.#memory = memory;
    this.cells = {
      clock: offset + CLOCK,
      clockStep: offset + CLOCK_STEP,
      random: offset + RANDOM,
      jiffies,
      nextTick: offset + NEXT_TICK,
    };
    this.setClock(0n, step);
    this.#random = this.#newRandom(seed);
  }

  /** Moves the clock on and reads it. */
  clock(): bigint {
    const { view } = this.#memory;
    const { clock, clockStep, nextTick } = this.cells;
    const now = BigInt.asUintN(64, this.now + view.getBigUint64(clockStep, true));
    view.setBigUint64(clock, now, true);
    if (now >= view.getBigUint64(nextTick, true)) this.#tick(now);
    return now;
  }

  get jiffies(): bigint {
    return this.#memory.view.getBigUint64(this.cells.jiffies, true);
  }

  #tick(now: bigint): void {
    const { view } = this.#memory;
    const unit = BigInt(NS_PER_JIFFY);
    const jiffies = now / unit;
    view.setBigUint64(this.cells.jiffies, jiffies, true);
    view.setBigUint64(this.cells.nextTick, (jiffies + 1n) * unit, true);
  }

  /** The last reading. */
  get now(): bigint {
    return this.#memory.view.getBigUint64(this.cells.clock, true);
  }

  /** @param step default: as it was. */
  setClock(now: bigint, step?: bigint): void {
    const { view } = this.#memory;
    view.setBigUint64(this.cells.clock, now, true);
    this.#tick(now);
    if (step !== undefined) view.setBigUint64(this.cells.clockStep, step, true);
  }

  random(): number {
    return this.#random.u32();
  }

  setSeed(seed: number): void {
    this.#random = this.#newRandom(seed);
  }

  #newRandom(seed: number): Random {
    return new Random(seed, new Int32Array(this.#memory.wasm.buffer, this.cells.random, 4));
  }
}

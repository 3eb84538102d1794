/**
 * Clock and random numbers of a host in its memory: engines that do helpers in place read and move them on
 * themselves.
 *
 * Usage:
 *   const state = new CellState(memory, offset, 1000n, seed);   // CELLS_SIZE bytes at `offset`
 *   state.clock();
 */
import { Random } from '../common/random.js';
import type { Memory } from '../cpu/memory.js';
import type { HostCells } from './host.js';

const CLOCK = 0;
const CLOCK_STEP = 8;
const RANDOM = 16;
export const CELLS_SIZE = 32;

export class CellState {
  readonly cells: HostCells;
  readonly #memory: Memory;
  #random: Random;

  constructor(memory: Memory, offset: number, step: bigint, seed: number) {
    this.#memory = memory;
    this.cells = {
      clock: offset + CLOCK,
      clockStep: offset + CLOCK_STEP,
      random: offset + RANDOM,
    };
    this.setClock(0n, step);
    this.#random = this.#newRandom(seed);
  }

  /** Moves the clock on and reads it. */
  clock(): bigint {
    const { view } = this.#memory;
    const { clock, clockStep } = this.cells;
    view.setBigUint64(clock, this.now + view.getBigUint64(clockStep, true), true);
    return this.now;
  }

  /** The last reading. */
  get now(): bigint {
    return this.#memory.view.getBigUint64(this.cells.clock, true);
  }

  /** @param step default: as it was. */
  setClock(now: bigint, step?: bigint): void {
    const { view } = this.#memory;
    view.setBigUint64(this.cells.clock, now, true);
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

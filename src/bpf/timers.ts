/**
 * bpf_timer: callbacks that the host runs when their time has come.
 *
 * A timer lives in a map value and is known by its address. Reference: bpf_timer_* in
 * kernel/bpf/helpers.c. Timers run in the order of their expiry, then of their start, when the host
 * says so: nothing runs by itself. Left out: CPU pinning (accepted, without effect).
 *
 * Usage:
 *   host.timers.run(host, 1_000_000n);   // all that expire up to 1 ms
 */
import { high32, low32 } from '../common/bytes.js';
import type { BpfHost } from './host.js';

interface Timer {
  readonly map: bigint;
  /** Address of the key, 0n in an array, and its number then. */
  readonly key: bigint;
  readonly value: bigint;
  callback: bigint;
  /** undefined: not started. */
  expires: bigint | undefined;
  order: number;
}

export class Timers {
  readonly #timers = new Map<bigint, Timer>();
  #order = 0;
  /** The timer whose callback runs. */
  #running: bigint | undefined;

  /** False when it was initialised before. */
  init(address: bigint, place: Pick<Timer, 'map' | 'key' | 'value'>): boolean {
    if (this.#timers.has(address)) return false;
    this.#timers.set(address, { ...place, callback: 0n, expires: undefined, order: 0 });
    return true;
  }

  isInitialised(address: bigint): boolean {
    return this.#timers.has(address);
  }

  isRunning(address: bigint): boolean {
    return this.#running === address;
  }

  setCallback(address: bigint, callback: bigint): boolean {
    const timer = this.#timers.get(address);
    if (timer) timer.callback = callback;
    return timer !== undefined;
  }

  /** False without a callback. */
  start(address: bigint, expires: bigint): boolean {
    const timer = this.#timers.get(address);
    if (!timer || timer.callback === 0n) return false;
    timer.expires = expires;
    timer.order = this.#order++;
    return true;
  }

  /** Stops a timer; whether it was going to run. */
  stop(address: bigint): boolean {
    const timer = this.#timers.get(address);
    if (!timer) return false;
    const wasActive = timer.expires !== undefined;
    timer.expires = undefined;
    timer.callback = 0n;
    return wasActive;
  }

  /** Forgets a timer: its value is freed. */
  cancel(address: bigint): void {
    this.#timers.delete(address);
  }

  /** Runs what expires up to `now`; the number of callbacks that ran. */
  run(host: BpfHost, now: bigint): number {
    let count = 0;
    for (;;) {
      const next = this.#next(now);
      if (!next) return count;
      const [address, timer] = next;
      timer.expires = undefined;
      const callback = host.callbackAt(timer.callback);
      if (!callback) throw new RangeError(`timer callback ${timer.callback} is gone`);
      const registers = new Int32Array(22);
      const set = (n: number, value: bigint): void => {
        registers[2 * n] = low32(value);
        registers[2 * n + 1] = high32(value);
      };
      set(1, timer.map);
      set(2, timer.key);
      set(3, timer.value);
      this.#running = address;
      try {
        callback(registers);
      } finally {
        this.#running = undefined;
      }
      count++;
    }
  }

  #next(now: bigint): [bigint, Timer] | undefined {
    let best: [bigint, Timer] | undefined;
    for (const [address, timer] of this.#timers) {
      if (timer.expires === undefined || timer.expires > now) continue;
      const bestExpires = best?.[1].expires ?? timer.expires + 1n;
      const earlier =
        timer.expires < bestExpires ||
        (timer.expires === bestExpires && timer.order < (best?.[1].order ?? Infinity));
      if (earlier) best = [address, timer];
    }
    return best;
  }
}

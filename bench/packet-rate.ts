/**
 * How fast packets go through something, and what that leaves in the JavaScript heap.
 *
 * A speed is that of the fastest of many calls of `send`, a millisecond or two each, since other load on the
 * machine only adds. It is taken when the JavaScript engine has compiled what runs. `allocated` is what the heap
 * grows by between two collections, less what asking for its size takes; `kept` is what is left of it after one.
 *
 * Usage:
 *   const { speed, allocated } = measureRate(() => stream.send(packets), packets.length, garbageCollector());
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

export interface PacketRate {
  /** Packets per second. */
  readonly speed: number;
  /** Bytes per packet. */
  readonly allocated: number;
  readonly kept: number;
}

const WARM_UP_MICROSECONDS = 1_500_000;
const MICROSECONDS = 1_000_000;
/** Windows, of which the quietest tells the garbage per packet: what the JavaScript engine compiles only adds. */
const WINDOWS = 5;
/** Calls of `send` in each of them. */
const ROUNDS = 16;
/** Collections before them, each with sending behind it: the JavaScript engine compiles anew, on the same heap. */
const SETTLING = 2;

/** @param send sends `packets` packets. */
export function measureRate(send: () => void, packets: number, collect: () => void): PacketRate {
  sendFor(WARM_UP_MICROSECONDS, send);
  collect();
  const heap = process.memoryUsage().heapUsed;
  const times = sendFor(MICROSECONDS, send);
  collect();
  const kept = (process.memoryUsage().heapUsed - heap) / (times.length * packets);
  const grown = (rounds: number): number => {
    const windows = Array.from({ length: WINDOWS }, () => {
      collect();
      const before = process.memoryUsage().heapUsed;
      for (let i = 0; i < rounds; i++) send();
      return process.memoryUsage().heapUsed - before;
    });
    return Math.min(...windows);
  };
  for (let i = 0; i < SETTLING; i++) {
    collect();
    sendFor(MICROSECONDS / 2, send);
  }
  const allocated = (grown(ROUNDS) - grown(0)) / (ROUNDS * packets);
  const speed = (packets * 1000) / times.reduce((a, b) => Math.min(a, b));
  return { speed, allocated, kept };
}

/** Milliseconds of each call; `microseconds` of processor time at least in all. */
function sendFor(microseconds: number, send: () => void): number[] {
  const begin = process.cpuUsage();
  const times: number[] = [];
  for (;;) {
    const start = performance.now();
    send();
    times.push(performance.now() - start);
    const { user, system } = process.cpuUsage(begin);
    if (user + system >= microseconds) return times;
  }
}

export function garbageCollector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}

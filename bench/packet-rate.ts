/**
 * How fast packets go through something, and what that leaves in the JavaScript heap.
 *
 * Speeds are per second of processor time of the process, so that they say the same on a busy machine;
 * they are taken when the JavaScript engine has compiled what runs. `allocated` is what the heap grows by
 * between two collections, less what asking for its size takes; `kept` is what is left of it after one.
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

const WARM_UP_MICROSECONDS = 800_000;
const MICROSECONDS = 600_000;
/** Windows whose median is the garbage per packet, after as many that settle. */
const WINDOWS = 5;
/** Calls of `send` in each of them. */
const ROUNDS = 2;

/** @param send sends `packets` packets. */
export function measureRate(send: () => void, packets: number, collect: () => void): PacketRate {
  sendFor(WARM_UP_MICROSECONDS, send);
  collect();
  const heap = process.memoryUsage().heapUsed;
  const { calls, time } = sendFor(MICROSECONDS, send);
  const sent = calls * packets;
  collect();
  const kept = (process.memoryUsage().heapUsed - heap) / sent;
  const grown = (rounds: number): number => {
    const windows = Array.from({ length: 2 * WINDOWS }, () => {
      collect();
      const before = process.memoryUsage().heapUsed;
      for (let i = 0; i < rounds; i++) send();
      return process.memoryUsage().heapUsed - before;
    });
    // the first collections make the JavaScript engine compile anew, which it does on the same heap
    const settled = windows.slice(WINDOWS).sort((a, b) => a - b);
    return settled[WINDOWS >> 1] ?? NaN;
  };
  const allocated = (grown(ROUNDS) - grown(0)) / (ROUNDS * packets);
  return { speed: (sent / time) * 1e6, allocated, kept };
}

/** Microseconds of processor time that the calls took, `microseconds` at least. */
function sendFor(microseconds: number, send: () => void): { calls: number; time: number } {
  const begin = process.cpuUsage();
  for (let calls = 1; ; calls++) {
    send();
    const { user, system } = process.cpuUsage(begin);
    if (user + system >= microseconds) return { calls, time: user + system };
  }
}

export function garbageCollector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}

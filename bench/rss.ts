/**
 * Receive hashes per second: Toeplitz by tables against the definition bit by bit, and whole frames.
 *
 * The same inputs in the same run: 12 bytes are IPv4 addresses and ports, 36 those of IPv6. Frames are those
 * of the example capture with tunnels, headers found and hashed, with and without inner hash. Speeds
 * are per second of processor time.
 */
import { join } from 'node:path';
import { Random } from '../src/common/random.js';
import { readCapture } from '../src/net/read-capture.js';
import { ReceiveHasher } from '../src/net/rss/receive-hash.js';
import { MICROSOFT_KEY, ToeplitzKey } from '../src/net/rss/toeplitz.js';
import { ALL_HASH_TYPES, ALL_TUNNEL_TYPES } from '../src/net/rss/types.js';
import { PACKAGE_ROOT, readInput } from '../src/node/files.js';
import type { BenchRow } from './row.js';

const INPUTS = 1024;
const MICROSECONDS = 300_000;

/** The hash as it is defined: a window that moves along the key by a bit for each bit of data. */
function bitwise(
  key: Readonly<Uint8Array>,
  data: Uint8Array,
  from: number,
  length: number,
): number {
  const bitOf = (bytes: Readonly<Uint8Array>, n: number): number =>
    ((bytes[n >> 3] ?? 0) >> (7 - (n & 7))) & 1;
  let window = 0;
  for (let n = 0; n < 32; n++) window = (window << 1) | bitOf(key, n);
  let hash = 0;
  for (let n = 0; n < 8 * length; n++) {
    if (bitOf(data, 8 * from + n) === 1) hash ^= window;
    window = (window << 1) | bitOf(key, n + 32);
  }
  return hash;
}

/** Calls of `hash` per second of processor time, over inputs 0 to INPUTS - 1 again and again. */
function rate(hash: (input: number) => number): number {
  let sum = 0;
  const pass = (): void => {
    for (let input = 0; input < INPUTS; input++) sum ^= hash(input);
  };
  for (let i = 0; i < 50; i++) pass();
  const before = process.cpuUsage();
  let passes = 0;
  let used = 0;
  while (used < MICROSECONDS) {
    pass();
    passes++;
    const { user, system } = process.cpuUsage(before);
    used = user + system;
  }
  // the sum keeps the calls from being left out
  return sum === 0.5 ? 0 : (passes * INPUTS * 1e6) / used;
}

export async function benchRss(): Promise<readonly BenchRow[]> {
  const random = new Random(7);
  const data = Uint8Array.from({ length: INPUTS * 36 }, () => random.below(256));
  const key = new ToeplitzKey(MICROSOFT_KEY);
  const rows: BenchRow[] = [];
  for (const length of [12, 36]) {
    const slow = rate((input) => bitwise(MICROSOFT_KEY, data, input * length, length));
    const fast = rate((input) => key.mix(0, 0, data, input * length, length));
    rows.push(
      { name: `${length} bytes, as defined`, value: slow / 1e6, unit: 'M hashes/s' },
      {
        name: `${length} bytes, tables`,
        value: fast / 1e6,
        unit: 'M hashes/s',
        ratio: fast / slow,
      },
    );
  }
  const capture = readCapture(readInput(join(PACKAGE_ROOT, 'examples/captures/tunnels.pcap')));
  const frames = capture.packets.map(({ bytes }) => bytes);
  for (const [name, tunnelTypes] of [
    ['outer hash of frames', 0],
    ['inner hash of frames', ALL_TUNNEL_TYPES],
  ] as const) {
    const hasher = new ReceiveHasher({
      key: MICROSOFT_KEY,
      hashTypes: ALL_HASH_TYPES,
      form: 'final',
      tunnelTypes,
    });
    const speed = rate((i) => hasher.compute(frames[i % frames.length] as Uint8Array).hash);
    rows.push({ name, value: speed / 1e6, unit: 'M frames/s' });
  }
  return rows;
}

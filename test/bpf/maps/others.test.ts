import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BloomFilter } from '../../../src/bpf/maps/bloom-filter.js';
import { createMap } from '../../../src/bpf/maps/create.js';
import { InertMap } from '../../../src/bpf/maps/inert.js';
import { jhash } from '../../../src/bpf/maps/jhash.js';
import { ArrayOfMaps, HashOfMaps } from '../../../src/bpf/maps/map-of-maps.js';
import { PerfEventArray } from '../../../src/bpf/maps/perf-event-array.js';
import { QueueStackMap } from '../../../src/bpf/maps/queue-stack.js';
import { Cpumap, Devmap, DevmapHash, Xskmap } from '../../../src/bpf/maps/redirect-maps.js';
import { RingBuffer } from '../../../src/bpf/maps/ringbuf.js';
import { Bench, specOf, u32, u64 } from './support.js';

const [ENOENT, E2BIG, EBADF, EEXIST, ENODEV, EINVAL, ENOSPC, EOVERFLOW, EOPNOTSUPP] = [
  -2, -7, -9, -17, -19, -22, -28, -75, -95,
];

describe.each(['QUEUE', 'STACK'] as const)('%s', (type) => {
  it('does what a list does', () => {
    const command = fc.constantFrom('push', 'push', 'replace', 'noexist', 'pop');
    fc.assert(
      fc.property(fc.array(command, { maxLength: 40 }), (list) => {
        const { map } = new Bench({ type, keySize: 0, maxEntries: 3 }, QueueStackMap);
        // oldest first
        const model: Uint8Array[] = [];
        list.forEach((op, i) => {
          if (op === 'pop') {
            expect(map.popBytes()).toEqual(type === 'QUEUE' ? model.shift() : model.pop());
          } else {
            const flags = { push: 0n, replace: 2n, noexist: 1n }[op];
            const full = model.length === 3;
            const expected = op === 'noexist' ? EINVAL : full && op === 'push' ? E2BIG : 0;
            expect(map.pushBytes(u64(i), flags)).toBe(expected);
            if (expected === 0 && full) model.shift();
            if (expected === 0) model.push(u64(i));
          }
          const order = type === 'QUEUE' ? model : model.toReversed();
          expect([...map.entries()].map(({ values }) => values[0])).toEqual(order);
        });
      }),
      { numRuns: 200 },
    );
  });

  it('zeroes the buffer when it is empty, and has no keys', () => {
    const { map, host } = new Bench({ type, keySize: 0 }, QueueStackMap);
    const { address } = host.allocate('value', 8);
    host.memory.write64(address, 7n);
    expect(map.pop(address)).toBe(ENOENT);
    expect(host.memory.read64(address)).toBe(0n);
    expect([map.lookup(address), map.update(address, address, 0n), map.delete(address)]).toEqual([
      0n,
      EINVAL,
      EINVAL,
    ]);
  });
});

describe('RINGBUF', () => {
  const ring = { type: 'RINGBUF', keySize: 0, valueSize: 0, maxEntries: 4096 } as const;

  it('gives records in the order of their reservation, and has the room of the kernel', () => {
    const command = fc.record({
      op: fc.constantFrom('reserve', 'reserve', 'submit', 'discard', 'drain'),
      size: fc.integer({ min: 0, max: 1500 }),
    });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (list) => {
        const { map, host } = new Bench(ring, RingBuffer);
        const all: {
          address: bigint;
          size: number;
          state: string;
          fill: number;
          taken: boolean;
        }[] = [];
        const room = (): number =>
          all.reduce(
            (sum, { size, taken }) => sum + (taken ? 0 : Math.ceil((size + 8) / 8) * 8),
            0,
          );
        for (const { op, size } of list) {
          const open = all.find(({ state }) => state === 'busy');
          if (op === 'reserve') {
            const length = Math.ceil((size + 8) / 8) * 8;
            const fits = room() + length <= 4095;
            const address = map.reserve(size);
            expect(address !== 0n).toBe(fits);
            if (!fits) continue;
            const fill = all.length & 0xff;
            host.memory.writeBytes(address, new Uint8Array(size).fill(fill));
            all.push({ address, size, state: 'busy', fill, taken: false });
          } else if (op === 'drain') {
            const expected: Uint8Array[] = [];
            for (const each of all) {
              if (each.taken) continue;
              if (each.state === 'busy') break;
              each.taken = true;
              if (each.state === 'submit') expected.push(new Uint8Array(each.size).fill(each.fill));
            }
            expect(map.drain()).toEqual(expected);
            expect(map.available).toBe(room());
          } else if (open) {
            open.state = op;
            RingBuffer.of(host, open.address).finish(open.address, op === 'discard', 0);
          }
        }
      }),
      { numRuns: 200 },
    );
  });

  it('wakes a reader that is in step, or by force', () => {
    const { map, host } = new Bench(ring, RingBuffer);
    const data = host.allocate('data', 8);
    const output = (flags: number): number => map.output(data.offset, 8, flags);
    expect(output(0)).toBe(0);
    expect(map.wakeups).toBe(1);
    output(0);
    expect(map.wakeups).toBe(1);
    output(2);
    expect(map.wakeups).toBe(2);
    map.drain();
    output(1);
    expect(map.wakeups).toBe(2);
    expect(output(4)).toBe(EINVAL);
    expect(map.query(0n)).toBe(16n);
    expect([1n, 2n, 3n, 4n].map((what) => map.query(what))).toEqual([4096n, 48n, 64n, 0n]);
  });

  it('refuses what does not fit', () => {
    const { map } = new Bench(ring, RingBuffer);
    expect(map.reserve(4089)).toBe(0n);
    expect(map.reserve(4088)).toBe(0n);
    expect(map.reserve(4080)).not.toBe(0n);
    expect(map.reserve(0)).toBe(0n);
  });
});

describe('BLOOM_FILTER', () => {
  it('never forgets, and is right about most of the rest', () => {
    const { map } = new Bench({ type: 'BLOOM_FILTER', keySize: 0, maxEntries: 100 }, BloomFilter);
    for (let i = 0; i < 100; i++) expect(map.pushBytes(u64(i))).toBe(0);
    for (let i = 0; i < 100; i++) expect(map.peekBytes(u64(i))).toBe(0);
    const wrong = Array.from({ length: 1000 }, (_, i) => map.peekBytes(u64(1000 + i)));
    expect(wrong.filter((result) => result === 0).length).toBeLessThan(100);
    expect(wrong.every((result) => result === 0 || result === ENOENT)).toBe(true);
    expect(map.pushBytes(u64(1), 2n)).toBe(EINVAL);
    expect(map.delete(map.address)).toBe(EOPNOTSUPP);
    expect(map.pop(map.address)).toBe(EOPNOTSUPP);
  });

  it.each([
    ['SOCKMAP', EINVAL],
    ['SOCKHASH', ENOENT],
    ['TASK_STORAGE', EOPNOTSUPP],
  ] as const)('nothing can be deleted from %s, where nothing is', (type, expected) => {
    const { map } = new Bench({ type, keySize: 4, valueSize: 4 }, InertMap);
    expect(map.remove(u32(0))).toBe(expected);
  });

  it.each([
    // lookup3's own examples, with JHASH_INITVAL as the start
    ['', 0, 0xdeadbeef],
    ['', 0xdeadbeef, 0xbd5b7dde],
    ['Four score and seven years ago', 0, 0x17770551],
    ['Four score and seven years ago', 1, 0xcd628161],
  ])('jhash of %j from %i', (text, seed, expected) => {
    const bytes = new TextEncoder().encode(text);
    expect(jhash(new DataView(bytes.buffer), 0, bytes.length, seed)).toBe(expected);
  });
});

describe('PERF_EVENT_ARRAY', () => {
  it('takes samples for opened events of this CPU', () => {
    const { map } = new Bench(
      { type: 'PERF_EVENT_ARRAY', valueSize: 4, maxEntries: 2 },
      PerfEventArray,
      2,
    );
    const data = new Uint8Array([1, 2, 3]);
    expect(map.output(0, data)).toBe(ENOENT);
    expect(map.output(2, data)).toBe(E2BIG);
    map.openAll(32);
    expect(map.output(0, data)).toBe(0);
    expect(map.output(1, data)).toBe(EOPNOTSUPP);
    expect(map.output(0, data)).toBe(0);
    expect(map.output(0, data)).toBe(ENOSPC);
    expect(map.lost).toBe(1);
    expect(map.drain()).toEqual([
      { cpu: 0, data },
      { cpu: 0, data },
    ]);
    expect(map.output(0, data)).toBe(0);
    expect(map.remove(u32(0))).toBe(0);
    expect(map.remove(u32(0))).toBe(ENOENT);
  });
});

describe('maps of maps', () => {
  const template = specOf({ name: 'inner', type: 'HASH' });

  it.each([
    ['ARRAY_OF_MAPS', ArrayOfMaps],
    ['HASH_OF_MAPS', HashOfMaps],
  ] as const)('%s gives the address of the inner map', (type, kind) => {
    const bench = new Bench<ArrayOfMaps | HashOfMaps>(
      { type, valueSize: 4, inner: template },
      kind,
    );
    const { map, host } = bench;
    const inner = createMap(template, host);
    const other = createMap({ ...template, valueSize: 4 }, host);
    expect(map.setMap(u32(1), other)).toBe(EINVAL);
    expect(map.setMap(u32(1), inner)).toBe(0);
    expect(bench.find(u32(1))).toBe(inner.address);
    expect(bench.find(u32(2))).toBe(0n);
    expect(map.innerMap(u32(1))).toBe(inner);
    expect([...map.entries()]).toEqual([{ key: u32(1), values: [u32(inner.id)] }]);
    expect(map.set()).toBe(EBADF);
    expect(map.remove(u32(1))).toBe(0);
    expect(map.remove(u32(1))).toBe(ENOENT);
    expect(bench.find(u32(1))).toBe(0n);
  });
});

describe('redirect maps', () => {
  it('DEVMAP', () => {
    const bench = new Bench({ type: 'DEVMAP', valueSize: 8 }, Devmap);
    expect(bench.update(u32(0), u64(9))).toBe(EINVAL);
    expect(bench.update(u32(4), u64(1))).toBe(E2BIG);
    expect(bench.update(u32(0), u64(1), 1n)).toBe(EEXIST);
    expect(bench.update(u32(0), u64(1), 3n)).toBe(EINVAL);
    expect(bench.find(u32(0))).toBe(0n);
    expect(bench.update(u32(0), u64(1))).toBe(0);
    expect(bench.read(u32(0))).toBe(1n);
    expect(bench.map.hasTarget(0)).toBe(true);
    expect(bench.update(u32(0), u64(0x1_0000_0000n))).toBe(EINVAL);
    expect(bench.delete(u32(0))).toBe(0);
    expect(bench.map.hasTarget(0)).toBe(false);
    expect(bench.delete(u32(9))).toBe(EINVAL);
  });

  it('DEVMAP_HASH', () => {
    const bench = new Bench({ type: 'DEVMAP_HASH', maxEntries: 1 }, DevmapHash);
    expect(bench.update(u32(7), u64(0))).toBe(EINVAL);
    expect(bench.update(u32(7), u64(1), 2n)).toBe(0);
    expect(bench.update(u32(7), u64(1), 1n)).toBe(EEXIST);
    expect(bench.update(u32(8), u64(1))).toBe(E2BIG);
    expect(bench.map.hasTarget(7)).toBe(true);
    expect(bench.map.hasTarget(8)).toBe(false);
    expect(bench.delete(u32(8))).toBe(ENOENT);
  });

  it('CPUMAP', () => {
    const bench = new Bench({ type: 'CPUMAP', valueSize: 8 }, Cpumap, 2);
    expect(bench.update(u32(0), u64(16385))).toBe(EOVERFLOW);
    expect(bench.update(u32(3), u64(64))).toBe(ENODEV);
    expect(bench.update(u32(4), u64(64))).toBe(E2BIG);
    expect(bench.update(u32(1), u64(64), 1n)).toBe(EEXIST);
    expect(bench.update(u32(1), u64(64))).toBe(0);
    expect(bench.map.hasTarget(1)).toBe(true);
    expect(bench.update(u32(1), u64(0))).toBe(0);
    expect(bench.map.hasTarget(1)).toBe(false);
  });

  it('XSKMAP', () => {
    const bench = new Bench({ type: 'XSKMAP', valueSize: 4 }, Xskmap);
    expect(bench.update(u32(0), u32(3))).toBe(EBADF);
    expect(bench.map.setSocket(0, 3, 2)).toBe(ENOENT);
    expect(bench.map.setSocket(0, 3)).toBe(0);
    expect(bench.map.setSocket(0, 3, 1)).toBe(EEXIST);
    expect(bench.map.setSocket(4, 3)).toBe(E2BIG);
    expect(bench.map.hasTarget(0)).toBe(true);
  });
});

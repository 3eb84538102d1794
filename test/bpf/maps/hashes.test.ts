import { plainRecord } from '../../../src/bpf/btf/record.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HashMap } from '../../../src/bpf/maps/hash.js';
import { LpmTrie } from '../../../src/bpf/maps/lpm-trie.js';
import { LruHashMap } from '../../../src/bpf/maps/lru-hash.js';
import { LruList } from '../../../src/bpf/maps/lru-list.js';
import { Bench, u32, u64 } from './support.js';

const [EEXIST, ENOENT, E2BIG, EINVAL, ENOSPC] = [-17, -2, -7, -22, -28];
const KEYS = 12;

type Command = {
  readonly op: 'update' | 'delete' | 'lookup';
  readonly key: number;
  readonly flags: bigint;
};

const commands = fc.array(
  fc.record({
    op: fc.constantFrom('update' as const, 'delete' as const, 'lookup' as const),
    key: fc.nat({ max: KEYS - 1 }),
    flags: fc.constantFrom(0n, 0n, 1n, 2n, 4n, 3n, 1n << 40n),
  }),
  { maxLength: 60 },
);

/** What a hash map that is full at `room` entries answers. */
function updateErrno(model: Map<number, bigint>, { key, flags }: Command, room: number): number {
  if (flags > 2n) return EINVAL;
  if (model.has(key) && flags === 1n) return EEXIST;
  if (!model.has(key) && flags === 2n) return ENOENT;
  return !model.has(key) && model.size >= room ? E2BIG : 0;
}

describe('HASH', () => {
  it('does what a Map of limited size does', () => {
    fc.assert(
      fc.property(commands, (list) => {
        const bench = new Bench({ maxEntries: 5 }, HashMap);
        const model = new Map<number, bigint>();
        list.forEach((command, i) => {
          const key = u32(command.key);
          if (command.op === 'update') {
            const expected = updateErrno(model, command, 5);
            expect(bench.update(key, u64(i), command.flags)).toBe(expected);
            if (expected === 0) model.set(command.key, BigInt(i));
          } else if (command.op === 'delete') {
            expect(bench.delete(key)).toBe(model.delete(command.key) ? 0 : ENOENT);
          }
          expect(bench.read(key)).toBe(model.get(command.key));
          expect(bench.map.size).toBe(model.size);
        });
        expect([...bench.map.entries()]).toHaveLength(model.size);
      }),
      { numRuns: 200 },
    );
  });

  it('keeps an old value readable after an update, as elements are swapped', () => {
    const bench = new Bench({}, HashMap);
    bench.update(u32(1), u64(10));
    const old = bench.find(u32(1));
    bench.update(u32(1), u64(11));
    expect(bench.host.memory.read64(old)).toBe(10n);
    expect(bench.read(u32(1))).toBe(11n);
  });

  it('leaves a spin lock alone and hides it', () => {
    const bench = new Bench({ record: plainRecord({ bpf_spin_lock: 0 }) }, HashMap);
    bench.update(u32(1), u64(0x1_ffff_ffffn));
    const value = bench.find(u32(1));
    expect(bench.host.memory.read64(value)).toBe(0x1_0000_0000n);
    bench.host.memory.write32(value, 1);
    expect(bench.update(u32(1), u64(0x2_0000_0000n), 4n)).toBe(0);
    expect(bench.host.memory.read64(value)).toBe(0x2_0000_0001n);
    expect(bench.map.get(u32(1))?.[0]).toEqual(u64(0x2_0000_0000n));
  });

  it('has values per CPU', () => {
    const bench = new Bench({ type: 'PERCPU_HASH' }, HashMap, 2);
    bench.host.setCurrentCpu(1);
    expect(bench.update(u32(1), u64(5))).toBe(0);
    expect(bench.map.get(u32(1))).toEqual([u64(0), u64(5)]);
    expect(bench.map.set(u32(1), new Uint8Array([...u64(7), ...u64(8)]))).toBe(0);
    expect(bench.map.get(u32(1))).toEqual([u64(7), u64(8)]);
  });
});

describe('LRU', () => {
  it('holds what was written last and never more than max_entries', () => {
    fc.assert(
      fc.property(commands, fc.constantFrom(0, 2), (list, flags) => {
        const bench = new Bench({ type: 'LRU_HASH', maxEntries: 5, flags }, LruHashMap);
        const model = new Map<number, bigint>();
        list.forEach((command, i) => {
          const key = u32(command.key);
          if (command.op === 'update' && command.flags === 0n) {
            expect(bench.update(key, u64(i))).toBe(0);
            model.set(command.key, BigInt(i));
            expect(bench.read(key)).toBe(BigInt(i));
          } else if (command.op === 'delete') {
            const existed = bench.find(key) !== 0n;
            expect(bench.delete(key)).toBe(existed ? 0 : ENOENT);
          } else {
            const value = bench.read(key);
            if (value !== undefined) expect(value).toBe(model.get(command.key));
          }
          expect([...bench.map.entries()].length).toBeLessThanOrEqual(5);
        });
      }),
      { numRuns: 200 },
    );
  });

  it('evicts unmarked entries first', () => {
    const bench = new Bench({ type: 'LRU_HASH', maxEntries: 4, flags: 2 }, LruHashMap);
    for (let key = 0; key < 4; key++) bench.update(u32(key), u64(key));
    bench.find(u32(0));
    bench.find(u32(3));
    bench.update(u32(9), u64(9));
    expect(bench.map.get(u32(0))).toBeDefined();
    expect(bench.map.get(u32(3))).toBeDefined();
    expect(bench.map.get(u32(9))).toBeDefined();
  });

  it('rounds a map without common lists to the CPUs', () => {
    const bench = new Bench({ type: 'LRU_HASH', maxEntries: 5, flags: 2 }, LruHashMap, 2);
    expect(bench.map.spec.maxEntries).toBe(6);
  });

  it('gives every node once and takes it back', () => {
    const held = new Set<number>();
    const lru = new LruList({
      nodes: 300,
      cpus: 2,
      common: true,
      marks: new Uint8Array(300),
      evict: () => false,
    });
    for (let i = 0; i < 300; i++) held.add(lru.take(i % 2));
    expect(held.size).toBe(300);
    expect(held.has(-1)).toBe(false);
    expect(lru.take(0)).toBe(-1);
    lru.release(7);
    expect(lru.take(1)).toBe(7);
  });
});

/** prefixlen and 32 bits of data as a key. */
const prefix = (length: number, data: number): Uint8Array => {
  const key = new Uint8Array(8);
  new DataView(key.buffer).setUint32(0, length, true);
  new DataView(key.buffer).setUint32(4, data >>> 0, false);
  return key;
};

describe('LPM_TRIE', () => {
  const trie = { type: 'LPM_TRIE', keySize: 8, flags: 1, maxEntries: 8 } as const;
  const masked = (length: number, data: number): number =>
    length === 0 ? 0 : (data >>> (32 - length)) * 2 ** (32 - length);

  it('finds the longest prefix, like a search through a list', () => {
    const rule = fc.record({
      op: fc.constantFrom('update', 'update', 'delete', 'lookup'),
      length: fc.constantFrom(0, 1, 7, 8, 9, 16, 24, 31, 32),
      data: fc.constantFrom(0, 0x0a000001, 0x0a010203, 0x0a018000, 0xc0a80101, 0xffffffff),
    });
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 50 }), (list) => {
        const bench = new Bench(trie, LpmTrie);
        const model = new Map<string, { length: number; data: number; value: bigint }>();
        list.forEach(({ op, length, data }, i) => {
          const id = `${length} ${masked(length, data)}`;
          if (op === 'update') {
            const expected = model.has(id) || model.size < 8 ? 0 : ENOSPC;
            expect(bench.update(prefix(length, data), u64(i))).toBe(expected);
            if (expected === 0)
              model.set(id, { length, data: masked(length, data), value: BigInt(i) });
          } else if (op === 'delete') {
            expect(bench.delete(prefix(length, data))).toBe(model.delete(id) ? 0 : ENOENT);
          }
          const best = [...model.values()]
            .filter((each) => each.length <= length && masked(each.length, data) === each.data)
            .sort((a, b) => b.length - a.length)[0];
          expect(bench.read(prefix(length, data))).toBe(best?.value);
          expect(bench.map.size).toBe(model.size);
          expect([...bench.map.entries()]).toHaveLength(model.size);
        });
      }),
      { numRuns: 300 },
    );
  });

  it('answers with the errno of the kernel', () => {
    const bench = new Bench(trie, LpmTrie);
    expect(bench.update(prefix(33, 0), u64(0))).toBe(EINVAL);
    expect(bench.delete(prefix(33, 0))).toBe(EINVAL);
    expect(bench.find(prefix(33, 0))).toBe(0n);
    expect(bench.update(prefix(8, 0), u64(0), 3n)).toBe(EINVAL);
    expect(bench.update(prefix(8, 0), u64(0), 2n)).toBe(ENOENT);
    expect(bench.update(prefix(8, 0), u64(0), 1n)).toBe(0);
    expect(bench.update(prefix(8, 0), u64(1), 1n)).toBe(EEXIST);
  });

  it('iterates more specific prefixes first', () => {
    const bench = new Bench(trie, LpmTrie);
    for (const length of [8, 0, 24, 16]) bench.update(prefix(length, 0x0a010203), u64(length));
    const lengths = [...bench.map.entries()].map(({ key }) => key[0]);
    expect(lengths).toEqual([24, 16, 8, 0]);
  });
});

/** What user space does with maps, beside what dump.test.ts has: per-CPU values, queues, refusals, keys by type. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createMap } from '../../../src/bpf/maps/create.js';
import type { MapSpec } from '../../../src/bpf/maps/map.js';
import { UserMap } from '../../../src/bpf/maps/user.js';
import { load } from '../../../src/bpf/object/load.js';
import { parseObject } from '../../../src/bpf/object/parse.js';
import { helperBodies } from '../../../src/bpf/helpers/table.js';
import { PlainHost } from '../../../src/bpf/plain-host.js';
import { specOf, u32, u64 } from './support.js';

const userMap = (fields: Partial<MapSpec>, cpuCount = 1): UserMap =>
  new UserMap(createMap(specOf(fields), new PlainHost({ cpuCount })));

describe('per-CPU maps', () => {
  it.each(['PERCPU_HASH', 'PERCPU_ARRAY', 'LRU_PERCPU_HASH'] as const)('%s', (type) => {
    const user = userMap({ type }, 3);
    user.update(1, 7);
    expect(user.lookup(1)).toEqual([u64(7), u64(7), u64(7)]);
    user.update(1, [1, 2, 3], 'exist');
    expect(user.lookup(1)).toEqual([u64(1), u64(2), u64(3)]);
    const entries = [...user];
    user.update(1, 0);
    expect(user.updateBatch(entries)).toBe(entries.length);
    expect(user.lookup(1)).toEqual([u64(1), u64(2), u64(3)]);
  });
});

describe('queues', () => {
  it.each([
    ['QUEUE', [1, 2, 3]],
    ['STACK', [3, 2, 1]],
  ] as const)('%s', (type, order) => {
    const user = userMap({ type, keySize: 0, maxEntries: 3 });
    for (const value of [1, 2, 3]) user.push(value);
    expect(() => user.push(4)).toThrow('-E2BIG: map m: push');
    for (const value of order) {
      expect(user.peek()).toEqual(u64(value));
      expect(user.pop()).toEqual(u64(value));
    }
    expect(user.peek()).toBeUndefined();
    expect(user.lookupAndDelete()).toBeUndefined();
    for (const value of [1, 2, 3]) user.push(value);
    user.push(4, 'exist');
    expect([...user].map(({ value }) => value)).toContainEqual(u64(4));
  });

  it('are the only maps without keys', () => {
    const user = userMap({});
    expect(() => user.push(1)).toThrow('-ENOTSUPP: map m: push');
    expect(() => user.pop()).toThrow('-ENOTSUPP: map m: pop');
    expect(() => user.peek()).toThrow('-ENOTSUPP: map m: peek');
  });
});

describe('look up and delete', () => {
  it('of a hash table, one or many', () => {
    const user = userMap({ maxEntries: 8 });
    for (let i = 0; i < 6; i++) user.update(i, i);
    expect(user.lookupAndDelete(4)).toEqual(u64(4));
    expect(user.lookupAndDelete(4)).toBeUndefined();
    const seen = [...user.lookupAndDeleteBatch(3), ...user.lookupAndDeleteBatch(3)];
    expect(seen.map(({ value }) => value)).toHaveLength(5);
    expect(new Set(seen.map(({ key }) => String(key))).size).toBe(5);
    expect([...user.keys()]).toEqual([]);
  });

  it('not of an array', () => {
    const user = userMap({ type: 'ARRAY' });
    expect(() => user.lookupAndDelete(0)).toThrow('-ENOTSUPP: map m: lookup and delete');
    expect(() => user.lookupAndDeleteBatch(1)).toThrow('-ENOTSUPP');
    expect(() => user.delete(0)).toThrow('-EINVAL: map m: delete');
  });
});

it('keys by type go round', () => {
  const url = new URL('../../vectors/xdp/obj/flow_count.o', import.meta.url);
  const spec = parseObject(readFileSync(url), { name: 'flow_count.o' });
  const map = load(spec, new PlainHost({ helpers: helperBodies() })).maps.get('flows');
  const definition = spec.maps.find(({ name }) => name === 'flows');
  if (!map || !definition) throw new Error('no map flows');
  const { keyType, valueType } = definition;
  const user = new UserMap(map, { btf: spec.btf, keyType, valueType });
  for (const fill of [1, 2, 3]) {
    user.update(
      new Uint8Array(map.spec.keySize).fill(fill),
      new Uint8Array(map.spec.valueSize).fill(fill),
    );
  }
  const keys = [...user.keys()];
  expect(keys).toEqual([...user].map(({ key }) => key));
  // every key but the last has the next one behind it
  for (const [i, key] of keys.entries()) {
    const next = user.nextKey(key);
    const following = keys[i + 1];
    expect(next && user.lookup(next)).toEqual(
      following === undefined ? undefined : user.lookup(following),
    );
  }
  expect(user.deleteBatch(keys)).toBe(3);
});

it('existing and missing entries, as flags say', () => {
  const user = userMap({ maxEntries: 1 });
  expect(() => user.update(1, 1, 'exist')).toThrow('-ENOENT');
  user.update(1, 1, 'noexist');
  expect(() => user.update(1, 1, 'noexist')).toThrow('-EEXIST');
  expect(() => user.update(2, 1)).toThrow('-E2BIG');
  expect(user.lookup(u32(1))).toEqual(u64(1));
});

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createMap } from '../../../src/bpf/maps/create.js';
import { dumpMap, type MapTypes } from '../../../src/bpf/maps/dump.js';
import type { BpfMap } from '../../../src/bpf/maps/map.js';
import { UserMap } from '../../../src/bpf/maps/user.js';
import { load } from '../../../src/bpf/object/load.js';
import { parseObject } from '../../../src/bpf/object/parse.js';
import { helperBodies } from '../../../src/bpf/helpers/table.js';
import { PlainHost } from '../../../src/bpf/plain-host.js';
import { specOf, u32, u64 } from './support.js';

function loadMap(object: string, name: string): { map: BpfMap; types: MapTypes } {
  const bytes = readFileSync(new URL(`../../vectors/xdp/obj/${object}`, import.meta.url));
  const spec = parseObject(bytes, { name: object });
  const loaded = load(spec, new PlainHost({ helpers: helperBodies() }));
  const map = loaded.maps.get(name);
  const definition = spec.maps.find((each) => each.name === name);
  if (!map || !definition) throw new Error(`no map ${name}`);
  const { keyType, valueType } = definition;
  return { map, types: { btf: spec.btf, keyType, valueType } };
}

describe('dump without BTF', () => {
  it('short entries on one line', () => {
    const map = createMap(specOf({ type: 'ARRAY', maxEntries: 2 }), new PlainHost());
    map.set(u32(1), u64(0x1122));
    expect(dumpMap(map).split('\n')).toEqual([
      'key: 00 00 00 00  value: 00 00 00 00 00 00 00 00',
      'key: 01 00 00 00  value: 22 11 00 00 00 00 00 00',
      'Found 2 elements',
    ]);
  });

  it('long values on lines of 16', () => {
    const map = createMap(specOf({ valueSize: 20 }), new PlainHost());
    map.set(u32(1), new Uint8Array(20).fill(5));
    expect(dumpMap(map)).toBe(
      'key:\n01 00 00 00\nvalue:\n05 05 05 05 05 05 05 05  05 05 05 05 05 05 05 05\n05 05 05 05\nFound 1 element',
    );
  });

  it('per CPU', () => {
    const map = createMap(specOf({ type: 'PERCPU_HASH' }), new PlainHost({ cpuCount: 2 }));
    map.set(u32(1), u64(2));
    expect(dumpMap(map)).toBe(
      'key:\n01 00 00 00\nvalue (CPU 00): 02 00 00 00 00 00 00 00\nvalue (CPU 01): 02 00 00 00 00 00 00 00\nFound 1 element',
    );
    expect(JSON.parse(dumpMap(map, {}, { json: true }))).toEqual([
      {
        key: ['0x01', '0x00', '0x00', '0x00'],
        values: [0, 1].map((cpu) => ({
          cpu,
          value: ['0x02', '0x00', '0x00', '0x00', '0x00', '0x00', '0x00', '0x00'],
        })),
      },
    ]);
  });
});

describe('dump with BTF', () => {
  it('shows members by name, as text and formatted in JSON', () => {
    const { map, types } = loadMap('ping_arp.o', 'hosts');
    map.set(new Uint8Array([10, 0, 0, 2]), new Uint8Array([2, 0, 0, 0, 0, 0xaa, 0, 0]));
    const text = dumpMap(map, types);
    expect(text.startsWith('[{\n        "key": 33554442,\n        "value": ')).toBe(true);
    expect(text.endsWith('\n    }\n]')).toBe(true);
    const [entry] = JSON.parse(dumpMap(map, types, { json: true })) as [
      { key: string[]; formatted: { key: number; value: object } },
    ];
    expect(entry.key).toEqual(['0x0a', '0x00', '0x00', '0x02']);
    expect(entry.formatted.key).toBe(33554442);
    expect(JSON.parse(text)).toEqual([entry.formatted]);
  });

  it('and values by type go in and come out', () => {
    const { map, types } = loadMap('flow_count.o', 'flows');
    const user = new UserMap(map, types);
    const bytes = Uint8Array.from({ length: map.spec.keySize }, (_, i) => i);
    user.update(bytes, new Uint8Array(map.spec.valueSize).fill(1), 'noexist');
    const [entry] = [...user];
    if (!entry) throw new Error('no entry');
    const value = user.lookup(entry.key);
    expect(value).toEqual(entry.value);
    user.delete(entry.key);
    expect(user.lookup(bytes)).toBeUndefined();
    user.updateBatch([entry]);
    expect(map.get(bytes)?.[0]).toEqual(new Uint8Array(map.spec.valueSize).fill(1));
    expect(() => user.update(entry.key, bytes, 'noexist')).toThrow();
    expect(() => user.delete(new Uint8Array(map.spec.keySize))).toThrow(
      '-ENOENT: map flows: delete',
    );
  });
});

describe('user side without types', () => {
  it('goes through keys and batches', () => {
    const map = createMap(specOf({ maxEntries: 10 }), new PlainHost());
    const user = new UserMap(map);
    for (let i = 0; i < 5; i++) user.update(i, BigInt(i));
    let key = user.nextKey();
    const keys: Uint8Array[] = [];
    while (key) {
      keys.push(key);
      key = user.nextKey(key);
    }
    expect(keys).toHaveLength(5);
    const first = user.lookupBatch(3);
    expect(first.entries).toHaveLength(3);
    expect(user.lookupBatch(3, first.next).entries).toHaveLength(2);
    expect(user.lookupBatch(3, first.next).next).toBeUndefined();
    expect(user.deleteBatch([0, 1])).toBe(2);
    expect(() => user.deleteBatch([2, 1])).toThrow('-ENOENT: map m: delete after 1 of a batch');
    expect(user.lookupAndDelete(3)).toEqual(u64(3));
    expect([...user]).toHaveLength(1);
  });
});

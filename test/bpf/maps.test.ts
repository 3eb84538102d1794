import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bytesToHex } from '../../src/common/bytes.js';
import { assemble } from '../../src/bpf/assemble.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { createMap } from '../../src/bpf/maps/create.js';
import type { MapSpec, ProgArrayMap } from '../../src/bpf/maps/map.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { rawProgram } from '../../src/bpf/raw-program.js';

const spec = (fields: Partial<MapSpec>): MapSpec => ({
  name: 'm',
  type: 'ARRAY',
  keySize: 4,
  valueSize: 8,
  maxEntries: 4,
  flags: 0,
  ...fields,
});

const u32 = (value: number): Uint8Array => new Uint8Array(new Uint32Array([value]).buffer);
const u64 = (value: bigint): Uint8Array => new Uint8Array(new BigUint64Array([value]).buffer);

/** Flag values of update. */
const [ANY, NOEXIST, EXIST] = [0n, 1n, 2n];

describe('createMap', () => {
  it.each([
    [{ maxEntries: 0 }, '-EINVAL: map m: max_entries 0'],
    [{ keySize: 8 }, "-EINVAL: map m: key size 8, an array's is 4"],
    [{ valueSize: 0 }, '-EINVAL: map m: value size 0'],
    [{ flags: 1 }, '-EINVAL: map m: flags 0x1 are not for ARRAY'],
    [{ type: 'HASH', keySize: 0 }, '-EINVAL: map m: key size 0'],
    [{ type: 'HASH', valueSize: 5 << 20 }, '-E2BIG: map m: elements of 5242884 bytes'],
    [
      { type: 'PERCPU_ARRAY', valueSize: 40000 },
      '-E2BIG: map m: per-CPU values of 40000 bytes, at most 32768',
    ],
    [{ type: 'PROG_ARRAY' }, '-EINVAL: map m: value size 8, that of PROG_ARRAY is 4'],
    [{ type: 'LPM_TRIE' }, '-EINVAL: map m: an LPM trie needs BPF_F_NO_PREALLOC'],
    [{ type: 'toString' as 'HASH' }, '-EINVAL: map m: unknown map type toString'],
    [{ maxEntries: 1 << 30 }, '-ENOMEM: map m: '],
  ] as const)('refuses %j', (fields, message) => {
    const host = new PlainHost();
    expect(() => createMap(spec(fields), host)).toThrow(message);
    expect(host.memory.regions).toHaveLength(0);
  });

  it('puts the header where JITed code looks, and takes all back when freed', () => {
    const host = new PlainHost();
    const map = createMap(spec({ maxEntries: 7, type: 'HASH', keySize: 6 }), host);
    const header = [24n, 28n, 32n, 36n].map((at) => host.memory.read32(map.address + at));
    expect(header).toEqual([1, 6, 8, 7]);
    expect(host.mapAt(map.address)).toBe(map);
    map.free();
    expect(host.mapAt(map.address)).toBeUndefined();
    expect(host.memory.regions).toHaveLength(0);
  });
});

describe('array', () => {
  it('has zeroed, contiguous elements', () => {
    const host = new PlainHost();
    const map = createMap(spec({ valueSize: 12 }), host);
    expect(map.get(u32(3))).toEqual([new Uint8Array(12)]);
    const key = host.allocate('key', 4).address;
    host.memory.write32(key, 2);
    expect(map.lookup(key)).toBe(map.valueAddress + 32n);
    host.memory.write32(key, 4);
    expect(map.lookup(key)).toBe(0n);
    expect(host.memory.faultAt(map.valueAddress, 64, 'write')).toBeUndefined();
    expect(host.memory.faultAt(map.valueAddress, 65, 'write')).toBeDefined();
  });

  it('answers with the errno values of the kernel', () => {
    const map = createMap(spec({}), new PlainHost());
    expect(map.set(u32(1), u64(5n), ANY)).toBe(0);
    expect(map.set(u32(1), u64(6n), EXIST)).toBe(0);
    expect(map.set(u32(1), u64(7n), NOEXIST)).toBe(-17);
    expect(map.set(u32(4), u64(7n), ANY)).toBe(-7);
    expect(map.set(u32(4), u64(7n), NOEXIST)).toBe(-7);
    expect(map.set(u32(1), u64(7n), 3n)).toBe(-22);
    expect(map.get(u32(1))).toEqual([u64(6n)]);
    expect([...map.entries()].map(({ values }) => values)).toEqual(
      [0n, 6n, 0n, 0n].map((value) => [u64(value)]),
    );
    expect(() => map.set(u32(1), u32(1))).toThrow('map m: value of 4 bytes, needs 8');
    expect(() => map.get(u64(1n))).toThrow('map m: key of 8 bytes, needs 4');
  });

  it('refuses to delete', () => {
    const host = new PlainHost();
    const map = createMap(spec({}), host);
    expect(map.delete(host.allocate('key', 4).address)).toBe(-22);
  });
});

describe('hash', () => {
  it('answers with the errno values of the kernel', () => {
    const map = createMap(spec({ type: 'HASH', maxEntries: 2 }), new PlainHost());
    expect(map.set(u32(9), u64(1n), EXIST)).toBe(-2);
    expect(map.set(u32(9), u64(1n), NOEXIST)).toBe(0);
    expect(map.set(u32(9), u64(1n), NOEXIST)).toBe(-17);
    expect(map.set(u32(8), u64(1n))).toBe(0);
    expect(map.set(u32(7), u64(1n))).toBe(-7);
    expect(map.set(u32(8), u64(2n))).toBe(0);
    expect(map.set(u32(8), u64(2n), 4n)).toBe(-22);
    expect(map.get(u32(7))).toBeUndefined();
  });

  it('behaves like a Map', () => {
    const operation = fc.record({
      kind: fc.constantFrom('set', 'delete', 'get'),
      key: fc.uint8Array({ minLength: 5, maxLength: 5, max: 3 }),
      value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      flags: fc.constantFrom(ANY, NOEXIST, EXIST),
    });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
        const host = new PlainHost({ memorySize: 1 << 17 });
        const map = createMap(spec({ type: 'HASH', keySize: 5, maxEntries: 6 }), host);
        const model = new Map<string, bigint>();
        const at = host.allocate('key', 5).address;
        for (const { kind, key, value, flags } of operations) {
          const name = bytesToHex(key);
          const exists = model.has(name);
          host.memory.writeBytes(at, key);
          if (kind === 'set') {
            let expected = 0;
            if (exists && flags === NOEXIST) expected = -17;
            else if (!exists && flags === EXIST) expected = -2;
            else if (!exists && model.size === 6) expected = -7;
            else model.set(name, value);
            expect(map.set(key, u64(value), flags)).toBe(expected);
          } else if (kind === 'delete') {
            expect(map.delete(at)).toBe(model.delete(name) ? 0 : -2);
          } else {
            const address = map.lookup(at);
            expect(address === 0n ? undefined : host.memory.read64(address)).toBe(model.get(name));
          }
        }
        const entries = [...map.entries()].map(({ key, values }) => [
          bytesToHex(key),
          values[0] && bytesToHex(values[0]),
        ]);
        const wanted = [...model].map(([key, value]) => [key, bytesToHex(u64(value))]);
        expect(entries.sort()).toEqual(wanted.sort());
      }),
      { numRuns: 150 },
    );
  });

  it('can be emptied while it is walked', () => {
    const host = new PlainHost();
    const map = createMap(spec({ type: 'HASH', maxEntries: 64 }), host);
    for (let i = 0; i < 64; i++) map.set(u32(i), u64(BigInt(i)));
    const at = host.allocate('key', 4).address;
    let seen = 0;
    for (const { key } of map.entries()) {
      host.memory.writeBytes(at, key);
      expect(map.delete(at)).toBe(0);
      seen++;
    }
    expect(seen).toBe(64);
    expect([...map.entries()]).toEqual([]);
    expect(map.set(u32(5), u64(0n), NOEXIST)).toBe(0);
  });
});

describe.each(['PERCPU_ARRAY', 'PERCPU_HASH'] as const)('%s', (type) => {
  it('keeps one value per CPU', () => {
    const host = new PlainHost({ cpuCount: 3 });
    const map = createMap(spec({ type, valueSize: 4 }), host);
    map.set(u32(1), u32(7));
    const key = host.allocate('key', 4).address;
    const value = host.allocate('value', 4).address;
    host.memory.write32(key, 1);
    host.memory.write32(value, 50);
    host.setCurrentCpu(2);
    expect(map.update(key, value, EXIST)).toBe(0);
    host.memory.write32(map.lookup(key), 51);
    host.setCurrentCpu(1);
    expect(host.memory.read32(map.lookup(key))).toBe(7);
    expect(map.get(u32(1))).toEqual([7, 7, 51].map(u32));
    expect(map.valueAddress).toBe(0n);
  });

  it('starts other CPUs at zero', () => {
    const host = new PlainHost({ cpuCount: 2 });
    const map = createMap(spec({ type }), host);
    const key = host.allocate('key', 4).address;
    const value = host.allocate('value', 8).address;
    host.memory.write64(value, 9n);
    expect(map.update(key, value, ANY)).toBe(0);
    expect(map.get(u32(0))).toEqual([u64(9n), u64(0n)]);
  });
});

describe('prog array', () => {
  it('carries tail calls, 33 of them at most', () => {
    const host = new PlainHost();
    const map = createMap(spec({ type: 'PROG_ARRAY', valueSize: 4 }), host) as ProgArrayMap;
    const again = rawProgram(
      'again',
      assemble(`r0 = *(u64 *)(r1 + 0)
                r0 += 1
                *(u64 *)(r1 + 0) = r0
                r2 = 0x${map.address.toString(16)} ll
                r3 = 0
                tail_call
                r0 = *(u64 *)(r1 + 0)
                exit`),
    );
    expect(map.setProgram(0, again, 0xffff_0000n)).toBe(0);
    expect(map.setProgram(4, again)).toBe(-7);
    expect(host.memory.read64(map.address + 264n)).toBe(0xffff_0000n);
    const counter = host.allocate('counter', 8).address;
    expect(createInterpreter(again, host).run(counter)).toEqual({ kind: 'return', r0: 34n });
    const key = host.allocate('key', 4).address;
    expect([map.delete(key), map.delete(key)]).toEqual([0, -2]);
    host.memory.write64(counter, 0n);
    expect(createInterpreter(again, host).run(counter)).toEqual({ kind: 'return', r0: 1n });
  });

  it('returns to the caller of the subprogram that made the tail call', () => {
    const host = new PlainHost();
    const map = createMap(spec({ type: 'PROG_ARRAY', valueSize: 4 }), host) as ProgArrayMap;
    map.setProgram(3, rawProgram('target', assemble('r6 = 9\nr0 = 40\nexit')));
    const main = rawProgram(
      'main',
      assemble(`r6 = 2
                r2 = 0x${map.address.toString(16)} ll
                r3 = 3
                call sub
                r0 += r6
                exit
           sub: tail_call
                r0 = 1000
                exit`),
    );
    expect(createInterpreter(main, host).run(0n)).toEqual({ kind: 'return', r0: 42n });
  });
});

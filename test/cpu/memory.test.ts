/** `Memory` against a naive model: a list of regions with their own bytes, searched linearly. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { high32, low32 } from '../../src/common/bytes.js';
import { MemoryAccessError, type AccessKind } from '../../src/cpu/fault.js';
import {
  Memory,
  PAGE_SIZE,
  type MemorySnapshot,
  type Permissions,
  type Region,
} from '../../src/cpu/memory.js';

const STORE = 1 << 20;
const PERMISSIONS: readonly Permissions[] = ['r', 'rw', 'rx', 'rwx'];
/** Places where something can go wrong: low, high, sign changes of the halves, both ends. */
const BASES = [
  0n,
  0x7fff_f000n,
  0xffff_e000n,
  0x7fff_ffff_ffff_e000n,
  0xffff_8000_0800_0000n,
  0xffff_8000_0801_0000n,
  0xffff_ffff_ffff_c000n,
];

interface ModelRegion {
  readonly address: bigint;
  readonly size: number;
  readonly permissions: Permissions;
  readonly bytes: Uint8Array;
}

const pageFloor = (address: bigint): bigint => address & ~0xfffn;
const pageEnd = (region: { address: bigint; size: number }): bigint =>
  (region.address + BigInt(region.size) + 0xfffn) & ~0xfffn;

class Model {
  regions = new Map<string, ModelRegion>();

  /** Whether a region may be placed here, the backing store apart. */
  accepts(address: bigint, size: number): boolean {
    if (address >> 32n !== (address + BigInt(size) - 1n) >> 32n) return false;
    for (const other of this.regions.values()) {
      if (
        pageFloor(address) < pageEnd(other) &&
        pageFloor(other.address) < pageEnd({ address, size })
      )
        return false;
    }
    return true;
  }

  usedBytes(): number {
    let used = 0;
    for (const region of this.regions.values()) {
      used += Number(pageEnd(region) - pageFloor(region.address));
    }
    return used;
  }

  /** The region and offset that hold all of an access, or the reason why none does. */
  find(
    address: bigint,
    size: number,
    access: AccessKind,
  ): { region: ModelRegion; within: number } | 'unmapped' | 'permission' | 'alignment' {
    for (const region of this.regions.values()) {
      const end = region.address + BigInt(region.size);
      if (address < region.address || address + BigInt(size) > end) continue;
      if (access === 'fetch' && address % 4n !== 0n) return 'alignment';
      if (access === 'write' && !region.permissions.includes('w')) return 'permission';
      if (access === 'fetch' && !region.permissions.includes('x')) return 'permission';
      return { region, within: Number(address - region.address) };
    }
    return 'unmapped';
  }
}

/** An address near an edge of the region last called `name` (mapped now or not). */
interface Target {
  readonly name: string;
  readonly edge: 'start' | 'end';
  readonly shift: number;
}

type Command =
  | { do: 'map'; name: string; base: number; shift: number; size: number; permissions: Permissions }
  | { do: 'unmap'; name: string }
  | { do: 'protect'; name: string; permissions: Permissions }
  | { do: 'access'; target: Target; size: 1 | 2 | 4 | 8; access: AccessKind; fill: number }
  | { do: 'poke'; target: Target; size: number; fill: number }
  | { do: 'snapshot' }
  | { do: 'restore' };

const names = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const base = fc.integer({ min: 0, max: BASES.length - 1 });
const shift = fc.oneof(fc.integer({ min: -16, max: 16 }), fc.integer({ min: 0, max: 0x4010 }));
const target = fc.record({
  name: names,
  edge: fc.constantFrom('start' as const, 'end' as const),
  shift: fc.integer({ min: -12, max: 12 }),
});
const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('map' as const),
      name: names,
      base,
      shift,
      size: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 4080, max: 12300 })),
      permissions: fc.constantFrom(...PERMISSIONS),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('unmap' as const), name: names }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('protect' as const),
      name: names,
      permissions: fc.constantFrom(...PERMISSIONS),
    }),
  },
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant('access' as const),
      target,
      size: fc.constantFrom(1 as const, 2 as const, 4 as const, 8 as const),
      access: fc.constantFrom('read' as const, 'write' as const, 'fetch' as const),
      fill: fc.integer({ min: 1, max: 255 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('poke' as const),
      target,
      size: fc.integer({ min: 0, max: 40 }),
      fill: fc.integer({ min: 1, max: 255 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('snapshot' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restore' as const) }) },
);

/** A `Memory` and its model, driven together. */
class Pair {
  memory = new Memory(STORE);
  model = new Model();
  live = new Map<string, Region>();
  /** Where the region of a name is or was last. */
  last = new Map<string, { address: bigint; size: number }>();
  /** What a listener has been told, by first page. */
  told = new Map<bigint, Region>();
  textStores: [bigint, number][] = [];
  saved:
    | { memory: MemorySnapshot; model: Map<string, ModelRegion>; live: Map<string, Region> }
    | undefined;

  constructor() {
    this.memory.listen({
      mapped: (region) => {
        expect(this.told.has(region.pageAddress)).toBe(false);
        this.told.set(region.pageAddress, region);
      },
      unmapped: (region) => expect(this.told.delete(region.pageAddress)).toBe(true),
      textStored: (region, offset, size) =>
        this.textStores.push([region.address + BigInt(offset), size]),
    });
  }

  at(where: Target): bigint {
    const last = this.last.get(where.name) ?? { address: 0n, size: 8 };
    const edge = where.edge === 'start' ? last.address : last.address + BigInt(last.size);
    return BigInt.asUintN(64, edge + BigInt(where.shift));
  }

  apply(c: Command): void {
    this.textStores = [];
    switch (c.do) {
      case 'map':
        return this.map(c);
      case 'unmap': {
        const region = this.live.get(c.name);
        if (!region) return;
        this.memory.unmap(region);
        expect(() => this.memory.unmap(region)).toThrow(RangeError);
        this.live.delete(c.name);
        this.model.regions.delete(c.name);
        return;
      }
      case 'protect': {
        const region = this.live.get(c.name);
        const old = this.model.regions.get(c.name);
        if (!region || !old) return;
        this.live.set(c.name, this.memory.protect(region, c.permissions));
        this.model.regions.set(c.name, { ...old, permissions: c.permissions });
        return;
      }
      case 'access':
        return this.access(this.at(c.target), c);
      case 'poke':
        return this.poke(this.at(c.target), c.size, c.fill);
      case 'snapshot': {
        const copies = [...this.model.regions].map(
          ([name, region]) => [name, { ...region, bytes: region.bytes.slice() }] as const,
        );
        this.saved = {
          memory: this.memory.snapshot(),
          model: new Map(copies),
          live: new Map(this.live),
        };
        return;
      }
      case 'restore': {
        if (!this.saved) return;
        this.memory.restore(this.saved.memory);
        const copies = [...this.saved.model].map(
          ([name, region]) => [name, { ...region, bytes: region.bytes.slice() }] as const,
        );
        this.model.regions = new Map(copies);
        this.live = new Map(this.saved.live);
        return;
      }
    }
  }

  map(c: Command & { do: 'map' }): void {
    if (this.live.has(c.name)) return;
    const address = BigInt.asUintN(64, (BASES[c.base] ?? 0n) + BigInt(c.shift));
    const spec = { name: c.name, address, size: c.size, permissions: c.permissions };
    if (!this.model.accepts(address, c.size)) {
      expect(() => this.memory.map(spec)).toThrow(RangeError);
      return;
    }
    const region = this.memory.map(spec);
    this.last.set(c.name, spec);
    expect(region.offset % PAGE_SIZE).toBe(Number(address % 4096n));
    this.live.set(c.name, region);
    this.model.regions.set(c.name, { ...spec, bytes: new Uint8Array(c.size) });
  }

  access(address: bigint, c: Command & { do: 'access' }): void {
    const { memory } = this;
    const [hi, lo] = [high32(address), low32(address)];
    const size = c.access === 'fetch' ? 4 : c.size;
    const found = this.model.find(address, size, c.access);
    const offset =
      c.access === 'read'
        ? memory.offsetRead(hi, lo, size)
        : c.access === 'write'
          ? memory.offsetWrite(hi, lo, size)
          : memory.offsetFetch(hi, lo);
    const fault = memory.faultAt(address, size, c.access);
    if (typeof found === 'string') {
      expect(offset).toBe(-1);
      expect(fault).toEqual({ access: c.access, address, size, reason: found });
      if (c.access === 'write') {
        expect(() => memory.writeBytes(address, new Uint8Array(size))).toThrow(MemoryAccessError);
      }
      return;
    }
    expect(fault).toBeUndefined();
    expect(offset).toBeGreaterThanOrEqual(0);
    const model = found.region.bytes.subarray(found.within, found.within + size);
    expect(memory.bytes.slice(offset, offset + size)).toEqual(model.slice());
    // now cached: an access that overruns the region must not profit from it
    const end = found.region.address + BigInt(found.region.size);
    const [endHi, endLo] = [high32(end - 1n), low32(end - 1n)];
    if (c.access === 'read') expect(memory.offsetRead(endHi, endLo, 2)).toBe(-1);
    if (c.access === 'write') {
      expect(this.textStores.length).toBe(found.region.permissions.includes('x') ? 1 : 0);
      model.fill(c.fill);
      memory.bytes.fill(c.fill, offset, offset + size);
    }
  }

  poke(address: bigint, size: number, fill: number): void {
    const bytes = new Uint8Array(size).fill(fill);
    const found = this.model.find(address, size, 'read');
    if (size === 0) {
      this.memory.pokeBytes(address, bytes);
    } else if (typeof found === 'string') {
      expect(() => this.memory.pokeBytes(address, bytes)).toThrow(MemoryAccessError);
    } else {
      this.memory.pokeBytes(address, bytes);
      found.region.bytes.set(bytes, found.within);
      expect(this.textStores).toEqual(
        found.region.permissions.includes('x') ? [[address, size]] : [],
      );
    }
  }

  check(): void {
    expect([...this.told.values()].length).toBe(this.model.regions.size);
    for (const [name, region] of this.model.regions) {
      const live = this.memory.regionAt(region.address);
      expect(live).toMatchObject({
        name,
        address: region.address,
        size: region.size,
        permissions: region.permissions,
      });
      expect(live && this.told.get(live.pageAddress)).toBe(live);
      expect(this.memory.regionAt(region.address + BigInt(region.size) - 1n)).toBe(live);
      expect(this.memory.readBytes(region.address, region.size)).toEqual(region.bytes);
    }
    const pages = this.memory.regions.flatMap((r) => [[r.pageOffset, r.pageOffset + r.pageBytes]]);
    pages.sort((a, b) => (a[0] ?? 0) - (b[0] ?? 0));
    for (let i = 1; i < pages.length; i++) {
      expect(pages[i]?.[0]).toBeGreaterThanOrEqual(pages[i - 1]?.[1] ?? 0);
    }
  }
}

describe('Memory', () => {
  it('agrees with a naive model', () => {
    fc.assert(
      fc.property(fc.array(command, { minLength: 10, maxLength: 60 }), (commands) => {
        const pair = new Pair();
        for (const c of commands) pair.apply(c);
        pair.check();
      }),
      { numRuns: 120 },
    );
  });

  it.each([
    ['read', 'r'],
    ['write', 'rw'],
    ['fetch', 'rx'],
  ] as const)('forgets a cached %s translation', (access, permissions) => {
    const memory = new Memory(STORE);
    const address = 0xffff_8000_0800_0000n;
    const [hi, lo] = [high32(address), low32(address)];
    const offset = (): number => {
      if (access === 'fetch') return memory.offsetFetch(hi, lo);
      return access === 'read' ? memory.offsetRead(hi, lo, 4) : memory.offsetWrite(hi, lo, 4);
    };
    const map = (): Region => memory.map({ name: 'x', address, size: 64, permissions });
    const region = map();
    expect(offset()).toBe(0);
    memory.unmap(region);
    expect(offset()).toBe(-1);
    const empty = memory.snapshot();
    const again = map();
    expect(offset()).toBe(0);
    memory.restore(empty);
    expect(offset()).toBe(-1);
    expect(memory.regions).not.toContain(again);
    const third = map();
    expect(offset()).toBe(0);
    const changed = memory.protect(third, access === 'read' ? 'rwx' : 'r');
    expect(offset()).toBe(access === 'read' ? 0 : -1);
    memory.protect(changed, permissions);
    expect(offset()).toBe(0);
  });

  it('gives all pages back', () => {
    const memory = new Memory(STORE);
    const map = (index: number, pages: number): Region =>
      memory.map({
        name: `r${index}`,
        address: BigInt(index) * 0x100000n,
        size: pages * PAGE_SIZE,
        permissions: 'rw',
      });
    const regions = [3, 5, 7, 11].map((pages, index) => map(index, pages));
    for (const index of [1, 3, 0, 2]) memory.unmap(regions[index] as Region);
    const whole = map(9, STORE / PAGE_SIZE);
    expect(whole.pageOffset).toBe(0);
    expect(() => map(10, 1)).toThrow('no 4096 bytes of memory left for region r10');
  });

  it('zeroes what it maps again', () => {
    const memory = new Memory(65536);
    const spec = { name: 'x', address: 0x1008n, size: 16, permissions: 'rw' } as const;
    const first = memory.map(spec);
    memory.write64(0x1010n, ~0n);
    memory.unmap(first);
    memory.map(spec);
    expect(memory.read64(0x1010n)).toBe(0n);
  });

  it('places regions at page ends', () => {
    const memory = new Memory(65536);
    const region = memory.mapAtPageEnd({
      name: 'packet',
      pageAddress: 0x5000n,
      size: 60,
      permissions: 'rw',
    });
    expect(region.address).toBe(0x5fc4n);
    expect(memory.faultAt(0x5ffcn, 4, 'write')).toBeUndefined();
    expect(memory.faultAt(0x5ffdn, 4, 'write')?.reason).toBe('unmapped');
    expect(memory.faultAt(0x5fc3n, 1, 'read')?.reason).toBe('unmapped');
  });

  it.each([
    [0, 'size 0'],
    [-4, 'size -4'],
  ])('refuses a region of %i bytes', (size, message) => {
    const memory = new Memory(65536);
    expect(() => memory.map({ name: 'x', address: 0n, size, permissions: 'r' })).toThrow(message);
  });

  it('throws the fault at accessors', () => {
    const memory = new Memory(65536);
    memory.map({ name: 'text', address: 0xffff_8000_0800_0000n, size: 4096, permissions: 'rx' });
    expect(() => memory.write32(0xffff_8000_0800_0010n, 1)).toThrow(
      'write of 4 bytes at 0xffff800008000010: not permitted there',
    );
    expect(() => memory.read64(0n)).toThrow(
      'read of 8 bytes at 0x0000000000000000: no memory there',
    );
  });
});

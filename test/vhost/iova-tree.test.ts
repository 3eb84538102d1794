/** IOVAs handed out, found and taken back; what an address space lets a device do. */
import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { Memory } from '../../src/cpu/memory.js';
import { DeviceAddressSpace } from '../../src/vhost/address-space.js';
import { svqFeatures, svqProblem } from '../../src/vhost/features.js';
import { VhostIovaTree, type DmaMap } from '../../src/vhost/iova-tree.js';
import { deviceAreaSize, driverAreaSize } from '../../src/vhost/shadow-rings.js';
import { featureMask } from '../../src/virtio/net-features.js';

const page = (translated: bigint, pages = 1) =>
  ({ translated, size: BigInt(4096 * pages) - 1n, perm: 'rw' }) as const;

function alloc(tree: VhostIovaTree, ...args: Parameters<typeof page>): DmaMap {
  const map = tree.allocMap(page(...args));
  if (typeof map === 'string') throw new Error(map);
  return map;
}

describe('the IOVA tree', () => {
  it('fits first, from the second page on', () => {
    const tree = new VhostIovaTree(0n, 0xffffn);
    const [a, b, c] = [alloc(tree, 0xa000n), alloc(tree, 0xb000n, 2), alloc(tree, 0xc0000n)];
    expect([a.iova, b.iova, c.iova]).toEqual([0x1000n, 0x2000n, 0x4000n]);
    expect(tree.remove(b)).toBe(1);
    expect(alloc(tree, 0xd0000n, 3).iova).toBe(0x5000n);
    expect(alloc(tree, 0xe0000n).iova).toBe(0x2000n);
    expect(alloc(tree, 0xf0000n).iova).toBe(0x3000n);
  });

  it('says why not', () => {
    const tree = new VhostIovaTree(0x1000n, 0x3fffn);
    expect(tree.allocMap({ ...page(0n), perm: 'none' })).toBe('INVALID');
    expect(tree.allocMap(page(0xffff_ffff_ffff_f000n, 2))).toBe('INVALID');
    expect(tree.allocMap(page(0n, 4))).toBe('NOMEM');
    alloc(tree, 0n, 3);
    expect(tree.allocMap(page(0x10000n))).toBe('NOMEM');
    expect(tree.insert({ ...page(0n), iova: 0x3800n, kind: 'hva' })).toBe('OVERLAP');
  });

  it('a map that straddles the first address makes no false hole', () => {
    const tree = new VhostIovaTree(0x2000n, 0xffffn);
    tree.insert({ ...page(0n, 2), iova: 0x1000n, kind: 'hva' });
    expect(alloc(tree, 0x10000n).iova).toBe(0x3000n);
  });

  it('finds by either address; two guest addresses of one buffer are two maps', () => {
    const tree = new VhostIovaTree(0x1000n, 0xfffffn);
    const hva = alloc(tree, 0x7000n);
    const one = tree.allocMap({ ...page(0x100000n), kind: 'gpa' });
    const two = tree.allocMap({ ...page(0x900000n), kind: 'gpa' });
    expect(tree.findTranslated(0x100010n, 'gpa')).toBe(one);
    expect(tree.findTranslated(0x900010n, 'gpa')).toBe(two);
    expect(tree.findTranslated(0x100010n, 'hva')).toBeUndefined();
    expect(tree.findIova(hva.iova + 4095n)).toBe(hva);
    expect(tree.findIova(0xffn)).toBeUndefined();
    expect(tree.remove({ iova: 0n, size: 0xfffffn })).toBe(3);
  });

  it('never gives one address twice', () => {
    const step = fc.tuple(fc.integer({ min: 1, max: 6 }), fc.nat(20));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const tree = new VhostIovaTree(0x1000n, 0x2ffffn);
        const held: DmaMap[] = [];
        const taken = new Set<bigint>();
        for (const [pages, victim] of steps) {
          if (victim % 3 === 0 && held.length > 0) {
            const [map] = held.splice(victim % held.length, 1);
            if (map === undefined) continue;
            expect(tree.remove(map)).toBe(1);
            for (let at = map.iova; at <= map.iova + map.size; at += 4096n) taken.delete(at);
            continue;
          }
          const map = tree.allocMap(page(0x10000000n, pages));
          // first fit: refused only when no run of free pages is long enough
          if (typeof map === 'string') {
            expect(longestFree(taken)).toBeLessThan(pages);
            continue;
          }
          held.push(map);
          for (let at = map.iova; at <= map.iova + map.size; at += 4096n) {
            expect(taken.has(at)).toBe(false);
            taken.add(at);
          }
        }
        expect(tree.size).toBe(held.length);
      }),
      { numRuns: 200 },
    );
  });
});

function longestFree(taken: ReadonlySet<bigint>): number {
  let longest = 0;
  let run = 0;
  for (let at = 0x1000n; at <= 0x2f000n; at += 4096n) {
    run = taken.has(at) ? 0 : run + 1;
    longest = Math.max(longest, run);
  }
  return longest;
}

test('a device reads and writes what is mapped for it, and nothing else', () => {
  const { ram } = new Memory(1 << 16);
  const space = new DeviceAddressSpace(ram, 1);
  expect(space.map(0x1000n, 4096, 0, 'ro')).toBe(0);
  expect(space.map(0xffff_f000n, 8192, 8192, 'rw')).toBe(0);
  expect(space.map(0x1800n, 4096, 0, 'rw')).toBe(-17);
  expect(space.offsetRead(0, 0x1010, 16)).toBe(16);
  expect(space.offsetRead(0, 0x1fff, 1)).toBe(4095);
  // over 4 GiB
  expect(space.offsetWrite(0, 0xffff_f000 | 0, 8192)).toBe(8192);
  expect(space.offsetWrite(1, 0, 4096)).toBe(12288);
  expect(space.takeFaults()).toEqual([]);
  expect(space.offsetWrite(0, 0x1010, 1)).toBe(-1);
  expect(space.offsetRead(0, 0x1ff0, 17)).toBe(-1);
  expect(space.offsetRead(0, 0x3000, 1)).toBe(-1);
  expect(space.takeFaults()).toEqual([
    'ASID 1: write of 1 bytes at 0x0000000000001010: read-only',
    'ASID 1: read of 17 bytes at 0x0000000000001ff0: over the end of its map',
    'ASID 1: read of 1 bytes at 0x0000000000003000: not mapped',
  ]);
  expect(space.unmap(0x1000n, 4096)).toBe(0);
  expect(space.unmap(0x1000n, 4096)).toBe(-2);
  expect(space.offsetRead(0, 0x1010, 16)).toBe(-1);
});

test('areas of the shadow rings', () => {
  expect([driverAreaSize(256), deviceAreaSize(256)]).toEqual([8192, 4096]);
  expect([driverAreaSize(64), deviceAreaSize(64)]).toEqual([4096, 4096]);
});

test('features of a device that can be shadowed', () => {
  const needed = featureMask(['VERSION_1', 'ACCESS_PLATFORM']);
  expect(
    svqProblem(needed | featureMask(['EVENT_IDX', 'INDIRECT_DESC', 'CTRL_VQ'])),
  ).toBeUndefined();
  expect(svqProblem(featureMask(['VERSION_1']))).toBe('SVQ needs ACCESS_PLATFORM');
  for (const odd of ['RING_PACKED', 'IN_ORDER', 'NOTIFICATION_DATA', 'RING_RESET'] as const) {
    expect(svqProblem(needed | featureMask([odd]))).toContain(odd);
  }
  const masked = svqFeatures((1n << 70n) - 1n);
  for (const bit of [50, 51, 52, 53, 54, 55, 56, 59, 64, 65]) {
    expect((masked >> BigInt(bit)) & 1n).toBe(0n);
  }
});

import { expect, it } from 'vitest';
import { Memory } from '../../src/cpu/memory.js';
import { LinearMap } from '../../src/kernel/linear-map.js';

function linear(size = 1 << 20): { memory: Memory; map: LinearMap } {
  const memory = new Memory(2 << 20);
  return { memory, map: new LinearMap(memory, 0xffff000000000000n, size) };
}

it.each([
  [1, 16n],
  [24, 32n],
  [64, 64n],
  [100, 128n],
  [4096, 4096n],
])('kmalloc(%i) is aligned to its class of %i', (size, alignment) => {
  const { map } = linear();
  map.kmalloc(1);
  expect(map.kmalloc(size) % alignment).toBe(0n);
});

it('zeroes what it gives and poisons what it takes back', () => {
  const { memory, map } = linear();
  const first = map.kmalloc(64);
  memory.write64(first, 0x1122334455667788n);
  map.free(first);
  expect(memory.read8(first)).toBe(0x6b);
  expect(map.kmalloc(64)).toBe(first);
  expect(memory.read64(first)).toBe(0n);
});

it('counts live bytes and refuses a second free', () => {
  const { map } = linear();
  const page = map.allocPages(3);
  expect(map.liveBytes).toBe(3 * 4096);
  map.free(page);
  expect(map.liveBytes).toBe(0);
  expect(() => map.free(page)).toThrow('is not allocated');
});

it('says -ENOMEM when RAM is used up', () => {
  const { map } = linear(8192);
  map.allocPages(2);
  expect(() => map.kmalloc(16)).toThrow('-ENOMEM');
});

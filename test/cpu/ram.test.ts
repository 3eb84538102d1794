import { describe, expect, it } from 'vitest';
import { MemoryAccessError } from '../../src/cpu/fault.js';
import { Memory } from '../../src/cpu/memory.js';

const TEXT = 0xffff800080010000n;
const LINEAR = 0xffff000000000000n;

function memories(): Memory {
  const memory = new Memory(1 << 20);
  memory.map({ name: 'text', address: TEXT, size: 0x2000, permissions: 'rx' });
  memory.map({ name: 'linear', address: LINEAR, size: 0x8000, permissions: 'rw' });
  return memory;
}

describe('pointers', () => {
  it.each([
    ['the start of a region at 0 in its 4 GiB', LINEAR],
    ['a byte inside', LINEAR + 0x1234n],
    ['a tagged one', LINEAR + 0x1001n],
    ['the last byte', LINEAR + 0x7fffn],
    ['another region', TEXT + 0x1ff8n],
  ])('%s: stored as its virtual address, loaded as the same byte', (_what, address) => {
    const memory = memories();
    const { ram } = memory;
    const slot = ram.virtToPhys(LINEAR + 64n);
    const at = ram.virtToPhys(address);
    expect(at).toBe(
      memory.offsetRead(Number(address >> 32n) | 0, Number(address & 0xffffffffn) | 0, 1),
    );
    for (const other of [TEXT, LINEAR]) {
      // whichever region the last pointer led to
      ram.virtToPhys(other);
      ram.setPointer(slot, at);
      expect(memory.read64(LINEAR + 64n)).toBe(address);
      ram.virtToPhys(other);
      expect(ram.pointer(slot)).toBe(at);
    }
    expect(ram.physToVirt(at)).toBe(address);
  });

  it('NULL is 0', () => {
    const { ram } = memories();
    const slot = ram.virtToPhys(LINEAR + 64n);
    ram.set64(slot, ~0n);
    ram.setPointer(slot, 0);
    expect(ram.u64(slot)).toBe(0n);
    expect(ram.pointer(slot)).toBe(0);
    expect(ram.physToVirt(0)).toBe(0n);
  });

  it.each([LINEAR + 0x8000n, LINEAR - 1n, 0x1000n, 0x6b6b6b6b6b6b6b6bn])(
    'one to 0x%s is a fault when it is loaded',
    (address) => {
      const { ram } = memories();
      const slot = ram.virtToPhys(LINEAR);
      ram.set64(slot, address);
      expect(() => ram.pointer(slot)).toThrow(MemoryAccessError);
    },
  );

  it('follow regions that go and come', () => {
    const memory = memories();
    const { ram } = memory;
    const spec = { name: 'more', address: LINEAR + 0x10000n, size: 64, permissions: 'rw' } as const;
    const region = memory.map(spec);
    const at = ram.virtToPhys(spec.address + 8n);
    const snapshot = memory.snapshot();
    memory.unmap(region);
    expect(() => ram.virtToPhys(spec.address + 8n)).toThrow(MemoryAccessError);
    memory.restore(snapshot);
    expect(ram.virtToPhys(spec.address + 8n)).toBe(at);
    expect(ram.physToVirt(at)).toBe(spec.address + 8n);
  });
});

it.each([
  [0n, 5, 5n],
  [0xffffffffn, 1, 0x100000000n],
  [0x1_0000_0000n, -1, 0xffffffffn],
  [0n, -1, 0xffffffffffffffffn],
  [0xffffffffffffffffn, 2, 1n],
  [0x7fffffff_fffffff0n, 0x7fffffff, 0x80000000_7fffffefn],
])('0x%s + %i as u64', (before, by, after) => {
  const { ram } = memories();
  const at = ram.virtToPhys(LINEAR);
  ram.set64(at, before);
  ram.add64(at, by);
  expect(ram.u64(at)).toBe(after);
});

it('small u64 as numbers', () => {
  const { ram } = memories();
  const at = ram.virtToPhys(LINEAR);
  ram.set64(at, 0x1f_ffff_ffff_ffffn);
  expect(ram.u53(at)).toBe(Number.MAX_SAFE_INTEGER);
  ram.setWord(at, 7);
  expect(ram.u64(at)).toBe(7n);
});

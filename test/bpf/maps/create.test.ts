import { describe, expect, it } from 'vitest';
import { createMap } from '../../../src/bpf/maps/create.js';
import type { MapSpec } from '../../../src/bpf/maps/map.js';
import { PlainHost } from '../../../src/bpf/plain-host.js';
import { specOf } from './support.js';

const [NO_PREALLOC, NO_COMMON_LRU, NUMA, RDONLY_PROG, WRONLY_PROG] = [1, 2, 4, 128, 256];
const keyless = { keySize: 0 };
const inner = specOf({ name: 'inner', type: 'ARRAY' });

/** Creations that a kernel refuses, with their errno. */
const REFUSED: readonly (readonly [Partial<MapSpec>, string])[] = [
  [{ type: 'HASH', maxEntries: 0 }, 'EINVAL'],
  [{ type: 'HASH', keySize: 0 }, 'EINVAL'],
  [{ type: 'HASH', valueSize: 0 }, 'EINVAL'],
  [{ type: 'HASH', flags: NO_COMMON_LRU }, 'EINVAL'],
  [{ type: 'HASH', flags: RDONLY_PROG | WRONLY_PROG }, 'EINVAL'],
  [{ type: 'HASH', valueSize: 4 << 20 }, 'E2BIG'],
  [{ type: 'HASH', maxEntries: 0x8000_0001 }, 'E2BIG'],
  [{ type: 'HASH', mapExtra: 1 }, 'EINVAL'],
  [{ type: 'PERCPU_HASH', valueSize: 32776 }, 'E2BIG'],
  [{ type: 'PERCPU_HASH', flags: NUMA }, 'EINVAL'],
  [{ type: 'ARRAY', keySize: 8 }, 'EINVAL'],
  [{ type: 'ARRAY', flags: NO_PREALLOC }, 'EINVAL'],
  [{ type: 'PERCPU_ARRAY', flags: NUMA }, 'EINVAL'],
  [{ type: 'PROG_ARRAY', valueSize: 8 }, 'EINVAL'],
  [{ type: 'PROG_ARRAY', valueSize: 4, flags: RDONLY_PROG }, 'EINVAL'],
  [{ type: 'PERF_EVENT_ARRAY', valueSize: 8 }, 'EINVAL'],
  [{ type: 'LRU_HASH', flags: NO_PREALLOC }, 'ENOTSUPP'],
  [{ type: 'LPM_TRIE', keySize: 8 }, 'EINVAL'],
  [{ type: 'LPM_TRIE', keySize: 4, flags: NO_PREALLOC }, 'EINVAL'],
  [{ type: 'LPM_TRIE', keySize: 261, flags: NO_PREALLOC }, 'EINVAL'],
  [{ type: 'QUEUE' }, 'EINVAL'],
  [{ type: 'STACK', ...keyless, valueSize: (4 << 20) + 1 }, 'E2BIG'],
  [{ type: 'RINGBUF', ...keyless, valueSize: 0, maxEntries: 4095 }, 'EINVAL'],
  [{ type: 'RINGBUF', ...keyless, valueSize: 0, maxEntries: 3 * 4096 }, 'EINVAL'],
  [{ type: 'RINGBUF', ...keyless, valueSize: 4, maxEntries: 4096 }, 'EINVAL'],
  [{ type: 'BLOOM_FILTER' }, 'EINVAL'],
  [{ type: 'BLOOM_FILTER', ...keyless, mapExtra: 16 }, 'EINVAL'],
  [{ type: 'DEVMAP', valueSize: 12 }, 'EINVAL'],
  [{ type: 'CPUMAP', valueSize: 4, maxEntries: 513 }, 'E2BIG'],
  [{ type: 'XSKMAP', valueSize: 8 }, 'EINVAL'],
  [{ type: 'ARRAY_OF_MAPS', valueSize: 4 }, 'EBADF'],
  [
    { type: 'ARRAY_OF_MAPS', valueSize: 4, inner: { ...inner, type: 'PROG_ARRAY', valueSize: 4 } },
    'ENOTSUPP',
  ],
  [{ type: 'HASH_OF_MAPS', valueSize: 8, inner }, 'EINVAL'],
];

const ACCEPTED: readonly Partial<MapSpec>[] = [
  { type: 'HASH', flags: NO_PREALLOC },
  { type: 'ARRAY', flags: 1 << 10 },
  { type: 'LRU_HASH', flags: NO_COMMON_LRU },
  { type: 'LRU_PERCPU_HASH' },
  { type: 'LPM_TRIE', keySize: 8, flags: NO_PREALLOC },
  { type: 'PERF_EVENT_ARRAY', valueSize: 4 },
  { type: 'QUEUE', ...keyless },
  { type: 'STACK', ...keyless },
  { type: 'RINGBUF', ...keyless, valueSize: 0, maxEntries: 4096 },
  { type: 'BLOOM_FILTER', ...keyless, mapExtra: 3 },
  { type: 'DEVMAP' },
  { type: 'DEVMAP_HASH', valueSize: 4 },
  { type: 'CPUMAP' },
  { type: 'XSKMAP', valueSize: 4 },
  { type: 'ARRAY_OF_MAPS', valueSize: 4, inner },
  { type: 'HASH_OF_MAPS', valueSize: 4, inner },
];

describe('BPF_MAP_CREATE', () => {
  it.each(REFUSED)('refuses %j with %s', (fields, errno) => {
    const host = new PlainHost();
    expect(() => createMap(specOf(fields), host)).toThrow(`-${errno}: map `);
    expect(host.memory.regions).toHaveLength(0);
  });

  it.each(ACCEPTED)('takes %j', (fields) => {
    const host = new PlainHost();
    const map = createMap(specOf(fields), host);
    expect(host.mapAt(map.address)).toBe(map);
    expect(map.id).toBe(1);
    map.free();
    expect(host.memory.regions).toHaveLength(0);
    expect(host.mapAt(map.address)).toBeUndefined();
  });
});

/**
 * Helpers that call a function of the program: bpf_loop, bpf_for_each_map_elem.
 *
 * Reference: kernel/bpf/bpf_iter.c bpf_loop and bpf_for_each_map_elem, arraymap.c and hashtab.c
 * bpf_for_each_*_elem. The function is known by its address; it may change R1..R5, so a body keeps what it
 * needs before the first call.
 */
import { MemoryAccessError } from '../../cpu/fault.js';
import type { Region } from '../../cpu/memory.js';
import type { BpfHost, Callback, CallingBody, HelperBody, RegisterPairs } from '../host.js';
import { ArrayMap } from '../maps/array.js';
import { HashBase } from '../maps/hash.js';
import type { MapTypeName } from '../maps/map.js';
import {
  argument,
  argument32,
  fail,
  setArgument,
  setResult,
  setResult64,
  type Helper,
} from './helper.js';
import { MapFinder } from './maps.js';

/** BPF_MAX_LOOPS */
const MAX_LOOPS = 8 * 1024 * 1024;

const ITERABLE: readonly MapTypeName[] = [
  'ARRAY',
  'PERCPU_ARRAY',
  'HASH',
  'PERCPU_HASH',
  'LRU_HASH',
  'LRU_PERCPU_HASH',
];

/** The function at `address`. Throws MemoryAccessError when none is there. */
function callbackAt(host: BpfHost, address: bigint): Callback {
  const callback = host.callbackAt(address);
  if (callback) return callback;
  throw new MemoryAccessError({ access: 'fetch', address, size: 8, reason: 'unmapped' });
}

/** A body that calls each function there and then. */
export function callingBody(calling: CallingBody): HelperBody {
  const body: HelperBody = (registers, host) => {
    let at: bigint | undefined;
    let callback: Callback | undefined;
    for (const address of calling(registers, host)) {
      if (!callback || address !== at) callback = callbackAt(host, address);
      at = address;
      callback(registers);
    }
  };
  return Object.assign(body, { calling });
}

function* loop(registers: RegisterPairs): Generator<bigint, void, undefined> {
  const count = argument32(registers, 1) >>> 0;
  const callback = argument(registers, 2);
  const [contextLo, contextHi] = [registers[6], registers[7]];
  if (argument(registers, 4) !== 0n) {
    fail(registers, 'EINVAL');
    return;
  }
  if (count > MAX_LOOPS) {
    fail(registers, 'E2BIG');
    return;
  }
  let done = 0;
  while (done < count) {
    registers[2] = done++;
    registers[3] = 0;
    registers[4] = contextLo;
    registers[5] = contextHi;
    registers.fill(0, 6, 12);
    yield callback;
    if (registers[0] !== 0 || registers[1] !== 0) break;
  }
  setResult(registers, done);
}

/** Key and value addresses of what bpf_for_each_map_elem goes through. */
function* elementsOf(
  map: object,
  host: BpfHost,
  keyRegion: () => Region,
): Iterable<{ readonly key: bigint; readonly value: bigint }> {
  if (map instanceof HashBase) {
    yield* map.elements(host.currentCpu());
  } else if (map instanceof ArrayMap) {
    const { address } = map.valueRegion(host.currentCpu());
    const key = keyRegion();
    for (let index = 0; index < map.spec.maxEntries; index++) {
      host.memory.write32(key.address, index);
      yield { key: key.address, value: address + BigInt(index * map.stride) };
    }
  }
}

function* forEach(
  registers: RegisterPairs,
  host: BpfHost,
  finder: MapFinder,
): Generator<bigint, void, undefined> {
  const map = finder.find(registers, host);
  const callback = argument(registers, 2);
  const context = argument(registers, 3);
  if (argument(registers, 4) !== 0n || !ITERABLE.includes(map.spec.type)) {
    fail(registers, 'EINVAL');
    return;
  }
  let keys: Region | undefined;
  let count = 0n;
  try {
    const keyRegion = (): Region => (keys ??= host.allocate('key of an array element', 4));
    for (const { key, value } of elementsOf(map, host, keyRegion)) {
      count++;
      setArgument(registers, 1, map.address);
      setArgument(registers, 2, key);
      setArgument(registers, 3, value);
      setArgument(registers, 4, context);
      setArgument(registers, 5, 0n);
      yield callback;
      if (registers[0] !== 0 || registers[1] !== 0) break;
    }
  } finally {
    if (keys) host.release(keys);
  }
  setResult64(registers, count);
}

export function loopHelpers(): readonly Helper[] {
  const finder = new MapFinder();
  return [
    {
      id: 164,
      name: 'for_each_map_elem',
      arguments: ['map', 'func', 'stack_or_null', 'anything'],
      maps: ITERABLE,
      result: 'integer',
      body: callingBody((registers, host) => forEach(registers, host, finder)),
    },
    {
      id: 181,
      name: 'loop',
      arguments: ['anything', 'func', 'stack_or_null', 'anything'],
      result: 'integer',
      body: callingBody(loop),
    },
  ];
}

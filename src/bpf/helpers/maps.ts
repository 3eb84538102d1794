/**
 * Map helpers: lookup, update, delete, lookup of another CPU's value.
 *
 * Reference: kernel/bpf/helpers.c. Maps are remembered by address, so lookups on the map types of this
 * floor allocate nothing.
 */
import { MemoryAccessError } from '../../cpu/fault.js';
import { withIntrinsic, type BpfHost, type RegisterPairs } from '../host.js';
import { BPF_MAP, MapBase } from '../maps/base.js';
import {
  isPerCpu,
  isPushPop,
  type BpfMap,
  type MapTypeName,
  type PushPopMap,
} from '../maps/map.js';
import {
  argument,
  argument32,
  fail,
  offsetOf,
  setResult,
  setResult64,
  type Helper,
} from './helper.js';

/** Maps that a finder remembers: each `struct bpf_map` has pages of its own. */
const REMEMBERED = 16;
const PAGE_SHIFT = 12;

/** Finds maps by address; remembers those of a host. */
export class MapFinder {
  readonly #lo = new Int32Array(REMEMBERED);
  readonly #hi = new Int32Array(REMEMBERED);
  readonly #maps: (MapBase | undefined)[] = Array.from({ length: REMEMBERED }, () => undefined);
  #host: BpfHost | undefined;

  /** The map in R1. Throws MemoryAccessError when no map is there. */
  find(registers: RegisterPairs, host: BpfHost): BpfMap {
    const lo = registers[2];
    const hi = registers[3];
    const slot = (lo >>> PAGE_SHIFT) & (REMEMBERED - 1);
    if (host === this.#host && lo === this.#lo[slot] && hi === this.#hi[slot]) {
      const known = this.#maps[slot];
      if (known?.alive) return known;
    }
    const address = argument(registers, 1);
    const map = host.mapAt(address);
    if (!map) {
      // the kernel would follow the pointer and oops
      throw new MemoryAccessError({
        access: 'read',
        address,
        size: BPF_MAP.size,
        reason: 'unmapped',
      });
    }
    if (host !== this.#host) this.#maps.fill(undefined);
    this.#host = host;
    this.#lo[slot] = lo;
    this.#hi[slot] = hi;
    this.#maps[slot] = map instanceof MapBase ? map : undefined;
    return map;
  }
}

function lookupOn(map: BpfMap, cpu: number, registers: RegisterPairs, host: BpfHost): void {
  if (!(map instanceof MapBase)) {
    setResult64(registers, map.lookup(argument(registers, 2)));
    return;
  }
  const key = offsetOf(host.memory, registers, 2, map.spec.keySize, 'read');
  const at = map.locateAndMark(key, cpu);
  if (at < 0) {
    setResult(registers, 0);
    return;
  }
  map.addressInto(registers, at, cpu);
}

const PUSH_POP: readonly MapTypeName[] = ['QUEUE', 'STACK'];
const PEEK: readonly MapTypeName[] = [...PUSH_POP, 'BLOOM_FILTER'];

/** push, pop, peek: `use` gets a map of such a kind, others are refused. */
function withPushPop(
  finder: MapFinder,
  use: (map: PushPopMap, registers: RegisterPairs) => number,
) {
  return (registers: RegisterPairs, host: BpfHost): void => {
    const map = finder.find(registers, host);
    if (isPushPop(map)) setResult(registers, use(map, registers));
    else fail(registers, 'EOPNOTSUPP');
  };
}

export function mapHelpers(): readonly Helper[] {
  const finder = new MapFinder();
  return [
    {
      id: 87,
      name: 'map_push_elem',
      arguments: ['map', 'map_value', 'anything'],
      maps: PEEK,
      result: 'integer',
      body: withPushPop(finder, (map, registers) =>
        map.push(argument(registers, 2), argument(registers, 3)),
      ),
    },
    {
      id: 88,
      name: 'map_pop_elem',
      arguments: ['map', 'uninit_map_value'],
      maps: PUSH_POP,
      result: 'integer',
      body: withPushPop(finder, (map, registers) => map.pop(argument(registers, 2))),
    },
    {
      id: 89,
      name: 'map_peek_elem',
      arguments: ['map', 'map_value_or_uninit'],
      maps: PEEK,
      result: 'integer',
      body: withPushPop(finder, (map, registers) => map.peek(argument(registers, 2))),
    },
    {
      id: 1,
      name: 'map_lookup_elem',
      arguments: ['map', 'map_key'],
      result: 'map_value_or_null',
      body: withIntrinsic({ kind: 'map_lookup' }, (registers, host) =>
        lookupOn(finder.find(registers, host), host.currentCpu(), registers, host),
      ),
    },
    {
      id: 2,
      name: 'map_update_elem',
      arguments: ['map', 'map_key', 'map_value', 'anything'],
      result: 'integer',
      body: withIntrinsic({ kind: 'map_update' }, (registers, host) => {
        const map = finder.find(registers, host);
        const flags = argument(registers, 4);
        setResult(registers, map.update(argument(registers, 2), argument(registers, 3), flags));
      }),
    },
    {
      id: 3,
      name: 'map_delete_elem',
      arguments: ['map', 'map_key'],
      result: 'integer',
      body: (registers, host) => {
        setResult(registers, finder.find(registers, host).delete(argument(registers, 2)));
      },
    },
    {
      id: 195,
      name: 'map_lookup_percpu_elem',
      arguments: ['map', 'map_key', 'anything'],
      result: 'map_value_or_null',
      body: (registers, host) => {
        const map = finder.find(registers, host);
        const cpu = argument32(registers, 3) >>> 0;
        if (!isPerCpu(map.spec.type)) fail(registers, 'EOPNOTSUPP');
        else if (cpu >= host.cpuCount) setResult(registers, 0);
        else lookupOn(map, cpu, registers, host);
      },
    },
  ];
}

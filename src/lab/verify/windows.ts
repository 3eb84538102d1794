/**
 * Maps where a foreign image expects them: at addresses of the machine it comes from.
 *
 * An array's values are read and written by the image itself, at the map's address plus
 * offsetof(struct bpf_array, value). They get a copy there, its window; what helpers see is the lab's own map.
 * Around each helper call the two are made equal, so that either side sees what the other did. A per-CPU array has
 * the lab's per-CPU pointers in its window; elements of hash tables are the lab's own, as they are laid out alike.
 * A prog array is a window with `max_entries` and no programs: tail calls fall through.
 */
import { InputError } from '../../common/errors.js';
import type { BpfMap } from '../../bpf/maps/map.js';
import { readSlots } from '../../bpf/instruction.js';
import type { XlatedProgram } from '../../bpf/program.js';
import type { Memory, Region } from '../../cpu/memory.js';
import type { StructOffsets } from '../../jit/profile.js';

const LD_IMM64 = 0x18;

/** A map as a program refers to it: itself, or a place among its values. */
interface MapReference {
  readonly map: BpfMap;
  /** Undefined: the map. */
  readonly valueOffset: number | undefined;
}

/** Bytes of an array's values. */
function valuesSize({ spec }: BpfMap): number {
  return Math.ceil(spec.valueSize / 8) * 8 * spec.maxEntries;
}

/** References to maps in the order in which the program has them, each once. */
function referencesOf(program: XlatedProgram, maps: readonly BpfMap[]): MapReference[] {
  const found = new Map<bigint, MapReference>();
  for (const { insns } of program.functions) {
    const slots = readSlots(insns);
    for (const [i, slot] of slots.entries()) {
      if (slot.code !== LD_IMM64) continue;
      const upper = BigInt.asUintN(32, BigInt(slots[i + 1]?.imm ?? 0));
      const value = (upper << 32n) | BigInt.asUintN(32, BigInt(slot.imm));
      if (found.has(value)) continue;
      for (const map of maps) {
        const offset = Number(value - map.valueAddress);
        if (value === map.address) found.set(value, { map, valueOffset: undefined });
        else if (map.valueAddress !== 0n && offset >= 0 && offset < valuesSize(map)) {
          found.set(value, { map, valueOffset: offset });
        }
      }
    }
  }
  return [...found.values()];
}

interface Window {
  readonly map: BpfMap;
  readonly region: Region;
}

export class MapWindows {
  /** Maps by their foreign addresses. */
  readonly #addresses = new Map<bigint, BpfMap>();
  readonly #windows: Window[] = [];
  readonly #regions: Region[] = [];
  readonly #memory: Memory;
  readonly #ptrs: number;

  /**
   * @param constants the image's, in order: as many as the program has references
   * @param offsets of the kernel that the image comes from
   * @param ptrs where the lab's own arrays have their elements
   */
  constructor(
    memory: Memory,
    program: XlatedProgram,
    maps: readonly BpfMap[],
    constants: readonly bigint[],
    offsets: Pick<StructOffsets, 'maxEntries' | 'ptrs'>,
    ptrs: number,
  ) {
    this.#memory = memory;
    this.#ptrs = ptrs;
    const references = referencesOf(program, maps);
    if (references.length !== constants.length) {
      const list = constants.map((each) => `0x${each.toString(16)}`).join(', ');
      throw new InputError(
        `the program refers to ${references.length} places in maps, the image holds ${constants.length} addresses (${list})`,
      );
    }
    const valuesAt = new Map<BpfMap, bigint>();
    for (const [i, { map, valueOffset }] of references.entries()) {
      const address = constants[i] ?? 0n;
      if (valueOffset === undefined) {
        this.#addresses.set(address, map);
        valuesAt.set(map, valuesAt.get(map) ?? address + BigInt(offsets.ptrs));
      } else {
        valuesAt.set(map, address - BigInt(valueOffset));
      }
    }
    for (const [map, address] of valuesAt) this.#place(map, address, offsets);
  }

  #place(map: BpfMap, values: bigint, offsets: Pick<StructOffsets, 'maxEntries' | 'ptrs'>): void {
    const { name, type, maxEntries } = map.spec;
    switch (type) {
      case 'ARRAY':
        this.#windows.push({
          map,
          region: this.#map(`values of ${name}`, values, valuesSize(map)),
        });
        return;
      case 'PROG_ARRAY': {
        const start = values - BigInt(offsets.ptrs);
        this.#map(name, start, offsets.ptrs + 8 * maxEntries);
        this.#memory.write32(start + BigInt(offsets.maxEntries), maxEntries);
        return;
      }
      case 'PERCPU_ARRAY': {
        // per-CPU pointers mean the same there: they are the lab's
        const { address } = this.#map(`pointers of ${name}`, values, 8 * maxEntries);
        const from = map.address + BigInt(this.#ptrs);
        this.#memory.writeBytes(address, this.#memory.readBytes(from, 8 * maxEntries));
        return;
      }
      case 'HASH':
      case 'LRU_HASH':
      case 'PERCPU_HASH':
      case 'LRU_PERCPU_HASH':
      case 'LPM_TRIE':
      case 'QUEUE':
      case 'STACK':
      case 'RINGBUF':
      case 'BLOOM_FILTER':
      case 'DEVMAP':
      case 'DEVMAP_HASH':
      case 'CPUMAP':
      case 'XSKMAP':
        return;
      default:
        throw new InputError(
          `map ${name}: the image looks into ${type} maps itself, which the lab does not follow`,
        );
    }
  }

  #map(name: string, address: bigint, size: number): Region {
    const region = this.#memory.map({ name, address, size, permissions: 'rw' });
    this.#regions.push(region);
    return region;
  }

  /** The lab's address of a map for a foreign one; others stay as they are. */
  toLab(value: bigint): bigint {
    return this.#addresses.get(value)?.address ?? value;
  }

  /** A pointer into an array's values becomes one into its window. */
  toForeign(value: bigint): bigint {
    for (const { map, region } of this.#windows) {
      const offset = value - map.valueAddress;
      if (offset >= 0n && offset < BigInt(region.size)) return region.address + offset;
    }
    return value;
  }

  mapAt(address: bigint): BpfMap | undefined {
    return this.#addresses.get(address);
  }

  /** The lab's maps get what the image stored. */
  pull(): void {
    for (const { map, region } of this.#windows) {
      this.#memory.writeBytes(
        map.valueAddress,
        this.#memory.readBytes(region.address, region.size),
      );
    }
  }

  /** The image sees what helpers stored. */
  push(): void {
    for (const { map, region } of this.#windows) {
      this.#memory.writeBytes(
        region.address,
        this.#memory.readBytes(map.valueAddress, region.size),
      );
    }
  }

  close(): void {
    for (const region of this.#regions.splice(0)) this.#memory.unmap(region);
  }
}

/**
 * BPF_MAP_TYPE_ARRAY and BPF_MAP_TYPE_PERCPU_ARRAY: all elements exist from the start, zeroed.
 *
 * Reference: kernel/bpf/arraymap.c. Laid out like `struct bpf_array`, as inlined look-ups go through it: header,
 * elem_size, index_mask, and behind them the values, 8 bytes aligned (the first one's address is what global data
 * references hold), or a per-CPU pointer for each. Left out: mmap.
 */
import { alignUp } from '../../common/bytes.js';
import { ERRNO } from '../../common/errno.js';
import type { Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';
import {
  arrayElements,
  BPF_NOEXIST,
  MapBase,
  POINTER_SIZE,
  valuesIn,
  type MapEntry,
  type Values,
} from './base.js';
import { isPerCpu, type MapSpec } from './map.js';

/** Offsets of elem_size and index_mask from the elements. */
const ELEM_SIZE = -16n;
const INDEX_MASK = -12n;
export class ArrayMap extends MapBase {
  protected readonly cpuCount: number;
  readonly #values: readonly Values[];

  /** @param apart values lie elsewhere, and behind the header are pointers. Default: per-CPU values do. */
  constructor(spec: MapSpec, host: BpfHost, apart = isPerCpu(spec.type)) {
    const { type, maxEntries, valueSize } = spec;
    const elements = arrayElements(host);
    const step = apart ? POINTER_SIZE : alignUp(valueSize, 8);
    super(spec, host, {
      what: apart ? 'bpf_map' : 'values of',
      size: elements + step * maxEntries,
    });
    this.cpuCount = isPerCpu(type) ? host.cpuCount : 1;
    const first = this.address + BigInt(elements);
    if (!apart) {
      const { header } = this;
      this.#values = [{ region: header, address: first, offset: header.offset + elements }];
    } else if (isPerCpu(type)) {
      const { pointer, regions } = this.allocatePerCpu('values of', this.stride * maxEntries);
      this.#values = regions.map(valuesIn);
      for (let index = 0; index < maxEntries; index++) {
        const at = first + BigInt(POINTER_SIZE * index);
        this.memory.write64(at, pointer + BigInt(index * this.stride));
      }
    } else {
      this.#values = [valuesIn(this.allocate('values of', this.stride * maxEntries))];
      return;
    }
    this.memory.write32(first + ELEM_SIZE, this.stride);
    this.memory.write32(first + INDEX_MASK, indexMask(maxEntries));
  }

  get valueAddress(): bigint {
    return this.spec.type === 'ARRAY' ? this.firstValue(0).address : 0n;
  }

  valueRegion(cpu: number): Region {
    return this.firstValue(cpu).region;
  }

  /** Where the values of `cpu` begin. */
  firstValue(cpu: number): Values {
    return this.#values[this.cpuCount === 1 ? 0 : cpu];
  }

  /** Offset of the value of `cpu` in the backing store. */
  valueAt(index: number, cpu: number): number {
    return this.firstValue(cpu).offset + index * this.stride;
  }

  locate(key: number, cpu: number): number {
    const index = this.memory.view.getUint32(key, true);
    if (index >= this.spec.maxEntries) return -1;
    return this.valueAt(index, cpu);
  }

  protected store(key: number, value: Uint8Array, cpu: number, flags: number): number {
    const refused = this.checkFlags(flags);
    if (refused !== 0) return refused;
    const index = this.memory.view.getUint32(key, true);
    if (index >= this.spec.maxEntries) return -ERRNO.E2BIG;
    if (flags & BPF_NOEXIST) return -ERRNO.EEXIST;
    for (let each = 0; each < this.cpuCount; each++) {
      if (cpu < 0 || this.cpuCount === 1 || each === cpu) {
        this.copyValue(value, this.valueAt(index, each));
        this.releaseFields(this.firstValue(each).address + BigInt(index * this.stride));
      }
    }
    return 0;
  }

  protected override releaseAll(): void {
    for (const { address } of this.#values) {
      for (let index = 0; index < this.spec.maxEntries; index++) {
        this.releaseFields(address + BigInt(index * this.stride));
      }
    }
  }

  protected erase(): number {
    return -ERRNO.EINVAL;
  }

  *entries(): Iterable<MapEntry> {
    for (let index = 0; index < this.spec.maxEntries; index++) yield this.#entry(index);
  }

  /** The entries that are not zero on every CPU. Of millions that were never written few are looked at closely. */
  *written(): Iterable<MapEntry> {
    const { maxEntries } = this.spec;
    const words = this.stride / 4;
    const values = this.#values.map(
      ({ offset }) => new Int32Array(this.memory.bytes.buffer, offset, words * maxEntries),
    );
    for (let index = 0; index < maxEntries; index++) {
      const [start, end] = [index * words, (index + 1) * words];
      if (values.some((each) => hasNonZero(each, start, end))) yield this.#entry(index);
    }
  }

  #entry(index: number): MapEntry {
    const key = new Uint8Array(4);
    new DataView(key.buffer).setUint32(0, index, true);
    const values = this.#values.map((_, cpu) => this.valueBytes(this.valueAt(index, cpu)));
    return { key, values };
  }
}

function hasNonZero(words: Int32Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) if (words[i] !== 0) return true;
  return false;
}

/** roundup_pow_of_two(max_entries) - 1 */
function indexMask(maxEntries: number): number {
  return maxEntries <= 1 ? 0 : 0xffff_ffff >>> Math.clz32(maxEntries - 1);
}

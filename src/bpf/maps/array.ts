/**
 * BPF_MAP_TYPE_ARRAY and BPF_MAP_TYPE_PERCPU_ARRAY: all elements exist from the start, zeroed.
 *
 * Reference: kernel/bpf/arraymap.c. Values are contiguous, 8 bytes aligned; the first one's address
 * is what global data references hold. Left out: mmap.
 */
import { ERRNO } from '../../common/errno.js';
import type { Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';
import { BPF_NOEXIST, MapBase, type MapEntry } from './base.js';
import { isPerCpu, type MapSpec } from './map.js';

export class ArrayMap extends MapBase {
  protected readonly cpuCount: number;
  readonly #values: Region[] = [];

  constructor(spec: MapSpec, host: BpfHost) {
    super(spec, host);
    this.cpuCount = isPerCpu(spec.type) ? host.cpuCount : 1;
    const size = this.stride * spec.maxEntries;
    for (let cpu = 0; cpu < this.cpuCount; cpu++) {
      this.#values.push(this.allocate('values of', size));
    }
  }

  get valueAddress(): bigint {
    return this.spec.type === 'ARRAY' ? this.valueRegion(0).address : 0n;
  }

  valueRegion(cpu: number): Region {
    return this.#values[this.cpuCount === 1 ? 0 : cpu];
  }

  locate(key: number, cpu: number): number {
    const index = this.memory.view.getUint32(key, true);
    if (index >= this.spec.maxEntries) return -1;
    return this.valueRegion(cpu).offset + index * this.stride;
  }

  protected store(key: number, value: Uint8Array, cpu: number, flags: number): number {
    const refused = this.checkFlags(flags);
    if (refused !== 0) return refused;
    const index = this.memory.view.getUint32(key, true);
    if (index >= this.spec.maxEntries) return -ERRNO.E2BIG;
    if (flags & BPF_NOEXIST) return -ERRNO.EEXIST;
    for (let each = 0; each < this.cpuCount; each++) {
      if (cpu < 0 || this.cpuCount === 1 || each === cpu) {
        const region = this.valueRegion(each);
        this.copyValue(value, region.offset + index * this.stride);
        this.releaseFields(region.address + BigInt(index * this.stride));
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
    const words = this.stride / 4;
    const regions = this.#values.map(
      ({ offset, size }) => new Int32Array(this.memory.bytes.buffer, offset, size / 4),
    );
    for (let index = 0; index < this.spec.maxEntries; index++) {
      const [start, end] = [index * words, (index + 1) * words];
      if (regions.some((region) => hasNonZero(region, start, end))) yield this.#entry(index);
    }
  }

  #entry(index: number): MapEntry {
    const key = new Uint8Array(4);
    new DataView(key.buffer).setUint32(0, index, true);
    const at = index * this.stride;
    return { key, values: this.#values.map(({ offset }) => this.valueBytes(offset + at)) };
  }
}

function hasNonZero(words: Int32Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) if (words[i] !== 0) return true;
  return false;
}

/**
 * BPF_MAP_TYPE_QUEUE and BPF_MAP_TYPE_STACK: values in a ring of max_entries + 1 places.
 *
 * Reference: kernel/bpf/queue_stack_maps.c. A push into a full map is -E2BIG, with BPF_EXIST it
 * overwrites the oldest value. pop and peek of an empty map zero the buffer and give -ENOENT.
 */
import { ERRNO } from '../../common/errno.js';
import type { Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';
import { BPF_EXIST, BPF_NOEXIST, type MapEntry } from './base.js';
import { ValueBag } from './keyless.js';
import type { MapSpec } from './map.js';

export class QueueStackMap extends ValueBag {
  protected readonly refusal = 'EINVAL';
  readonly #values: Region;
  readonly #places: number;
  readonly #isQueue: boolean;
  /** Where the next value goes; the oldest value. */
  #head = 0;
  #tail = 0;

  constructor(spec: MapSpec, host: BpfHost) {
    super(spec, host);
    this.#places = spec.maxEntries + 1;
    this.#values = this.allocate('values of', spec.valueSize * this.#places);
    this.#isQueue = spec.type === 'QUEUE';
  }

  get size(): number {
    return (this.#head - this.#tail + this.#places) % this.#places;
  }

  protected pushAt(value: number, flags: number): number {
    if ((flags & BPF_NOEXIST) !== 0 || flags > BPF_EXIST) return -ERRNO.EINVAL;
    if (this.size === this.spec.maxEntries) {
      if (flags !== BPF_EXIST) return -ERRNO.E2BIG;
      this.#tail = (this.#tail + 1) % this.#places;
    }
    this.memory.bytes.copyWithin(this.#at(this.#head), value, value + this.spec.valueSize);
    this.#head = (this.#head + 1) % this.#places;
    return 0;
  }

  protected popAt(value: number): number {
    const result = this.peekAt(value);
    if (result !== 0) return result;
    if (this.#isQueue) this.#tail = (this.#tail + 1) % this.#places;
    else this.#head = this.#newest();
    return 0;
  }

  protected peekAt(value: number): number {
    const { valueSize } = this.spec;
    const { bytes } = this.memory;
    if (this.#head === this.#tail) {
      bytes.fill(0, value, value + valueSize);
      return -ERRNO.ENOENT;
    }
    const from = this.#at(this.#isQueue ? this.#tail : this.#newest());
    bytes.copyWithin(value, from, from + valueSize);
    return 0;
  }

  /** The values in the order in which pop gives them. */
  override *entries(): Iterable<MapEntry> {
    const { size } = this;
    for (let i = 0; i < size; i++) {
      const place = this.#isQueue ? this.#tail + i : this.#head - 1 - i + this.#places;
      yield { key: new Uint8Array(0), values: [this.valueBytes(this.#at(place % this.#places))] };
    }
  }

  #newest(): number {
    return (this.#head - 1 + this.#places) % this.#places;
  }

  #at(place: number): number {
    return this.#values.offset + place * this.spec.valueSize;
  }
}

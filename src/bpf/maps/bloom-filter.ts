/**
 * BPF_MAP_TYPE_BLOOM_FILTER: push remembers a value, peek says whether it may have been pushed.
 *
 * Reference: kernel/bpf/bloom_filter.c. Bits are chosen by jhash with seeds 0, 1, ... as with
 * BPF_F_ZERO_SEED; without that flag a real kernel starts at a random seed, so which values are
 * mistaken for others differs.
 */
import { ERRNO } from '../../common/errno.js';
import type { BpfHost } from '../host.js';
import { jhash } from './jhash.js';
import { ValueBag } from './keyless.js';
import type { MapSpec } from './map.js';

/** Hash functions when map_extra does not say. */
const DEFAULT_FUNCTIONS = 5;
const MAX_BITS = 2 ** 32;

export class BloomFilter extends ValueBag {
  protected readonly refusal = 'EINVAL';
  readonly #functions: number;
  readonly #mask: number;
  readonly #bits: Uint8Array;

  constructor(spec: MapSpec, host: BpfHost) {
    super(spec, host);
    this.#functions = (spec.mapExtra ?? 0) || DEFAULT_FUNCTIONS;
    // 7/5 is close to 1/ln 2
    const wanted = Math.floor((spec.maxEntries * this.#functions * 7) / 5);
    const bits = Math.min(Math.max(2 ** Math.ceil(Math.log2(wanted)), 64), MAX_BITS);
    this.#mask = bits - 1;
    this.#bits = new Uint8Array(Math.ceil(bits / 8));
  }

  protected pushAt(value: number, flags: number): number {
    if (flags !== 0) return -ERRNO.EINVAL;
    for (let i = 0; i < this.#functions; i++) {
      const bit = this.#bitOf(value, i);
      this.#bits[Math.floor(bit / 8)] |= 1 << (bit % 8);
    }
    return 0;
  }

  protected popAt(): number {
    return -ERRNO.EOPNOTSUPP;
  }

  protected peekAt(value: number): number {
    for (let i = 0; i < this.#functions; i++) {
      const bit = this.#bitOf(value, i);
      if ((this.#bits[Math.floor(bit / 8)] & (1 << (bit % 8))) === 0) return -ERRNO.ENOENT;
    }
    return 0;
  }

  protected override erase(): number {
    return -ERRNO.EOPNOTSUPP;
  }

  #bitOf(value: number, seed: number): number {
    return (jhash(this.memory.view, value, this.spec.valueSize, seed) & this.#mask) >>> 0;
  }
}

/**
 * BPF_MAP_TYPE_PROG_ARRAY: the programs that tail calls jump to.
 *
 * Laid out like `struct bpf_array`: the header, and at `ptrs` one pointer to a `struct bpf_prog` per
 * slot, which JITed tail calls read. The interpreter asks `programAt` instead. Reference:
 * kernel/bpf/arraymap.c (fd_array_map_*). User space fills slots with `setProgram`; a program is held by
 * the slots that it is in.
 */
import { ERRNO } from '../../common/errno.js';
import { KernelError } from '../../common/errors.js';
import type { Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';
import type { XlatedProgram } from '../program.js';
import { arrayElements, MapBase, type MapEntry } from './base.js';
import type { MapSpec, ProgArrayMap } from './map.js';

export class ProgArray extends MapBase implements ProgArrayMap {
  protected readonly cpuCount = 1;
  readonly #programs: (XlatedProgram | undefined)[];
  /** Slots whose program is held. */
  readonly #held = new Set<number>();

  constructor(spec: MapSpec, host: BpfHost) {
    super(spec, host, {
      what: 'bpf_map',
      size: arrayElements(host) + 8 * spec.maxEntries,
    });
    this.#programs = Array.from({ length: spec.maxEntries }, () => undefined);
  }

  get valueAddress(): bigint {
    return 0n;
  }

  valueRegion(): Region {
    throw new KernelError('ENOTSUPP', `map ${this.spec.name}: a prog array has no values`);
  }

  programAt(index: number): XlatedProgram | undefined {
    return this.#programs[index];
  }

  setProgram(index: number, program: XlatedProgram | undefined, address?: bigint): number {
    if (index >= this.spec.maxEntries) return -ERRNO.E2BIG;
    if (program && this.host.isExtended?.(program)) return -ERRNO.EBUSY;
    const held = program && address === undefined ? this.host.holdProgram?.(program) : undefined;
    this.#put(index);
    if (held !== undefined) this.#held.add(index);
    this.#programs[index] = program;
    const slot = this.address + BigInt(arrayElements(this.host) + 8 * index);
    this.memory.write64(slot, program ? (address ?? held ?? 0n) : 0n);
    return 0;
  }

  override free(): void {
    for (const index of this.#held) this.#put(index);
    super.free();
  }

  #put(index: number): void {
    const program = this.#programs[index];
    if (program && this.#held.delete(index)) this.host.putProgram?.(program);
  }

  locate(): number {
    return -1;
  }

  protected store(): number {
    return -ERRNO.EINVAL;
  }

  protected erase(key: number): number {
    const index = this.memory.view.getUint32(key, true);
    if (index >= this.spec.maxEntries) return -ERRNO.E2BIG;
    if (!this.#programs[index]) return -ERRNO.ENOENT;
    return this.setProgram(index, undefined);
  }

  /** Nothing: programs are no values. */
  *entries(): Iterable<MapEntry> {}
}
